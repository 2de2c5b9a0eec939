"""Layer table, arithmetic and memory of a model, from shapes alone: on the meta device, whose tensors are empty."""

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from hrvgan.errors import InputError, first_line
from hrvgan.nn.base import Batch, Phase, VideoGAN
from hrvgan.ops.allocator import meta_as_cpu
from hrvgan.ops.conv3d import autocast


@dataclass(frozen=True)
class Cost:
    """Cost of one network."""

    parameters: int
    gflop: float  # 1e9 operations (a multiplication and an addition are two) for one clip forward


def layer_table(gan: VideoGAN) -> str:
    """One line a layer of G and D that has parameters or changes the shape: name, output shape without N, parameters;
    then what each network costs.

    D judges a clip of G, and E encodes it where there is one. A layer that is called for every frame has one line.
    """
    shapes, lines = on_meta(gan).eval(), {}

    def add(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if name not in lines and (num_parameters(module) or output.shape != inputs[0].shape):
            lines[name] = line(name, module, " x ".join(map(str, output.shape[1:])))

    layers = {name: module for name, module in shapes.named_modules() if is_layer(name, module)}
    for name, module in layers.items():
        module.register_forward_hook(lambda *about, name=name: add(name, *about))
    with torch.no_grad():
        clips = draw(shapes)
        shapes.judge(clips, labels(shapes))
        if getattr(shapes.G, "E", None) and not shapes.context:  # Else it has encoded the first frames.
            shapes.G.E(clips)
    totals = [
        f"{name}: {cost.parameters:,} parameters, {cost.gflop:.3g} GFLOP a clip" for name, cost in costs(gan).items()
    ]
    return "\n".join([*lines.values(), *totals])


def is_layer(name: str, module: nn.Module) -> bool:
    """True for a module without parts; a parametrisation (`equalise`) is no layer."""
    parts = {part for part, _ in module.named_children()}
    return parts <= {"parametrizations"} and "parametrizations" not in name


def line(name: str, module: nn.Module, shape: str) -> str:
    kind = type(module).__name__.removeprefix("Parametrized")
    return f"{name:<24} {kind:<16} {shape:<20} {num_parameters(module):>10,}"


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def costs(gan: VideoGAN) -> dict[str, Cost]:
    """Costs of G (to draw a clip) and of D (to judge it: all its parts, every frame)."""
    shapes = on_meta(gan).eval()
    with torch.no_grad():
        clips, g_flop = counted(lambda: draw(shapes))
        _, d_flop = counted(lambda: shapes.judge(clips, labels(shapes)))
    return {"G": Cost(num_parameters(gan.G), g_flop / 1e9), "D": Cost(num_parameters(gan.D), d_flop / 1e9)}


def counted(function: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """(what `function()` returns, the operations of its convolutions and matrix products)."""
    with FlopCounterMode(display=False) as counter:
        result = function()
    return result, counter.get_total_flops()


def on_meta(gan: VideoGAN) -> VideoGAN:
    """A copy that has shapes and no values."""
    return copy.deepcopy(gan).to("meta")


def draw(gan: VideoGAN, n: int = 1) -> Tensor:
    """`n` clips of a model on the meta device; one that predicts is given its first frames."""
    given = [torch.empty(n, 3, gan.context, gan.size, gan.size, device="meta")] if gan.context else []
    return gan.generate(torch.empty(n, *gan.z_shape, device="meta"), labels(gan, n), *given)


def labels(gan: VideoGAN, n: int = 1) -> Tensor:
    return gan.cycle_labels(n).to("meta")


# Memory of a training step, simulated with the lifetime of every tensor followed.

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
FACTORS = {"float32": 2.0, "bfloat16": 1.85}
CONSTANT = 130_000_000


def process_bytes(gan: VideoGAN, batch_size: int, precision: str) -> int:
    """Estimated peak memory of a training process in "float32" or "bfloat16" on a CPU, without the interpreter and its
    libraries (0.3 GB)."""
    if precision not in FACTORS:
        raise InputError(f"precision {precision!r} is not known; choose one of {', '.join(FACTORS)}")
    return round(FACTORS[precision] * training_bytes(gan, batch_size, precision) + CONSTANT)


def training_bytes(gan: VideoGAN, batch_size: int, precision: str = "float32") -> int:
    """Most bytes that tensors take in a training step: weights, their EMA, optimizer states, gradients, and what
    autograd keeps for the backward pass, by the operations (CPU kernels or torch's) that run here.

    Raises InputError for a batch that is too small for a model's batch norms.
    """
    shapes = on_meta(gan).train()
    real = torch.empty(batch_size, 3, gan.num_frames, gan.size, gan.size, device="meta")
    fixed = [real, *shapes.parameters(), *shapes.buffers(), *shapes.G.parameters()]
    phases = shapes.phases()
    bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    with LiveBytes(sum(tensor.nbytes for tensor in fixed)) as live, MetaAutocast(), meta_as_cpu():
        for _ in range(2):  # Optimizers make their states in the first.
            batch = Batch(real, labels(shapes, batch_size), step=0)
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
