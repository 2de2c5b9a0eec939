"""Real clips against real clips: halves by group, balanced in classes, and clips apart from all others."""

import numpy as np
import pytest

from hrvgan.errors import InputError
from hrvgan.evaluation.real_baseline import (
    apart,
    draw_substitutes,
    few_groups,
    halved_by_group,
    halvings,
    real_baseline,
    reference_baseline,
    shares,
)
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
        (a == b).all() for p, q in zip(pairs, halvings(real, 5, seed=0), strict=True) for a, b in zip(p, q, strict=True)
    )


def test_labels_in_the_shares_of_the_real_clips():
    labels = np.array([0, 1, 0] * 20)
    assert np.bincount(shares(labels, 15)).tolist() == [10, 5]
    assert np.bincount(shares(labels, 2000)).tolist() == [1334, 666]
    assert (np.diff(shares(labels, 2000)) >= 0).all()


def test_training_clips_in_the_place_of_generated_ones():
    """With the classes asked for, or of a model that takes none, by chance; again only where there are too few."""
    train = clips(range(60), [0] * 40 + [1] * 20)
    asked = shares(np.array([0, 1]), 60)  # Even, unlike the training clips.
    for drawn in draw_substitutes(train, asked, 60, 3, seed=0):
        assert (drawn.labels == asked).all()
        assert len(set(drawn.groups[drawn.labels == 0])) == 30
        assert len(set(drawn.groups[drawn.labels == 1])) <= 20
    counts = [np.bincount(drawn.labels)[0] for drawn in draw_substitutes(train, None, 60, 50, seed=0)]
    assert np.mean(counts) == pytest.approx(40, abs=2)  # binomial: sd 3.65, of the mean 0.52
    assert np.std(counts) == pytest.approx(3.65, abs=1.2)
    (unknown,) = draw_substitutes(train, np.array([2, 2, 2, 2]), 4, 1, seed=0)  # No training clips of the class.
    assert len(set(unknown.groups)) == 4


def test_clips_apart_from_all_others():
    real = clips([f"g{g}" for g in range(30) for _ in range(4)], [label % 3 for label in range(30) for _ in range(4)])
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
    held_out = reference_baseline({"train": many, "val": few, "test": few}, 2, seed=0)
    assert (held_out.split, len(held_out.real), len(held_out.val), len(held_out.train)) == ("test", 10, 10, 10)
    assert [tuple(map(len, pair)) for pair in held_out.pairs] == [(5, 5)] * 2
    # Too few for a number at the same N.
    assert reference_baseline({"train": few, "val": none, "test": many}, 2, seed=0).train is None
    alone = reference_baseline({"train": few, "val": none, "test": none}, 2, seed=0)
    assert (alone.split, len(alone.real), alone.train, alone.val) == ("train", 10, None, None)


def test_halves_of_few_groups_are_always_the_same():
    two = clips(["a"] * 6 + ["b"] * 6, [0, 1] * 6)
    assert len({frozenset((tuple(a), tuple(b))) for a, b in halvings(two, 10, seed=0)}) == 1
    assert few_groups(two)
    assert not few_groups(clips([f"g{i}" for i in range(12)], [0, 1] * 6))
    assert not few_groups(clips(["only"] * 12, [0, 1] * 6))  # Dealt by clip.


def test_the_floor_is_the_statistic_of_the_value():
    """All real clips against N: the floor is all others against N, of other groups."""
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(25), 8).astype(str)
    real = Features(draw.standard_normal((200, 3)), np.zeros((200, 0)), np.zeros(200, int), groups)
    baseline = real_baseline(protocol("fid_c3d_fc7"), real, 40, seed=0)
    ((rest, instead),) = baseline.pairs
    assert (len(baseline.real), len(rest), len(instead)) == (200, 160, 40)
    assert not set(rest.groups) & set(instead.groups)
    baseline = real_baseline(protocol("fvd2048_16f"), real, 40, seed=0)
    assert (len(baseline.real), *map(len, baseline.pairs[0])) == (40, 40, 40)
    ((rest, instead),) = real_baseline(protocol("fid_c3d_fc7"), real, 150, seed=0).pairs
    assert (len(rest), len(instead)) == (104, 96)
