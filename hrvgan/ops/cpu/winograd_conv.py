"""From tensors to the kernels and back: a convolution of 3x3x3 with padding 1, of x as it is or upsampled."""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from hrvgan.ops.cpu.buffer_pool import empty, empty_clips
from hrvgan.ops.cpu.launch import able, launch, machine
from hrvgan.ops.cpu.winograd_matrices import DOWN, SAME, UP, Scheme
from hrvgan.ops.cpu.winograd_plan import FIELDS, MIDDLE, TOGETHER, Plan

Axes = tuple[Scheme, Scheme, Scheme]
Factor = tuple[int, int, int]  # of nearest upsampling before the convolution, each 1 or 2
CACHE = 2**18  # words that the tables of a thread may have: 1 MiB
SIZES = ("times", "heights", "widths")  # of the kernel's fields
MOST_OF_LINES = 32  # c_in: with more, the weights of a line of points do not stay in the first cache
FEWEST_TILES = 64  # in a clip: with fewer, transforming the weights costs more than it saves


@functools.cache
def writers() -> dict[str, Callable]:
    """Loaded for the first convolution: LLVM is large, and may not be installed."""
    from hrvgan.ops.cpu.winograd_kernels import convolution, gradient_by_weight
    from hrvgan.ops.cpu.winograd_weight_transform import transform_sums, transform_weights

    found = (convolution, gradient_by_weight, transform_weights, transform_sums)
    return {write.__name__: write for write in found}


def axes(factor: Factor) -> Axes:
    return tuple(UP if f == 2 else SAME for f in factor)


def takes(x: Tensor, c_out: int, factor: Factor = (1, 1, 1)) -> bool:
    """Whether the kernels compute this convolution of x (N, C, T, H, W), faster than torch and on this machine."""
    if x.numel() == 0 or x.shape[1] % 8 or c_out % 8:
        return False
    d, h, w = (axis.step for axis in axes(factor))
    whole = all(n % step == 0 for n, step in zip(x.shape[2:], (d, h, w * TOGETHER), strict=True))
    enough = math.prod(x.shape[2:]) // (d * h * w) >= FEWEST_TILES
    return whole and enough and able(x) and not (x.dtype == torch.bfloat16 and machine().has_amx())


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, factor: Factor = (1, 1, 1)) -> Tensor:
    """x (N, C, T, H, W) upsampled by `factor`, with weight (C', C, 3, 3, 3) and bias (C',), in the dtype of x."""
    return filtered(x, weight, bias, axes(factor))


def gradients(
    g: Tensor, x: Tensor, weight: Tensor, factor: Factor, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients by x, weight and bias of `convolve`, where wanted, given g, that by its output."""
    by_x = by_weight = by_bias = None
    if wanted[0]:
        around = tuple(DOWN if axis is UP else axis for axis in axes(factor))
        by_x = filtered(g, weight, None, around, turned=True)
    if wanted[1] or wanted[2]:
        by_weight, by_bias = (v.to(weight.dtype) for v in by_parameters(x, g, axes(factor)))
    made = by_x, by_weight, by_bias
    return tuple(v if each else None for v, each in zip(made, wanted, strict=True))


def filtered(x: Tensor, weight: Tensor, bias: Tensor | None, these: Axes, turned: bool = False) -> Tensor:
    """Each axis by its scheme; `turned`, with weight.transpose(0, 1).flip(2, 3, 4)."""
    x = x.contiguous(memory_format=torch.channels_last_3d)
    c_out, c_in = weight.shape[:2] if not turned else weight.shape[1::-1]
    how, tiles = plan(these, x.dtype, c_in, c_out), tiles_of(x, these)
    size = [tiles[name] * axis.outputs for name, axis in zip(SIZES, these, strict=True)]
    y = empty_clips((len(x), c_out, *size), x.dtype)
    bias = torch.zeros(c_out) if bias is None else bias.float().contiguous()
    tensors = {"x": x, "y": y, "weight": transformed(weight, how, turned), "bias": bias}
    numbers = {"items": -(-tiles["tiles"] // how.tiles), "scratch_size": how.scratch(c_in)}
    run("convolution", how, tensors, **numbers, **tiles, c_in=c_in, c_out=c_out)
    return y


def transformed(weight: Tensor, how: Plan, turned: bool) -> Tensor:
    """weight (C', C, 3, 3, 3) in the words of the kernel."""
    weight = weight.float().contiguous()
    c_out, c_in, first = *weight.shape[:2], 0
    numbers = {"out_stride": c_in * 27, "in_stride": 27, "tap_stride": 1}
    if turned:
        c_out, c_in, first = c_in, c_out, 26
        numbers = {"out_stride": 27, "in_stride": c_out * 27, "tap_stride": -1}
    tensors = {"x": weight.flatten()[first:], "weight": empty((how.points * c_in * c_out // how.pair,))}
    numbers |= {"items": c_in // how.pair, "c_in": c_in, "c_out": c_out}
    run("transform_weights", how._replace(rows=0, tiles=0, together=1), tensors, **numbers)
    return tensors["weight"]


def by_parameters(x: Tensor, g: Tensor, these: Axes) -> tuple[Tensor, Tensor]:
    """The gradients by weight (C', C, 3, 3, 3) and bias (C',) of `convolve`, float32, given g, that by y."""
    x, g = (v.contiguous(memory_format=torch.channels_last_3d) for v in (x, g))
    c_in, c_out = x.shape[1], g.shape[1]
    how, tiles = plan_by_weight(these, x.dtype, c_in, c_out), tiles_of(x, these)
    segments = max(1, min(8, tiles["tiles"] // 4096))  # Not by threads: sums stay the same to the bit.
    segment = -(-tiles["tiles"] // segments // TOGETHER) * TOGETHER
    sums = empty((segments, how.points, c_in, c_out))
    totals = torch.empty(segments, these[0].points, c_out)
    tensors = {"x": x, "y": g, "weight": sums, "bias": totals}
    numbers = {"items": segments * these[0].points, "scratch_size": how.scratch_by_weight(c_in, c_out)}
    run("gradient_by_weight", how, tensors, **numbers, **tiles, c_in=c_in, c_out=c_out, segment=segment)

    gradient = empty((c_out, c_in, 3, 3, 3))
    tensors = {"x": sums[0] if segments == 1 else sums.sum(0), "y": gradient}
    back = how._replace(rows=0, tiles=0, half=False)
    run("transform_sums", back, tensors, items=c_in, c_in=c_in, c_out=c_out)
    return gradient, totals[:, MIDDLE].sum(0)


def plan(these: Axes, dtype: torch.dtype, c_in: int, c_out: int) -> Plan:
    widest = machine().lanes()
    lanes = 16 if widest == 16 and c_in % 16 == 0 and c_out % 16 == 0 else 8
    columns = 2 if c_out % (2 * lanes) == 0 else 1
    together, sums = 1, 24 if widest == 16 else 12  # in registers
    if widest == 16 and c_in <= MOST_OF_LINES:
        together = these[2].points
        rows = sums // (together * columns)
    else:
        rows = sums // 2
    plans = [
        Plan(these, dtype == torch.bfloat16, lanes, columns, rows, tiles, together) for tiles in (24, 12)
    ]
    return next((how for how in plans if how.scratch(c_in) <= CACHE), plans[-1])


def plan_by_weight(these: Axes, dtype: torch.dtype, c_in: int, c_out: int) -> Plan:
    rows, tiles = 8 if machine().lanes() == 16 else 4, 64 if dtype == torch.bfloat16 else 32
    return plan(these, dtype, c_in, c_out)._replace(rows=rows, tiles=tiles, together=1)


def tiles_of(x: Tensor, these: Axes) -> dict[str, int]:
    """How many along each axis, and in all."""
    counts = [n // axis.step for n, axis in zip(x.shape[2:], these, strict=True)]
    return dict(zip(SIZES, counts, strict=True)) | {"tiles": len(x) * math.prod(counts)}


def run(kernel: str, how: Plan, tensors: dict[str, Tensor], **numbers: int) -> None:
    launch(writers()[kernel], how, FIELDS, tensors, **numbers)
