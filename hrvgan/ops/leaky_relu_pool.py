"""LeakyReLU, alone, with average pooling, and with the convolution before it. All may be differentiated twice, for a
penalty on D's gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from hrvgan.ops.conv3d import Conv3d, autocast, convolve, gradients, gradients_again, wanted_gradients
from hrvgan.ops.cpu import elementwise as calls
from hrvgan.ops.cpu.buffer_pool import empty_clips
from hrvgan.ops.pixel_norm_act import pieces


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


class PooledConv3d(Conv3d):
    """`leaky_relu_pooled` of a 3x3x3 convolution."""

    def __init__(self, c_in: int, c_out: int, slope: float, factor: tuple[int, int, int]):
        super().__init__(c_in, c_out, 3, padding=1)
        self.slope, self.factor = slope, factor

    def forward(self, x: Tensor) -> Tensor:
        return ConvolutionPooled.apply(
            autocast(x), self.weight, self.bias, self.padding, self.slope, self.factor
        )


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
        of_g = None if of_g is None else means_again(of_g, kept, *about)
        return of_g, of_x, of_weight, *[None] * 5


def means(x: Tensor, slope: float, factor: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """The means, and what is kept of x: its signs, which torch's operations take fastest from bfloat16."""
    if calls.takes_pooling(x, factor):
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
