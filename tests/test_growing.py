"""Progressive growing: where a model stands, what it is shown, and that no step of the way jumps."""

import numpy as np
import pytest
import torch

import hrvgan
from hrvgan.errors import InputError
from hrvgan.models import build_model
from hrvgan.models.hrvgan import level_at
from hrvgan.nn import checkpoint
from hrvgan.nn.base import Batch, Level, at_level, enlarge, position
from hrvgan.training.loop import train

GROWING = {"num_classes": 8, "size": 32, "width": 0.04, "grow_clips": 8}


def growing(**arguments):
    torch.manual_seed(0)
    return build_model("hrvgan", **{**GROWING, **arguments})


def test_positions_by_hand():
    """100 clips a level and 100 to fade to the next, three levels."""
    expected = {0: 0, 99: 0, 100: 0, 125: 0.25, 200: 1, 299: 1, 350: 1.5, 400: 2, 10_000: 2}
    assert {clips: position(clips, [100] * 4) for clips in expected} == pytest.approx(expected)
    assert [level_at(p, 3) for p in (0, 0.25, 1, 1.5, 2, float("inf"))] == [
        (0, 1), (1, 0.25), (1, 1), (2, 0.5), (2, 1), (2, 1),
    ]  # fmt: skip


def test_a_list_gives_each_stage_its_clips():
    gan = growing(grow_clips=[40, 8, 0, 4])
    expected = {0: 0, 39: 0, 40: 0, 44: 0.5, 48: 1, 49: 1.25, 52: 2, 1000: 2}
    assert {clips: gan.grow(clips) and gan.position for clips in expected} == pytest.approx(expected)
    with pytest.raises(InputError, match="grow_clips has 3 stages, but up to 32 px there are 4"):
        growing(grow_clips=[40, 8, 4])


def test_clips_at_a_level_by_hand():
    clips = torch.arange(16.0).view(1, 1, 1, 4, 4).expand(1, 3, 2, 4, 4)
    blocks = torch.tensor([[2.5, 4.5], [10.5, 12.5]])
    small = at_level(clips, Level((1, 2, 2)))
    assert small.shape == (1, 3, 1, 2, 2)
    assert torch.equal(small[0, 0, 0], blocks)
    fading = at_level(clips, Level((2, 4, 4), 0.25, (1, 2, 2)))
    repeated = blocks.repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(fading[0, 0, 0], 0.75 * repeated + 0.25 * clips[0, 0, 0])
    assert at_level(clips, Level((2, 4, 4))) is clips


@pytest.mark.parametrize("temporal", ["paper", "ancestor"])
def test_every_stage_has_its_shape_and_trains_its_parameters(temporal):
    gan = growing(temporal=temporal, r1_every=1, objective="logistic")
    frames = {"paper": (8, 8, 8), "ancestor": (8, 8, 16)}[temporal]
    for clips, top in ((0, 0), (12, 1), (16, 1), (28, 2), (32, 2)):
        level = gan.grow(clips)
        assert level.shape == (frames[top], 8 * 2**top, 8 * 2**top)
        real = torch.rand(4, 3, gan.num_frames, 32, 32) * 2 - 1
        batch = Batch(at_level(real, level), torch.arange(4), 0)
        used = [f"levels.{8 * 2**n}px." for n in range(top + 1)]
        for phase in gan.phases():
            gan.requires_grad_(False)
            phase.module.requires_grad_(True)
            sum(phase.loss(batch).values()).backward()
            for name, parameter in phase.module.named_parameters():
                if name.startswith("levels."):
                    trained = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
                    assert trained == any(name.startswith(level) for level in used), (clips, name)
            gan.zero_grad()
        assert gan.generate(gan.latent(2, 0), gan.cycle_labels(2)).shape == real[:2].shape


@pytest.mark.parametrize("norm", ["instance", "pixel", "batch"])
def test_fading_in_bfloat16(norm):
    gan = growing(norm_g=norm, norm_d=norm)
    batch = Batch(at_level(torch.rand(4, 3, 8, 32, 32), gan.grow(12)), torch.arange(4), 0)
    with torch.autocast("cpu", torch.bfloat16):
        terms = [term for phase in gan.phases() for term in phase.loss(batch).values()]
    assert all(term.isfinite() for term in terms)


def test_fading_starts_where_the_level_below_ends_and_ends_where_the_next_begins():
    gan = growing().eval()
    z, c = gan.latent(3, 0), gan.cycle_labels(3)
    clips = torch.rand(3, 3, 8, 32, 32) * 2 - 1

    def at(num_clips):
        level = gan.grow(num_clips)
        with torch.no_grad():
            return gan.generate(z, c), gan.D(at_level(clips, level), c, gan.position)

    for before, after in ((8, 8.0001), (15.9999, 16)):  # The fade from 8 to 16 px takes clips 8 to 16.
        for ours, theirs in zip(at(before), at(after), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    drawn, halfway = at(8)[0], at(12)[0]
    assert (drawn - halfway).abs().mean() > 0.01


def test_a_grown_model_is_the_plain_one():
    grown, plain = growing().eval(), growing(grow_clips=0).eval()
    for ours, theirs in ((grown.G, plain.G), (grown.D, plain.D)):
        theirs.load_state_dict({key: ours.state_dict()[key] for key in theirs.state_dict()})
    z, c = plain.latent(2, 0), plain.cycle_labels(2)
    assert grown.grow(10_000) == plain.grow(10_000) == Level((8, 32, 32))
    clips = plain.generate(z, c)
    assert torch.equal(grown.generate(z, c), clips)
    assert torch.equal(grown.judge(clips, c), plain.judge(clips, c))


def test_training_grows_resumes_and_releases_where_it_stands(shapes_clips, tmp_path):
    """Batches of 4: 8 px until step 2, fading until 4, 16 px until 6, ..."""
    recipe = {"batch_size": 4, "log_every": 1, "save_every": 1, "precision": "float32"}
    whole = growing()
    _, history = train(whole, shapes_clips, tmp_path / "a.pt", steps=5, **recipe)
    train(growing(), shapes_clips, tmp_path / "b.pt", steps=3, **recipe)
    gan = growing()
    average, again = train(gan, shapes_clips, tmp_path / "b.pt", steps=5, **recipe)
    assert again == history
    assert gan.position == 1
    checkpoint.release(
        tmp_path / "model", gan, average, again, {"dataset": "shapes", "data_digest": "0" * 64}
    )
    loaded = hrvgan.load(tmp_path / "model")
    drawn = loaded.sample(2, seed=0)
    assert torch.equal(drawn, gan.sample(2, seed=0))
    pixels = drawn.numpy().reshape(2, 8, 16, 2, 16, 2, 3)
    assert np.array_equal(
        pixels, np.broadcast_to(pixels[:, :, :, :1, :, :1], pixels.shape)
    )  # 16 px, enlarged


def test_what_does_not_grow_is_refused():
    with pytest.raises(InputError, match="E does not grow"):
        growing(beta=0.5)
    assert enlarge(torch.ones(1, 1, 1, 1, 1), (2, 3, 3)).sum() == 18
