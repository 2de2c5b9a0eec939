"""Cache of features: each clip is featurised once for all protocols of a run, real clips once for all runs."""

import contextlib
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from hrvgan.evaluation.sources import ClipSource, FrameRange
from hrvgan.features.extractors import Extractor
from hrvgan.files import atomic_path
from hrvgan.metrics.features import Features
from hrvgan.progress import bar


@dataclass(frozen=True)
class CachedFeatures:
    """Features (N, D) and logits (N, K) of the clips `rows` (N,), ascending."""

    rows: np.ndarray
    features: np.ndarray
    logits: np.ndarray

    def __add__(self, other: "CachedFeatures") -> "CachedFeatures":
        """Both together; they share no clip."""
        order = np.argsort(np.concatenate([self.rows, other.rows]))
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return CachedFeatures(*(np.concatenate(pair)[order] for pair in pairs))


class FeatureCache:
    """Features by extractor, source and frame range; those of real clips also in `folder`, unless it is None."""

    def __init__(self, folder: Path | None = None):
        self.folder, self.entries = folder, {}

    def get(
        self, extractor: Extractor, source: ClipSource, rows: np.ndarray, frames: FrameRange, keep: bool
    ) -> Features:
        """Features of the clips `rows`, ascending, of `source`; reads missing ones. `keep` uses the folder."""
        frames = frames if frames.drawn else replace(frames, seed=0)  # The seed decides drawn starts only.
        key = (extractor.id, source, frames)
        path = self._path(extractor, source, frames) if keep and self.folder else None
        cached = self.entries.get(key) or (path and load(path))
        missing = rows if cached is None else np.setdiff1d(rows, cached.rows)
        if len(missing):
            new = featurise(extractor, source, missing, frames)
            cached = new if cached is None else cached + new
            if path:
                save(path, cached)
        self.entries[key] = cached
        places = np.searchsorted(cached.rows, rows)
        return Features(
            cached.features[places], cached.logits[places], source.labels[rows], source.groups[rows]
        )

    def _path(self, extractor: Extractor, source: ClipSource, frames: FrameRange) -> Path:
        identity = json.dumps([extractor.id, source.digest, vars(frames)], sort_keys=True)
        return self.folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npz"


def featurise(
    extractor: Extractor, source: ClipSource, rows: np.ndarray, frames: FrameRange
) -> CachedFeatures:
    """Features of the clips `rows` of `source`, ascending. Memory grows by the features alone."""
    with bar(desc=f"features of {source.name}", total=len(rows), unit="clip") as progress:
        pairs = []
        for pair in extractor.stream(source.read(rows, frames)):
            pairs.append(pair)
            progress.update(len(pair[0]))
    features = np.concatenate([features for features, _ in pairs])
    logits = np.concatenate([np.empty((len(a), 0), np.float32) if b is None else b for a, b in pairs])
    return CachedFeatures(rows, features, logits)


def load(path: Path) -> CachedFeatures | None:
    """The entry that `save` wrote; None if the file is missing or damaged, so that it is computed again."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            cached = CachedFeatures(stored["rows"], stored["features"], stored["logits"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return cached if len(cached.rows) == len(cached.features) == len(cached.logits) else None


def save(path: Path, cached: CachedFeatures) -> None:
    # A folder that cannot be written to costs time, not the score.
    with contextlib.suppress(OSError), atomic_path(path) as temporary:
        np.savez(temporary, **vars(cached))
