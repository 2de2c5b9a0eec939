"""The CPU kernels of fused elementwise operations, against plain torch in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from benchmarks.training_step import Iteration
from hrvgan.ops import cpu
from hrvgan.ops.conv3d import ConvLeakyReLUPool
from hrvgan.ops.cpu import elementwise, jit, winograd_conv
from hrvgan.ops.cpu.elementwise import Plan
from hrvgan.ops.cpu.jit import Layout
from hrvgan.ops.elementwise import leaky_relu_pool, pixel_norm_act, pixel_norm_act_reference

pytestmark = pytest.mark.skipif(not jit.lanes(), reason="the kernels are for x86 with AVX2 or AVX-512")
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if jit.supports(dtype)]
CHANNELS = [8, 16, 24, 32, 128, 256]
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 4e-3}  # one rounding of what is stored, and half of one more


@pytest.fixture(autouse=True)
def _kernels(monkeypatch):
    """Also where the user has turned them off, with HRVGAN_KERNELS=torch."""
    monkeypatch.setattr(cpu, "enabled", True)


@pytest.fixture(params=[16, 8])
def lanes(request, monkeypatch):
    """With registers of AVX-512, and as with AVX2."""
    if request.param > jit.lanes():
        pytest.skip("this processor has no AVX-512")
    monkeypatch.setattr(jit, "lanes", lambda: request.param)


def draw(dtype, *shape):
    """Numbers that `dtype` has, channels-last where they are clips."""
    x = torch.randn(shape).to(dtype)
    return x.contiguous(memory_format=torch.channels_last_3d) if shape[-1] > 1 else x


def error(found, wanted):
    """Relative, by root mean squares."""
    return ((found.double() - wanted).square().mean() / wanted.square().mean()).sqrt().item()


def assert_near(found, wanted, dtype):
    for mine, its in zip(found, wanted, strict=True):
        assert mine.dtype == dtype
        assert mine.shape == its.shape
        assert error(mine.detach(), its.detach()) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize(("channels", "px"), [(8, 200), *((c, 6) for c in CHANNELS)])
def test_pixel_norm(channels, px, times, dtype, lanes):
    """Also of frames so large that sums over them lose digits, where each pixel is added to one."""
    torch.manual_seed(0)
    x, g = draw(dtype, 3, channels, 4, px, px - 1), draw(dtype, 3, channels, 4, px, px - 1)
    gain, shift = draw(dtype, 3, channels, times, 1, 1), draw(dtype, 3, channels, times, 1, 1)
    assert elementwise.supports_pixel_norm(x, gain, shift)
    given = [v.requires_grad_() for v in (x, gain, shift)]
    exact = [v.detach().double().requires_grad_() for v in given]
    y, wanted = pixel_norm_act(*given), pixel_norm_act_reference(*exact)
    assert_near([y], [wanted], dtype)
    assert_near(torch.autograd.grad(y, given, g), torch.autograd.grad(wanted, exact, g.double()), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("factor", [(1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("channels", CHANNELS)
def test_leaky_relu_pooled_and_differentiated_twice(channels, factor, dtype, lanes):
    torch.manual_seed(0)
    x = draw(dtype, 3, channels, 4, 6, 8)
    assert elementwise.supports_pooling(x, factor)

    def everything(operation, x):
        """The means, the gradient by x of what depends on them, and the gradient of that by what it is made of."""
        x = x.requires_grad_()
        y = operation(x)
        g = torch.linspace(-1, 1, y.numel(), dtype=x.dtype).view_as(y).requires_grad_()
        (by_x,) = torch.autograd.grad(y, x, g, create_graph=True)
        gg = torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view_as(x)
        return y, by_x, *torch.autograd.grad(by_x, g, gg)

    mine = everything(lambda x: leaky_relu_pool(x, 0.2, factor), x.clone())
    its = everything(lambda x: F.avg_pool3d(F.leaky_relu(x, 0.2), factor), x.double())
    assert_near(mine, its, dtype)


def test_signs_take_a_bit_each(lanes):
    x = draw(torch.float32, 2, 16, 4, 8, 8)
    _, signs = elementwise.leaky_relu_pool(x, 0.2, (1, 2, 2))
    assert signs.numel() * 8 == x.numel()
    bits = (signs[..., None] >> torch.arange(8)) & 1
    assert torch.equal(bits.flatten(4).permute(0, 4, 1, 2, 3).bool(), x > 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_depend_on_no_threads_and_no_neighbours(dtype):
    torch.manual_seed(0)
    x, g = draw(dtype, 5, 32, 4, 8, 8), draw(dtype, 5, 32, 4, 8, 8)
    gain, shift = draw(dtype, 5, 32, 1, 1, 1), draw(dtype, 5, 32, 1, 1, 1)

    def results(part):
        given = [v[part] for v in (x, gain, shift)]
        y, signs = elementwise.leaky_relu_pool(x[part], 0.2, (2, 2, 2))
        found = [elementwise.pixel_norm(*given), *elementwise.pixel_norm_gradients(g[part], *given), y, signs]
        return [*found, elementwise.leaky_relu_pool_gradient(y, signs, 0.2, (2, 2, 2))]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = results(slice(None))
        torch.set_num_threads(3)
        together = results(slice(None))
    finally:
        torch.set_num_threads(threads)
    for one, three, third in zip(alone, together, results(slice(2, 3)), strict=True):
        assert torch.equal(one, three)
        assert torch.equal(one[2:3], third)


@pytest.mark.parametrize(
    ("shape", "factor", "why"),
    [
        ((1, 12, 4, 8, 8), (2, 2, 2), "channels in no vectors"),
        ((1, 16, 4, 8, 7), (1, 2, 2), "a width that is no whole number of blocks"),
        ((1, 16, 3, 8, 8), (2, 2, 2), "a time that is none"),
        ((1, 16, 4, 8, 8), (2, 1, 1), "blocks of another shape"),
        ((0, 16, 4, 8, 8), (2, 2, 2), "no clips"),
    ],
)
def test_what_pooling_leaves_to_torch(shape, factor, why):
    assert not elementwise.supports_pooling(torch.randn(shape), factor), why


@pytest.mark.parametrize(
    ("shape", "gain", "shift", "why"),
    [
        ((2, 12, 4, 8, 8), (2, 12, 1, 1, 1), (2, 12, 1, 1, 1), "channels in no vectors"),
        ((2, 264, 4, 8, 8), (2, 264, 1, 1, 1), (2, 264, 1, 1, 1), "more channels than there is code for"),
        ((2, 16, 4, 8, 8), (1, 16, 1, 1, 1), (1, 16, 1, 1, 1), "one gain for all clips"),
        ((2, 16, 4, 8, 8), (2, 16, 4, 1, 1), (2, 16, 1, 1, 1), "a gain a frame, and a shift a clip"),
        ((0, 16, 4, 8, 8), (0, 16, 1, 1, 1), (0, 16, 1, 1, 1), "no clips"),
    ],
)
def test_what_the_norm_leaves_to_torch(shape, gain, shift, why):
    assert not elementwise.supports_pixel_norm(torch.randn(shape), torch.randn(gain), torch.randn(shift)), why


def test_float64_is_left_to_torch():
    x = torch.randn(1, 16, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert not cpu.available(x)
    assert gradcheck(lambda x: leaky_relu_pool(x, 0.2, (2, 2, 2)), x)


def generators(module):
    return {function for name, function in vars(module).items() if name.startswith("generate_")}


@pytest.mark.parametrize("half", [False, True])
def test_training_runs_them(half, monkeypatch):
    if half and torch.bfloat16 not in DTYPES:
        pytest.skip("this processor does not multiply bfloat16")
    launched, launch = set(), elementwise.launch
    monkeypatch.setattr(elementwise, "launch", lambda g, *a, **k: (launched.add(g), launch(g, *a, **k)))
    step = Iteration(32, plain=False, bfloat16=half)
    step.batch.real, step.batch.c = step.batch.real[:2], step.batch.c[:2]
    step()
    assert launched == generators(elementwise)


def test_every_kernel_has_a_file_of_its_own():
    both = generators(elementwise) | generators(winograd_conv)
    plan = Plan(8, False, 16)
    assert len({jit.cache_key(generate, plan) for generate in both}) == len(both) == 9


def test_of_what_is_not_a_number_nothing_is_made_up():
    """A diverged training is to be seen as one."""
    x = draw(torch.float32, 1, 16, 2, 4, 4)
    x[0, 3, 1, 2, 2] = torch.nan
    ones = torch.ones(1, 16, 1, 1, 1)
    assert elementwise.pixel_norm(x, ones, ones)[0, :, 1, 2, 2].isnan().all()
    assert elementwise.leaky_relu_pool(x, 0.2, (2, 2, 2))[0].isnan().sum() == 1


def test_an_argument_that_a_kernel_lacks_is_named():
    names = Layout(("scratch", "x", "y", "gain"), ("items", "scratch_size", "height", "width", "span"))
    with pytest.raises(KeyError, match="without the argument 'shift'; known: scratch, x, y, gain, items"):
        elementwise.generate_pixel_norm(Plan(8, False, 16), names)
    x, y, gain = torch.randn(2, 8, 8, 16), torch.empty(2, 8, 8, 16), torch.randn(2, 16)
    tensors = {"x": x, "y": y, "gain": gain, "shfit": gain}
    with pytest.raises(KeyError, match=r"'shift'; known: .*shfit"):
        jit.launch(elementwise.generate_pixel_norm, Plan(8, False, 16), tensors, items=2, height=8, width=8, span=1)


@pytest.mark.parametrize("factor", [(1, 2, 2), (2, 2, 2)])
def test_a_penalty_through_a_pooled_convolution(factor):
    """Whose double backward recomputes dL/d(conv), by kernels and in float64."""
    torch.manual_seed(0)
    layer = ConvLeakyReLUPool(16, 32, 0.2, factor)
    x = draw(torch.float32, 2, 16, 8, 8, 8)

    def gradients(layer, x):
        x = x.requires_grad_()
        y = layer(x)
        (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(dx.square().sum() + y.sum(), [x, layer.weight, layer.bias])

    ours = gradients(layer, x.clone())
    for mine, its in zip(ours, gradients(copy.deepcopy(layer).double(), x.double()), strict=True):
        assert error(mine, its) < 1e-5
