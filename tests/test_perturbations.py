"""Real clips spoilt in known ways: in time, by noise, and by each fault of generators, by as much as it says."""

import numpy as np
import pytest
import torch

from hrvgan.evaluation.gates import check_gates
from hrvgan.features import load_features
from hrvgan.features.perturbations import FAULTS, PERTURBATIONS, colours_apart, half_speed, of_levels, shuffled
from hrvgan.features.reference import build_reference
from hrvgan.features.refnet import featurise, load_refnet, with_faults
from hrvgan.metrics.frechet import frechet_distance_from_features
from tests import processes

RNG = np.random.default_rng(0)
GROUND, RED, BLUE = (14, 16, 30), (255, 92, 72), (86, 148, 255)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_perturbations_change_clips(name):
    real = RNG.integers(256, size=(6, 5, 4, 4, 3), dtype=np.uint8)
    changed = PERTURBATIONS[name](real, np.random.default_rng(1))
    assert changed.dtype == np.uint8
    assert changed.shape == real.shape
    assert all((a != b).any() for a, b in zip(real, changed, strict=True))
    assert PERTURBATIONS[name](real[:0], RNG).shape == (0, 5, 4, 4, 3)


def test_perturbations_of_time():
    ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None, None, None], (20, 8, 2, 2, 3))
    order = shuffled(ramp, RNG)[:, :, 0, 0, 0]
    assert (np.sort(order) == np.arange(8)).all()
    still = PERTURBATIONS["frozen"](ramp, RNG)[:, :, 0, 0, 0]
    assert (still == still[:, :1]).all()
    assert len(np.unique(still)) > 1
    slow = half_speed(ramp, RNG)[:, :, 0, 0, 0]
    assert (slow - slow[:, :1] == np.arange(8) // 2).all()


# Faults of generators


def perturb(name, clips):
    return PERTURBATIONS[name](np.asarray(clips, np.uint8), np.random.default_rng(0)).astype(float)


def test_a_warp_shifts_by_up_to_two_pixels_of_32_anew_in_each_frame():
    ramp = np.broadcast_to(np.arange(32)[None, None, None, :, None] * 8, (4, 8, 32, 32, 3))
    shifts = (perturb("warped", ramp) - ramp)[:, :, :, 4:-4, 0] / 8  # without the borders, which repeat
    assert 1.6 < abs(shifts).max() <= 2.1
    assert abs(np.diff(shifts, axis=2)).max() < 0.6  # smooth: neighbours move together
    assert abs(np.diff(shifts, axis=1)).mean() > 0.5  # frames do not


def test_a_ghost_is_another_clip_at_15_percent():
    levels = np.array([0, 100, 200])
    clips = np.broadcast_to(levels[:, None, None, None, None], (3, 2, 4, 4, 3))
    made = perturb("ghosted", clips)
    for own, clip in zip(levels, made, strict=True):
        (level,) = np.unique(clip)
        assert level in [round(0.85 * own + 0.15 * other) for other in levels if other != own]


def squares(*colours):
    """A clip for each colour, (upper half, lower half): a square of 12 px that moves."""
    clips = np.empty((len(colours), 4, 32, 32, 3), np.uint8)
    clips[:] = GROUND
    for clip, (upper, lower) in zip(clips, colours, strict=True):
        for t, frame in enumerate(clip):
            frame[8:14, 4 + 4 * t : 16 + 4 * t] = upper
            frame[14:20, 4 + 4 * t : 16 + 4 * t] = lower
    return clips


def test_objects_of_several_colours_are_known():
    assert colours_apart(squares((RED, RED), (BLUE, BLUE))) > 100
    assert colours_apart(squares((RED, BLUE), (BLUE, RED))) < 0.01
    # Means of (red, blue) and (red, red) are apart by half of their distance, the sd of (red, blue).
    assert colours_apart(squares((RED, BLUE), (RED, BLUE), (RED, RED))) == pytest.approx(1, rel=0.01)


def test_half_of_an_object_has_the_colour_of_another():
    clips = squares((RED, RED), (BLUE, BLUE))
    made = perturb("two-coloured", clips)
    for clip, real, own, other in zip(made, clips, (RED, BLUE), (BLUE, RED), strict=True):
        changed = (clip != real).any(axis=-1)
        assert not changed[(real == GROUND).all(axis=-1)].any()
        assert (clip[changed] == other).all()
        assert (clip[~changed & (real == own).all(axis=-1)] == own).all()
        assert (abs(changed.sum(axis=(1, 2)) - 72) <= 12).all()  # of 144, in every frame


@pytest.mark.parametrize(("size", "cell"), [(32, 1), (64, 2)])
def test_cells_of_a_checkerboard_are_6_levels_apart(size, cell):
    (clip,) = perturb("checkered", np.full((1, 2, size, size, 3), 100))
    y, x = np.arange(size)[:, None] // cell, np.arange(size) // cell
    np.testing.assert_array_equal(clip, np.broadcast_to(np.where((y + x) % 2, 97, 103)[..., None], clip.shape))


@pytest.mark.parametrize("n", [1, 3, 20])
def test_what_the_network_learns_of_faults(n):
    """Each clip with one fault; two colours most often, then warps."""
    video = torch.rand(n, 3, 4, 16, 16) * 2 - 1
    spoilt, strengths = with_faults(video, np.random.default_rng(0))
    assert spoilt.shape == video.shape
    assert spoilt.abs().max() <= 1
    assert ((strengths > 0).sum(dim=1) == 1).all()
    assert 0.1 <= strengths.amax(dim=1).min() <= strengths.max() <= 2
    if n == 20:  # With a clip a fault there is no other to take a colour from.
        assert (spoilt != video).flatten(1).any(dim=1).all()
        assert dict(zip(FAULTS, (strengths > 0).sum(dim=0).tolist(), strict=True)) == {
            "warped": 6, "ghosted": 3, "two-coloured": 8, "checkered": 3,
        }  # fmt: skip


def test_faults_have_strengths():
    grey, rng = torch.zeros(3, 3, 2, 8, 8), np.random.default_rng(0)
    steps = FAULTS["checkered"](grey, rng, np.array([0.5, 1, 4])).amax(dim=(1, 2, 3, 4))
    torch.testing.assert_close(steps * 127.5, torch.tensor([1.5, 3, 12]))


@pytest.mark.faults
@processes.in_full
@pytest.mark.timeout(900)
def test_the_network_sees_them_all_in_proportion(shapes_clips, tmp_path):
    """A minute of training, by the parameters of the stage `reference`."""
    build_reference(shapes_clips, tmp_path)
    sets = load_features(tmp_path / "features.npz")
    assert [gate.sentence for gate in check_gates(sets) if not gate.passed] == []

    val = shapes_clips.split("val").read(np.arange(len(shapes_clips.split("val"))))
    net = load_refnet(tmp_path)[0]

    def moved(clips: np.ndarray) -> float:
        return frechet_distance_from_features(sets["val"].features, featurise(net, [clips])[0])

    for name, fault in FAULTS.items():
        weak, strong = (moved(of_levels(fault, strength)(val, np.random.default_rng(0))) for strength in (0.25, 1))
        assert weak < strong / (1 if name == "two-coloured" else 4)  # Which the network learns last, and least evenly.
    unseen = np.random.default_rng(0).normal(0, 1, val.shape)
    assert moved((val + unseen).round().clip(0, 255).astype(np.uint8)) < 0.1
