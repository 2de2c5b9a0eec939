"""Every registered model at every size it can be tried at here, and HRVGAN's own parts against hand-worked numbers."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hrvgan.errors import InputError
from hrvgan.models import MODELS, build_model, model_class
from hrvgan.models.hrvgan import DOUBLES_TIME, HRVGAN, LADDER
from hrvgan.nn.base import Batch
from hrvgan.nn.cost import layer_table
from hrvgan.nn.layers import InstanceNorm, MinibatchStd, PixelNorm
from hrvgan.ops.conv3d import UpConv3d
from hrvgan.ops.elementwise import avg_pool

SMALL = {"hrvgan": {"size": 8, "width": 0.1}}
SMALL |= {name: {"size": 32, "width": 0.1} for name in ("vgan", "tgan", "mocogan")}
each_model = pytest.mark.parametrize("name", MODELS)
each_conditional = pytest.mark.parametrize("name", [name for name in MODELS if model_class(name).conditional])


def small(name, **arguments):
    torch.manual_seed(0)
    return build_model(name, **{"num_classes": 3, **SMALL[name], **arguments})


def batch_for(gan, n=4, step=0):
    real = torch.rand(n, 3, gan.num_frames, gan.size, gan.size) * 2 - 1
    return Batch(real, torch.arange(n) % max(gan.num_classes, 1), step)


@each_model
@pytest.mark.parametrize("num_classes", [0, 3])
def test_shapes_and_range(name, num_classes):
    gan = small(name, num_classes=num_classes)
    clips = gan.generate(gan.latent(2, seed=0), gan.cycle_labels(2))
    assert clips.shape == (2, 3, gan.num_frames, gan.size, gan.size)
    assert clips.abs().max() <= 1
    assert gan.judge(clips, gan.cycle_labels(2)).shape == (2,)
    assert gan.num_classes == (num_classes if gan.conditional else 0)


@each_model
@pytest.mark.parametrize("bfloat16", [False, True])
def test_every_preset_gives_every_parameter_a_gradient(name, bfloat16):
    for preset in model_class(name).presets:
        gan = small(name, preset=preset)
        batch = batch_for(gan)
        for phase in gan.phases():
            gan.requires_grad_(False)
            phase.module.requires_grad_(True)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                terms = phase.loss(batch)
            sum(terms.values()).backward()
            for key, parameter in phase.module.named_parameters():
                assert parameter.grad is not None, f"{preset}: {phase.name} does not train {key}"
                assert parameter.grad.isfinite().all(), f"{preset}: {key}"
            others = {id(p) for p in gan.parameters()} - {id(p) for p in phase.module.parameters()}
            assert all(p.grad is None for p in gan.parameters() if id(p) in others)
            gan.zero_grad()


@each_model
def test_latents_depend_on_seed_and_row_alone(name):
    gan = small(name)
    assert torch.equal(gan.latent(2, seed=5), gan.latent(9, seed=5)[:2])
    assert not torch.equal(gan.latent(2, seed=5), gan.latent(2, seed=6))


@each_model
def test_same_videos_whatever_the_batch_size(name):
    gan = small(name).eval()
    whole, single = gan.sample(5, seed=3), gan.sample(5, seed=3, batch_size=1)
    assert whole.dtype == torch.uint8
    assert (whole.int() - single.int()).abs().max() <= 1


@each_conditional
def test_class_changes_what_g_draws_and_what_d_thinks(name):
    gan = small(name).eval()
    z = gan.latent(3, seed=0)[:1].repeat(3, 1)
    with torch.no_grad():
        clips = gan.generate(z, torch.arange(3))
        verdicts = gan.judge(clips[:1].repeat(3, 1, 1, 1, 1), torch.arange(3))
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.combinations(clips, 2))
    assert len({round(v.item(), 6) for v in verdicts}) == 3


@each_model
def test_unknown_size_argument_and_preset_are_named(name):
    with pytest.raises(InputError, match="24"):
        build_model(name, size=24)
    with pytest.raises(InputError, match=r"no argument 'siz'; known: .*size"):
        build_model(name, siz=32)
    with pytest.raises(InputError, match=f"no preset 'bset'; known: {next(iter(model_class(name).presets))}"):
        build_model(name, preset="bset")


def test_unknown_model_lists_the_known():
    with pytest.raises(InputError, match="unknown model 'hrgan'; known: hrvgan"):
        build_model("hrgan")


@pytest.mark.parametrize("temporal", DOUBLES_TIME)
@pytest.mark.parametrize("size", LADDER)
def test_frames_of_the_ladder(size, temporal):
    frames = {"paper": (8, 8, 8, 16, 16, 32), "ancestor": (8, 8, 16, 16, 32, 32)}[temporal]
    with torch.device("meta"):
        assert HRVGAN(size=size, temporal=temporal).num_frames == frames[LADDER.index(size)]


def test_full_size_network_is_that_of_the_tables():
    gan = build_model("hrvgan", size=256, num_classes=0, modulate=False)
    table = layer_table(gan)
    for shape in ("128 x 8 x 8 x 8", "128 x 8 x 16 x 16", "64 x 8 x 32 x 32", "32 x 16 x 64 x 64",
                  "16 x 16 x 128 x 128", "8 x 32 x 256 x 256", "3 x 32 x 256 x 256", "129 x 4 x 4 x 4"):  # fmt: skip
        assert shape in table
    assert sum(p.numel() for p in gan.G.parameters()) == pytest.approx(3.3e6, rel=0.02)
    assert sum(p.numel() for p in gan.D.parameters()) == pytest.approx(3.7e6, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "layer"),
    [({"beta": 0.5}, "G.E.levels.8px.0.layer"), ({"size": 16, "rgb_skips": True}, "G.small_rgbs.0")],
)
def test_the_table_leaves_out_no_parameter(arguments, layer):
    gan = small("hrvgan", **arguments)
    lines = [line.split() for line in layer_table(gan).splitlines()[:-2]]
    assert layer in [line[0] for line in lines]
    assert sum(int(line[-1].replace(",", "")) for line in lines) == sum(p.numel() for p in gan.parameters())


def test_equalised_layers_are_in_the_table():
    plain, equalised = (layer_table(small("hrvgan", equalised=value)) for value in (False, True))
    assert equalised == plain


@pytest.mark.parametrize("factor", [(2, 2, 2), (1, 2, 2)])
def test_up_convolution_is_upsampling_then_convolution(factor):
    layer = UpConv3d(3, 5, factor).double()
    x = torch.randn(2, 3, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    plain = F.conv3d(F.interpolate(x, scale_factor=factor), layer.weight, layer.bias, padding=1)
    fused = layer(x)
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-12)
    weight = torch.randn_like(plain)
    for ours, theirs in zip(
        torch.autograd.grad((fused * weight).sum(), [x, layer.weight, layer.bias]),
        torch.autograd.grad((plain * weight).sum(), [x, layer.weight, layer.bias]), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("factor", [(2, 2, 2), (1, 2, 2)])
def test_average_pool_is_torchs(factor):
    x = torch.randn(2, 3, 4, 6, 8, dtype=torch.float64).contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(avg_pool(x, factor), F.avg_pool3d(x, factor), rtol=0, atol=1e-15)


def test_pixel_norm_by_hand():
    x = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1, 1)  # mean square 12.5
    np.testing.assert_allclose(PixelNorm()(x).flatten(), np.array([3, 4]) / np.sqrt(12.5), rtol=1e-6)


def test_instance_norm_by_hand():
    x = torch.tensor([1.0, 5.0, 3.0, 3.0]).view(1, 2, 1, 1, 2)  # channels (1, 5): mean 3, sd 2; (3, 3): sd 0
    norm = InstanceNorm(2, eps=0.5)  # outside the root: 2 / (2 + 0.5)
    np.testing.assert_allclose(norm(x).detach().flatten(), [-0.8, 0.8, 0, 0], atol=1e-5)


def test_minibatch_std_by_hand():
    x = torch.zeros(2, 2, 1, 1, 1)
    x[1, 0] = 4  # standard deviations over the batch: 2 and 0
    y = MinibatchStd()(x)
    assert y.shape == (2, 3, 1, 1, 1)
    np.testing.assert_allclose(y[:, 2].flatten(), [1, 1], atol=1e-3)


def test_batch_norm_in_d_is_refused_with_a_gradient_penalty():
    with pytest.raises(InputError, match="norm_d 'batch'"):
        HRVGAN(norm_d="batch", gp_weight=10)


def test_r1_is_lazy_and_weighted_up():
    gan = small("hrvgan", r1_gamma=1.0, r1_every=4)
    assert "r1" in gan.d_terms(batch_for(gan, step=4))
    assert "r1" not in gan.d_terms(batch_for(gan, step=5))
