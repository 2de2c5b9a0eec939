"""Elementwise operations: pixel norm with modulation and ReLU, in G; LeakyReLU with average pooling, in D.

The references are torch's operations. On every device, the Functions around them keep less for the backward passes than
autograd keeps for separate operations: a training step of HRVGAN takes a fifth less memory. On a CPU, kernels compute
the same in one pass over memory, and keep each sign in a bit.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from hrvgan.ops import cpu
from hrvgan.ops.allocator import empty_clips

with suppress(ImportError):  # Without llvmlite, cpu.available() is False.
    from hrvgan.ops.cpu import elementwise as kernels

Triple = tuple[int, ...]


def pixel_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean over channels of x^2 + 1e-8) (HRVGAN eq. 8). Channels are axis 1."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def pixel_norm_act_reference(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return F.relu(torch.addcmul(shift, pixel_norm(x), gain))


def pixel_norm_act(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """ReLU(pixel_norm(x) * gain + shift) in the dtype of x. x (N, C, T, H, W), gain and shift (N, C, 1 or T, 1, 1)."""
    gain, shift = gain.to(x.dtype), shift.to(x.dtype)
    if cpu.available(x) and kernels.supports_pixel_norm(x, gain, shift):
        return PixelNormAct.apply(x, gain, shift)
    return pixel_norm_act_reference(x, gain, shift)


class PixelNormAct(torch.autograd.Function):
    """By our CPU kernels; x is all that is kept for the backward pass. Differentiable once."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(x, gain, shift)
        return kernels.pixel_norm(x, gain, shift)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return kernels.pixel_norm_gradients(g, *ctx.saved_tensors)


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    """F.leaky_relu in place of x."""
    if torch.compiler.is_compiling():
        return F.leaky_relu(x, slope, inplace=True)
    return LeakyReLU.apply(x, slope)


def avg_pool(x: Tensor, factor: Triple) -> Tensor:
    """F.avg_pool3d over blocks of `factor` (T, H, W)."""
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":  # for which torch has no such kernel
        return F.avg_pool3d(x.float(), factor).to(x.dtype)
    return F.avg_pool3d(x, factor)


def leaky_relu_pool_reference(x: Tensor, slope: float, factor: Triple) -> Tensor:
    return avg_pool(F.leaky_relu(x, slope), factor)


def leaky_relu_pool(x: Tensor, slope: float, factor: Triple) -> Tensor:
    """`leaky_relu_pool_reference`, differentiable twice. x (N, C, T, H, W)."""
    if torch.compiler.is_compiling():
        return leaky_relu_pool_reference(x, slope, factor)
    return LeakyReLUPool.apply(x, slope, factor)


class LeakyReLU(torch.autograd.Function):
    """In place. torch's own double backward makes zeros as large as x for what is flat, and adds them."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slope: float) -> Tensor:
        y = F.leaky_relu_(x, slope)
        ctx.mark_dirty(y)
        ctx.save_for_backward(y)
        ctx.gradient = partial(leaky_relu_gradient, slope=slope)
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, None]:
        return Gradient.apply(g, *ctx.saved_tensors, ctx.gradient, ctx.gradient), None


class LeakyReLUPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slope: float, factor: Triple) -> Tensor:
        y, signs = pool_with_signs(x, slope, factor)
        ctx.save_for_backward(signs)
        ctx.gradients = [partial(f, slope=slope, factor=factor) for f in (pool_gradient, pool_double_gradient)]
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, None, None]:
        return Gradient.apply(g, *ctx.saved_tensors, *ctx.gradients), None, None


class Gradient(torch.autograd.Function):
    """dL/dx = gradient(g, kept), given g = dL/dy: linear in g, with `adjoint` for its own gradient, and flat in what is
    kept, the signs of x."""

    @staticmethod
    def forward(ctx: FunctionCtx, g: Tensor, kept: Tensor, gradient: Callable, adjoint: Callable) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.adjoint = adjoint
        return gradient(g, kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gg: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.adjoint(gg, *ctx.saved_tensors), None, None, None


def leaky_relu_gradient(g: Tensor, y: Tensor, slope: float) -> Tensor:
    if not cpu.available(y) or y.ndim != 5:
        return torch.ops.aten.leaky_relu_backward(g, y, slope, True)
    dx = empty_clips(y.shape, y.dtype, y.device)
    return torch.ops.aten.leaky_relu_backward.grad_input(g, y, slope, True, grad_input=dx)


def pool_with_signs(x: Tensor, slope: float, factor: Triple) -> tuple[Tensor, Tensor]:
    """y = leaky_relu_pool(x), and the signs of x: bool like x, or eight to a uint8 from a kernel."""
    if cpu.available(x) and kernels.supports_pooling(x, factor):
        return kernels.leaky_relu_pool(x, slope, factor)
    return leaky_relu_pool_reference(x, slope, factor), x > 0


def pool_gradient(g: Tensor, signs: Tensor, slope: float, factor: Triple) -> Tensor:
    """dL/dx, given g = dL/dy."""
    if signs.dtype == torch.uint8:
        return kernels.leaky_relu_pool_gradient(g, signs, slope, factor)
    spread = F.interpolate(g, scale_factor=factor).to(g.dtype)
    return spread.mul_(slopes(signs, slope, g.dtype, 1 / math.prod(factor)))


def pool_double_gradient(gg: Tensor, signs: Tensor, slope: float, factor: Triple) -> Tensor:
    """The gradient w.r.t. g of <gg, pool_gradient(g)>."""
    if signs.dtype == torch.uint8:
        return kernels.leaky_relu_pool_double_gradient(gg, signs, slope, factor)
    return avg_pool(slopes(signs, slope, gg.dtype).mul_(gg), factor)


def slopes(signs: Tensor, slope: float, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """dy/dx of y = scale * LeakyReLU(x), from the signs of x. A product in its place needs no third tensor like x."""
    values = (torch.full((), v, dtype=dtype, device=signs.device) for v in (scale, scale * slope))
    return torch.where(signs, *values)
