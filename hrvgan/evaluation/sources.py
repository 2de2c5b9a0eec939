"""Sources of clips to score, one bounded batch at a time: the interface, clip stores and generators; and the cache of
features, which sees each clip once for all protocols of a run, and each real clip once for all runs."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from hrvgan.clipstore.clips import Clips
from hrvgan.evaluation.frame_range import FrameRange, Undefined
from hrvgan.features import Features
from hrvgan.features.extractors import Extractor
from hrvgan.files import atomic_path
from hrvgan.nn.base import VideoGAN
from hrvgan.progress import bar

BATCH = 16  # Clips of a store or file in memory at a time.
SAMPLE_BATCH = 32  # Generated clips in memory at a time. Fixed: it decides the seeds, and so the clips.
COLUMNS = ("rows", "features", "logits")


class ClipSource:
    """A set of N clips to score, each a video of its own unless a subclass knows better."""

    name: str
    digest: str  # of the content; "" where it is generated
    classes: list[str]  # [] if there are none
    labels: np.ndarray  # int64 (N,)
    bad: Mapping[FrameRange, dict[int, str]] = {}  # row -> cause, of clips that `read` has left out

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def groups(self) -> np.ndarray:
        """The source video or person of each clip, str (N,)."""
        return np.arange(len(self)).astype(str)

    @functools.cached_property
    def videos(self) -> np.ndarray:
        """The video file of each clip, str (N,)."""
        return self.groups

    def usable(self, rows: np.ndarray, frames: FrameRange) -> np.ndarray:
        """The `rows` that are not known to be bad."""
        return np.setdiff1d(rows, list(self.bad.get(frames, ())))

    def read(self, rows: np.ndarray, frames: FrameRange) -> Iterator[np.ndarray]:
        """uint8 batches (n, T, H, W, 3) of the clips `rows`, ascending, but for those that it notes in `bad`."""
        raise NotImplementedError

    def read_shrunk(self, rows: np.ndarray, frames: FrameRange, shrink: Callable | None) -> Iterator[np.ndarray]:
        """The same; a source of large clips applies `shrink` to each frame, for float batches (n, 3, T, h, w)."""
        return self.read(rows, frames)


class StoreSource(ClipSource):
    """A clip store, or one split of it."""

    def __init__(self, path: Path, split: str = ""):
        clips = Clips(path)
        self.clips = clips.split(split) if split else clips
        self.name, self.digest = f"{path}:{split}" if split else str(path), f"{clips.digest}:{split}"
        self.classes, self.labels = clips.classes, self.clips.labels
        index = self.clips.index
        self.groups, self.videos = (np.array(index[k].to_pylist(), dtype=str) for k in ("group", "video_id"))

    def read(self, rows: np.ndarray, frames: FrameRange) -> Iterator[np.ndarray]:
        for some in np.split(rows, range(BATCH, len(rows), BATCH)):
            yield frames.stack(self.clips.read(some), some, self.name)


def sample_chunks(gan: VideoGAN, labels: np.ndarray, seed: list[int]) -> Iterator[Tensor]:
    """One clip for each label (N,): uint8 (n, T, H, W, 3), SAMPLE_BATCH at a time, each with a seed of its own."""
    for start in range(0, len(labels), SAMPLE_BATCH):
        c = torch.as_tensor(labels[start : start + SAMPLE_BATCH])
        own_seed = int(np.random.SeedSequence([*seed, start]).generate_state(1)[0])
        yield gan.sample(len(c), c if gan.num_classes else None, seed=own_seed)


class GeneratorSource(ClipSource):
    """A generator as a source of `num` clips, with the classes in the shares of `labels`."""

    name, digest = "generated", ""

    def __init__(self, gan: VideoGAN, labels: np.ndarray, num: int, seed: int):
        self.gan, self.seed = gan, seed
        self.classes = list(gan.classes) if gan.num_classes else []
        shuffled = np.random.default_rng(seed).permutation(labels)
        self.labels = np.resize(shuffled, num)  # Repeated if there are fewer.

    def read(self, rows: np.ndarray, frames: FrameRange) -> Iterator[np.ndarray]:
        start = 0
        for videos in sample_chunks(self.gan, self.labels[rows], [self.seed, int(rows[0])]):
            yield frames.stack(videos.numpy(), rows[start : start + len(videos)], self.name)
            start += len(videos)


class FeatureCache:
    """Features by extractor, source and frame range; those of real clips also in `folder`, unless it is None."""

    def __init__(self, folder: Path | None = None):
        self.folder, self.entries = folder, {}

    def get(
        self, extractor: Extractor, source: ClipSource, rows: np.ndarray, frames: FrameRange, keep: bool
    ) -> Features:
        """Features of the clips `rows`, ascending, of `source`, but for bad ones; reads missing ones. `keep` uses the
        folder."""
        key = (extractor.id, source, frames)
        path = self._path(extractor, source, frames) if keep and self.folder else None
        cached = self.entries.get(key) or (path and _load(path))
        missing = np.setdiff1d(source.usable(rows, frames), cached["rows"]) if cached else rows
        if len(missing):
            new = featurise(extractor, source, missing, frames)
            cached = _merge(cached, new) if cached else new
            if path:
                _save(path, cached)
        self.entries[key], rows = cached, source.usable(rows, frames)
        places = np.searchsorted(cached["rows"], rows)
        features, logits = (cached[name][places] for name in ("features", "logits"))
        return Features(features, logits, source.labels[rows], source.groups[rows])

    def _path(self, extractor: Extractor, source: ClipSource, frames: FrameRange) -> Path:
        identity = json.dumps([extractor.id, source.digest, vars(frames)], sort_keys=True)
        return self.folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npz"


def featurise(extractor: Extractor, source: ClipSource, rows: np.ndarray, frames: FrameRange) -> dict[str, np.ndarray]:
    """The `rows` (N,) of `source`, ascending, but for bad ones; their features (N, D) and logits (N, K). Memory grows
    by these alone."""
    with bar(desc=f"features of {source.name}", total=len(rows), unit="clip") as progress:
        pairs = []
        for features, logits in extractor.stream(source.read_shrunk(rows, frames, extractor.shrink_frame)):
            pairs.append((features, np.empty((len(features), 0), np.float32) if logits is None else logits))
            progress.update(len(features))
    if not pairs:
        raise Undefined(f"{source.name}: none of {len(rows)} clips can be scored; replace them")
    features, logits = map(np.concatenate, zip(*pairs, strict=True))
    return {"rows": source.usable(rows, frames), "features": features, "logits": logits}


def _merge(old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Both together; they share no clip."""
    order = np.argsort(np.concatenate([old["rows"], new["rows"]]))
    return {name: np.concatenate([old[name], new[name]])[order] for name in COLUMNS}


def _load(path: Path) -> dict[str, np.ndarray] | None:
    """The entry that `_save` wrote; None if the file is missing or damaged, so that it is computed again."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            cached = {name: stored[name] for name in COLUMNS}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return cached if len({len(array) for array in cached.values()}) == 1 else None


def _save(path: Path, cached: dict[str, np.ndarray]) -> None:
    # A folder that cannot be written to costs time, not the score.
    with contextlib.suppress(OSError), atomic_path(path) as temporary:
        np.savez(temporary, **cached)
