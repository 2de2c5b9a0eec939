"""LeakyReLU, average pooling, and both after a convolution, differentiable twice for a penalty on D's gradient.

The references are one torch operation each. The Functions below them serve the CPU kernels, which keep the signs of an
activation in a bit each.
"""

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
    if cpu.available(x):
        return LeakyReLU.apply(x, slope)
    return F.leaky_relu(x, slope, inplace=True)


def avg_pool(x: Tensor, factor: Triple) -> Tensor:
    """F.avg_pool3d over blocks of `factor` (T, H, W)."""
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":  # which has no such kernel
        return F.avg_pool3d(x.float(), factor).to(x.dtype)
    return F.avg_pool3d(x, factor)


def leaky_relu_pool_reference(x: Tensor, slope: float, factor: Triple) -> Tensor:
    return avg_pool(F.leaky_relu(x, slope), factor)


def leaky_relu_pool(x: Tensor, slope: float, factor: Triple) -> Tensor:
    """avg_pool(F.leaky_relu(x, slope), factor). x (N, C, T, H, W)."""
    if cpu.available(x) and elementwise.supports_pooling(x, x.shape[1], factor):
        return LeakyReLUPool.apply(x, slope, factor)
    return leaky_relu_pool_reference(x, slope, factor)


class ConvLeakyReLUPool(Conv3d):
    """A 3x3x3 convolution, LeakyReLU and average pooling."""

    def __init__(self, c_in: int, c_out: int, slope: float, factor: Triple):
        super().__init__(c_in, c_out, 3, padding=1)
        self.slope, self.factor = slope, factor

    def forward(self, x: Tensor) -> Tensor:
        x = autocast(x)
        if cpu.available(x) and elementwise.supports_pooling(x, self.out_channels, self.factor):
            return ConvolutionLeakyReLUPool.apply(
                x, self.weight, self.bias, self.padding, self.slope, self.factor
            )
        return avg_pool(leaky_relu(super().forward(x), self.slope), self.factor)


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
    if y.ndim != 5:
        return torch.ops.aten.leaky_relu_backward(g, y, slope, True)
    dx = empty_clips(y.shape, y.dtype)
    return torch.ops.aten.leaky_relu_backward.grad_input(g, y, slope, True, grad_input=dx)


class LeakyReLUPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slope: float, factor: Triple) -> Tensor:
        y, signs = elementwise.leaky_relu_pool(x, slope, factor)
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
        return elementwise.leaky_relu_pool_gradient(g, signs, slope, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gg: Tensor) -> tuple[Tensor | None, ...]:
        by_g = elementwise.leaky_relu_pool_double_gradient(gg, *ctx.saved_tensors, *ctx.options)
        return by_g, None, None, None


class ConvolutionLeakyReLUPool(torch.autograd.Function):
    """For double backward, save dL/d(pooled) and recompute dL/d(conv), which is 4 to 8 times larger."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, padding: Triple, slope: float, factor: Triple
    ) -> Tensor:
        y, signs = elementwise.leaky_relu_pool(convolve(x, weight, bias, padding), slope, factor)
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
        g = elementwise.leaky_relu_pool_gradient(g, signs, slope, factor)
        return gradients(g, x, weight, padding, wanted)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *dd: Tensor | None) -> Gradients:
        (g, x, weight, signs), (padding, *options) = ctx.saved_tensors, ctx.options
        g = elementwise.leaky_relu_pool_gradient(g, signs, *options)
        by_g, by_x, by_weight = double_gradients(dd, g, x, weight, padding, ctx.needs_input_grad[:3])
        if by_g is not None:
            by_g = elementwise.leaky_relu_pool_double_gradient(by_g, signs, *options)
        return by_g, by_x, by_weight, *[None] * 5
