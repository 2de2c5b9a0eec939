"""Fused chains against the operations that they are made of, in whole and in pieces."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from hrvgan.nn.layers import PixelNorm
from hrvgan.ops import leaky_relu_pool as pooling
from hrvgan.ops import pixel_norm_act as fused


@pytest.fixture(params=[False, True], ids=["whole", "in pieces"], autouse=True)
def in_pieces(request, monkeypatch):
    """Small clips are one piece; here also every time step by itself, or every clip."""

    def each(x):
        return ((slice(n, n + 1), slice(t, t + 1)) for n in range(len(x)) for t in range(x.shape[2]))

    if request.param:
        monkeypatch.setattr(fused, "pieces", each)
        monkeypatch.setattr(pooling, "pieces", each)


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def test_pieces_cover_a_clip_once():
    x, seen = torch.zeros(3, 64, 5, 64, 64), torch.zeros(3, 5)
    for n, t in fused.pieces(x):
        seen[n, t] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("times", [1, 4])
def test_pixel_norm_modulated(times):
    torch.manual_seed(0)
    given = draw(2, 3, 4, 2, 2), draw(2, 3, times, 1, 1), draw(2, 3, times, 1, 1)
    x, gain, shift = given
    expected = F.relu(torch.addcmul(shift, PixelNorm()(x), gain))
    torch.testing.assert_close(fused.pixel_norm_modulated(*given), expected, rtol=0, atol=1e-12)
    assert gradcheck(fused.pixel_norm_modulated, given)


@pytest.mark.parametrize("factor", [(1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_leaky_relu_pooled(factor, layout):
    torch.manual_seed(0)
    x = draw(2, 3, 4, 2, 4).detach().contiguous(memory_format=layout).requires_grad_()
    expected = F.avg_pool3d(F.leaky_relu(x, 0.2), factor)
    torch.testing.assert_close(pooling.leaky_relu_pooled(x, 0.2, factor), expected, rtol=0, atol=1e-12)
    assert gradcheck(lambda x: pooling.leaky_relu_pooled(x, 0.2, factor), x)
    assert gradgradcheck(lambda x: pooling.leaky_relu_pooled(x, 0.2, factor), x)


@pytest.mark.parametrize("factor", [(1, 2, 2), (2, 2, 2)])
def test_pooled_convolution(factor):
    torch.manual_seed(0)
    layer = pooling.PooledConv3d(2, 3, 0.2, factor).double()
    x = draw(2, 2, 4, 2, 4)
    expected = F.avg_pool3d(F.leaky_relu(F.conv3d(x, layer.weight, layer.bias, padding=1), 0.2), factor)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)

    def pooled(*given):
        return pooling.ConvolutionPooled.apply(*given, layer.padding, 0.2, factor)

    given = x, layer.weight, layer.bias
    assert gradcheck(pooled, given)
    assert gradgradcheck(pooled, given)


def test_a_penalty_through_a_sum_of_pooled_convolutions():
    """Whose gradient is the same everywhere, and depends on nothing."""
    layer, x = pooling.PooledConv3d(2, 3, 0.2, (2, 2, 2)).double(), draw(2, 2, 4, 2, 4)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    (by_weight,) = torch.autograd.grad(gradient.square().sum(), layer.weight)
    y = F.avg_pool3d(F.leaky_relu(F.conv3d(x, layer.weight, layer.bias, padding=1), 0.2), 2)
    (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(gradient.square().sum(), layer.weight)
    torch.testing.assert_close(by_weight, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_leaky_relu(slope):
    torch.manual_seed(0)
    x = draw(2, 3, 4, 2, 4)

    def activate(x):
        return pooling.leaky_relu(x.clone(), slope)  # It works in place.

    torch.testing.assert_close(activate(x), F.leaky_relu(x, slope), rtol=0, atol=0)
    assert gradcheck(activate, x)
    assert gradgradcheck(activate, x)


def test_in_bfloat16_it_is_as_near_as_the_plain_chain():
    torch.manual_seed(0)
    x, gain, shift, g = (
        torch.randn(2, 32, 4, 8, 8),
        torch.randn(2, 32, 1, 1, 1),
        torch.randn(2, 32, 1, 1, 1),
        None,
    )
    g = torch.randn_like(x)

    def gradients(chain, dtype):
        given = [v.to(dtype).requires_grad_() for v in (x, gain, shift)]
        return [v.double() for v in torch.autograd.grad(chain(*given), given, g.to(dtype))]

    def plain(x, gain, shift):
        return F.relu(torch.addcmul(shift, PixelNorm()(x), gain))

    x, gain, shift, g = (v.bfloat16().float() for v in (x, gain, shift, g))
    exact = gradients(plain, torch.float64)
    ours, theirs = (gradients(c, torch.bfloat16) for c in (fused.pixel_norm_modulated, plain))
    for a, b, true in zip(ours, theirs, exact, strict=True):
        assert (a - true).norm() < 1.5 * (b - true).norm()
