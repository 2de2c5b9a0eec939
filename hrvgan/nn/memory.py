"""Memory of a training step: simulated on the meta device, with the lifetime of every tensor followed."""

import contextlib
import copy
import weakref

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from hrvgan.errors import InputError, first_line
from hrvgan.nn.base import Batch, Phase, VideoGAN
from hrvgan.ops.allocator import meta_as_cpu
from hrvgan.ops.conv3d import autocast

CONVOLUTIONS = {torch.ops.aten.convolution, torch.ops.aten.convolution_backward}
BLOCK = 16  # channels: oneDNN pads fewer in its own layout, but for those of RGB
SCRATCH = 0.5  # share of all such copies that a convolution holds at once, fitted


def blocked_bytes(args: tuple, out: Tensor | tuple) -> int:
    """Bytes of the copies of activations that oneDNN makes in its own layout where channels do not fill its blocks."""
    tensors = [v for v in tree_leaves((args, out)) if isinstance(v, Tensor) and v.ndim > 3]
    copied = [v for v in tensors if v.shape[1] != 3 and v.shape[1] % BLOCK]
    return sum(v.nbytes // v.shape[1] * -(-v.shape[1] // BLOCK) * BLOCK for v in copied)


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
        if func.overloadpacket in CONVOLUTIONS:
            self.peak = max(self.peak, self.now + SCRATCH * blocked_bytes(args, out))
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


AUTOCAST_OPS = {
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
    torch.matmul, Tensor.matmul,
}  # fmt: skip


class MetaAutocast(TorchFunctionMode):
    """torch's autocast on a CPU, for meta tensors, to which torch does not apply it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in AUTOCAST_OPS and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map_only(Tensor, autocast, (args, kwargs))
        return func(*args, **(kwargs or {}))


# Of processes, measured (docs/training.md): their peak is so many times that of their tensors, for freed blocks do not
# always fit, and so many bytes besides, for compilers and scratch space.
FACTORS = {"float32": 2.2, "bfloat16": 1.85}
CONSTANT = 130_000_000


def process_bytes(gan: VideoGAN, batch_size: int, precision: str, device: str = "cpu") -> int:
    """Estimated peak memory of a training process in "float32" or "bfloat16" on this machine, without the interpreter
    and its libraries (0.3 GB on a CPU, 0.5 GB or more on a GPU)."""
    if precision not in FACTORS:
        raise InputError(f"precision {precision!r} is not known; choose one of {', '.join(FACTORS)}")
    return round(FACTORS[precision] * training_bytes(gan, batch_size, precision, device) + CONSTANT)


def training_bytes(gan: VideoGAN, batch_size: int, precision: str = "float32", device: str = "cpu") -> int:
    """Most bytes that tensors take in a training step: weights, their EMA, optimizer states, gradients, and what
    autograd keeps for the backward pass, by the operations (CPU kernels or torch's) that run on `device` here.

    Raises InputError for a batch that is too small for a model's batch norms.
    """
    shapes = copy.deepcopy(gan).to("meta").train()
    real = torch.empty(batch_size, 3, gan.num_frames, gan.size, gan.size, device="meta")
    fixed = [real, *shapes.parameters(), *shapes.buffers(), *shapes.G.parameters()]
    phases = shapes.phases()
    bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    kernels = meta_as_cpu() if device == "cpu" else contextlib.nullcontext()
    with LiveBytes(sum(tensor.nbytes for tensor in fixed)) as live, MetaAutocast(), kernels:
        for _ in range(2):  # Optimizers make their states in the first.
            batch = Batch(real, shapes.cycle_labels(batch_size).to("meta"), step=0)
            for phase in phases:
                step(shapes, phase, batch, bfloat16)
    return live.peak


def step(gan: VideoGAN, phase: Phase, batch: Batch, bfloat16: torch.autocast) -> None:
    gan.requires_grad_(False)
    phase.module.requires_grad_(True)
    try:
        with bfloat16:
            terms = phase.loss(batch)
    except ValueError as error:  # Batch norms refuse a single value a channel.
        raise InputError(f"a batch of {len(batch.real)}: {first_line(error)}") from error
    sum(terms.values()).backward()
    phase.optimizer.step()
    phase.optimizer.zero_grad(set_to_none=True)
