"""Random numbers by the clip, for a batch that is trained in parts: by several processes, or in micro-batches.

Axis 0 counts clips. Within `part`, numbers are drawn for the whole batch, and the part gets its rows: so the parts add
up to what one process would have done with the whole. Outside of it these are torch's own functions. A model that calls
torch's instead gets numbers as good, but others in each split.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    index: int
    count: int
    generator: torch.Generator


_active: ContextVar[Part | None] = ContextVar("part", default=None)


@contextmanager
def part(index: int, count: int, seed: tuple[int, ...], device: torch.device) -> Iterator[None]:
    """What is drawn within are the rows of part `index` of `count` equal ones; all of it follows from `seed`."""
    ours, torchs = np.random.SeedSequence(seed).generate_state(2).tolist()
    torch.manual_seed(torchs + index)  # For those who call torch: parts must not repeat each other.
    token = _active.set(Part(index, count, torch.Generator(device).manual_seed(ours)))
    try:
        yield
    finally:
        _active.reset(token)


def randn(*shape: int, like: Tensor) -> Tensor:
    """Standard normal, of the dtype and on the device of `like`."""
    return _rows(torch.randn, shape, like.dtype, like.device)


def rand(*shape: int, like: Tensor) -> Tensor:
    """Uniform in [0, 1), of the dtype and on the device of `like`."""
    return _rows(torch.rand, shape, like.dtype, like.device)


def randint(high: int, *shape: int, like: Tensor) -> Tensor:
    """int64, uniform in 0 ... high - 1, on the device of `like`."""
    return _rows(
        lambda size, **options: torch.randint(high, size, **options), shape, torch.int64, like.device
    )


def _rows(draw: Callable, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    active = _active.get()
    if active is None:
        return draw(shape, dtype=dtype, device=device)
    whole = (active.count * shape[0], *shape[1:])
    drawn = draw(whole, generator=active.generator, dtype=dtype, device=device)
    return drawn[active.index * shape[0] :][: shape[0]]
