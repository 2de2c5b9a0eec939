"""From tensors to the kernels and back. Clips are (N, C, T, H, W), in float32 or bfloat16."""

import functools
from types import ModuleType

import torch
from torch import Tensor

from hrvgan.chains.plan import FIELDS, Plan
from hrvgan.native.launching import able, launch, machine
from hrvgan.native.memory import empty_clips

MOST_CHANNELS = 256  # of a pixel norm, which has them all in registers
Factor = tuple[int, int, int]  # of the blocks whose means are taken: 1 or 2 times 2 times 2


@functools.cache
def writers() -> dict[str, ModuleType]:
    """Loaded for the first chain: LLVM is large, and may not be installed."""
    from hrvgan.chains import leaky_relu, pixel_norm

    return {"pixel_norm": pixel_norm, "leaky_relu": leaky_relu}


def takes(x: Tensor, factor: Factor = (1, 1, 1)) -> bool:
    """Whether the kernels run on this machine, and on x in blocks of `factor`."""
    whole = all(n % f == 0 for n, f in zip(x.shape[2:], factor, strict=True))
    return x.numel() > 0 and x.shape[1] % 8 == 0 and x.shape[1] <= MOST_CHANNELS and whole and able(x)


def plan(x: Tensor, slope: float = 0.0, time: int = 1) -> Plan:
    channels = x.shape[1]
    lanes = 16 if machine().lanes() == 16 and channels % 16 == 0 else 8
    return Plan(lanes, x.dtype == torch.bfloat16, channels, slope, time)


def pixel_norm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """ReLU(PixelNorm(x) * gain + shift). gain and shift (N, C, 1 or T, 1, 1)."""
    x = channels_last(x)
    y = empty_clips(x.shape, x.dtype)
    run(
        "pixel_norm",
        "forward",
        plan(x),
        {"x": x, "y": y, "gain": rows(gain), "shift": rows(shift)},
        **frames(x, gain),
    )
    return y


def pixel_norm_gradients(g: Tensor, x: Tensor, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by x, gain and shift, given g, that by y."""
    x, g = channels_last(x), channels_last(g)
    by_x, (n, c, t) = empty_clips(x.shape, x.dtype), x.shape[:3]
    sums = torch.empty(2, n, t, c)
    tensors = {"x": x, "y": by_x, "g": g, "gain": rows(gain), "shift": rows(shift)}
    tensors |= {"by_gain": sums[0], "by_shift": sums[1]}
    run("pixel_norm", "backward", plan(x), tensors, **frames(x, gain))
    if gain.shape[2] == 1:
        sums = sums.sum(2, keepdim=True)
    return by_x, *(v.transpose(1, 2)[..., None, None].to(gain.dtype) for v in sums)


def frames(x: Tensor, gain: Tensor) -> dict[str, int]:
    n, _, t, h, w = x.shape
    return {"items": n * t, "pixels": h * w, "span": t // gain.shape[2]}


def rows(v: Tensor) -> Tensor:
    """v (N, C, S, 1, 1) as float32 (N, S, C)."""
    return v.flatten(2).transpose(1, 2).float().contiguous()


def leaky_relu_pooled(x: Tensor, slope: float, factor: Factor) -> tuple[Tensor, Tensor]:
    """Means of blocks of LeakyReLU(x), and the signs of x: uint8 (N, T, H, W, C / 8)."""
    x = channels_last(x)
    n, c, *size = x.shape
    y = empty(x, [s // f for s, f in zip(size, factor, strict=True)])
    kept = torch.empty(n, *size, c // 8, dtype=torch.uint8)
    run("leaky_relu", "forward", plan(x, slope, factor[0]), {"x": x, "y": y, "kept": kept}, **means(y))
    return y, kept


def leaky_relu_spread(g: Tensor, kept: Tensor, slope: float, factor: Factor) -> Tensor:
    """The gradient by x, given g, that by the means."""
    g = channels_last(g)
    by_x = empty(g, [s * f for s, f in zip(g.shape[2:], factor, strict=True)])
    run("leaky_relu", "backward", plan(g, slope, factor[0]), {"g": g, "y": by_x, "kept": kept}, **means(g))
    return by_x


def leaky_relu_pooled_again(gg: Tensor, kept: Tensor, slope: float, factor: Factor) -> Tensor:
    """The gradient by g, given that by what `leaky_relu_spread` returns."""
    gg = channels_last(gg)
    by_g = empty(gg, [s // f for s, f in zip(gg.shape[2:], factor, strict=True)])
    run("leaky_relu", "twice", plan(gg, slope, factor[0]), {"x": gg, "y": by_g, "kept": kept}, **means(by_g))
    return by_g


def means(y: Tensor) -> dict[str, int]:
    n, _, t, h, w = y.shape
    return {"items": n * t, "height": h, "width": w}


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def empty(x: Tensor, size: list[int]) -> Tensor:
    """As x, but of another size."""
    shape = (*x.shape[:2], *size)
    return empty_clips(shape, x.dtype)


def run(chain: str, kernel: str, how: Plan, tensors: dict[str, Tensor], **numbers: int) -> None:
    launch(getattr(writers()[chain], kernel), how, FIELDS, tensors, **numbers)
