"""Training batches: a shuffled stream addressable by step, and its prefetching to the device."""

import functools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError


class BatchStream:
    """Endless shuffled stream of batches, in which batch `step` is a pure function of (seed, step).

    Each position p = 0, 1, 2 ... of the stream is a clip; every len(clips) positions are a permutation of all clips.
    With `class_balanced`, every num_classes positions contain each class once, and each class runs through
    permutations of its own clips.

    Rank r of `world_size` takes the r-th part of every `world_size * batch_size` positions: the concatenated batches
    of all ranks equal the batch of that size in one process, with the same random starts and mirroring. With
    `num_frames` below that of the clips, each visit starts at a random frame; `flip` mirrors half of the visits.
    """

    def __init__(
        self,
        clips: Clips,
        *,
        batch_size: int,
        seed: int = 0,
        num_frames: int | None = None,
        flip: bool = False,
        class_balanced: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ):
        stored = clips.shape[0]
        if not len(clips):
            raise InputError(f"{clips.folder}: no clips in this split; extract more or change the splits")
        if num_frames and num_frames > stored:
            raise InputError(f"{clips.folder}: clips of {stored} frames, need {num_frames}; extract longer ones")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}")
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.num_frames, self.flip = num_frames or stored, flip
        self.rank, self.world_size = rank, world_size
        self._at = self._balanced if class_balanced else self._shuffled
        self._members = [np.flatnonzero(clips.labels == label) for label in np.unique(clips.labels)]

    def indices(self, step: int) -> np.ndarray:
        """Indices of the clips in batch `step`, int64 (N,)."""
        first = (step * self.world_size + self.rank) * self.batch_size
        return self._at(np.arange(first, first + self.batch_size))

    def _shuffled(self, positions: np.ndarray) -> np.ndarray:
        epochs, offsets = np.divmod(positions, len(self.clips))
        return _pick((self.seed,), epochs, offsets, len(self.clips))

    def _balanced(self, positions: np.ndarray) -> np.ndarray:
        rounds, offsets = np.divmod(positions, len(self._members))
        chosen = _pick((self.seed, 1), rounds, offsets, len(self._members))
        return np.array([self._visit(label, visit) for label, visit in zip(chosen, rounds, strict=True)])

    def _visit(self, label: int, visit: int) -> int:
        """Index of the clip of class `label` in round `visit`."""
        epoch, offset = divmod(int(visit), len(self._members[label]))
        order = _of_class((self.seed, 2, int(label)), epoch, len(self._members[label]))
        return self._members[label][order[offset]]

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Clips uint8 (N, T, H, W, 3) and labels int64 (N,) of batch `step` = 0, 1, 2 ..."""
        indices = self.indices(step)
        # Random numbers for all ranks, so that the number of ranks changes nothing.
        rng = np.random.default_rng([self.seed, step, 0])
        everyone = self.world_size * self.batch_size
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        clips = self.clips.read(indices)
        if self.num_frames < clips.shape[1]:
            starts = rng.integers(clips.shape[1] - self.num_frames + 1, size=everyone)[mine]
            pairs = zip(clips, starts, strict=True)
            clips = np.stack([clip[start : start + self.num_frames] for clip, start in pairs])
        if self.flip:
            mirrored = rng.random(everyone)[mine] < 0.5
            clips[mirrored] = clips[mirrored, :, :, ::-1]
        return clips, self.clips.labels[indices]


def _pick(seed: tuple[int, ...], epochs: np.ndarray, offsets: np.ndarray, length: int) -> np.ndarray:
    orders = (_of_all(seed, epoch, length) for epoch in epochs.tolist())
    return np.array([order[offset] for order, offset in zip(orders, offsets, strict=True)])


def _permutation(seed: tuple[int, ...], epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([*seed, epoch]).permutation(length)


# A batch spans one or two epochs, more of a tiny set; with `class_balanced`, of every class.
_of_all = functools.lru_cache(maxsize=8)(_permutation)
_of_class = functools.lru_cache(maxsize=4096)(_permutation)


def prefetch(
    stream: BatchStream, start: int, stop: int, device: torch.device | str, *, depth: int = 2
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield each step from `start` to `stop` with its clips uint8 (N, T, H, W, 3) and labels int64 (N,) on `device`.

    A thread reads `depth` batches ahead. For a GPU it copies them from pinned memory on a separate stream, as bytes,
    a quarter of the size of floats, so that the copy overlaps with training.
    """
    device = torch.device(device)
    copying = torch.cuda.Stream(device) if device.type == "cuda" else None
    with ThreadPoolExecutor(1) as reader:
        upcoming = deque()
        try:
            for step in range(start, stop):
                while len(upcoming) < min(depth, stop - step):
                    upcoming.append(reader.submit(_load, stream, step + len(upcoming), device, copying))
                frames, labels = upcoming.popleft().result()
                if copying:
                    torch.cuda.current_stream(device).wait_stream(copying)
                    for tensor in (frames, labels):  # Memory is not reused before this stream is done.
                        tensor.record_stream(torch.cuda.current_stream(device))
                yield step, frames, labels
        finally:
            reader.shutdown(cancel_futures=True)


def _load(
    stream: BatchStream, step: int, device: torch.device, copying: torch.cuda.Stream | None
) -> tuple[Tensor, Tensor]:
    frames, labels = map(torch.from_numpy, stream.batch(step))
    if not copying:
        return frames.to(device), labels.to(device)
    with torch.cuda.stream(copying):
        return tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in (frames, labels))
