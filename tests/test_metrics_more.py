"""Neighbours, pictures, extrapolation, subsets: by hand, by a slow loop, and by other libraries' answers."""

import contextlib
import io
import warnings

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from hrvgan.errors import InputError
from hrvgan.metrics import (
    frechet_distance,
    frechet_distance_from_features,
    frechet_distance_infinity,
    inception_score,
    kernel_distance,
    kernel_distance_subsets,
    msssim,
    prdc,
    psnr,
    ssim,
    strred,
)
from hrvgan.metrics.neighbours import nearest
from hrvgan.metrics.psnr_ssim import frame_psnr, frame_ssim, luminance
from hrvgan.metrics.scikit_video import measures

# Moments and extrapolation


def test_moments_and_features_agree_for_any_ddof():
    draw = np.random.default_rng(0)
    real, fake = draw.standard_normal((50, 6)), 2 * draw.standard_normal((40, 6)) + 1
    for ddof in (0, 1):
        moments = [part for x in (real, fake) for part in (x.mean(axis=0), np.cov(x, rowvar=False, ddof=ddof))]
        value = frechet_distance_from_features(real, fake, ddof)
        assert frechet_distance(*moments) == pytest.approx(value, rel=1e-9)
    # Equal N: all covariances grow by N / (N - 1), and with them all but the term of the means.
    a, b = real[:40] - real[:40].mean(axis=0), fake - fake.mean(axis=0)
    larger, smaller = (frechet_distance_from_features(a, b, ddof) for ddof in (1, 0))
    assert larger == pytest.approx(smaller * 40 / 39, rel=1e-9)


def test_extrapolation_takes_the_bias_away():
    draw = np.random.default_rng(1)
    pairs = [draw.standard_normal((2, 400, 20)) for _ in range(8)]
    biased = np.mean([frechet_distance_from_features(*pair) for pair in pairs])
    extrapolated = [frechet_distance_infinity(*pair) for pair in pairs]
    assert biased > 0.25  # The truth is 0.
    assert abs(np.mean(extrapolated)) < 0.05
    assert frechet_distance_infinity(*pairs[0]) == extrapolated[0]
    shifted = np.mean([frechet_distance_infinity(a, b + 0.5) for a, b in pairs])
    assert shifted == pytest.approx(20 * 0.25, rel=0.05)
    assert np.isfinite(frechet_distance_infinity(pairs[0][0][:2], pairs[0][1][:2]))


def test_kernel_subsets_estimate_the_whole():
    draw = np.random.default_rng(2)
    real, fake = draw.standard_normal((300, 5)), draw.standard_normal((280, 5)) + 0.5
    mean, sd = kernel_distance_subsets(real, fake, subsets=60, size=100)
    assert mean == pytest.approx(kernel_distance(real, fake), abs=3 * sd / np.sqrt(60))
    assert sd > 0
    whole, _ = kernel_distance_subsets(real[:50], fake[:50], subsets=2, size=1000)
    assert whole == pytest.approx(kernel_distance(real[:50], fake[:50]))


# Neighbours


def naive_prdc(real, fake, k):
    """The four equations with loops."""

    def distance(a, b):
        return np.sqrt(((a - b) ** 2).sum())

    def reach(points, i):
        return sorted(distance(points[i], other) for j, other in enumerate(points) if j != i)[k - 1]

    real_reach, fake_reach = ([reach(points, i) for i in range(len(points))] for points in (real, fake))
    inside = np.array([[distance(r, f) < real_reach[i] for f in fake] for i, r in enumerate(real)])
    found = np.array([[distance(r, f) < fake_reach[j] for j, f in enumerate(fake)] for r in real])
    return {
        "precision": inside.any(axis=0).mean(),
        "recall": found.any(axis=1).mean(),
        "density": inside.sum() / (k * len(fake)),
        "coverage": inside.any(axis=1).mean(),
    }


def test_prdc_by_hand():
    # On a line, k = 1. Real reaches: 1, 1, 2 (at 0, 1, 3); fake reaches: 0.5, 0.5, 7.5 (at 0.5, 1, 8.5).
    real, fake = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [1.0], [8.5]])
    # 0.5 lies in the balls of 0 and 1; 1.0 in that of 1 (0 and 3 end just there); 8.5 in none.
    # Fake balls end before 0 (0.5 away, exclusively) and hold 1 (its copy) and 3 (5.5 from 8.5).
    expected = {"precision": 2 / 3, "recall": 2 / 3, "density": 1, "coverage": 2 / 3}
    assert prdc(real, fake, 1) == pytest.approx(expected)


@pytest.mark.parametrize("block", [7, 2048])
def test_prdc_by_loops(block, monkeypatch):
    monkeypatch.setattr("hrvgan.metrics.neighbours.BLOCK", block)
    draw = np.random.default_rng(4)
    real, fake = draw.standard_normal((30, 3)), draw.standard_normal((25, 3)) + 0.7
    for k in (1, 4):
        assert prdc(real, fake, k) == pytest.approx(naive_prdc(real, fake, k))
    shifted = prdc(real + 1e4, fake + 1e4, 4)  # Far from zero rounding would decide.
    assert shifted == pytest.approx(naive_prdc(real, fake, 4))


def test_prdc_of_copies_and_refusals():
    real = np.random.default_rng(5).standard_normal((20, 3))
    assert prdc(real, real, 5) == pytest.approx(naive_prdc(real, real, 5))
    assert prdc(real, np.zeros((20, 3)), 5)["recall"] == 0
    for k in (0, 20):
        with pytest.raises(InputError, match=f"k: {k}, need 1 to 19"):
            prdc(real, real, k)
    with pytest.raises(InputError, match=r"k: 5\.0 is no whole number"):
        prdc(real, real, 5.0)
    assert prdc(real, real, np.int64(5)) == prdc(real, real, 5)
    with pytest.raises(InputError, match="NaN or infinite"):
        prdc(real, np.full((20, 3), np.nan), 5)


def test_prdc_of_a_set_with_itself_in_another_order():
    """The k-th neighbour of each clip is a tie, which rounding must not decide."""
    for seed in range(10):
        draw = np.random.default_rng(seed)
        real = (draw.standard_normal((90, 24)) + 3).astype(np.float32)
        for fake in (real, real.copy(), draw.permutation(real)):
            assert prdc(real, fake, 5) == {"precision": 1, "recall": 1, "density": 1, "coverage": 1}


@pytest.mark.parametrize("k", [1, 5])
def test_neighbours_are_those_of_the_package_prdc(k):
    """Of the authors of density and coverage (Naeem et al. 2020)."""
    draw = np.random.default_rng(8)
    real, fake = draw.standard_normal((60, 4)), 0.8 * draw.standard_normal((50, 4)) + 0.4
    for other in (fake, np.tile(real[:1], (50, 1))):  # one clip again and again
        with contextlib.redirect_stdout(io.StringIO()):
            theirs = compute_prdc(real, other, nearest_k=k)
        assert prdc(real, other, k) == pytest.approx(theirs, abs=1e-12)
        assert 0 < theirs["coverage"] < 1


def test_nearest_clips():
    among = np.array([[0.0, 0], [3, 4], [10, 10]])
    index, distance = nearest(np.array([[3.0, 4], [0, 5]]), among)
    assert index.tolist() == [1, 1]
    assert distance == pytest.approx([0, np.sqrt(10)])
    assert nearest(among[:1], among)[0].tolist() == [0]


# PSNR and SSIM


@pytest.mark.parametrize("shape", [(3, 24, 40), (2, 400, 390)])
def test_psnr_and_ssim_are_those_of_scikit_video(shape):
    draw = np.random.default_rng(6)
    real = draw.integers(256, size=shape).cumsum(axis=2) % 256
    fake = (real + draw.integers(-20, 21, size=shape)).clip(0, 255)
    with warnings.catch_warnings(action="ignore"):
        theirs = measures().psnr(real, fake), measures().ssim(real, fake)
    np.testing.assert_allclose(frame_psnr(real, fake), theirs[0], rtol=1e-12)
    np.testing.assert_allclose(frame_ssim(real, fake), theirs[1], atol=2e-5)
    assert not hasattr(np, "product")  # Only scikit-video sees the names that numpy has dropped.


def test_spatio_temporal_scores_fall_with_noise_and_ms_ssim_is_that_of_torchmetrics():
    """With other borders and another filter between the scales, so nearly."""
    draw = np.random.default_rng(7)
    cells = draw.integers(60, 200, size=(1, 2, 44, 44, 3)).astype(np.uint8)
    real = cells.repeat(4, axis=2).repeat(4, axis=3)  # 176 px
    noisy = [(real + draw.normal(0, sd, real.shape)).clip(0, 255).round().astype(np.uint8) for sd in (0, 5, 20)]
    entropy = [strred(real, fake).item() for fake in noisy]
    assert entropy[0] == 0
    assert entropy[1] < entropy[2] / 4
    for fake in noisy:
        frames = [torch.from_numpy(side)[0, :, None] for side in luminance(real, fake)]
        theirs = multiscale_structural_similarity_index_measure(*frames, data_range=255.0, reduction="none")
        assert msssim(real, fake)[0] == pytest.approx(theirs.numpy(), abs=0.01)
    assert msssim(real, real) == pytest.approx(np.ones((1, 2)))
    assert msssim(real, 255 - real).tolist() == [[0, 0]]


def test_psnr_and_ssim_by_hand():
    black, grey = np.zeros((2, 16, 16, 3), np.uint8), np.full((2, 16, 16, 3), 51, np.uint8)
    assert psnr(black, grey) == pytest.approx(10 * np.log10(25))  # (255 / 51)^2
    c1 = 2.55**2
    assert ssim(black, grey) == pytest.approx(c1 / (51**2 + c1))  # No structure on either side.
    assert ssim(grey, grey) == pytest.approx(1)
    assert psnr(grey, grey) == np.inf
    red = black.copy()
    red[..., 0] = 100
    assert psnr(black, red) == pytest.approx(20 * np.log10(255 / 29.9))
    assert frame_ssim(np.stack([black, red]), np.stack([black, red])).shape == (2, 2)
    with pytest.raises(InputError, match="need the same"):
        psnr(black, grey[:1])
    with pytest.raises(InputError, match="at least 11"):
        ssim(black[:, :10], grey[:, :10])


# What is given


def test_tensors_of_any_precision_are_taken():
    draw = np.random.default_rng(0)
    real, fake = draw.integers(-9, 9, (20, 3)), draw.integers(-9, 9, (20, 3))
    tensors = torch.tensor(real, dtype=torch.bfloat16, requires_grad=True), torch.tensor(fake)
    assert frechet_distance_from_features(*tensors) == frechet_distance_from_features(real, fake)
    assert prdc(*tensors, k=3) == prdc(real.tolist(), fake.tolist(), k=3)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda x: kernel_distance_subsets(x, x, subsets=0), "subsets: 0, need a whole number, 1 or more"),
        (lambda x: kernel_distance_subsets(x, x, size=1), "size: 1, need a whole number, 2 or more"),
        (lambda x: frechet_distance_infinity(x, x, points=1), "points: 1, need"),
        (lambda x: frechet_distance_from_features(x[:2], x, ddof=2), "ddof: 2 with 2 clips"),
        (lambda x: kernel_distance([[1.0, 2.0], [3.0]], x), "give rows of one length"),
        (lambda x: inception_score(np.full((8, 2), 0.5), splits=2.5), "splits: 2.5, need"),
        (lambda x: inception_score(np.full((8, 2), 0.5), eps=-1), "eps: -1, need 0 or more"),
        (lambda x: psnr(np.full((1, 16, 16), np.nan), np.zeros((1, 16, 16))), "real frames: 256 of 256"),
        (lambda x: psnr(np.zeros((0, 16, 16)), np.zeros((0, 16, 16))), "frames of shapes"),
    ],
)
def test_what_has_no_answer_gets_a_sentence_and_no_number(ask, words):
    with pytest.raises(InputError, match=words):
        ask(np.random.default_rng(0).standard_normal((12, 2)))
