"""A model that starts from the weights of another one."""

import re

import pytest
import torch
import torch.nn.functional as F

import hrvgan
from hrvgan.errors import InputError
from hrvgan.models import build_model
from hrvgan.nn import checkpoint
from hrvgan.training.loop import identity, train
from hrvgan.training.session import new_model

NET = {"width": 0.04}


@pytest.fixture(scope="module")
def released(shapes_clips, tmp_path_factory):
    """A folder with a model that was trained for two steps."""
    folder = tmp_path_factory.mktemp("warm")
    gan = new_model(shapes_clips, "hrvgan", preset="best", net={**NET, "beta": 0.5}, seed=0)
    recipe = {"steps": 2, "batch_size": 4, "log_every": 2, "save_every": 2}
    average, history = train(gan, shapes_clips, folder / "state.pt", **recipe)
    checkpoint.release(folder / "model", gan, average, history, {"dataset": "x", "data_digest": "0" * 64})
    return folder / "model"


def new(shapes_clips, released, seed=1, **net):
    net = {**NET, "beta": 0.5, **net}
    return new_model(shapes_clips, "hrvgan", preset="best", net=net, seed=seed, init_from=released)


def test_all_weights_of_g_with_its_e_and_of_d(shapes_clips, released, capsys):
    gan, other = new(shapes_clips, released), hrvgan.load(released)
    assert any(key.startswith("G.E.") for key in gan.state_dict())
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in gan.state_dict().items())
    assert capsys.readouterr().err == ""
    assert gan.D.fc.weight.requires_grad


def test_what_does_not_fit_is_drawn_anew_and_named(shapes_clips, released, capsys):
    gan, other = new(shapes_clips, released, num_classes=0), hrvgan.load(released)
    said = capsys.readouterr().err
    assert "no weights there for G.fc: drawn anew" in said  # It has no class beside z.
    assert torch.equal(gan.D.fc.weight, other.D.fc.weight)
    new(shapes_clips, released, width=0.1)
    said = capsys.readouterr().err
    assert "G.levels.32px.1.layer, " in said
    assert "weight, " not in said
    fresh = new_model(shapes_clips, "hrvgan", preset="best", net={**NET, "beta": 0.5, "num_classes": 0}, seed=1)
    assert torch.equal(gan.G.fc.weight, fresh.G.fc.weight)


def test_what_it_started_from_is_part_of_what_a_training_is(shapes_clips, released):
    cold = new_model(shapes_clips, "hrvgan", preset="best", net={**NET, "beta": 0.5}, seed=1)
    about = [identity(gan, shapes_clips, seed=1) for gan in (cold, new(shapes_clips, released))]
    assert about[0]["origin"] == ""
    assert len(about[1]["origin"]) == 33
    assert {**about[0], "origin": about[1]["origin"]} == about[1]


def test_another_kind_of_model_and_no_model_are_refused(shapes_clips, released, tmp_path):
    other = build_model("hrvgan", **NET)
    other.name = "vgan"
    with pytest.raises(InputError, match="a model 'hrvgan', cannot start a 'vgan' from it"):
        checkpoint.warm_start(other, hrvgan.load(released), released)
    with pytest.raises(InputError, match=r"no model\.json"):
        new(shapes_clips, tmp_path)


def test_a_model_without_its_d_starts_g_alone(shapes_clips, released, tmp_path, capsys):
    given = tmp_path / "given"
    given.mkdir()
    for name in ("model.json", "model.safetensors"):
        (given / name).write_bytes((released / name).read_bytes())
    gan, cold = new(shapes_clips, given), new(shapes_clips, "")
    assert "no weights there for D: drawn anew" in capsys.readouterr().err
    assert torch.equal(gan.G.fc.weight, hrvgan.load(released).G.fc.weight)
    assert all(torch.equal(value, cold.D.state_dict()[key]) for key, value in gan.D.state_dict().items())


@pytest.mark.parametrize("rgb_skips", [True, False])
def test_a_larger_model_with_rgb_skips_starts_as_the_same_function(tmp_path, rgb_skips):
    small = build_model("hrvgan", num_classes=2, size=16, width=0.04, rgb_skips=rgb_skips)
    large = build_model("hrvgan", num_classes=2, size=64, width=0.04, rgb_skips=True)
    small.classes = ["a", "b"]
    data = {"dataset": "x", "data_digest": "0" * 64}
    checkpoint.release(tmp_path / "small", small, small.G, [{"step": 1, "loss/d/adv": 0.5}], data)
    fresh = checkpoint.warm_start(large, small, tmp_path / "small")
    assert not re.search(r"[GD]\.levels\.(16|8)px|small_rgbs\.1|fc|top|embed", fresh)
    assert "G.levels.64px.0.layer" in fresh
    z, c = small.latent(3, seed=0), torch.tensor([0, 1, 1])
    with torch.no_grad():
        enlarged = small.G(z, c).atanh()
        for shape in [(8, 32, 32), (16, 64, 64)]:
            enlarged = F.interpolate(enlarged, shape, mode="trilinear", align_corners=False)
        clips = large.G(z, c)
        assert torch.allclose(clips, enlarged.tanh(), atol=1e-5)
        seen = F.adaptive_avg_pool3d(clips, (8, 16, 16))
        assert torch.allclose(large.D(clips, c), small.D(seen, c), atol=1e-5)
    large.loss_g(large.D(large.G(z, c), c), torch.zeros(3)).backward()  # and yet it learns
    assert all(large.get_parameter(f"{name}.weight").grad.abs().max() > 0 for name in ("G.rgb", "G.small_rgbs.2"))
