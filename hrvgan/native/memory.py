"""Memory for large results. What is freed is kept for the next result of the same size: from the system it would come
by a page fault for every 4 kB, which takes as long as computing what is put there. No more is held than was in use at
once.
"""

import math
import mmap
import sys
import threading
import weakref
from collections import defaultdict, deque

import numpy as np
import torch
from torch import Tensor

SMALL = 2**20  # bytes: torch's own memory is as good for what is smaller


class Pool:
    """Blocks of memory of the system's, by their size in bytes."""

    def __init__(self):
        self.idle: dict[int, list[mmap.mmap]] = defaultdict(list)
        self.held = self.used = self.most = 0  # bytes: of all blocks; of those in use, now and at most
        self.lock = threading.Lock()
        self.returned: deque[mmap.mmap] = (
            deque()
        )  # Blocks come back at any moment, also while the lock is held.

    def take(self, size: int) -> np.ndarray:
        """`size` bytes of any content, uint8. They come back when nothing refers to them any more."""
        with self.lock:
            self.collect()
            self.used += size
            self.most = max(self.most, self.used)
            block = self.idle[size].pop() if self.idle[size] else self.new(size)
        array = np.frombuffer(block, np.uint8)
        weakref.finalize(array, self.returned.append, block).atexit = False
        return array

    def collect(self) -> None:
        while self.returned:
            block = self.returned.popleft()
            self.idle[len(block)].append(block)
            self.used -= len(block)

    def new(self, size: int) -> mmap.mmap:
        """A block of the system's, for which others go back to it where too much would be held."""
        self.held += size
        for other, blocks in sorted(self.idle.items(), reverse=True):
            while blocks and self.held > self.most:
                blocks.pop()
                self.held -= other
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block.madvise(mmap.MADV_HUGEPAGE)
        return block


pool = Pool()


def empty(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """A contiguous tensor of any content on the CPU."""
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL or sys.platform != "linux":
        return torch.empty(shape, dtype=dtype)
    # Not a view: autograd allows no in-place operation on what a Function returns if that is one.
    return torch.empty(0, dtype=dtype).set_(torch.from_numpy(pool.take(size)).untyped_storage(), 0, shape)


def empty_clips(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Clips (N, C, T, H, W) of any content on the CPU, channels-last."""
    n, c, *size = shape
    flat = empty((n, *size, c), dtype)
    return flat.set_(flat.untyped_storage(), 0, shape, flat.permute(0, 4, 1, 2, 3).stride())
