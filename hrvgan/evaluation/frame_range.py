"""The frames of a clip that are scored."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hrvgan.errors import InputError


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
