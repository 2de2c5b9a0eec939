"""Features that somebody has computed, on the same road as clips: a source whose "clips" are rows of numbers."""

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hrvgan.errors import InputError
from hrvgan.evaluation.feature_files import read_given
from hrvgan.evaluation.sources import Cut
from hrvgan.features.extractors import UNVERIFIED, Extractor
from hrvgan.files import file_digest


class GivenSource:
    """A file of features (see metrics/given.py). Its classes are those of its logits or probabilities."""

    def __init__(self, path: Path):
        self.name, self.path = str(path), path
        self.given, self.extractor, self.labelled = read_given(path)
        num_classes = self.given.logits.shape[1]
        self.classes = [str(label) for label in range(num_classes)] if num_classes > 1 else []
        self.labels, self.groups, self.videos = self.given.labels, self.given.groups, self.given.groups

    @functools.cached_property
    def digest(self) -> str:
        return file_digest(self.path)

    def __len__(self) -> int:
        return len(self.given)

    def read(self, rows: np.ndarray, cut: Cut) -> Iterator[np.ndarray]:
        yield np.concatenate([self.given.features[rows], self.given.logits[rows]], axis=1)


def open_given(real: Path, fake: Path) -> tuple[GivenSource, GivenSource]:
    """Both files. Raises InputError unless they name the same extractor, or none, and are as wide as one makes them."""
    pair = GivenSource(real), GivenSource(fake)
    by, fake_by = (source.extractor for source in pair)
    if by != fake_by:
        raise InputError(f"{real} has features of {by or 'an unnamed extractor'}, {fake} of {fake_by or 'one'}; "
                         "scores across extractors mean nothing")  # fmt: skip
    # Rows pass as features and logits side by side: of another width, some would be taken for the others.
    widths = [source.given.features.shape[1] for source in pair]
    counts = [source.given.logits.shape[1] for source in pair]
    if widths[0] != widths[1]:
        raise InputError(
            f"{real} has features of D = {widths[0]}, {fake} of {widths[1]}; use one extractor for both"
        )
    if counts[0] != counts[1] and all(counts):
        raise InputError(f"{real} knows {counts[0]} classes, {fake} {counts[1]}; use one network for both")
    pair[0].classes = pair[1].classes  # An Inception Score looks at the generated side alone.
    return pair


def given_extractor(real: GivenSource) -> Extractor:
    """Hands on what the files hold. That they are of the extractor that they name is only said: unverified."""
    width, by = real.given.features.shape[1], real.extractor
    name = f"{by.removesuffix(UNVERIFIED)}{UNVERIFIED}" if by else "given"
    return Extractor(
        name,
        None,
        width,
        lambda rows: (rows[:, :width], rows[:, width:]),
        classes=real.classes,
        verified=False,
    )
