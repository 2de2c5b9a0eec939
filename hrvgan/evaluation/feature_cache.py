"""Features of clips, each looked at once: shared by all protocols of a run, those of real clips kept on disk."""

import contextlib
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from hrvgan.evaluation.sources import Cut, Source
from hrvgan.features.extractors import Extractor
from hrvgan.files import atomic_path
from hrvgan.metrics.features import Features
from hrvgan.progress import bar


@dataclass(frozen=True)
class Known:
    """Features (N, D) and logits (N, K) of the clips `rows` (N,), ascending."""

    rows: np.ndarray
    features: np.ndarray
    logits: np.ndarray

    def __add__(self, other: "Known") -> "Known":
        """Both together; they share no clip."""
        order = np.argsort(np.concatenate([self.rows, other.rows]))
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Known(*(np.concatenate(pair)[order] for pair in pairs))


class Bank:
    """Features by extractor, source and cut. `folder` keeps those of real clips for later runs; None keeps none."""

    def __init__(self, folder: Path | None = None):
        self.folder, self.known = folder, {}

    def features(
        self, extractor: Extractor, source: Source, rows: np.ndarray, cut: Cut, keep: bool
    ) -> Features:
        """Of the clips `rows`, ascending, of `source`; only those that are not known yet are read."""
        cut = cut if cut.drawn else replace(cut, seed=0)  # Where nothing is drawn, the seed is nothing.
        key = (extractor.id, source, cut)
        path = self._path(extractor, source, cut) if keep and self.folder else None
        known = self.known.get(key) or (path and load(path))
        new = rows if known is None else np.setdiff1d(rows, known.rows)
        if len(new):
            found = featurise(extractor, source, new, cut)
            known = found if known is None else known + found
            if path:
                save(path, known)
        self.known[key] = known
        places = np.searchsorted(known.rows, rows)
        return Features(
            known.features[places], known.logits[places], source.labels[rows], source.groups[rows]
        )

    def _path(self, extractor: Extractor, source: Source, cut: Cut) -> Path:
        facts = json.dumps([extractor.id, source.digest, vars(cut)], sort_keys=True)
        return self.folder / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.npz"


def featurise(extractor: Extractor, source: Source, rows: np.ndarray, cut: Cut) -> Known:
    """Features of the clips `rows` of `source`, ascending. Memory grows by the features alone."""
    with bar(desc=f"features of {source.name}", total=len(rows), unit="clip") as progress:
        pairs = []
        for pair in extractor.stream(source.read(rows, cut)):
            pairs.append(pair)
            progress.update(len(pair[0]))
    features = np.concatenate([features for features, _ in pairs])
    logits = np.concatenate([np.empty((len(a), 0), np.float32) if b is None else b for a, b in pairs])
    return Known(rows, features, logits)


def load(path: Path) -> Known | None:
    """What `save` wrote; None where there is nothing, or nothing whole: it is computed again then."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            known = Known(stored["rows"], stored["features"], stored["logits"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return known if len(known.rows) == len(known.features) == len(known.logits) else None


def save(path: Path, known: Known) -> None:
    # A folder that cannot be written to costs time, not the score.
    with contextlib.suppress(OSError), atomic_path(path) as temporary:
        np.savez(temporary, **vars(known))
