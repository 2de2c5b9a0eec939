"""3-D convolution with stride 1 whose gradient can be penalised (differentiated twice).

The reference is `F.conv3d`. torch's own double backward is exact, but computes the weight gradient as a convolution
whose kernel is a whole clip (ten times as slow at 64 px). `Convolution` computes it as an ordinary weight gradient, in
fewer operations, and a gradient penalty, which needs the gradient w.r.t. the clips alone, skips the others.
"""

from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from hrvgan.ops import cpu, penalty

with suppress(ImportError):  # Without llvmlite, cpu.available() is False.
    from hrvgan.ops.cpu import winograd_conv

Gradients = tuple[Tensor | None, ...]  # w.r.t. x, weight and bias
Triple = tuple[int, ...]


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
    by_g = by_x = by_weight = None
    if ddx is not None:
        if wanted[0]:
            by_g = convolve(ddx, weight, None, padding)
        if wanted[2]:
            by_weight = gradients(g, ddx, weight, padding, (False, True, False))[1]
    if ddweight is not None:
        if wanted[0]:
            by_g = plus(by_g, convolve(x, ddweight, None, padding))
        if wanted[1]:
            by_x = gradients(g, x, ddweight, padding, (True, False, False))[0]
    if ddbias is not None and wanted[0]:
        by_g = plus(by_g, ddbias[:, None, None, None].expand_as(g))
    return by_g, by_x, by_weight


def plus(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b


def wanted_gradients(ctx: FunctionCtx) -> tuple[bool, ...]:
    """Which of (dx, dweight, dbias) this backward pass needs."""
    needs_x, *needs_weights = ctx.needs_input_grad[:3]
    return needs_x, *(needed and not penalty.under_way() for needed in needs_weights)


class Convolution(torch.autograd.Function):
    """`convolve`, differentiable twice."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, padding: Triple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return convolve(x, weight, bias, padding)

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> Gradients:
        x, weight = ctx.saved_tensors
        if x.is_contiguous(memory_format=torch.channels_last_3d):
            g = g.contiguous(memory_format=torch.channels_last_3d)
        return *ConvolutionGradients.apply(g, x, weight, ctx.padding, wanted_gradients(ctx)), None


class ConvolutionGradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, g: Tensor, x: Tensor, weight: Tensor, padding: Triple, wanted: tuple[bool, ...]
    ) -> Gradients:
        ctx.save_for_backward(g, x, weight)
        ctx.padding = padding
        ctx.set_materialize_grads(False)
        return gradients(g, x, weight, padding, wanted)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *dd: Tensor | None) -> Gradients:
        return *double_gradients(dd, *ctx.saved_tensors, ctx.padding, ctx.needs_input_grad[:3]), None, None


class Conv3d(nn.Conv3d):
    """nn.Conv3d with stride 1: the same function, parameters and gradients."""

    def forward(self, x: Tensor) -> Tensor:
        x = autocast(x)
        if (
            torch.compiler.is_compiling()
        ):  # AOTAutograd differentiates once, for which the reference is as good.
            return conv3d_reference(x, self.weight, self.bias, self.padding)
        return Convolution.apply(x, self.weight, self.bias, self.padding)


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


def autocast_device(x: Tensor) -> str:
    """Device type whose autocast applies to x; meta tensors follow that of the CPU."""
    return "cpu" if x.is_meta else x.device.type


def without_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(autocast_device(x), enabled=False)


def autocast(x: Tensor) -> Tensor:
    """x in the dtype in which autocast computes convolutions."""
    device = autocast_device(x)
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
