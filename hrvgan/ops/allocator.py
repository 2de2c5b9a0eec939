"""Memory of tensors on a CPU under Linux."""

import ctypes
import os
import sys

# Of glibc's malloc.h: below how many bytes at its end the heap is not cut, how many blocks may lie outside of it, and
# how much it grows by.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_TOP_PAD = -1, -4, -2


def keep_freed_memory() -> bool:
    """Has this process keep the memory that it frees, for the next tensors; returns whether it does.

    glibc gives large blocks back to the system at once, so that each large tensor is a page fault every 4 kB. The large
    ones of our kernels have memory of their own (ops/cpu/buffer_pool.py); with the others a training step at 256 px is
    up to a seventh faster, and its peak a quarter higher, as free blocks between others do not always fit. It is
    for programs: a process is its owner's. Nothing happens without glibc, or where the user has tuned or replaced the
    allocator: any variable MALLOC_*, such as MALLOC_TRIM_THRESHOLD_=131072, GLIBC_TUNABLES, LD_PRELOAD.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    tuned = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ)
    if mallopt is None or tuned:
        return False
    options = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}
    return all(mallopt(option, value) for option, value in options.items())
