"""LeakyReLU, average pooling, and both after a convolution, differentiable twice for a penalty on D's gradient.

The references are torch's operations. On every device, the Functions around them keep less for the backward passes than
autograd keeps for separate operations: a training step of HRVGAN takes a fifth less memory. On a CPU, kernels compute
the same and keep each sign in a bit.
"""

import math
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from hrvgan.ops import cpu
from hrvgan.ops.allocator import empty_clips
from hrvgan.ops.conv3d import (
    Conv3d,
    Gradients,
    Triple,
    autocast,
    convolve,
    double_gradients,
    gradients,
    wanted_gradients,
)

with suppress(ImportError):  # Without llvmlite, cpu.available() is False.
    from hrvgan.ops.cpu import elementwise


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
    """`leaky_relu_pool_reference`. x (N, C, T, H, W)."""
    if torch.compiler.is_compiling():
        return leaky_relu_pool_reference(x, slope, factor)
    return LeakyReLUPool.apply(x, slope, factor)


class ConvLeakyReLUPool(Conv3d):
    """A 3x3x3 convolution, LeakyReLU and average pooling."""

    def __init__(self, c_in: int, c_out: int, slope: float, factor: Triple):
        super().__init__(c_in, c_out, 3, padding=1)
        self.slope, self.factor = slope, factor

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return leaky_relu_pool_reference(super().forward(x), self.slope, self.factor)
        options = self.padding, self.slope, self.factor
        return ConvolutionLeakyReLUPool.apply(autocast(x), self.weight, self.bias, *options)


class LeakyReLU(torch.autograd.Function):
    """In place. torch's own double backward makes zeros as large as x for what is flat, and adds them."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slope: float) -> Tensor:
        y = F.leaky_relu_(x, slope)
        ctx.mark_dirty(y)
        ctx.save_for_backward(y)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, None]:
        return LeakyReLUGradient.apply(g, *ctx.saved_tensors, ctx.slope), None


class LeakyReLUGradient(torch.autograd.Function):
    """dL/dx, given g = dL/dy: linear in g, and flat in y."""

    @staticmethod
    def forward(ctx: FunctionCtx, g: Tensor, y: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.slope = slope
        return leaky_relu_gradient(g, y, slope)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gg: Tensor) -> tuple[Tensor, None, None]:
        return leaky_relu_gradient(gg, *ctx.saved_tensors, ctx.slope), None, None


def leaky_relu_gradient(g: Tensor, y: Tensor, slope: float) -> Tensor:
    if not cpu.available(y) or y.ndim != 5:
        return torch.ops.aten.leaky_relu_backward(g, y, slope, True)
    dx = empty_clips(y.shape, y.dtype, y.device)
    return torch.ops.aten.leaky_relu_backward.grad_input(g, y, slope, True, grad_input=dx)


def pool_with_signs(x: Tensor, slope: float, factor: Triple) -> tuple[Tensor, Tensor]:
    """y = leaky_relu_pool(x), and the signs of x: bool like x, or eight to a uint8 from a kernel."""
    if cpu.available(x) and elementwise.supports_pooling(x, factor):
        return elementwise.leaky_relu_pool(x, slope, factor)
    return leaky_relu_pool_reference(x, slope, factor), x > 0


def pool_gradient(g: Tensor, signs: Tensor, slope: float, factor: Triple) -> Tensor:
    """dL/dx, given g = dL/dy."""
    if signs.dtype == torch.uint8:
        return elementwise.leaky_relu_pool_gradient(g, signs, slope, factor)
    spread = F.interpolate(g, scale_factor=factor).to(g.dtype)
    return spread.mul_(slopes(signs, slope, g.dtype, 1 / math.prod(factor)))


def pool_double_gradient(gg: Tensor, signs: Tensor, slope: float, factor: Triple) -> Tensor:
    """The gradient w.r.t. g of <gg, pool_gradient(g)>."""
    if signs.dtype == torch.uint8:
        return elementwise.leaky_relu_pool_double_gradient(gg, signs, slope, factor)
    return avg_pool(slopes(signs, slope, gg.dtype).mul_(gg), factor)


def slopes(signs: Tensor, slope: float, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """dy/dx of y = scale * LeakyReLU(x), from the signs of x. A product in its place needs no third tensor like x."""
    values = (torch.full((), v, dtype=dtype, device=signs.device) for v in (scale, scale * slope))
    return torch.where(signs, *values)


class LeakyReLUPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slope: float, factor: Triple) -> Tensor:
        y, signs = pool_with_signs(x, slope, factor)
        ctx.save_for_backward(signs)
        ctx.options = slope, factor
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, None, None]:
        return LeakyReLUPoolGradient.apply(g, *ctx.saved_tensors, *ctx.options), None, None


class LeakyReLUPoolGradient(torch.autograd.Function):
    """dL/dx, given g = dL/dy: linear in g, and flat in x."""

    @staticmethod
    def forward(ctx: FunctionCtx, g: Tensor, signs: Tensor, slope: float, factor: Triple) -> Tensor:
        ctx.save_for_backward(signs)
        ctx.options = slope, factor
        return pool_gradient(g, signs, slope, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gg: Tensor) -> tuple[Tensor | None, ...]:
        by_g = pool_double_gradient(gg, *ctx.saved_tensors, *ctx.options)
        return by_g, None, None, None


class ConvolutionLeakyReLUPool(torch.autograd.Function):
    """For double backward, save dL/d(pooled) and recompute dL/d(conv), which is 4 to 8 times larger."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        padding: Triple,
        slope: float,
        factor: Triple,
    ) -> Tensor:
        y, signs = pool_with_signs(convolve(x, weight, bias, padding), slope, factor)
        ctx.save_for_backward(x, weight, signs)
        ctx.options = padding, slope, factor
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> Gradients:
        options = *ctx.options, wanted_gradients(ctx)
        return *ConvolutionLeakyReLUPoolGradients.apply(g, *ctx.saved_tensors, *options), None, None, None


class ConvolutionLeakyReLUPoolGradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, g: Tensor, x: Tensor, weight: Tensor, signs: Tensor, padding: Triple, slope: float,
        factor: Triple, wanted: tuple[bool, ...],
    ) -> Gradients:  # fmt: skip
        ctx.save_for_backward(g, x, weight, signs)
        ctx.options = padding, slope, factor
        ctx.set_materialize_grads(False)
        g = pool_gradient(g, signs, slope, factor)
        return gradients(g, x, weight, padding, wanted)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *dd: Tensor | None) -> Gradients:
        (g, x, weight, signs), (padding, *options) = ctx.saved_tensors, ctx.options
        g = pool_gradient(g, signs, *options)
        by_g, by_x, by_weight = double_gradients(dd, g, x, weight, padding, ctx.needs_input_grad[:3])
        if by_g is not None:
            by_g = pool_double_gradient(by_g, signs, *options)
        return by_g, by_x, by_weight, *[None] * 5
