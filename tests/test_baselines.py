"""VGAN, TGAN and MoCoGAN against the numbers of their papers, by hand, and down the one road of training."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

import hrvgan
from hrvgan import cli
from hrvgan.clipstore.writer import Clip, motion, write_clips
from hrvgan.errors import InputError
from hrvgan.models import MODELS, build_model
from hrvgan.models.mocogan import Noise
from hrvgan.models.tgan import TGAN, clip_scale, clip_singular_values
from hrvgan.models.vgan import blend
from hrvgan.nn.base import Batch
from hrvgan.nn.cost import costs, layer_table
from hrvgan.training import ema as averaging

ROOT = Path(__file__).parents[1]
BASELINES = ("vgan", "tgan", "mocogan")


def small(name, **arguments):
    torch.manual_seed(0)
    return build_model(name, **{"size": 32, "width": 0.05, **arguments})


def batch_for(gan, n=4):
    real = torch.rand(n, 3, gan.num_frames, gan.size, gan.size) * 2 - 1
    return Batch(real, torch.arange(n) % max(gan.num_classes, 1), step=0)


def value(term):
    return term.detach().item()


def conv(c_in, c_out, kernel, bias=True):
    return c_in * c_out * kernel + bias * c_out


def vgan_counts(widths, t):
    """(G, D): `widths` of the maps from 4x4 on, `t` time steps there. Batch norms have two numbers a channel."""
    pairs = list(pairwise(widths))
    still = conv(100, widths[0], 16) + sum(conv(a, b, 16) for a, b in pairs) + conv(widths[-1], 3, 16)
    moving = conv(100, widths[0], 16 * t) + sum(conv(a, b, 64) for a, b in pairs) + conv(widths[-1], 3 + 1, 64)
    d = conv(3, widths[-1], 64) + sum(conv(b, a, 64) + 2 * a for a, b in pairs) + conv(widths[0], 2, 16 * t)
    return still + moving + 2 * 2 * sum(widths), d


def tgan_counts(image, d, t):
    """(G, D): `image` widths of the image generator from 4x4 on, `d` of D from the finest on. No shift: one number a
    channel in the batch norms of the temporal generator and of D."""
    temporal = conv(100, 512, 1) + conv(512, 256, 4) + conv(256, 128, 4) + conv(128, 128, 4) + conv(128, 100, 4)
    temporal += 512 + 256 + 128 + 128
    seeds = 2 * (100 * image[0] // 2 * 16 + 2 * image[0] // 2 * 16)
    pairs = list(pairwise(image))
    frames = sum(conv(a, b, 16, bias=False) + 2 * b for a, b in pairs) + conv(32, 3, 9)
    pairs = list(pairwise(d))
    return temporal + seeds + frames, conv(3, d[0], 64) + sum(conv(a, b, 64) + b for a, b in pairs) + conv(
        d[-1], 1, 16 * t
    )


def mocogan_counts(widths, classes, t):
    """(G, D): `widths` of the maps from the finest on, `t` time steps left at 4x4. No biases but in the GRU."""
    gru = 3 * (10 * 10 + 10 * 10 + 10 + 10)
    pairs = list(pairwise(widths))
    ups = sum(a * b * 16 for a, b in pairs)
    g = gru + (50 + classes + 10) * widths[-1] * 16 + ups + widths[0] * 3 * 16 + 2 * sum(widths)
    image = 3 * widths[0] * 16 + sum(a * b * 16 + 2 * b for a, b in pairs[:-1]) + widths[-2] * 16
    video = 3 * widths[0] * 64 + sum(a * b * 64 + 2 * b for a, b in pairs) + widths[-1] * (1 + classes) * 16 * t
    return g, image + video


@pytest.mark.parametrize(
    ("name", "arguments", "counts"),
    [
        ("vgan", {"size": 64, "num_frames": 32}, vgan_counts([512, 256, 128, 64], 2)),
        ("vgan", {"size": 64, "num_frames": 16}, vgan_counts([512, 256, 128, 64], 1)),
        ("vgan", {"size": 32, "num_frames": 16}, vgan_counts([256, 128, 64], 2)),
        ("tgan", {"size": 64}, tgan_counts([512, 256, 128, 64, 32], [64, 128, 256, 512], 1)),
        ("tgan", {"size": 32}, tgan_counts([256, 128, 64, 32], [64, 128, 256], 2)),
        ("mocogan", {"size": 64, "num_classes": 101}, mocogan_counts([64, 128, 256, 512], 101, 4)),
        ("mocogan", {"size": 64}, mocogan_counts([64, 128, 256, 512], 0, 4)),
        ("mocogan", {"size": 32, "num_classes": 8}, mocogan_counts([64, 128, 256], 8, 7)),
    ],
)
def test_parameters_are_those_of_the_layers_by_hand(name, arguments, counts):
    cost = costs(build_model(name, **arguments))
    assert (cost["G"].parameters, cost["D"].parameters) == counts


def test_published_networks_have_the_published_maps():
    tables = {
        "vgan": layer_table(build_model("vgan", size=64, num_frames=32)),
        "tgan": layer_table(build_model("tgan", size=64)),
        "mocogan": layer_table(build_model("mocogan", size=64, num_classes=101)),
    }
    maps = {
        "vgan": ["G.still.0 512 x 4 x 4", "G.still_rgb 3 x 64 x 64", "G.moving.0 512 x 2 x 4 x 4",
                 "G.moving.9 64 x 16 x 32 x 32", "G.moving_rgb 3 x 32 x 64 x 64", "G.mask 1 x 32 x 64 x 64",
                 "D.0 64 x 16 x 32 x 32", "D.8 512 x 2 x 4 x 4", "D.11 2 x 1 x 1 x 1"],
        "tgan": ["G.temporal.0 512 x 1", "G.temporal.3 256 x 2", "G.temporal.6 128 x 4", "G.temporal.9 128 x 8",
                 "G.temporal.12 100 x 16", "G.image.slow.3 256 x 4 x 4", "G.image.up.9 32 x 64 x 64",
                 "G.image.rgb 3 x 64 x 64", "D.0 64 x 8 x 32 x 32", "D.8 512 x 1 x 4 x 4"],
        "mocogan": ["G.gru 10", "G.image.0 512 x 4 x 4", "G.image.12 3 x 64 x 64", "D.image.12 1 x 4 x 4",
                    "D.video.1 64 x 13 x 32 x 32", "D.video.4 128 x 10 x 16 x 16", "D.video.8 256 x 7 x 8 x 8",
                    "D.video.12 512 x 4 x 4 x 4", "D.video.15 102 x 1 x 1 x 1"],
    }  # fmt: skip
    for name, table in tables.items():
        rows = [" ".join(row.split()) for row in table.splitlines()]
        lines = [row.split(" ", 2) for row in rows]
        found = {f"{line[0]} {line[2].rpartition(' ')[0]}" for line in lines if len(line) == 3}
        assert set(maps[name]) <= found, sorted(found)


def test_operations_by_hand():
    """VGAN's D at 64 px, 16 frames: a multiplication and an addition for each weight at each output position."""
    positions = [8 * 32 * 32, 4 * 16 * 16, 2 * 8 * 8, 1 * 4 * 4, 1]
    weights = [3 * 64 * 64, 64 * 128 * 64, 128 * 256 * 64, 256 * 512 * 64, 512 * 2 * 16]
    by_hand = 2 * sum(p * w for p, w in zip(positions, weights, strict=True)) / 1e9
    assert costs(build_model("vgan"))["D"].gflop == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("name", BASELINES)
def test_other_shapes_are_refused_with_those_that_exist(name):
    with pytest.raises(InputError, match=rf"{name}: 16 frames of 128 px .* 16 frames of 32 px, 16 frames of 64 px"):
        build_model(name, size=128)
    with pytest.raises(InputError, match="8 frames of 32 px are not supported"):
        build_model(name, size=32, num_frames=8)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """24 clips of 16 frames of 32 px, two classes: a square that moves left or right."""
    folder, clips = tmp_path_factory.mktemp("baselines") / "clips", []
    for number in range(24):
        frames = np.full((16, 32, 32, 3), 20 + number, np.uint8)
        for t in range(16):
            x = t if number % 2 else 16 - t
            frames[t, 8:20, x : x + 12] = 200
        label, name, split = ("right", "left")[number % 2], f"v{number}", "test" if number > 15 else "train"
        clips.append(Clip(name, name, label, "0" * 32, split, f"g{number}", 0, 1, 8.0, motion(frames), frames))
    write_clips(folder, clips, shape=(16, 32, 32, 3), classes=["left", "right"], num_shards=1)
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_each_is_trained_resumed_and_released_by_the_same_command(name, store, tmp_path, monkeypatch):
    monkeypatch.setattr(averaging, "BATCHES", 2)  # The same for all, however many.

    def train(out, steps):
        options = f"{{steps: {steps}, batch_size: 4, log_every: 2, save_every: 2, sample_every: 1000}}"
        command = ["train", str(store), str(tmp_path / out), "--model", name, "--net", "{width: 0.05}"]
        cli.main([*command, "--train", options])

    train("whole", 4)
    train("parts", 2)
    train("parts", 4)
    for file in ("model.safetensors", "discriminator.safetensors", "model.json", "history.csv"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes(), file
    gan = hrvgan.load(tmp_path / "parts")
    assert gan.sample(3, seed=1).shape == (3, gan.num_frames, 32, 32, 3)
    assert list(gan.classes) == (["left", "right"] if gan.conditional else [])
    assert gan.judge(torch.zeros(2, 3, gan.num_frames, 32, 32), gan.cycle_labels(2)).isfinite().all()
    cli.main(["sample", str(tmp_path / "parts"), "--num", "2", "--out", str(tmp_path / "clips.npz")])
    assert np.load(tmp_path / "clips.npz")["frames"].shape == (2, gan.num_frames, 32, 32, 3)


def test_mask_of_one_shows_the_foreground_of_zero_the_background():
    foreground, background = torch.rand(2, 3, 4, 8, 8), torch.rand(2, 3, 1, 8, 8)
    mask = torch.zeros(2, 1, 4, 8, 8)
    mask[:, :, 1:3] = 1
    clips = blend(foreground, mask, background)
    assert torch.equal(clips[:, :, 1:3], foreground[:, :, 1:3])
    assert torch.equal(clips[:, :, 0], background[:, :, 0])
    assert torch.equal(clips[:, :, 3], background[:, :, 0])


def test_vgan_trains_g_on_the_fakes_that_d_saw():
    """The gradient of G equals that of drawing the same fakes anew, and D's step leaves G alone."""
    gan = small("vgan").train()
    gan.G.eval()  # Fixed statistics, so that the fakes can be drawn again.
    d, g = gan.phases()
    batch = batch_for(gan)
    gan.requires_grad_(False)
    d.module.requires_grad_(True)
    torch.manual_seed(7)
    sum(d.loss(batch).values()).backward()
    assert all(p.grad is None for p in gan.G.parameters())
    d.optimizer.step()
    gan.requires_grad_(False)
    g.module.requires_grad_(True)
    gan.D.eval()
    terms = g.loss(batch)
    sum(terms.values()).backward()
    ours = [p.grad.clone() for p in gan.G.parameters()]
    gan.zero_grad()
    torch.manual_seed(7)
    foreground, mask, background = gan.G.streams(torch.randn(4, 100))
    logits = gan.D(blend(foreground, mask, background))
    loss = -F.log_softmax(logits, 1)[:, 0].mean() + 0.1 * mask.mean()
    assert value(loss) == pytest.approx(value(sum(terms.values())), rel=1e-5)
    theirs = torch.autograd.grad(loss, list(gan.G.parameters()))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-7)


def test_vgan_d_with_equal_logits_loses_twice_the_log_of_two():
    gan = small("vgan")
    nn.init.zeros_(gan.D[-2].weight)
    assert value(gan.d_terms(batch_for(gan))["adv"]) == pytest.approx(2 * np.log(2), rel=1e-6)


@pytest.mark.parametrize("shape", [(6, 4, 2, 2, 2), (5, 40), (1, 8, 1, 4, 4), (12, 3, 4)])
def test_singular_values_above_one_become_one_and_the_others_stay(shape):
    weight = torch.from_numpy(np.random.default_rng(0).normal(0, 0.4, shape))
    u, s, vt = np.linalg.svd(weight.flatten(1).numpy(), full_matrices=False)
    assert s.max() > 1
    clipped = weight.clone()
    clip_singular_values(clipped)
    np.testing.assert_allclose(clipped.flatten(1), u @ np.diag(np.minimum(s, 1)) @ vt, atol=1e-12)
    again = clipped.clone()
    clip_singular_values(again)
    np.testing.assert_allclose(again, clipped, atol=1e-12)


def test_singular_values_below_one_leave_the_bits_alone():
    weight = torch.randn(4, 3, 2, 2, 2) * 0.01
    before = weight.clone()
    clip_singular_values(weight)
    assert torch.equal(weight, before)


def test_scales_are_clipped_between_a_hundredth_of_sigma_and_sigma():
    norm = nn.BatchNorm3d(3)
    norm.running_var.copy_(torch.tensor([4.0, 4.0, 4.0]))  # sigma 2
    norm.weight.data.copy_(torch.tensor([5.0, 0.001, 1.0]))
    clip_scale(norm)
    np.testing.assert_allclose(norm.weight.detach(), [2.0, 0.02, 1.0], rtol=1e-6)


def test_tgan_clips_d_after_updates_5_10_15_and_then_it_is_no_steeper_than_one():
    gan = small("tgan", width=0.2)
    _, d = gan.phases()
    weights = [module.weight for module in gan.D if isinstance(module, nn.Conv3d)]
    clipped = []
    for step in range(15):
        for weight in weights:
            weight.data *= 4
        assert max(torch.linalg.matrix_norm(w.flatten(1), 2) for w in weights) > 1.5
        d.after(step)
        if max(torch.linalg.matrix_norm(w.flatten(1), 2) for w in weights) < 1 + 1e-5:
            clipped.append(step + 1)
    assert clipped == [5, 10, 15]


def test_running_variance_of_tgan_sees_fakes_and_then_real_clips_once_each():
    """Of what a step adds, 0.09 / (0.09 + 0.1) = 47 % is of the fakes."""
    gan = small("tgan").train()
    batch = batch_for(gan)
    gan.g_terms(batch)
    norm = gan.D[3]
    assert (norm.running_var == 1).all()
    gan.d_terms(batch)
    before = nn.Sequential(*list(gan.D)[:3])
    real, fake = (before(clips).var(dim=(0, 2, 3, 4)) for clips in (batch.real, batch.fake))
    torch.testing.assert_close(norm.running_var, 0.9 * 0.9 + 0.9 * 0.1 * fake + 0.1 * real)
    assert norm.num_batches_tracked == 2


@pytest.mark.parametrize("dataset", ["golf", "aeroplane"])
def test_tgan_starts_uniform_on_golf_and_aeroplane_as_its_authors_have_it(dataset):
    values = yaml.safe_load((ROOT / f"conf/{dataset}-baselines.yaml").read_text())
    gan = TGAN(**TGAN.presets[values["runs"][f"tgan-{dataset}"]["preset"]])
    for module in (gan.G, gan.D):
        weights = [parameter for parameter in module.parameters() if parameter.dim() > 1]
        assert max(float(weight.detach().abs().max()) for weight in weights) <= 0.01


def test_tgan_shows_d_the_fakes_that_g_was_trained_on():
    gan = small("tgan")
    batch = batch_for(gan)
    adv = gan.g_terms(batch)["adv"]
    assert value(adv) == pytest.approx(-value(gan.D(batch.fake).mean()), rel=1e-4)
    assert not batch.fake.requires_grad
    wanted = gan.D(batch.fake).mean() - gan.D(batch.real).mean()
    assert value(gan.d_terms(batch)["adv"]) == pytest.approx(value(wanted), rel=1e-4)


def test_tgan_latents_are_uniform():
    z = TGAN(size=32, width=0.05).latent(2000, seed=0)
    assert z.abs().max() <= 1
    assert float(z.var()) == pytest.approx(1 / 3, rel=0.01)


def test_tgan_has_a_latent_a_frame():
    """Frames differ by z_fast alone: the same z_fast in two frames gives the same picture."""
    gan = small("tgan").eval()
    z_slow, z_fast = gan.latent(1, 0), gan.latent(2, 1)
    frames = gan.G.image(z_slow, z_fast[[0, 1, 0]])
    torch.testing.assert_close(frames[0], frames[2], rtol=0, atol=1e-6)
    assert (frames[0] - frames[1]).abs().max() > 0


def test_mocogan_content_and_class_stand_still_and_motion_is_a_gru():
    gan = small("mocogan", num_classes=3)
    z = gan.latent(2, seed=0)
    assert z.shape == (2, 50 + 10 + 16 * 10)
    latents = gan.G.frame_latents(z, torch.tensor([2, 0]))
    assert latents.shape == (2, 16, 63)
    assert torch.equal(latents[:, :, :50], z[:, None, :50].expand(-1, 16, -1))
    assert torch.equal(latents[:, :, 50:53], F.one_hot(torch.tensor([2, 0]), 3).float()[:, None].expand(-1, 16, -1))
    gru = nn.GRU(10, 10, batch_first=True)
    gru.load_state_dict({f"{key}_l0": value for key, value in gan.G.gru.state_dict().items()})
    motion, _ = gru(z[:, 60:].unflatten(1, (16, 10)), z[None, :, 50:60].contiguous())
    torch.testing.assert_close(latents[:, :, 53:], motion, rtol=0, atol=1e-6)


def test_mocogan_frames_come_from_many_clips():
    gan = small("mocogan", num_classes=2)
    batch = batch_for(gan, n=3)
    assert gan.fake_frames(batch.real).shape == (3, 3, 32, 32)
    real = gan.real_frames(batch.real)
    for frame, clip in zip(real, batch.real, strict=True):
        assert any(torch.equal(frame, clip[:, t]) for t in range(16))


def test_mocogan_has_three_optimisers_and_d_learns_classes_of_real_clips_alone():
    gan = small("mocogan", num_classes=2)
    phases = gan.phases()
    assert [phase.name for phase in phases] == ["d_image", "d", "g"]
    for phase in phases:
        group = phase.optimizer.param_groups[0]
        assert (group["lr"], group["betas"], group["weight_decay"]) == (2e-4, (0.5, 0.999), 1e-5)
    batch = batch_for(gan)
    gan.D["video"][-2].weight.data[1:] *= 0  # Even odds for two classes.
    assert value(gan.video_terms(batch)["class"]) == pytest.approx(np.log(2), rel=1e-6)
    assert set(small("mocogan").g_terms(batch)) == {"adv", "adv_image"}  # No classes, no such term.


def test_noise_is_added_in_training_alone():
    noise, x = Noise(0.5), torch.zeros(100_000)
    assert float(noise.train()(x).std()) == pytest.approx(0.5, rel=0.02)
    assert torch.equal(noise.eval()(x), x)
