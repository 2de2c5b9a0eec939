"""Chains of element by element operations as one function each, with no more kept for the backward pass than it needs.

On a CPU by our own kernels (hrvgan/chains), where they run; else by torch's operations, piece by piece so that what
lies between stays in the cache. As plain operations they took more of a training step than the convolutions.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from hrvgan.chains import calls
from hrvgan.convolution import Conv3d, autocast, convolve, gradients, gradients_again, wanted_gradients
from hrvgan.native.memory import empty_clips


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
    chain = PixelNormByKernel if calls.takes(x) else PixelNormModulated
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


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    """LeakyReLU(x) in place of x, which may be differentiated twice. The second time, torch's own makes zeros as large
    as x for what is flat, and adds them."""
    return LeakyRelu.apply(x, slope)


class LeakyRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slope: float) -> Tensor:
        y = F.leaky_relu_(x, slope)
        ctx.mark_dirty(y)
        ctx.save_for_backward(y)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, None]:
        return LeakyReluGradient.apply(g, *ctx.saved_tensors, ctx.slope), None


def leaky_relu_gradient(g: Tensor, y: Tensor, slope: float) -> Tensor:
    """That by x, given g, that by y = LeakyReLU(x)."""
    if y.device.type != "cpu" or y.ndim != 5:
        return torch.ops.aten.leaky_relu_backward(g, y, slope, True)
    by_x = empty_clips(y.shape, y.dtype)
    return torch.ops.aten.leaky_relu_backward.grad_input(g, y, slope, True, grad_input=by_x)


class LeakyReluGradient(torch.autograd.Function):
    """Linear in g, and flat in y."""

    @staticmethod
    def forward(ctx: FunctionCtx, g: Tensor, y: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.slope = slope
        return leaky_relu_gradient(g, y, slope)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gg: Tensor) -> tuple[Tensor, None, None]:
        return leaky_relu_gradient(gg, *ctx.saved_tensors, ctx.slope), None, None


def leaky_relu_pooled(x: Tensor, slope: float, factor: tuple[int, int, int]) -> Tensor:
    """Means of blocks of `factor` (1 or 2, 2, 2) of LeakyReLU(x), which may be differentiated twice."""
    return LeakyReluPooled.apply(x, slope, factor)


class LeakyReluPooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slope: float, factor: tuple[int, int, int]) -> Tensor:
        y, kept = means(x, slope, factor)
        ctx.save_for_backward(kept)
        ctx.about = slope, factor
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, None, None]:
        return LeakyReluPooledGradient.apply(g, *ctx.saved_tensors, *ctx.about), None, None


class LeakyReluPooledGradient(torch.autograd.Function):
    """The gradient by x, given that by the means: linear in g, and flat in x."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, g: Tensor, kept: Tensor, slope: float, factor: tuple[int, int, int]
    ) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.about = slope, factor
        return spread(g, kept, slope, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gg: Tensor) -> tuple[Tensor, None, None, None]:
        return means_again(gg, *ctx.saved_tensors, *ctx.about), None, None, None


def convolved_and_pooled(x: Tensor, layer: Conv3d, slope: float, factor: tuple[int, int, int]) -> Tensor:
    """`leaky_relu_pooled` of layer(x)."""
    return ConvolutionPooled.apply(autocast(x), layer.weight, layer.bias, layer.padding, slope, factor)


class ConvolutionPooled(torch.autograd.Function):
    """The gradient by what the layer gives is four or eight times as large as that by the means. Where a penalty would
    keep it, that by the means is kept, and it is made anew."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, ...], slope: float,
        factor: tuple[int, int, int],
    ) -> Tensor:  # fmt: skip
        y, kept = means(convolve(x, weight, bias, padding), slope, factor)
        ctx.save_for_backward(x, weight, kept)
        ctx.about = padding, slope, factor
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        made = ConvolutionPooledGradients.apply(g, *ctx.saved_tensors, *ctx.about, wanted_gradients(ctx))
        return *made, None, None, None


class ConvolutionPooledGradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, g: Tensor, x: Tensor, weight: Tensor, kept: Tensor, padding: tuple[int, ...],
        slope: float, factor: tuple[int, int, int], wanted: tuple[bool, ...],
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        ctx.save_for_backward(g, x, weight, kept)
        ctx.about = padding, slope, factor
        ctx.set_materialize_grads(False)
        return gradients(spread(g, kept, slope, factor), x, weight, padding, wanted)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *by: Tensor | None) -> tuple[Tensor | None, ...]:
        (g, x, weight, kept), (padding, *about) = ctx.saved_tensors, ctx.about
        g = spread(g, kept, *about)
        of_g, of_x, of_weight = gradients_again(by, g, x, weight, padding, ctx.needs_input_grad[:3])
        return means_again(of_g, kept, *about), of_x, of_weight, *[None] * 5


def means(x: Tensor, slope: float, factor: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """The means, and what is kept of x: its signs, which torch's operations take fastest from bfloat16."""
    if calls.takes(x, factor):
        return calls.leaky_relu_pooled(x, slope, factor)
    return torch.cat([pool(F.leaky_relu(clip, slope), factor) for clip in x.split(1)]), x.bfloat16()


def spread(g: Tensor, kept: Tensor, slope: float, factor: tuple[int, int, int]) -> Tensor:
    if kept.dtype == torch.uint8:
        return calls.leaky_relu_spread(g, kept, slope, factor)
    time, *_ = factor
    by_x = torch.empty_like(kept, dtype=g.dtype)
    signs, out = (v.unflatten(3, (-1, 2)).unflatten(2, (-1, time)) for v in (kept, by_x))
    for n, t in pieces(g):
        rows = (g[n, :, t] / (4 * time)).permute(0, 2, 3, 4, 1)[..., None, :]  # (N, T', H', W', 1, C)
        rows = rows.expand(-1, -1, -1, -1, 2, -1).flatten(3, 4).permute(0, 4, 1, 2, 3)  # whole: long runs
        part, sign = out[n, :, t], signs[n, :, t].to(g.dtype)
        shares = rows[:, :, :, None, :, None].expand_as(sign)
        torch.ops.aten.leaky_relu_backward.grad_input(shares, sign, slope, False, grad_input=part)
    return by_x


def means_again(gg: Tensor, kept: Tensor, slope: float, factor: tuple[int, int, int]) -> Tensor:
    if kept.dtype == torch.uint8:
        return calls.leaky_relu_pooled_again(gg, kept, slope, factor)
    parts = []
    for clip, sign in zip(gg.split(1), kept.split(1), strict=True):
        out = torch.empty_like(clip)
        for _, t in pieces(clip):
            by_sign = clip[:, :, t], sign[:, :, t].to(gg.dtype)
            torch.ops.aten.leaky_relu_backward.grad_input(*by_sign, slope, False, grad_input=out[:, :, t])
        parts.append(pool(out, factor))
    return torch.cat(parts)


def pool(x: Tensor, factor: tuple[int, int, int]) -> Tensor:
    """Means of blocks, space before time: torch's pooling in three dimensions is slow in channels-last."""
    frames = x.transpose(1, 2).flatten(0, 1)  # (N T, C, H, W)
    x = F.avg_pool2d(frames, 2).unflatten(0, (len(x), -1))
    if factor[0] == 2:
        earlier, later = x.unflatten(1, (-1, 2)).unbind(2)
        x = torch.lerp(earlier, later, 0.5)
    return x.transpose(1, 2)  # (N, C, T / factor, H / 2, W / 2)
