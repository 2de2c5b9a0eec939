"""Pixel norm with modulation and ReLU: values, gradients, bfloat16."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from hrvgan.nn.layers import PixelNorm
from hrvgan.ops.elementwise import pixel_norm_act


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("times", [1, 4])
def test_pixel_norm_act(times):
    torch.manual_seed(0)
    inputs = draw(2, 3, 4, 2, 2), draw(2, 3, times, 1, 1), draw(2, 3, times, 1, 1)
    x, gain, shift = inputs
    expected = F.relu(x / (x**2).mean(1, keepdim=True).add(1e-8).sqrt() * gain + shift)
    torch.testing.assert_close(pixel_norm_act(*inputs), expected, rtol=0, atol=1e-12)
    assert gradcheck(pixel_norm_act, inputs)


def test_in_bfloat16_it_is_as_near_as_separate_operations():
    torch.manual_seed(0)
    x, g = torch.randn(2, 32, 4, 8, 8), torch.randn(2, 32, 4, 8, 8)
    gain, shift = torch.randn(2, 32, 1, 1, 1), torch.randn(2, 32, 1, 1, 1)

    def gradients(operation, dtype):
        leaves = [v.to(dtype).requires_grad_() for v in (x, gain, shift)]
        return [v.double() for v in torch.autograd.grad(operation(*leaves), leaves, g.to(dtype))]

    def plain(x, gain, shift):
        return F.relu(torch.addcmul(shift, PixelNorm()(x), gain))

    x, gain, shift, g = (v.bfloat16().float() for v in (x, gain, shift, g))
    exact = gradients(plain, torch.float64)
    ours, theirs = (gradients(operation, torch.bfloat16) for operation in (pixel_norm_act, plain))
    for a, b, true in zip(ours, theirs, exact, strict=True):
        assert (a - true).norm() < 1.5 * (b - true).norm()
