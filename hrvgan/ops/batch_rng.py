"""Random numbers per clip, for a batch that is trained in parts: by several processes, or in micro-batches.

Axis 0 counts clips. Within `part`, a part gets its rows of the numbers for the whole batch, so that the parts add up to
the step that one process would make with the whole. Outside of `part` these are torch's own functions. A model that
calls torch's functions instead gets numbers as good, but others for each number of parts.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Numbers per clip below which they are drawn for the whole batch. With more, such as noise on pixels, each clip has a
# seed of its own, and a part takes the time and the memory of its own rows.
SMALL = 4096


@dataclass(frozen=True)
class Part:
    index: int
    count: int
    seed: tuple[int, ...]
    calls: Iterator[int]  # counts the calls of this part


_active: ContextVar[Part | None] = ContextVar("part", default=None)


@contextmanager
def part(index: int, count: int, seed: tuple[int, ...]) -> Iterator[None]:
    """Within it, random numbers are the rows of part `index` of `count` equal ones, and follow from `seed` alone."""
    # For models that call torch's functions: parts must not repeat each other.
    torch.manual_seed(np.random.SeedSequence(seed).generate_state(1).item() + index)
    token = _active.set(Part(index, count, seed, itertools.count()))
    try:
        yield
    finally:
        _active.reset(token)


def randn(*shape: int, like: Tensor) -> Tensor:
    """Standard normal numbers with the dtype and on the device of `like`."""
    return _fill(torch.empty(shape, dtype=like.dtype, device=like.device), Tensor.normal_)


def rand(*shape: int, like: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) with the dtype and on the device of `like`."""
    return _fill(torch.empty(shape, dtype=like.dtype, device=like.device), Tensor.uniform_)


def randint(high: int, *shape: int, like: Tensor) -> Tensor:
    """int64, uniform in 0 ... high - 1, on the device of `like`."""
    empty = torch.empty(shape, dtype=torch.int64, device=like.device)
    return _fill(empty, lambda rows, **options: rows.random_(0, high, **options))


def _fill(empty: Tensor, draw: Callable) -> Tensor:
    active = _active.get()
    if active is None:
        return draw(empty)
    first, num = active.index * len(empty), active.count * len(empty)
    seeds = np.random.SeedSequence((*active.seed, next(active.calls))).generate_state(num).tolist()
    generator = torch.Generator(empty.device).manual_seed(seeds[0])
    if empty[0].numel() < SMALL:
        whole = empty.new_empty((num, *empty.shape[1:]))
        return draw(whole, generator=generator)[first:][: len(empty)]
    for row, seed in zip(empty, seeds[first:][: len(empty)], strict=True):
        draw(row, generator=generator.manual_seed(seed))
    return empty
