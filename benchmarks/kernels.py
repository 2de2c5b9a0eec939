"""Shared by the benchmarks of our kernels (hrvgan/ops/cpu): arguments and timing."""

import argparse
from collections.abc import Callable

import torch

from benchmarks.processes import Key, interleaved
from benchmarks.training_step import BATCH, seconds
from hrvgan.ops import cpu
from hrvgan.ops.allocator import keep_freed_memory

Task = tuple[Callable[[], object], bool]  # a function, and cpu.enabled while it runs


def arguments(description: str) -> argparse.Namespace:
    """`size`, `rounds`, and `batch`, the clips of that size."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--size", type=int, choices=list(BATCH), default=64)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    keep_freed_memory()
    given.batch = BATCH[given.size]
    print(f"batch {given.batch}, {torch.get_num_threads()} threads; ", end="")
    return given


def milliseconds(tasks: dict[Key, Task], rounds: int) -> dict[Key, float]:
    """Medians."""

    def run(task: Callable[[], object], enabled: bool) -> float:
        cpu.enabled = enabled
        return 1e3 * seconds(task)

    return interleaved({key: lambda about=about: run(*about) for key, about in tasks.items()}, rounds)
