"""From tensors to a kernel."""

import functools
import os
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hrvgan.ops.cpu.buffer_pool import empty

# torch's own operations are for where llvmlite is not installed, and for users who ask for them.
enabled = os.environ.get("HRVGAN_KERNELS") != "torch" and find_spec("llvmlite") is not None


class Fields(NamedTuple):
    """What a kernel is told, as 64-bit numbers. First come two that its threads count up themselves: the next item of
    the work, and the next thread's number."""

    tensors: tuple[str, ...]
    counts: tuple[str, ...]

    @property
    def pointers(self) -> tuple[str, ...]:
        return ("scratch", *self.tensors)

    @property
    def numbers(self) -> tuple[str, ...]:
        return ("items", "scratch_size", *self.counts)  # `scratch_size` words of 4 bytes for each thread

    @property
    def names(self) -> tuple[str, ...]:
        return ("item", "thread", *self.pointers, *self.numbers)


@functools.cache
def machine() -> ModuleType:
    """Loaded for the first kernel: LLVM is large, and may not be installed."""
    from hrvgan.ops.cpu import jit as machine

    return machine


def able(x: Tensor) -> bool:
    """Whether kernels run here, on tensors such as x."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16) or not enabled:
        return False
    return machine().able(x.dtype)


def launch(
    write: Callable, plan: NamedTuple, fields: Fields, tensors: dict[str, Tensor], items: int,
    scratch_size: int = 0, **counts: int,
) -> None:  # fmt: skip
    """Runs the kernel that `write` writes for `plan`, on as many threads as torch has."""
    threads = min(torch.get_num_threads(), items)
    scratch = empty((threads * scratch_size,))
    told = {"items": items, "scratch": scratch.data_ptr(), "scratch_size": scratch_size} | counts
    told |= {name: tensor.data_ptr() for name, tensor in tensors.items()}
    numbers = np.array([told.get(name, 0) for name in fields.names], dtype=np.int64)
    machine().run(machine().function(write, plan), numbers, threads)
