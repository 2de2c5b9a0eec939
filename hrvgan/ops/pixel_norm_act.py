"""Pixel norm, modulation and ReLU as one function, with no more kept for the backward pass than it needs.

On a CPU by a kernel of our own (hrvgan/ops/cpu), where it runs; else by torch's operations, piece by piece so that what
lies between stays in the cache. As plain operations this took more of a training step than the convolutions.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from hrvgan.ops.cpu import elementwise as calls


def pieces(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Parts of x (N, C, T, H, W) by clips and times: a few hundred kB a thread on a CPU; on a GPU as much as keeps its
    launches rare."""
    n, c, t, h, w = x.shape
    size = 2**24 if x.is_cuda else 2**16 * torch.get_num_threads()
    times = max(1, size // (c * h * w))
    clips = max(1, times // t)
    for clip in range(0, n, clips):
        for time in range(0, t, times):
            yield slice(clip, clip + clips), slice(time, time + times)


def pixel_norm_modulated(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """ReLU(PixelNorm(x) * gain + shift). x (N, C, T, H, W), gain and shift (N, C, 1 or T, 1, 1)."""
    chain = PixelNormByKernel if calls.takes_norm(x, gain, shift) else PixelNormModulated
    return chain.apply(x, gain.to(x.dtype), shift.to(x.dtype))


class PixelNormByKernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(x, gain, shift)
        return calls.pixel_norm(x, gain, shift)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return calls.pixel_norm_gradients(g, *ctx.saved_tensors)


class PixelNormModulated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        y, scale = torch.empty_like(x), x.new_empty(len(x), 1, *x.shape[2:])
        wide = torch.promote_types(x.dtype, torch.float32)
        gains, shifts = along_lines(gain, x), along_lines(shift, x)
        for n, t in pieces(x):
            part, w = x[n, :, t], spans(gain, t)
            norm = torch.linalg.vector_norm(part, dim=1, keepdim=True, dtype=wide)
            scale[n, :, t] = norm.square_().div_(x.shape[1]).add_(1e-8).rsqrt_()
            out = lines(torch.mul(part, scale[n, :, t], out=y[n, :, t]))
            torch.addcmul(shifts[n, w], out, gains[n, w], out=out).relu_()
        ctx.save_for_backward(x, scale, gain, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale, gain, y = ctx.saved_tensors
        g = g.contiguous(memory_format=torch.channels_last_3d)
        gains, by_x = along_lines(gain, x), torch.empty_like(x)
        wide = torch.promote_types(x.dtype, torch.float32)
        by_gain, by_shift = (torch.zeros_like(gains, dtype=wide) for _ in range(2))
        over = (1, 2) if gain.shape[2] == 1 else (2,)
        for n, t in pieces(x):
            w = spans(gain, t)
            inner = torch.ops.aten.threshold_backward(g[n, :, t], y[n, :, t], 0)  # through ReLU
            normed = x[n, :, t] * scale[n, :, t]
            product = inner * normed
            by_shift[n, w] += lines(inner).sum(over, keepdim=True)
            by_gain[n, w] += lines(product).sum(over, keepdim=True)

            # Through x / |x|: what points along x falls out.
            lines(product).mul_(gains[n, w])
            lines(inner).mul_(gains[n, w])
            inner.addcmul_(normed, product.mean(1, keepdim=True), value=-1)
            torch.mul(inner, scale[n, :, t], out=by_x[n, :, t])
        return by_x, across_lines(by_gain, gain), across_lines(by_shift, gain)


def spans(gain: Tensor, times: slice) -> slice:
    """The part of the times of `gain` that belongs to `times`."""
    return times if gain.shape[2] > 1 else slice(None)


def lines(x: Tensor) -> Tensor:
    """x (N, C, T, H, W), channels-last, as (N, T, H, W C): long runs of memory where few channels make short ones."""
    return x.permute(0, 2, 3, 4, 1).flatten(3)


def along_lines(v: Tensor, x: Tensor) -> Tensor:
    """v (N, C, 1 or T, 1, 1) for each line of x: (N, 1 or T, 1, W C)."""
    return v.permute(0, 2, 3, 4, 1).expand(-1, -1, -1, x.shape[4], -1).flatten(3)


def across_lines(sums: Tensor, v: Tensor) -> Tensor:
    """Sums (N, 1 or T, 1, W C) of lines, to the shape and dtype of v (N, C, 1 or T, 1, 1)."""
    by_channel = sums.unflatten(3, (-1, v.shape[1])).sum(3, keepdim=True)  # (N, 1 or T, 1, 1, C)
    return by_channel.permute(0, 4, 1, 2, 3).to(v.dtype)
