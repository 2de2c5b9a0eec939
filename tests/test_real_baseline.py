"""Real clips against real clips: halves by group, balanced in classes, and clips apart from all others."""

import numpy as np
import pytest

from hrvgan.errors import InputError
from hrvgan.evaluation.real_baseline import apart, halve_real, halved_by_group, halvings, real_baseline
from hrvgan.features import Features
from hrvgan.metrics.protocols import protocol


def clips(groups, labels, width=3, seed=0):
    groups, labels = np.array(groups), np.array(labels)
    draw = np.random.default_rng(seed)
    features, logits = draw.standard_normal((len(groups), width)), draw.standard_normal((len(groups), 4))
    return Features(features.astype(np.float32), logits.astype(np.float32), labels, groups)


def test_halves_share_no_group_and_are_balanced():
    groups = [f"g{g}" for g in range(8) for _ in range(6)]
    real = clips(groups, [label % 4 for label in range(8) for _ in range(6)])
    pairs = halvings(real, 5, seed=0)
    assert halved_by_group(real)
    for first, second in pairs:
        assert len(first) == len(second) == 24
        assert not set(real.groups[first]) & set(real.groups[second])
        for half in (first, second):
            assert np.bincount(real.labels[half]).tolist() == [6, 6, 6, 6]
    assert len({tuple(first) for first, _ in pairs}) > 1
    assert all(
        (a == b).all()
        for p, q in zip(pairs, halvings(real, 5, seed=0), strict=True)
        for a, b in zip(p, q, strict=True)
    )


def test_smaller_halves_keep_the_shares_of_the_classes():
    real = clips([f"g{i}" for i in range(60)], [0] * 40 + [1] * 20)
    for half in halvings(real, 1, seed=3, size=15)[0]:
        assert np.bincount(real.labels[half]).tolist() == [10, 5]
    with pytest.raises(InputError, match="num_clips: 31, but half of the 60 real clips is 30"):
        halvings(real, 1, seed=3, size=31)


def test_clips_apart_from_all_others():
    real = clips(
        [f"g{g}" for g in range(30) for _ in range(4)], [label % 3 for label in range(30) for _ in range(4)]
    )
    for n, found in ((10, 10), (60, 60), (200, 60)):
        rest, some = apart(real, n, seed=0)
        assert len(some) == found
        assert not set(real.groups[rest]) & set(real.groups[some])
        assert len(rest) == 120 - 4 * len(set(real.groups[some]))
    single = clips(["only"] * 9, [0] * 9)
    rest, some = apart(single, 3, seed=0)
    assert sorted([*rest, *some]) == list(range(9))
    with pytest.raises(InputError, match="3 real clips, need at least 4"):
        apart(clips(["a", "b", "c"], [0, 0, 0]), 1, seed=0)


def test_one_large_group_is_dealt_by_clip():
    real = clips(["only"] * 9, [0] * 9)
    assert not halved_by_group(real)
    for first, second in halvings(real, 3, seed=0):
        assert len(first) == len(second) == 4
        assert not set(first) & set(second)
    with pytest.raises(InputError, match="3 real clips, need at least 4"):
        halvings(clips(["a", "b", "c"], [0, 0, 0]), 1, seed=0)


def test_real_clips_are_test_clips_if_there_are_any():
    many, none = clips([f"g{i}" for i in range(40)], [0] * 40), clips([], np.empty(0, int))
    few = many.take(np.arange(10))
    held_out = halve_real({"train": many, "test": few}, 2, seed=0)
    assert (held_out.split, held_out.num_clips, len(held_out.train[0])) == ("test", 5, 5)
    assert (
        halve_real({"train": few, "test": many}, 2, seed=0).train == []
    )  # Too few for a number at the same N.
    alone = halve_real({"train": few, "test": none}, 2, seed=0)
    assert (alone.split, alone.num_clips, alone.train) == ("train", 5, [])


def test_the_floor_is_the_statistic_of_the_value():
    """All real clips against N: the floor is all others against N, of other groups."""
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(25), 8).astype(str)
    real = Features(draw.standard_normal((200, 3)), np.zeros((200, 0)), np.zeros(200, int), groups)
    baseline = real_baseline(protocol("fid_c3d_fc7"), real, 40, seed=0)
    ((rest, instead),) = baseline.pairs
    assert (len(baseline.real[0]), len(rest), len(instead)) == (200, 160, 40)
    assert not set(rest.groups) & set(instead.groups)
    baseline = real_baseline(protocol("fvd2048_16f"), real, 40, seed=0)
    assert (len(baseline.real[0]), *map(len, baseline.pairs[0])) == (40, 40, 40)
    ((rest, instead),) = real_baseline(protocol("fid_c3d_fc7"), real, 150, seed=0).pairs
    assert (len(rest), len(instead)) == (104, 96)
