"""LeakyReLU, pooling, and both after a convolution: values, gradients, gradients of gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from hrvgan.ops.conv3d import ConvLeakyReLUPool
from hrvgan.ops.elementwise import avg_pool, leaky_relu, leaky_relu_pool

FACTORS = [(1, 2, 2), (2, 2, 2)]


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_leaky_relu_pool(factor, layout):
    torch.manual_seed(0)
    x = draw(2, 3, 4, 2, 4).detach().contiguous(memory_format=layout).requires_grad_()
    expected = F.avg_pool3d(F.leaky_relu(x, 0.2), factor)
    torch.testing.assert_close(leaky_relu_pool(x, 0.2, factor), expected, rtol=0, atol=1e-12)
    assert gradcheck(lambda x: leaky_relu_pool(x, 0.2, factor), x)
    assert gradgradcheck(lambda x: leaky_relu_pool(x, 0.2, factor), x)


@pytest.mark.parametrize("factor", FACTORS)
def test_after_a_convolution(factor):
    torch.manual_seed(0)
    layer = ConvLeakyReLUPool(2, 3, 0.2, factor).double()
    x = draw(2, 2, 4, 2, 4)
    expected = F.avg_pool3d(F.leaky_relu(F.conv3d(x, layer.weight, layer.bias, padding=1), 0.2), factor)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)

    def pooled(x, weight, bias):
        return functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    inputs = x, layer.weight, layer.bias
    assert gradcheck(pooled, inputs)
    assert gradgradcheck(pooled, inputs)


def test_a_penalty_through_a_sum_of_pooled_convolutions():
    """Whose gradient is the same everywhere, and depends on nothing."""
    layer, x = ConvLeakyReLUPool(2, 3, 0.2, (2, 2, 2)).double(), draw(2, 2, 4, 2, 4)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    (dweight,) = torch.autograd.grad(gradient.square().sum(), layer.weight)
    y = F.avg_pool3d(F.leaky_relu(F.conv3d(x, layer.weight, layer.bias, padding=1), 0.2), 2)
    (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(gradient.square().sum(), layer.weight)
    torch.testing.assert_close(dweight, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_leaky_relu(slope):
    torch.manual_seed(0)
    x = draw(2, 3, 4, 2, 4)

    def activate(x):
        return leaky_relu(x.clone(), slope)  # It works in place.

    torch.testing.assert_close(activate(x), F.leaky_relu(x, slope), rtol=0, atol=0)
    assert gradcheck(activate, x)
    assert gradgradcheck(activate, x)


def test_pooling_in_bfloat16():
    x = torch.randn(2, 3, 4, 2, 4).bfloat16()
    y = avg_pool(x, (2, 2, 2))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, F.avg_pool3d(x.float(), 2).bfloat16(), rtol=0, atol=0)
