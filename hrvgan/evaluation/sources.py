"""What can be scored, one bounded batch at a time: a source of clips, and the one that is a clip store.

A source has a `name`, a `digest` of what it holds, `classes` ([] if there are none), `labels` int64 (N,), `groups`
and `videos` str (N,) that each clip comes from, a length, and `read(rows, cut)`, which yields uint8 batches
(n, T, H, W, 3) of the clips `rows`, ascending.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError

CHUNK = 16  # Clips in a batch.


class Undefined(InputError):
    """A score that these clips do not allow; others go on."""


@dataclass(frozen=True)
class Cut:
    """Which `frames` consecutive frames of a clip are scored: its first ones, or from a start drawn by its number."""

    frames: int | None = None  # None: all
    drawn: bool = False
    seed: int = 0

    def __call__(self, clip: np.ndarray, row: int, name: str) -> np.ndarray:
        start, stop = self.place(len(clip), row, name)
        return clip[start:stop]

    def place(self, length: int, row: int, name: str) -> tuple[int, int]:
        """The first frame of the cut in a clip of `length` frames, and the one after its last."""
        frames = self.frames or length
        if length < frames:
            raise Undefined(f"{name}: {length} frames, need {frames}; leave it out or give longer videos")
        room = length - frames
        start = int(np.random.default_rng([self.seed, row]).integers(room + 1)) if self.drawn else 0
        return start, start + frames


class Source(Protocol):
    name: str
    digest: str
    classes: list[str]
    labels: np.ndarray
    groups: np.ndarray
    videos: np.ndarray

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray, cut: Cut) -> Iterator[np.ndarray]: ...


class StoreSource:
    """A clip store, or one split of it."""

    def __init__(self, path: Path, split: str = ""):
        clips = Clips(path)
        self.clips = clips.split(split) if split else clips
        self.name, self.digest = f"{path}:{split}" if split else str(path), f"{clips.digest}:{split}"
        self.classes, self.labels = clips.classes, self.clips.labels
        self.groups, self.videos = (
            np.array(self.clips.index[name].to_pylist(), dtype=str) for name in ("group", "video_id")
        )

    def __len__(self) -> int:
        return len(self.clips)

    def read(self, rows: np.ndarray, cut: Cut) -> Iterator[np.ndarray]:
        for some in np.split(rows, range(CHUNK, len(rows), CHUNK)):
            pairs = zip(self.clips.read(some), some.tolist(), strict=True)
            yield np.stack([cut(clip, row, f"{self.name}, clip {row}") for clip, row in pairs])
