"""The kernels that compute convolutions on a CPU, against torch in float64."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.training_step import Iteration
from hrvgan.ops import cpu, gradients_by_inputs_alone
from hrvgan.ops.conv3d import Conv3d, UpConv3d
from hrvgan.ops.cpu import jit, winograd_conv
from hrvgan.ops.cpu.winograd_schemes import DOWN, SAME, UP, Plan, schemes

pytestmark = pytest.mark.skipif(not jit.lanes(), reason="the kernels are for x86 with AVX2 or AVX-512")
FACTORS = [(1, 1, 1), (2, 2, 2), (1, 2, 2)]
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if jit.supports(dtype)]
# Rounding: of float32; and of bfloat16, in whose transformed operands it is twice that of the operands themselves.
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 8e-3}


def reference(x, weight, bias, factor):
    for axis, f in enumerate(factor, start=2):
        x = x.repeat_interleave(f, axis)
    return F.conv3d(x, weight, bias, padding=1)


def operands(c_in, c_out, size, factor, dtype, n=3):
    """x, weight, bias and a gradient by y, as numbers that `dtype` has where the kernels see them in it."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(n, c_in, *size), torch.randn(c_out, c_in, 3, 3, 3), torch.randn(c_out)
    g = torch.randn(n, c_out, *(s * f for s, f in zip(size, factor, strict=True)))
    return x.to(dtype), weight / (27 * c_in) ** 0.5, bias, g.to(dtype)


def error(found, wanted):
    """Relative, by root mean squares."""
    return ((found.double() - wanted).square().mean() / wanted.square().mean()).sqrt().item()


@pytest.mark.parametrize("scheme", [SAME, UP, DOWN])
def test_schemes_in_one_dimension(scheme):
    rng = np.random.default_rng(0)
    taps, x = rng.normal(size=3), np.pad(rng.normal(size=12), 1)
    window = len(scheme.Bt[0])
    tiles = [x[i : i + window] for i in range(0, 12, scheme.step)]
    y = np.concatenate(
        [np.array(scheme.At) @ ((np.array(scheme.G) @ taps) * (np.array(scheme.Bt) @ tile)) for tile in tiles]
    )
    up = np.pad(x[1:-1].repeat(2), 1)
    if scheme is SAME:
        expected = np.correlate(x, taps)
    elif scheme is UP:
        expected = np.correlate(up, taps)
    else:  # What comes through each of the four taps of stride 2, of the turned kernel.
        turned = taps[::-1]
        doubled = np.array([turned[0], turned[0] + turned[1], turned[1] + turned[2], turned[2]])[::-1]
        expected = np.correlate(x, doubled)[::2]
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lanes", [16, 8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("factor", FACTORS, ids=str)
@pytest.mark.parametrize(
    ("c_in", "c_out", "size"), [(32, 64, (4, 10, 16)), (16, 16, (6, 8, 12)), (48, 24, (8, 8, 8)), (8, 8, (4, 8, 8))]
)
def test_a_convolution_and_its_gradients(c_in, c_out, size, factor, dtype, lanes, monkeypatch):
    """With registers of AVX-512, and as with AVX2."""
    if lanes > jit.lanes():
        pytest.skip("this processor has no AVX-512")
    monkeypatch.setattr(jit, "lanes", lambda: lanes)
    x, weight, bias, g = operands(c_in, c_out, size, factor, dtype)
    leaves = [v.double().requires_grad_() for v in (x, weight, bias)]
    y = reference(*leaves, factor)
    wanted = torch.autograd.grad(y, leaves, g.double())
    assert error(winograd_conv.convolve(x, weight, bias, factor), y.detach()) < TOLERANCE[dtype]
    for mine, its in zip(winograd_conv.gradients(g, x, weight, factor, (True, True, True)), wanted, strict=True):
        assert error(mine, its) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layers_learn_through_the_kernels(dtype):
    for layer, factor in ((Conv3d(16, 32, 3, padding=1), (1, 1, 1)), (UpConv3d(16, 32, (1, 2, 2)), (1, 2, 2))):
        x = torch.randn(2, 16, 8, 8, 8, requires_grad=True)
        assert winograd_conv.supports(x, 32, factor)
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            y = layer(x)
        assert y.dtype == dtype
        y.square().sum().backward()
        leaves = [v.detach().double().requires_grad_() for v in (x, layer.weight, layer.bias)]
        wanted = torch.autograd.grad(reference(*leaves, factor).square().sum(), leaves)
        for mine, its in zip((x.grad, layer.weight.grad, layer.bias.grad), wanted, strict=True):
            assert mine.dtype == torch.float32
            assert error(mine, its) < 2 * TOLERANCE[dtype]


def test_a_penalty_has_the_gradients_that_torch_gives():
    """Differentiated twice, as R1 is."""
    torch.manual_seed(0)
    first, second = Conv3d(16, 16, 3, padding=1), Conv3d(16, 32, 3, padding=1)
    x = torch.randn(2, 16, 8, 8, 8)
    assert winograd_conv.supports(x, 16)

    def penalty(x, layers, alone):
        x = x.requires_grad_()
        y = layers[1](F.leaky_relu(layers[0](x), 0.2)).square().sum((1, 2, 3, 4))
        with alone():
            (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        loss = gradient.square().sum() + y.sum()
        return torch.autograd.grad(loss, [p for layer in layers for p in layer.parameters()])

    ours = penalty(x, (first, second), gradients_by_inputs_alone)
    plain = [torch.nn.Conv3d(16, c, 3, padding=1).double() for c in (16, 32)]
    for mine, its in zip((first, second), plain, strict=True):
        its.load_state_dict(mine.state_dict())
    theirs = penalty(x.detach().double(), plain, gradients_by_inputs_alone)
    for mine, its in zip(ours, theirs, strict=True):
        assert error(mine, its) < 1e-5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_depend_on_no_threads_and_no_neighbours(dtype, monkeypatch):
    x, weight, bias, g = operands(32, 32, (8, 16, 16), (1, 1, 1), dtype, n=5)

    def results():
        return [
            winograd_conv.convolve(x, weight, bias),
            *winograd_conv.gradients(g, x, weight, (1, 1, 1), (True, True, True)),
        ]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = results()
        torch.set_num_threads(3)
        together = results()
        monkeypatch.setattr(jit, "openmp", lambda: None)  # where torch has another OpenMP
        pooled = results()
    finally:
        torch.set_num_threads(threads)
    for one, three, pool in zip(alone, together, pooled, strict=True):
        assert torch.equal(one, three)
        assert torch.equal(one, pool)
    assert torch.equal(winograd_conv.convolve(x[3:4], weight, bias), alone[0][3:4])


@pytest.mark.parametrize(
    ("shape", "c_out", "why"),
    [
        ((1, 12, 8, 16, 16), 16, "channels in no vectors"),
        ((1, 16, 8, 16, 16), 3, "as to colours"),
        ((1, 16, 5, 16, 16), 16, "an odd number of frames"),
        ((1, 16, 8, 16, 14), 16, "an odd number of tiles"),
        ((1, 16, 4, 4, 4), 16, "a few tiles"),
        ((0, 16, 8, 16, 16), 16, "no clips"),
    ],
)
def test_what_the_kernels_leave_to_torch(shape, c_out, why):
    layer, x = Conv3d(shape[1], c_out, 3, padding=1), torch.randn(shape)
    assert not winograd_conv.supports(x, c_out), why
    torch.testing.assert_close(layer(x), F.conv3d(x, layer.weight, layer.bias, padding=1), rtol=1e-4, atol=1e-5)


def test_float64_is_left_to_torch():
    assert not cpu.available(torch.randn(1, 16, 8, 16, 16, dtype=torch.float64))


def test_a_step_of_training_has_the_gradients_that_it_has_with_torch(monkeypatch):
    """Of D with both its penalties, and of G, at levels most of which the kernels take. Where rounding turns the sign
    of an activation, a slope changes: torch's own gradients move by 1e-3 when weights are rounded once more."""

    def gradients(enabled):
        monkeypatch.setattr(cpu, "enabled", enabled)
        step, found = Iteration(32, plain=False), []
        step.batch.real, step.batch.c = step.batch.real[:2], step.batch.c[:2]
        for phase in step.phases:
            parameters = list(phase.module.parameters())
            made = torch.autograd.grad(sum(phase.loss(step.batch).values()), parameters, materialize_grads=True)
            found.append(torch.cat([g.flatten() for g in made]))
        return found

    for ours, theirs in zip(gradients(True), gradients(False), strict=True):
        assert 0 < (ours - theirs).norm() < 5e-3 * theirs.norm()


@pytest.mark.parametrize("lanes", [16, 8])
def test_plans_are_of_whole_rows_and_vectors(lanes, monkeypatch):
    monkeypatch.setattr(jit, "lanes", lambda: lanes)
    axes = [schemes(factor) for factor in FACTORS] + [(DOWN, DOWN, DOWN), (SAME, DOWN, DOWN)]
    channels = [8, 16, 24, 32, 48, 64, 128, 512]
    for these, dtype, c_in, c_out in itertools.product(axes, (torch.float32, torch.bfloat16), channels, channels):
        plan = Plan.of_convolution(these, dtype, c_in, c_out)
        assert plan.tiles % plan.rows == 0
        assert c_out % plan.wide == c_in % plan.lanes == 0
        by_weight = Plan.of_weight_gradient(these, dtype, c_in, c_out)
        assert c_in % by_weight.rows == c_out % by_weight.wide == 0


def test_a_layer_without_a_bias_is_torchs():
    layer, x = Conv3d(16, 16, 3, padding=1, bias=False), torch.randn(2, 16, 8, 8, 8)
    assert winograd_conv.supports(x, 16)
    layer(x).square().sum().backward()
    leaf = layer.weight.detach().double().requires_grad_()
    F.conv3d(x.double(), leaf, padding=1).square().sum().backward()
    assert error(layer.weight.grad, leaf.grad) < 1e-5
