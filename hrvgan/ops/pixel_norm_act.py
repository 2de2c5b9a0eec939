"""Pixel norm, modulation and ReLU, the activation of G's blocks, and a fused CPU kernel for it."""

from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from hrvgan.ops import cpu

with suppress(ImportError):  # Without llvmlite, cpu.available() is False.
    from hrvgan.ops.cpu import elementwise


def pixel_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean over channels of x^2 + 1e-8) (HRVGAN eq. 8). Channels are axis 1."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def pixel_norm_act_reference(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return F.relu(torch.addcmul(shift, pixel_norm(x), gain))


def pixel_norm_act(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """ReLU(pixel_norm(x) * gain + shift) in the dtype of x. x (N, C, T, H, W), gain and shift (N, C, 1 or T, 1, 1)."""
    gain, shift = gain.to(x.dtype), shift.to(x.dtype)
    if cpu.available(x) and elementwise.supports_pixel_norm(x, gain, shift):
        return PixelNormAct.apply(x, gain, shift)
    return pixel_norm_act_reference(x, gain, shift)


class PixelNormAct(torch.autograd.Function):
    """By our CPU kernels, in one pass over memory; x is all that is kept for the backward pass. Differentiable once."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(x, gain, shift)
        return elementwise.pixel_norm(x, gain, shift)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return elementwise.pixel_norm_gradients(g, *ctx.saved_tensors)
