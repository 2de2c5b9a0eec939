"""The convolution that is differentiated twice, against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from hrvgan.ops import gradients_by_inputs_alone
from hrvgan.ops.conv3d import Conv3d, Convolution, FromRGB


def operands(kernel=3):
    torch.manual_seed(0)
    shapes = (2, 3, 2, 5, 4), (4, 3, kernel, kernel, kernel), (4,)
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("kernel", [1, 3])
def test_gradients_and_gradients_of_gradients(kernel):
    padding = (kernel // 2,) * 3
    assert gradcheck(lambda *given: Convolution.apply(*given, padding), operands(kernel))
    assert gradgradcheck(lambda *given: Convolution.apply(*given, padding), operands(kernel))


def test_a_penalty_has_the_gradients_that_torch_gives():
    x, weight, bias = operands()

    def penalty(convolve):
        y = F.leaky_relu(convolve(x, weight, bias), 0.2)
        y = F.leaky_relu(convolve(y, weight[:, :1].expand(-1, 4, -1, -1, -1), bias), 0.2)
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum() + y.sum(), [weight, bias])

    ours = penalty(lambda *given: Convolution.apply(*given, (1, 1, 1)))
    theirs = penalty(lambda *given: F.conv3d(*given, padding=1))
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-10, atol=1e-10)


def test_gradients_by_inputs_alone():
    x, *_ = operands()
    layer = Conv3d(3, 4, 3, padding=1).double()
    with gradients_by_inputs_alone():
        layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None
    assert layer.bias.grad is None
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None


def test_under_autocast_it_computes_in_bfloat16_and_learns_in_float32():
    layer, x = Conv3d(3, 4, 3, padding=1), torch.randn(1, 3, 2, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), F.conv3d(x, layer.weight, layer.bias, padding=1), rtol=0.05, atol=0.05)


def test_colours_that_differ_by_a_level_differ_in_bfloat16_too():
    """What the gradient of D's first layer is made of: real clips less generated ones, on plain backgrounds."""
    torch.manual_seed(0)
    levels = torch.randint(0, 255, (2, 3, 1, 1, 1)).expand(2, 3, 2, 8, 8)
    real, fake = levels / 127.5 - 1, (levels + 1) / 127.5 - 1
    asked = torch.randn(2, 8, 2, 8, 8).bfloat16()

    def error(layer):
        with torch.autocast("cpu", torch.bfloat16):
            difference = ((layer(fake) - layer(real)) * asked).sum()
            assert layer(real).dtype == torch.bfloat16
        (found,) = torch.autograd.grad(difference, layer.weight)
        exact = torch.einsum("nkthw,ncthw->kc", asked.double(), (fake - real).double())
        return (found.flatten(1) - exact).norm() / exact.norm()

    assert error(FromRGB(8)) < 1e-4
    assert error(Conv3d(3, 8, 1)) > 0.1
