"""Precomputed features as a source: .npy (N, D), or .npz with `features` and optionally `logits` or `probs`, `labels`
and `extractor`."""

import functools
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hrvgan.errors import InputError
from hrvgan.evaluation.sources import FrameRange
from hrvgan.features.extractors import UNVERIFIED, Extractor
from hrvgan.files import file_digest
from hrvgan.metrics.arrays import class_labels, clip_rows
from hrvgan.metrics.inception import class_probabilities


class PrecomputedSource:
    """A file of features, as a source (see sources.py) whose "clips" are rows of numbers.

    Raises InputError for a file that holds no features, and names the array that is wrong.
    """

    def __init__(self, path: Path):
        self.name, self.path = str(path), path
        stored = _read(path)
        self.features = clip_rows(stored["features"], f"{path}: features")
        self.logits = _logits(path, stored, len(self.features))
        self.labels, self.labelled = _labels(path, stored, self.logits), "labels" in stored
        self.groups = self.videos = np.arange(len(self.features)).astype(str)
        self.extractor, num_classes = str(stored.get("extractor", "")), self.logits.shape[1]
        self.classes = [str(label) for label in range(num_classes)] if num_classes > 1 else []

    @functools.cached_property
    def digest(self) -> str:
        return file_digest(self.path)

    def __len__(self) -> int:
        return len(self.features)

    def read(self, rows: np.ndarray, frames: FrameRange) -> Iterator[np.ndarray]:
        yield np.concatenate([self.features[rows], self.logits[rows]], axis=1)


def open_precomputed(real: Path, fake: Path) -> tuple[PrecomputedSource, PrecomputedSource]:
    """Both files. Raises InputError unless they name the same extractor, or none, and have the same widths."""
    pair = PrecomputedSource(real), PrecomputedSource(fake)
    by, fake_by = (source.extractor for source in pair)
    if by != fake_by:
        raise InputError(f"{real} has features of {by or 'an unnamed extractor'}, {fake} of {fake_by or 'one'}; "
                         "scores across extractors mean nothing")  # fmt: skip
    # Rows pass as features and logits side by side: with other widths, one would be taken for the other.
    widths = [source.features.shape[1] for source in pair]
    counts = [source.logits.shape[1] for source in pair]
    if widths[0] != widths[1]:
        raise InputError(
            f"{real} has features of D = {widths[0]}, {fake} of {widths[1]}; use one extractor for both"
        )
    if counts[0] != counts[1] and all(counts):
        raise InputError(f"{real} knows {counts[0]} classes, {fake} {counts[1]}; use one network for both")
    pair[0].classes = pair[1].classes  # An Inception Score looks at the generated side alone.
    return pair


def precomputed_extractor(real: PrecomputedSource) -> Extractor:
    """Extractor that splits rows into features and logits. The file only claims its extractor, so: unverified."""
    width, by = real.features.shape[1], real.extractor
    return Extractor(
        f"{by.removesuffix(UNVERIFIED)}{UNVERIFIED}" if by else "given",
        None,
        width,
        lambda rows: (rows[:, :width], rows[:, width:]),
        classes=real.classes,
        verified=False,
    )


def holds_features(path: str | Path) -> bool:
    """Tells a numpy file of features from one of frames by array names and shape."""
    path = Path(path)
    if path.suffix not in (".npz", ".npy") or not path.is_file():
        return False
    arrays = _open(path)
    names = getattr(arrays, "files", None)
    return "features" in names if names is not None else arrays.ndim == 2


def _read(path: Path) -> dict[str, np.ndarray]:
    arrays = _open(path)
    try:
        return {"features": arrays} if isinstance(arrays, np.ndarray) else dict(arrays)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path}: no readable numpy file ({error}); write it again") from None


def _open(path: Path):
    try:
        arrays = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no readable numpy file ({error}); write it again") from None
    if not getattr(arrays, "files", True):
        raise InputError(f"{path}: an .npz without any array; write `features` or `frames` into it")
    return arrays


def _logits(path: Path, stored: dict[str, np.ndarray], n: int) -> np.ndarray:
    """Logits (N, K) of the file, or the logarithm of its probabilities; K = 0 without either."""
    if "probs" in stored:
        probs = class_probabilities(stored["probs"], f"{path}: probs")
        logits = np.log(np.maximum(probs, 1e-300))
    elif "logits" in stored:
        logits = clip_rows(stored["logits"], f"{path}: logits")
    else:
        logits = np.empty((n, 0))
    if len(logits) != n:
        raise InputError(f"{path}: {n} features, {len(logits)} rows of classes; need one each a clip")
    return logits


def _labels(path: Path, stored: dict[str, np.ndarray], logits: np.ndarray) -> np.ndarray:
    n, num_classes = logits.shape
    labels = class_labels(stored.get("labels", np.zeros(n, dtype=np.int64)), n, f"{path}: labels")
    if not num_classes:
        return np.unique(labels, return_inverse=True)[1]  # They only say which clips are of one class.
    if labels.max() >= num_classes:
        raise InputError(f"{path}: labels up to {labels.max()}, but there are {num_classes} classes")
    return labels
