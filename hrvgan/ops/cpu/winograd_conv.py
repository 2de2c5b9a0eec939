"""Calls of the Winograd kernels on tensors: a 3x3x3 convolution with padding 1, of x as it is or upsampled."""

import math

import torch
from torch import Tensor

from hrvgan.ops.allocator import empty, empty_clips
from hrvgan.ops.cpu import jit, winograd_kernels
from hrvgan.ops.cpu.winograd_schemes import DOWN, MIDDLE, NUM_NEIGHBOURS, SAME, UP, Plan, Scheme

Axes = tuple[Scheme, Scheme, Scheme]
Factor = tuple[int, int, int]  # of nearest upsampling before the convolution, each 1 or 2
CACHE_WORDS = 2**18  # that the tables of a thread may have: 1 MiB
SIZES = ("times", "heights", "widths")  # kernel arguments: tiles along each axis
MAX_LINE_CHANNELS = 32  # c_in: with more, the weights of a line of points do not stay in the first cache
MIN_TILES = 64  # in a clip: with fewer, transforming the weights costs more than it saves


def schemes(factor: Factor) -> Axes:
    return tuple(UP if f == 2 else SAME for f in factor)


def supports(x: Tensor, c_out: int, factor: Factor = (1, 1, 1)) -> bool:
    """True if the kernels take this convolution of x (N, C, T, H, W) and are faster than torch."""
    if x.numel() == 0 or x.shape[1] % 8 or c_out % 8:
        return False
    d, h, w = (axis.step for axis in schemes(factor))
    whole = all(n % step == 0 for n, step in zip(x.shape[2:], (d, h, w * NUM_NEIGHBOURS), strict=True))
    enough = math.prod(x.shape[2:]) // (d * h * w) >= MIN_TILES
    return whole and enough and not (x.dtype == torch.bfloat16 and jit.has_amx())


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, factor: Factor = (1, 1, 1)) -> Tensor:
    """x (N, C, T, H, W) upsampled by `factor`, with weight (C', C, 3, 3, 3) and bias (C',), in the dtype of x."""
    return filtered(x, weight, bias, schemes(factor))


def gradients(
    g: Tensor, x: Tensor, weight: Tensor, factor: Factor, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The `wanted` gradients w.r.t. (x, weight, bias) of `convolve`, given g = dL/dy."""
    dx = dweight = dbias = None
    if wanted[0]:
        adjoint = tuple(DOWN if axis is UP else axis for axis in schemes(factor))
        dx = filtered(g, weight, None, adjoint, flipped=True)
    if wanted[1] or wanted[2]:
        dweight, dbias = (v.to(weight.dtype) for v in parameter_gradients(x, g, schemes(factor)))
    return tuple(v if each else None for v, each in zip((dx, dweight, dbias), wanted, strict=True))


def filtered(x: Tensor, weight: Tensor, bias: Tensor | None, axes: Axes, flipped: bool = False) -> Tensor:
    """Each axis by its scheme; `flipped`, with weight.transpose(0, 1).flip(2, 3, 4)."""
    x = x.contiguous(memory_format=torch.channels_last_3d)
    c_out, c_in = weight.shape[:2] if not flipped else weight.shape[1::-1]
    plan, tiles = convolution_plan(axes, x.dtype, c_in, c_out), num_tiles(x, axes)
    size = [tiles[name] * axis.outputs for name, axis in zip(SIZES, axes, strict=True)]
    y = empty_clips((len(x), c_out, *size), x.dtype, x.device)
    bias = torch.zeros(c_out, device=x.device) if bias is None else bias.float().contiguous()
    tensors = {"x": x, "y": y, "weight": transformed_weight(weight, plan, flipped), "bias": bias}
    work = {"items": -(-tiles["tiles"] // plan.tiles), "scratch_size": plan.scratch(c_in)}
    jit.launch(winograd_kernels.generate_convolution, plan, tensors, **work, **tiles, c_in=c_in, c_out=c_out)
    return y


def transformed_weight(weight: Tensor, plan: Plan, flipped: bool) -> Tensor:
    """weight (C', C, 3, 3, 3) in the words of the kernel."""
    weight = weight.float().contiguous()
    c_out, c_in, first = *weight.shape[:2], 0
    strides = {"out_stride": c_in * 27, "in_stride": 27, "weight_stride": 1}
    if flipped:
        c_out, c_in, first = c_in, c_out, 26
        strides = {"out_stride": 27, "in_stride": c_out * 27, "weight_stride": -1}
    words = empty((plan.points * c_in * c_out // plan.pair,), device=weight.device)
    tensors = {"x": weight.flatten()[first:], "weight": words}
    sizes = {"items": c_in // plan.pair, "c_in": c_in, "c_out": c_out}
    plan = plan._replace(rows=0, tiles=0, num_points=1)
    jit.launch(winograd_kernels.generate_weight_transform, plan, tensors, **strides, **sizes)
    return words


def parameter_gradients(x: Tensor, g: Tensor, axes: Axes) -> tuple[Tensor, Tensor]:
    """The gradients w.r.t. weight (C', C, 3, 3, 3) and bias (C',) of `convolve`, float32, given g = dL/dy."""
    x, g = (v.contiguous(memory_format=torch.channels_last_3d) for v in (x, g))
    c_in, c_out = x.shape[1], g.shape[1]
    plan, tiles = weight_gradient_plan(axes, x.dtype, c_in, c_out), num_tiles(x, axes)
    segments = max(1, min(8, tiles["tiles"] // 4096))  # Not by threads: sums stay the same to the bit.
    segment = -(-tiles["tiles"] // segments // NUM_NEIGHBOURS) * NUM_NEIGHBOURS
    sums = empty((segments, plan.points, c_in, c_out), device=x.device)
    totals = torch.empty(segments, axes[0].points, c_out, device=x.device)
    channels = {"c_in": c_in, "c_out": c_out}
    tensors = {"x": x, "y": g, "sums": sums, "totals": totals}
    work = {"items": segments * axes[0].points, "scratch_size": plan.weight_gradient_scratch(c_in, c_out)}
    generate = winograd_kernels.generate_weight_gradient
    jit.launch(generate, plan, tensors, **work, **tiles, **channels, segment=segment)

    gradient = empty((c_out, c_in, 3, 3, 3), device=x.device)
    tensors = {"x": sums[0] if segments == 1 else sums.sum(0), "y": gradient}
    generate = winograd_kernels.generate_weight_gradient_transform
    jit.launch(generate, plan._replace(rows=0, tiles=0, half=False), tensors, items=c_in, **channels)
    return gradient, totals[:, MIDDLE].sum(0)


def convolution_plan(axes: Axes, dtype: torch.dtype, c_in: int, c_out: int) -> Plan:
    widest = jit.lanes()
    lanes = 16 if widest == 16 and c_in % 16 == 0 and c_out % 16 == 0 else 8
    columns = 2 if c_out % (2 * lanes) == 0 else 1
    num_points, sums = 1, 24 if widest == 16 else 12  # in registers
    if widest == 16 and c_in <= MAX_LINE_CHANNELS:
        num_points = axes[2].points
        rows = sums // (num_points * columns)
    else:
        rows = sums // 2
    half = dtype == torch.bfloat16
    plans = [Plan(axes, half, lanes, columns, rows, tiles, num_points) for tiles in (24, 12)]
    return next((plan for plan in plans if plan.scratch(c_in) <= CACHE_WORDS), plans[-1])


def weight_gradient_plan(axes: Axes, dtype: torch.dtype, c_in: int, c_out: int) -> Plan:
    rows, tiles = 8 if jit.lanes() == 16 else 4, 64 if dtype == torch.bfloat16 else 32
    return convolution_plan(axes, dtype, c_in, c_out)._replace(rows=rows, tiles=tiles, num_points=1)


def num_tiles(x: Tensor, axes: Axes) -> dict[str, int]:
    """Tiles along each axis, and in all."""
    counts = [n // axis.step for n, axis in zip(x.shape[2:], axes, strict=True)]
    return dict(zip(SIZES, counts, strict=True)) | {"tiles": len(x) * math.prod(counts)}
