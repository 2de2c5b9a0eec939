"""3-D convolutions with stride 1: differentiable twice and with pooling after them, for D; upsampled clips, for G.

The reference is `F.conv3d`. torch's own double backward is exact, but computes the weight gradient as a convolution
whose kernel is a whole clip (ten times as slow at 64 px). `Convolution` computes it as an ordinary weight gradient, in
fewer operations, and a gradient penalty, which needs the gradient w.r.t. the clips alone, skips the others.
"""

import functools
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from hrvgan.ops import cpu, elementwise, penalty_under_way
from hrvgan.ops.elementwise import Triple

with suppress(ImportError):  # Without llvmlite, cpu.available() is False.
    from hrvgan.ops.cpu import winograd_conv

Gradients = tuple[Tensor | None, ...]  # w.r.t. x, weight and bias
Pool = tuple[float, Triple]  # LeakyReLU's slope, and the blocks of average pooling


def conv3d_reference(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Triple) -> Tensor:
    """F.conv3d with stride 1 in the dtype of x; weight and bias may have a wider one."""
    bias = None if bias is None else bias.to(x.dtype)
    with without_autocast(x):
        return F.conv3d(x, weight.to(x.dtype), bias, padding=padding)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Triple) -> Tensor:
    """`conv3d_reference`, on a CPU by our kernels where they are faster, else by oneDNN's by name: for one small clip,
    and on one thread for 1x1x1, torch would choose an algorithm that takes five times as long and leaves channels-last.
    """
    if cpu.available(x):
        if uses_winograd(x, weight, padding):
            return winograd_conv.convolve(x, weight, bias)
        if x.dtype == torch.float32 and not x.is_meta and torch.backends.mkldnn.is_available():
            return torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, [1, 1, 1], [1, 1, 1], 1)
    return conv3d_reference(x, weight, bias, padding)


def gradients(g: Tensor, x: Tensor, weight: Tensor, padding: Triple, wanted: tuple[bool, ...]) -> Gradients:
    """The `wanted` gradients w.r.t. (x, weight, bias) of `convolve`, given g = dL/dy."""
    if cpu.available(x):
        if uses_winograd(x, weight, padding):
            return winograd_conv.gradients(g, x, weight, (1, 1, 1), wanted)
        if wanted == (True, False, False):  # a convolution of g with the flipped kernel, faster in oneDNN
            padding = tuple(size - 1 - pad for size, pad in zip(weight.shape[2:], padding, strict=True))
            return convolve(g, weight.transpose(0, 1).flip(2, 3, 4), None, padding), None, None
    dx, dweight, dbias = torch.ops.aten.convolution_backward(
        g, x, weight.to(x.dtype), [len(weight)], [1, 1, 1], padding, [1, 1, 1], False, [0, 0, 0], 1, wanted
    )
    return dx, *(None if v is None else v.to(weight.dtype) for v in (dweight, dbias))


def uses_winograd(x: Tensor, weight: Tensor, padding: Triple) -> bool:
    return weight.shape[2:] == (3, 3, 3) and padding == (1, 1, 1) and winograd_conv.supports(x, len(weight))


def double_gradients(
    dd: Gradients, g: Tensor, x: Tensor, weight: Tensor, padding: Triple, wanted: tuple[bool, ...]
) -> Gradients:
    """The `wanted` gradients w.r.t. (g, x, weight) of <ddx, dx> + <ddweight, dweight> + <ddbias, dbias>, where
    (dx, dweight, dbias) = gradients(g, x, weight): dx is linear in g and weight, dweight in g and x, dbias in g."""
    ddx, ddweight, ddbias = dd
    by_g, by_x, by_weight = [], None, None
    if ddx is not None:
        if wanted[0]:
            by_g.append(convolve(ddx, weight, None, padding))
        if wanted[2]:
            by_weight = gradients(g, ddx, weight, padding, (False, True, False))[1]
    if ddweight is not None:
        if wanted[0]:
            by_g.append(convolve(x, ddweight, None, padding))
        if wanted[1]:
            by_x = gradients(g, x, ddweight, padding, (True, False, False))[0]
    if ddbias is not None and wanted[0]:
        by_g.append(ddbias[:, None, None, None].expand_as(g))
    return functools.reduce(torch.add, by_g) if by_g else None, by_x, by_weight


class Convolution(torch.autograd.Function):
    """`convolve`, then LeakyReLU and pooling where there is a `pool`; differentiable twice.

    For double backward, save dL/d(pooled) and recompute dL/d(conv), which is 4 to 8 times larger.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, padding: Triple, pool: Pool | None = None
    ) -> Tensor:
        y, signs = convolve(x, weight, bias, padding), None
        if pool:
            y, signs = elementwise.pool_with_signs(y, *pool)
        ctx.save_for_backward(x, weight, signs)
        ctx.options = padding, pool
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> Gradients:
        (x, weight, signs), (padding, pool) = ctx.saved_tensors, ctx.options
        if not pool and x.is_contiguous(memory_format=torch.channels_last_3d):
            g = g.contiguous(memory_format=torch.channels_last_3d)
        by_x, *by_parameters = ctx.needs_input_grad[:3]
        wanted = by_x, *(needed and not penalty_under_way() for needed in by_parameters)
        return *ConvolutionGradients.apply(g, x, weight, signs, padding, pool, wanted), None, None


class ConvolutionGradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, g: Tensor, x: Tensor, weight: Tensor, signs: Tensor | None, padding: Triple,
        pool: Pool | None, wanted: tuple[bool, ...],
    ) -> Gradients:  # fmt: skip
        ctx.save_for_backward(g, x, weight, signs)
        ctx.options = padding, pool
        ctx.set_materialize_grads(False)
        g = elementwise.pool_gradient(g, signs, *pool) if pool else g
        return gradients(g, x, weight, padding, wanted)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *dd: Tensor | None) -> Gradients:
        (g, x, weight, signs), (padding, pool) = ctx.saved_tensors, ctx.options
        g = elementwise.pool_gradient(g, signs, *pool) if pool else g
        by_g, by_x, by_weight = double_gradients(dd, g, x, weight, padding, ctx.needs_input_grad[:3])
        if pool and by_g is not None:
            by_g = elementwise.pool_double_gradient(by_g, signs, *pool)
        return by_g, by_x, by_weight, None, None, None, None


class Conv3d(nn.Conv3d):
    """nn.Conv3d with stride 1: the same function, parameters and gradients."""

    pool: Pool | None = None  # what comes after it, if anything

    def forward(self, x: Tensor) -> Tensor:
        x = autocast(x)
        if not torch.compiler.is_compiling():
            return Convolution.apply(x, self.weight, self.bias, self.padding, self.pool)
        # AOTAutograd differentiates once, for which the references are as good.
        y = conv3d_reference(x, self.weight, self.bias, self.padding)
        return elementwise.leaky_relu_pool_reference(y, *self.pool) if self.pool else y


class ConvLeakyReLUPool(Conv3d):
    """A 3x3x3 convolution, LeakyReLU and average pooling."""

    def __init__(self, c_in: int, c_out: int, slope: float, factor: Triple):
        super().__init__(c_in, c_out, 3, padding=1)
        self.pool = slope, factor


class FromRGB(Conv3d):
    """1x1x1 convolution from clips (N, 3, T, H, W) to features: in float32 also under autocast to bfloat16.

    bfloat16 would round colours by up to half a level of 255, all pixels of a plain background alike. D learns colours
    from the difference between real and generated clips at this layer, which such roundings could outweigh.
    """

    def __init__(self, c_out: int):
        super().__init__(3, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            features = super().forward(x)
        return autocast(features)


# Nearest upsampling followed by a 3x3x3 convolution, without the upsampled tensor:
#
#     F.conv3d(F.interpolate(x, scale_factor=factor), weight, bias, padding=1)
#
# The reference is the equal transposed convolution: along an axis that doubles, two neighbours of the output see the
# same elements of x, so that three weights at stride 1 are four weights (sums of two) at stride 2. That is 30 to 44 %
# of the arithmetic, and the upsampled tensor, four or eight times as large as x, is never kept for the backward pass.

FLIP = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))  # the weights along an axis that keeps its size
FLIP_AND_DOUBLE = ((0.0, 0.0, 1.0, 1.0), (0.0, 1.0, 1.0, 0.0), (1.0, 1.0, 0.0, 0.0))  # along one that doubles


def transposed_weight_matrix(factor: Triple) -> Tensor:
    """(27, 27 to 64): from the weights of the convolution to those of the transposed convolution."""
    return functools.reduce(torch.kron, [torch.tensor(FLIP_AND_DOUBLE if f == 2 else FLIP) for f in factor])


def upsample_conv3d_reference(x: Tensor, weight: Tensor, bias: Tensor | None, factor: Triple, matrix: Tensor) -> Tensor:
    """x (N, C, T, H, W), weight (C', C, 3, 3, 3) -> (N, C', T * factor[0], H * factor[1], W * factor[2]), with
    matrix = transposed_weight_matrix(factor)."""
    size = [4 if f == 2 else 3 for f in factor]
    weight = (weight.flatten(2) @ matrix).unflatten(2, size).transpose(0, 1)  # (C, C', *size)
    return F.conv_transpose3d(x, weight, bias, stride=factor, padding=1)


class UpConv3d(nn.Conv3d):
    """Nearest upsampling by `factor` (T, H, W), each 1 or 2, then a 3x3x3 convolution."""

    def __init__(self, c_in: int, c_out: int, factor: Triple):
        super().__init__(c_in, c_out, 3, padding=1)
        self.factor = factor
        self.register_buffer("matrix", transposed_weight_matrix(factor), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = autocast(x)
        if cpu.available(x) and winograd_conv.supports(x, self.out_channels, self.factor):
            return UpsampleConvolution.apply(x, self.weight, self.bias, self.factor)
        return upsample_conv3d_reference(x, self.weight, self.bias, self.factor, self.matrix)


class UpsampleConvolution(torch.autograd.Function):
    """By our CPU kernels, differentiable once (no penalty goes through G)."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, factor: Triple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.factor = factor
        return winograd_conv.convolve(x, weight, bias, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> Gradients:
        return *winograd_conv.gradients(g, *ctx.saved_tensors, ctx.factor, ctx.needs_input_grad[:3]), None


def autocast_device(x: Tensor) -> str:
    """Device type whose autocast applies to x; meta tensors follow that of the CPU."""
    return "cpu" if x.is_meta else x.device.type


def without_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(autocast_device(x), enabled=False)


def autocast(x: Tensor) -> Tensor:
    """x in the dtype in which autocast computes convolutions."""
    device = autocast_device(x)
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
