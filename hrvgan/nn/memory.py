"""How much memory a training needs: a step on shapes alone, with every tensor's life followed."""

import copy
import weakref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hrvgan.errors import InputError, first_line
from hrvgan.nn.base import Batch, Phase, VideoGAN


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, while they are alive."""

    def __init__(self, now: int = 0):
        super().__init__()
        self.now = self.peak = now
        self.alive: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self.add(value.untyped_storage())
        return out

    def add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.alive:
            self.alive.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.free, key, size)

    def free(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size


# What processes were measured to take (docs/training.md): of the bytes of their tensors, in float32 and under autocast,
# where activations are halved, but gradients by clips and sums are not; and besides, for compilers and scratch space.
SHARE = {"float32": 1.1, "bfloat16": 0.6}
BESIDES = 250_000_000


def process_bytes(gan: VideoGAN, batch_size: int, precision: str) -> int:
    """An estimate of the peak memory of a training in "float32" or "bfloat16": tensors, scratch space of convolutions,
    the allocator's losses; not the interpreter and its libraries (0.3 GB on a CPU, 0.5 GB or more on a GPU)."""
    if precision not in SHARE:
        raise InputError(f"precision {precision!r} is not known; choose one of {', '.join(SHARE)}")
    return round(SHARE[precision] * training_bytes(gan, batch_size) + BESIDES)


def training_bytes(gan: VideoGAN, batch_size: int) -> int:
    """An estimate of the most memory that tensors take in a training step in float32: weights, their average, the
    optimisers' states, gradients, and what the backward pass keeps.

    Raises InputError for a batch that is too small for a model's batch norms.
    """
    shapes = copy.deepcopy(gan).to("meta").train()
    real = torch.empty(batch_size, 3, gan.num_frames, gan.size, gan.size, device="meta")
    fixed = [real, *shapes.parameters(), *shapes.buffers(), *shapes.G.parameters()]
    phases = shapes.phases()
    with LiveBytes(sum(tensor.nbytes for tensor in fixed)) as live:
        for _ in range(2):  # Optimisers make their states in the first.
            batch = Batch(real, shapes.cycle_labels(batch_size).to("meta"), step=0)
            for phase in phases:
                step(shapes, phase, batch)
    return live.peak


def step(gan: VideoGAN, phase: Phase, batch: Batch) -> None:
    gan.requires_grad_(False)
    phase.module.requires_grad_(True)
    try:
        sum(phase.loss(batch).values()).backward()
    except ValueError as error:  # Batch norms refuse a single value a channel.
        raise InputError(f"a batch of {len(batch.real)}: {first_line(error)}") from error
    phase.optimizer.step()
    phase.optimizer.zero_grad(set_to_none=True)
