"""Layer table and cost of a model: parameters and arithmetic, from shapes alone, on the meta device."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hrvgan.nn.base import VideoGAN


@dataclass(frozen=True)
class Cost:
    """Cost of one network."""

    parameters: int
    gflop: float  # 1e9 operations (a multiplication and an addition are two) for one clip forward


def layer_table(gan: VideoGAN) -> str:
    """One line a layer of G and D that has parameters or changes the shape: name, output shape without N, parameters;
    then what each network costs.

    D judges a clip of G, and E encodes it where there is one. A layer that is called for every frame has one line;
    one that a grown model leaves out has no shape.
    """
    lines: dict[str, str] = {}
    shapes = on_meta(gan)
    layers = {
        f"{prefix}.{name}": module
        for prefix, network in (("G", shapes.G), ("D", shapes.D))
        for name, module in network.named_modules()
        if is_layer(name, module)
    }
    for name, module in layers.items():
        module.register_forward_hook(line_hook(name, lines))
    with torch.no_grad():
        clips = draw(shapes)
        shapes.judge(clips, labels(shapes))
        if getattr(shapes.G, "E", None) and not shapes.context:  # Else it has encoded the first frames.
            shapes.G.E(clips)
    for name, module in layers.items():
        if name not in lines and num_parameters(module):
            lines[name] = line(name, module, "while it grows")
    totals = [
        f"{name}: {cost.parameters:,} parameters, {cost.gflop:.3g} GFLOP a clip" for name, cost in costs(gan).items()
    ]
    return "\n".join([*lines.values(), *totals])


def is_layer(name: str, module: nn.Module) -> bool:
    """True for a module without parts; a parametrisation (`equalise`) is no layer."""
    parts = {part for part, _ in module.named_children()}
    return parts <= {"parametrizations"} and "parametrizations" not in name


def costs(gan: VideoGAN) -> dict[str, Cost]:
    """Costs of G (to draw a clip) and of D (to judge it: all its parts, every frame)."""
    shapes = on_meta(gan)
    with torch.no_grad():
        clips, g_flop = counted(lambda: draw(shapes))
        _, d_flop = counted(lambda: shapes.judge(clips, labels(shapes)))
    return {"G": Cost(num_parameters(gan.G), g_flop / 1e9), "D": Cost(num_parameters(gan.D), d_flop / 1e9)}


def counted(function) -> tuple[Tensor, int]:
    """(what `function()` returns, the operations of its convolutions and matrix products)."""
    with FlopCounterMode(display=False) as counter:
        result = function()
    return result, counter.get_total_flops()


def on_meta(gan: VideoGAN) -> VideoGAN:
    """A copy that has shapes and no values."""
    return copy.deepcopy(gan).to("meta").eval()


def draw(gan: VideoGAN, n: int = 1) -> Tensor:
    """`n` clips of a model on the meta device; one that predicts is given its first frames."""
    z, c = torch.empty(n, *gan.z_shape, device="meta"), labels(gan, n)
    given = [torch.empty(n, 3, gan.context, gan.size, gan.size, device="meta")] if gan.context else []
    return gan.generate(z, c, *given)


def labels(gan: VideoGAN, n: int = 1) -> Tensor:
    return gan.cycle_labels(n).to("meta")


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def line_hook(name: str, lines: dict[str, str]):
    def hook(module: nn.Module, inputs, output) -> None:
        count = num_parameters(module)
        if name not in lines and (count or output.shape != inputs[0].shape):
            lines[name] = line(name, module, " x ".join(map(str, output.shape[1:])))

    return hook


def line(name: str, module: nn.Module, shape: str) -> str:
    kind = type(module).__name__.removeprefix("Parametrized")
    return f"{name:<24} {kind:<16} {shape:<20} {num_parameters(module):>10,}"
