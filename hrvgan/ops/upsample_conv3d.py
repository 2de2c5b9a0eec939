"""Nearest upsampling followed by a 3x3x3 convolution, without the upsampled tensor.

    F.conv3d(F.interpolate(x, scale_factor=factor), weight, bias, padding=1)

The reference is the equal transposed convolution: along an axis that doubles, two neighbours of the output see the same
elements of x, so that three weights at stride 1 are four weights (sums of two) at stride 2. That is 30 to 44 % of the
arithmetic, and the upsampled tensor, four or eight times as large as x, is never kept for the backward pass.
"""

import functools
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from hrvgan.ops import cpu
from hrvgan.ops.conv3d import autocast

with suppress(ImportError):  # Without llvmlite, cpu.available() is False.
    from hrvgan.ops.cpu import winograd_conv

Factor = tuple[int, int, int]  # of T, H, W, each 1 or 2

FLIP = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))  # the weights along an axis that keeps its size
FLIP_AND_DOUBLE = ((0.0, 0.0, 1.0, 1.0), (0.0, 1.0, 1.0, 0.0), (1.0, 1.0, 0.0, 0.0))  # along one that doubles


def transposed_weight_matrix(factor: Factor) -> Tensor:
    """(27, 27 to 64): from the weights of the convolution to those of the transposed convolution."""
    return functools.reduce(torch.kron, [torch.tensor(FLIP_AND_DOUBLE if f == 2 else FLIP) for f in factor])


def upsample_conv3d_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, factor: Factor, matrix: Tensor
) -> Tensor:
    """x (N, C, T, H, W), weight (C', C, 3, 3, 3) -> (N, C', T * factor[0], H * factor[1], W * factor[2]), with
    matrix = transposed_weight_matrix(factor)."""
    size = [4 if f == 2 else 3 for f in factor]
    weight = (weight.flatten(2) @ matrix).unflatten(2, size).transpose(0, 1)  # (C, C', *size)
    return F.conv_transpose3d(x, weight, bias, stride=factor, padding=1)


class UpConv3d(nn.Conv3d):
    """Nearest upsampling by `factor`, then a 3x3x3 convolution."""

    def __init__(self, c_in: int, c_out: int, factor: Factor):
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
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, factor: Factor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.factor = factor
        return winograd_conv.convolve(x, weight, bias, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        return *winograd_conv.gradients(g, *ctx.saved_tensors, ctx.factor, ctx.needs_input_grad[:3]), None
