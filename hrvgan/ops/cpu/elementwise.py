"""From tensors to the kernels and back. Clips are (N, C, T, H, W), in float32 or bfloat16."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from hrvgan.ops.cpu.buffer_pool import empty_clips
from hrvgan.ops.cpu.elementwise_plan import FIELDS, Plan
from hrvgan.ops.cpu.launch import able, launch, machine

MOST_CHANNELS = 256  # of a pixel norm: its code grows with them
Factor = tuple[int, int, int]  # of the blocks whose means are taken
FACTORS = ((1, 2, 2), (2, 2, 2))


@functools.cache
def writers() -> dict[str, Callable]:
    """Loaded for the first chain: LLVM is large, and may not be installed."""
    from hrvgan.ops.cpu.leaky_relu_kernels import (
        leaky_relu_pooled,
        leaky_relu_pooled_again,
        leaky_relu_spread,
    )
    from hrvgan.ops.cpu.pixel_norm_kernels import pixel_norm, pixel_norm_gradients

    found = (pixel_norm, pixel_norm_gradients, leaky_relu_pooled, leaky_relu_spread, leaky_relu_pooled_again)
    return {write.__name__: write for write in found}


def takes_norm(x: Tensor, gain: Tensor, shift: Tensor) -> bool:
    """Whether the kernels of the pixel norm run on this machine, and on these."""
    whole = x.numel() > 0 and x.shape[1] % 8 == 0 and x.shape[1] <= MOST_CHANNELS
    fit = gain.shape == shift.shape and gain.shape in ((*x.shape[:2], t, 1, 1) for t in (1, x.shape[2]))
    return whole and fit and able(x)


def takes_pooling(x: Tensor, factor: Factor) -> bool:
    """Whether the kernels of LeakyReLU and pooling run on this machine, and on x."""
    whole = x.numel() > 0 and x.shape[1] % 8 == 0 and factor in FACTORS
    return whole and all(n % f == 0 for n, f in zip(x.shape[2:], factor, strict=True)) and able(x)


def plan(x: Tensor, slope: float = 0.0, time: int = 1) -> Plan:
    channels = x.shape[1]
    lanes = 16 if machine().lanes() == 16 and channels % 16 == 0 else 8
    return Plan(lanes, x.dtype == torch.bfloat16, channels, slope, time)


def pixel_norm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """ReLU(PixelNorm(x) * gain + shift). gain and shift (N, C, 1 or T, 1, 1)."""
    x = channels_last(x)
    y = empty_clips(x.shape, x.dtype)
    tensors = {"x": x, "y": y, "gain": rows(gain), "shift": rows(shift)}
    run("pixel_norm", plan(x), tensors, frames=x, span=x.shape[2] // gain.shape[2])
    return y


def pixel_norm_gradients(g: Tensor, x: Tensor, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by x, gain and shift, given g, that by y."""
    x, g = channels_last(x), channels_last(g)
    n, c, t = x.shape[:3]
    by_x, sums = empty_clips(x.shape, x.dtype), torch.empty(2, n, t, c)
    tensors = {"x": x, "y": by_x, "g": g, "gain": rows(gain), "shift": rows(shift)}
    tensors |= {"by_gain": sums[0], "by_shift": sums[1]}
    run("pixel_norm_gradients", plan(x), tensors, frames=x, span=t // gain.shape[2])
    if gain.shape[2] == 1:
        sums = sums.sum(2, keepdim=True)
    return by_x, *(v.transpose(1, 2)[..., None, None].to(gain.dtype) for v in sums)


def rows(v: Tensor) -> Tensor:
    """v (N, C, S, 1, 1) as float32 (N, S, C)."""
    return v.flatten(2).transpose(1, 2).float().contiguous()


def leaky_relu_pooled(x: Tensor, slope: float, factor: Factor) -> tuple[Tensor, Tensor]:
    """Means of blocks of LeakyReLU(x), and the signs of x: uint8 (N, T, H, W, C / 8)."""
    x = channels_last(x)
    n, c, *size = x.shape
    y = empty_clips((n, c, *smaller(size, factor)), x.dtype)
    kept = torch.empty(n, *size, c // 8, dtype=torch.uint8)
    run("leaky_relu_pooled", plan(x, slope, factor[0]), {"x": x, "y": y, "kept": kept}, frames=y)
    return y, kept


def leaky_relu_spread(g: Tensor, kept: Tensor, slope: float, factor: Factor) -> Tensor:
    """The gradient by x, given g, that by the means."""
    g = channels_last(g)
    by_x = empty_clips((*g.shape[:2], *kept.shape[1:4]), g.dtype)
    run("leaky_relu_spread", plan(g, slope, factor[0]), {"g": g, "y": by_x, "kept": kept}, frames=g)
    return by_x


def leaky_relu_pooled_again(gg: Tensor, kept: Tensor, slope: float, factor: Factor) -> Tensor:
    """The gradient by g, given that by what `leaky_relu_spread` returns."""
    gg = channels_last(gg)
    by_g = empty_clips((*gg.shape[:2], *smaller(gg.shape[2:], factor)), gg.dtype)
    run(
        "leaky_relu_pooled_again", plan(gg, slope, factor[0]), {"x": gg, "y": by_g, "kept": kept}, frames=by_g
    )
    return by_g


def smaller(size: list[int], factor: Factor) -> list[int]:
    return [n // f for n, f in zip(size, factor, strict=True)]


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def run(kernel: str, how: Plan, tensors: dict[str, Tensor], frames: Tensor, span: int = 1) -> None:
    """An item for each of `frames`."""
    n, _, t, h, w = frames.shape
    launch(writers()[kernel], how, FIELDS, tensors, items=n * t, height=h, width=w, span=span)
