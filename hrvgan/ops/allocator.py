"""Memory for tensors on a CPU under Linux: a pool for large results of the kernels, and glibc's settings for the rest.

Memory from the system costs a page fault for every 4 kB, which takes as long as computing what is stored there.
"""

import contextlib
import ctypes
import math
import mmap
import os
import sys
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Iterator
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

CPU = torch.device("cpu")
META_AS_CPU: ContextVar[bool] = ContextVar("meta_as_cpu", default=False)
SMALL = 2**20  # bytes: torch's own memory is as good for what is smaller


class Pool:
    """Blocks of memory from the system, by size in bytes. Freed blocks wait for the next result of their size; no more
    is held than was in use at once."""

    def __init__(self):
        self.idle: dict[int, list[mmap.mmap]] = defaultdict(list)
        self.held = self.used = self.most = 0  # bytes: of all blocks; of those in use, now and at most
        self.lock = threading.Lock()
        # Blocks come back at any moment, also while the lock is held.
        self.returned: deque[mmap.mmap] = deque()

    def take(self, size: int) -> np.ndarray:
        """`size` bytes of any content, uint8. They come back when nothing refers to them any more."""
        with self.lock:
            self.collect()
            block = self.idle[size].pop() if self.idle[size] else self.new(size)
            self.used += size
            self.most = max(self.most, self.used)
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
        self.shrink(max(self.most, self.used + size) - size)
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError, AttributeError):  # Some systems have no huge pages.
            block.madvise(mmap.MADV_HUGEPAGE)
        self.held += size
        return block

    def shrink(self, limit: int) -> None:
        for size, idle in sorted(self.idle.items(), reverse=True):
            while idle and self.held > limit:
                idle.pop()
                self.held -= size

    def release(self) -> None:
        """Gives the system all that is not in use."""
        with self.lock:
            self.collect()
            self.shrink(0)
            self.most = self.used


blocks = Pool()


def empty(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Tensor:
    """A contiguous tensor of any content, on the CPU or the meta device."""
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL or sys.platform != "linux" or device.type == "meta":
        return torch.empty(shape, dtype=dtype, device=device)
    # Not a view: autograd allows no in-place operation on what a Function returns if that is one.
    return torch.empty(0, dtype=dtype).set_(torch.from_numpy(blocks.take(size)).untyped_storage(), 0, shape)


def empty_clips(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device = CPU) -> Tensor:
    """Clips (N, C, T, H, W) of any content, channels-last, on the CPU or the meta device."""
    n, c, *size = shape
    flat = empty((n, *size, c), dtype, device)
    return flat.set_(flat.untyped_storage(), 0, shape, flat.permute(0, 4, 1, 2, 3).stride())


@contextlib.contextmanager
def meta_as_cpu() -> Iterator[None]:
    """Within it, CPU kernels also take meta tensors and return their shapes, so that the memory of a training step can
    be followed without computing it. Without it, meta tensors take plain torch, whose arithmetic torch's counters know.
    """
    token = META_AS_CPU.set(True)
    try:
        yield
    finally:
        META_AS_CPU.reset(token)


# Of glibc's malloc.h: below how many bytes at its end the heap is not cut, how many blocks may lie outside of it, and
# how much it grows by.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_TOP_PAD = -1, -4, -2


def keep_freed_memory() -> bool:
    """Makes this process keep the memory that it frees, for the next tensors; returns True if it does.

    glibc gives large blocks back to the system at once, so that each large tensor is a page fault every 4 kB. The large
    results of our kernels come from the pool above; with the others a training step at 256 px is up to a seventh
    faster, and its peak a quarter higher, as free blocks between others do not always fit. For programs, not for the
    library: a process is its owner's. Nothing happens without glibc, or where the user has tuned or replaced the
    allocator: any variable MALLOC_*, such as MALLOC_TRIM_THRESHOLD_=131072, GLIBC_TUNABLES, LD_PRELOAD.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    tuned = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ)
    if mallopt is None or tuned:
        return False
    options = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}
    return all(mallopt(option, value) for option, value in options.items())
