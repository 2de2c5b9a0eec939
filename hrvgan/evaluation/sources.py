"""Sources of clips to score, one bounded batch at a time: the interface, clip stores and generators.

A source has a `name`, a `digest` of its content, `classes` ([] if there are none), `labels` int64 (N,), `groups` and
`videos` str (N,) that each clip comes from, a length, and `read(rows, frames)`, which yields uint8 batches
(n, T, H, W, 3) of the clips `rows`, ascending.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError

BATCH = 16  # Clips of a store or file in memory at a time.
SAMPLE_BATCH = 32  # Generated clips in memory at a time. Fixed: it decides the seeds, and so the clips.


class Undefined(InputError):
    """A score that these clips do not allow; others go on."""


@dataclass(frozen=True)
class FrameRange:
    """The `frames` consecutive frames of a clip that are scored: from its first one, or from a random start."""

    frames: int | None = None  # None: all
    drawn: bool = False
    seed: int = 0

    def __call__(self, clip: np.ndarray, row: int, name: str) -> np.ndarray:
        start, stop = self.place(len(clip), row, name)
        return clip[start:stop]

    def stack(self, clips: Iterable[np.ndarray], rows: np.ndarray, name: str) -> np.ndarray:
        """The range of each clip, as one batch; `rows` are the clips' numbers in the source `name`."""
        pairs = zip(clips, rows.tolist(), strict=True)
        return np.stack([self(clip, row, f"{name}, clip {row}") for clip, row in pairs])

    def place(self, length: int, row: int, name: str) -> tuple[int, int]:
        """First frame of the range in clip number `row` of `length` frames, and the frame after its last."""
        frames = self.frames or length
        if length < frames:
            raise Undefined(f"{name}: {length} frames, need {frames}; leave it out or give longer videos")
        room = length - frames
        start = int(np.random.default_rng([self.seed, row]).integers(room + 1)) if self.drawn else 0
        return start, start + frames


class ClipSource(Protocol):
    name: str
    digest: str
    classes: list[str]
    labels: np.ndarray
    groups: np.ndarray
    videos: np.ndarray

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray, frames: FrameRange) -> Iterator[np.ndarray]: ...


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

    def read(self, rows: np.ndarray, frames: FrameRange) -> Iterator[np.ndarray]:
        for some in np.split(rows, range(BATCH, len(rows), BATCH)):
            yield frames.stack(self.clips.read(some), some, self.name)


class ClipGenerator(Protocol):
    """A model to score: a VideoGAN, or any object that samples clips like one."""

    num_classes: int  # 0: takes no label
    classes: list[str]

    def sample(self, n: int, c: Tensor | None = None, seed: int = 0) -> Tensor:
        """uint8 (n, T, H, W, 3) of labels `c` (n,) int64."""


def sample_chunks(gan: ClipGenerator, labels: np.ndarray, seed: list[int]) -> Iterator[Tensor]:
    """One clip for each label (N,): uint8 (n, T, H, W, 3), SAMPLE_BATCH at a time, each with a seed of its own."""
    for start in range(0, len(labels), SAMPLE_BATCH):
        c = torch.as_tensor(labels[start : start + SAMPLE_BATCH])
        own_seed = int(np.random.SeedSequence([*seed, start]).generate_state(1)[0])
        yield gan.sample(len(c), c if gan.num_classes else None, seed=own_seed)


class GeneratorSource:
    """A generator as a source of `num` clips, with the classes in the shares of `labels`."""

    digest = ""  # Of real clips only.

    def __init__(self, gan: ClipGenerator, labels: np.ndarray, num: int, seed: int):
        self.gan, self.seed, self.name = gan, seed, "generated"
        self.classes = list(gan.classes) if gan.num_classes else []
        shuffled = np.random.default_rng(seed).permutation(labels)
        self.labels = np.resize(shuffled, num)  # Repeated if there are fewer.
        self.groups = self.videos = np.arange(num).astype(str)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: np.ndarray, frames: FrameRange) -> Iterator[np.ndarray]:
        start = 0
        for videos in sample_chunks(self.gan, self.labels[rows], [self.seed, int(rows[0])]):
            yield frames.stack(videos.numpy(), rows[start : start + len(videos)], self.name)
            start += len(videos)
