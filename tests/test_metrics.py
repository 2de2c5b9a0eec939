"""The numbers: against answers worked out by hand and against another implementation."""

import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from hrvgan import metrics
from hrvgan.errors import InputError
from hrvgan.evaluation.gates import accuracy_bar, check_gates
from hrvgan.features import Features, load_features, save_features
from hrvgan.features.perturbations import PERTURBATIONS
from hrvgan.metrics import (
    PROTOCOLS,
    frechet_distance,
    frechet_distance_from_features,
    inception_score,
    kernel_distance,
    kernel_distance_within_classes,
    label_accuracy,
    prdc,
)
from hrvgan.metrics.accuracy import chance_accuracy, mean_confidence
from hrvgan.metrics.arrays import softmax
from hrvgan.metrics.protocols import protocol
from tests import processes

RNG = np.random.default_rng(0)


def normal(n, width, seed=0, scale=1.0, shift=0.0):
    """(n, width) with a covariance that is no multiple of the identity."""
    draw = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((width, width)) / np.sqrt(width)
    return scale * draw.standard_normal((n, width)) @ mixing + shift


class Given(torch.nn.Module):
    """For torchmetrics in place of a network: features as they are."""

    num_features = 12

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def by_torchmetrics(metric, real, fake):
    metric.set_dtype(torch.float64)
    for features, is_real in ((real, True), (fake, False)):
        metric.update(torch.from_numpy(features), real=is_real)
    return metric.compute()


# Frechet distance


def test_frechet_by_hand():
    zero, eye = np.zeros(2), np.eye(2)
    assert frechet_distance(zero, eye, np.array([3.0, 0.0]), 4 * eye) == pytest.approx(11)  # 9 + 2 (1 - 2)^2
    assert frechet_distance(np.zeros(7), np.eye(7), np.ones(7), np.eye(7)) == pytest.approx(7)
    assert frechet_distance(np.zeros(3), np.eye(3), np.zeros(3), np.diag([1, 4, 0])) == pytest.approx(2)
    assert frechet_distance(0.0, 1.0, 2.0, 9.0) == pytest.approx(8)  # One dimension: 4 + (1 - 3)^2.


def test_frechet_of_covariances_that_do_not_commute():
    s1, s2 = np.array([[2.0, 1], [1, 2]]), np.array([[3.0, 0], [0, 1]])
    # tr sqrt(M) of a 2x2 matrix is sqrt(tr M + 2 sqrt(det M)); here M = s1 s2, tr 8, det 9.
    assert frechet_distance(np.zeros(2), s1, np.zeros(2), s2) == pytest.approx(8 - 2 * np.sqrt(14), rel=1e-12)


@pytest.mark.parametrize(("num_real", "num_fake"), [(60, 50), (60, 8), (8, 60), (8, 6), (12, 12), (2, 2), (13, 12)])
def test_frechet_forms_agree_with_torchmetrics(num_real, num_fake):
    real, fake = normal(num_real, 12, seed=1), normal(num_fake, 12, seed=2, scale=1.5, shift=0.3)
    value = frechet_distance_from_features(real, fake)
    tolerance = 1e-9 if min(num_real, num_fake) > 13 else 1e-6
    theirs = by_torchmetrics(FrechetInceptionDistance(Given()), real, fake).item()
    assert value == pytest.approx(theirs, rel=tolerance)
    statistics = [statistic for x in (real, fake) for statistic in (x.mean(axis=0), np.cov(x, rowvar=False))]
    assert value == pytest.approx(frechet_distance(*statistics), rel=tolerance)
    assert value == pytest.approx(frechet_distance_from_features(fake, real), rel=tolerance)


FEATURES = st.integers(2, 7).flatmap(lambda n: arrays(np.float64, (n, 3), elements=st.floats(-100, 100, width=32)))


@given(FEATURES, FEATURES)
def test_frechet_of_moments_is_that_of_the_features(real, fake):
    """Of constant columns and equal rows, too, where both are right to half of the digits."""
    moments = [part for x in (real, fake) for part in (x.mean(axis=0), np.cov(x, rowvar=False))]
    scale = 1 + np.trace(moments[1]) + np.trace(moments[3])
    value = frechet_distance_from_features(real, fake)
    assert value == pytest.approx(frechet_distance(*moments), rel=1e-6, abs=1e-6 * scale)
    assert value == pytest.approx(frechet_distance_from_features(fake, real), rel=1e-6, abs=1e-6 * scale)
    assert value > -1e-6 * scale


def test_frechet_scales_shifts_and_vanishes():
    real, fake = normal(40, 5, seed=1), normal(30, 5, seed=2, shift=1)
    value = frechet_distance_from_features(real, fake)
    assert frechet_distance_from_features(10 * real, 10 * fake) == pytest.approx(100 * value)
    assert frechet_distance_from_features(real + 1e3, fake + 1e3) == pytest.approx(value, rel=1e-8)
    assert frechet_distance_from_features(real, real[::-1]) == pytest.approx(0, abs=1e-7)
    few = normal(4, 9, seed=3)
    assert 0 <= frechet_distance_from_features(few, few) < 1e-9


def test_frechet_scores_collapsed_samples():
    real, frozen = normal(30, 5), np.full((30, 5), 2.0)
    trace = np.trace(np.cov(real, rowvar=False))
    gap = ((real.mean(axis=0) - 2) ** 2).sum()
    assert frechet_distance_from_features(real, frozen) == pytest.approx(trace + gap, rel=1e-6)


def test_frechet_of_singular_moments():
    s = np.diag([1.0, 0, 0, 4])
    assert frechet_distance(np.zeros(4), s, np.zeros(4), 4 * s) == pytest.approx(5, rel=1e-6)
    vectors = normal(2, 40)
    s1, s2 = (np.outer(v, v) for v in vectors)
    expected = np.trace(s1 + s2) - 2 * abs(vectors[0] @ vectors[1])
    assert frechet_distance(np.zeros(40), s1, np.zeros(40), s2) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_sets_that_share_no_direction():
    """S1 S2 = 0, and what rounding leaves of it is of either sign; the distance is the whole trace."""
    for seed in range(5):
        draw = np.random.default_rng(seed)
        basis = np.linalg.qr(draw.standard_normal((12, 12)))[0]
        mine, theirs = basis[:, :5], basis[:, 5:]
        zero = np.zeros(12)
        assert frechet_distance(zero, mine @ mine.T, zero, theirs @ theirs.T) == pytest.approx(12, rel=1e-6)
        real, fake = draw.standard_normal((40, 5)) @ mine.T, draw.standard_normal((50, 7)) @ theirs.T
        gap = real.mean(axis=0) - fake.mean(axis=0)
        whole = gap @ gap + real.var(axis=0, ddof=1).sum() + fake.var(axis=0, ddof=1).sum()
        assert frechet_distance_from_features(real, fake) == pytest.approx(whole, rel=1e-6)
        assert frechet_distance_from_features(real, fake[:10]) > 0


@pytest.mark.parametrize("bad", [np.diag([1.0, -0.1]), np.array([[1.0, 0.5], [0.0, 1.0]])])
@pytest.mark.parametrize("good", [np.eye(2), np.diag([1.0, 0.0])])
def test_frechet_refuses_what_is_no_covariance(bad, good):
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(InputError, match="no covariance"):
            frechet_distance(np.zeros(2), pair[0], np.zeros(2), pair[1])


def test_frechet_refuses_shapes_that_do_not_match():
    with pytest.raises(InputError, match="D = 3, fake ones 4"):
        frechet_distance_from_features(normal(5, 3), normal(5, 4))
    with pytest.raises(InputError, match=r"need \(D,\), \(D, D\)"):
        frechet_distance(np.zeros(2), np.eye(3), np.zeros(2), np.eye(2))


def test_frechet_of_singular_covariances_rounded_to_float32():
    sigma, zero = np.outer([1, 0.3, 0.9], [1, 0.3, 0.9]), np.zeros(3)
    value = frechet_distance(zero, sigma, zero, np.eye(3))
    assert value == pytest.approx(1.9 + 3 - 2 * np.sqrt(1.9), rel=1e-6)
    rounded = sigma.astype(np.float32)
    assert np.linalg.eigvalsh(rounded.astype(np.float64)).min() < -1e-9
    for pair in ((rounded, np.eye(3)), (np.eye(3), rounded)):
        found = frechet_distance(zero, pair[0], zero, pair[1])
        assert 1e-6 < abs(found / value - 1) < 1e-3
    with pytest.raises(InputError, match="no covariance; recompute it in float64"):
        frechet_distance(zero, sigma - 1e-6 * np.eye(3), zero, np.eye(3))
    as_float32 = (sigma - 1e-6 * np.eye(3)).astype(np.float32)
    assert frechet_distance(zero, as_float32, zero, np.eye(3)) == pytest.approx(value, rel=1e-3)


# Kernel distance


def test_kernel_by_hand():
    # D = 1, so k(x, y) = (x y + 1)^3. Pairs: real 27 (1, 2), fake 1 (0, 3); across 1, 64, 1, 343.
    real, fake = np.array([[1.0], [2.0]]), np.array([[0.0], [3.0]])
    assert kernel_distance(real, fake) == pytest.approx(27 + 1 - 2 * (1 + 64 + 1 + 343) / 4)


def test_kernel_is_that_of_torchmetrics():
    real, fake = normal(40, 12, seed=1), normal(40, 12, seed=2, scale=1.5, shift=0.3)
    with warnings.catch_warnings(action="ignore"):  # It says that it keeps all features.
        mean, _ = by_torchmetrics(KernelInceptionDistance(Given(), subsets=1, subset_size=40), real, fake)
    assert kernel_distance(real, fake) == pytest.approx(mean.item(), rel=1e-9)


def test_kernel_is_unbiased_over_blocks(monkeypatch):
    features = RNG.standard_normal((2000, 4))
    values = [kernel_distance(half[:100], half[100:]) for half in features.reshape(10, 200, 4)]
    assert abs(np.mean(values)) < 2 * np.std(values, ddof=1) / np.sqrt(10) + 0.01
    assert min(values) < 0  # Unbiased and not clipped.
    whole = kernel_distance(features[:900], features[900:])
    monkeypatch.setattr("hrvgan.metrics.kernel.BLOCK", 64)
    assert kernel_distance(features[:900], features[900:]) == pytest.approx(whole, rel=1e-9)
    assert kernel_distance(features[:900], features[900:] + 1) > 10 * max(map(abs, values))


def test_kernel_within_classes_by_hand():
    real, fake = np.array([[1.0], [2.0], [5.0], [6.0]]), np.array([[5.5], [0.0], [3.0], [7.0]])
    labels, asked = np.array([4, 4, 0, 0]), np.array([0, 4, 4, 0])
    each = kernel_distance(real[:2], fake[1:3]), kernel_distance(real[2:], fake[[0, 3]])
    assert kernel_distance_within_classes(real, labels, fake, asked) == pytest.approx(np.mean(each))
    with pytest.raises(InputError, match="class 0: 2 real and 1 fake clips, need at least 2 of each"):
        kernel_distance_within_classes(real, labels, fake, np.array([0, 4, 4, 4]))
    with pytest.raises(InputError, match="need one for each of 4 and 4 clips"):
        kernel_distance_within_classes(real, labels[:3], fake, asked)


def test_wrong_labels_are_far_within_classes():
    """The same clips under each other's labels, which the marginal distance cannot see."""
    real, fake = (featured(80, seed=seed) for seed in (1, 2))
    wrong = Features(fake.features, fake.logits, (fake.labels + 1) % 4, fake.groups)
    marginal, within = protocol("refnet_kid"), protocol("refnet_intra_kid")
    assert marginal.measure(real, wrong) == marginal.measure(real, fake)
    assert abs(within.measure(real, fake)) < 0.05
    assert within.measure(real, wrong) > 1
    assert within.lacks(real, fake) == ""
    assert within.lacks(real, fake.take(np.arange(7))) == "1 clip(s) of a class, need at least 2; give more"
    assert within.lacks(real, fake.take(np.flatnonzero(fake.labels > 0))).startswith("0 clip(s) of a class")


# Inception Score


def test_inception_by_hand():
    assert inception_score(np.full((10, 4), 0.25)) == pytest.approx(1)
    assert inception_score(np.eye(5)[np.arange(20) % 5]) == pytest.approx(5)
    assert inception_score(np.eye(5)[[2] * 20]) == pytest.approx(1)
    p = np.array([[0.9, 0.1], [0.5, 0.5]])  # p(y) = (0.7, 0.3)
    divergence = (
        0.9 * np.log(0.9 / 0.7) + 0.1 * np.log(0.1 / 0.3) + 0.5 * np.log(0.5 / 0.7) + 0.5 * np.log(0.5 / 0.3)
    ) / 2
    assert inception_score(p) == pytest.approx(np.exp(divergence), rel=1e-12)


def test_inception_splits_and_eps():
    probs = np.repeat(np.eye(4), 10, axis=0)  # Sorted by class: each of four splits sees one.
    assert inception_score(probs, splits=4) == pytest.approx(1)
    assert inception_score(probs, splits=2) == pytest.approx(2)
    assert inception_score(probs, eps=1e-7) == pytest.approx(4, rel=1e-5)
    assert inception_score(probs, eps=1e-2) < 3.95


@pytest.mark.parametrize(
    ("probs", "splits", "message"),
    [
        (np.ones((5, 1)), 1, "needs labels"),
        (np.ones((5, 2)), 1, "softmax"),
        (np.array([[1.5, -0.5]] * 5), 1, "softmax"),
        (np.full((5, 2), 0.5), 3, "1 to 2"),
    ],
)
def test_inception_refuses(probs, splits, message):
    with pytest.raises(InputError, match=message):
        inception_score(probs, splits=splits)


@pytest.mark.parametrize("scale", [1e45, 1e60, 1e100, 1e160])
@pytest.mark.parametrize("metric", [frechet_distance_from_features, kernel_distance, prdc])
def test_what_overflows_is_no_number(metric, scale):
    real, fake = normal(30, 3, seed=1), normal(30, 3, seed=2)
    for pair in ((scale * real, fake), (real, scale * fake)):
        with pytest.raises(InputError, match="overflow in float64"):
            metric(*pair)
    assert np.isfinite(metric(1e39 * real, 1e39 * fake) if metric is not prdc else 0)


def test_moments_that_overflow():
    with pytest.raises(InputError, match="sigma2: values up to 1e\\+100 overflow"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), 1e100 * np.eye(2))


# Accuracy


def test_accuracy_chance_and_confidence():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]))
    assert label_accuracy(logits, np.array([0, 1, 1])) == pytest.approx(2 / 3)
    assert mean_confidence(logits) == pytest.approx((0.7 + 0.8 + 0.4) / 3)
    np.testing.assert_allclose(softmax(logits + 1000).sum(axis=1), 1)
    assert chance_accuracy(np.array([0, 0, 0, 2])) == 0.75
    for labels in ([0, 1], [0, 1, 3], [0, 1, -1]):
        with pytest.raises(InputError, match="labels"):
            label_accuracy(logits, np.array(labels))


# What all of them refuse


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("metric", [frechet_distance_from_features, kernel_distance])
def test_features_that_are_no_numbers(metric, value):
    broken = normal(5, 3)
    broken[2, 1] = value
    for pair in ((broken, normal(5, 3)), (normal(5, 3), broken)):
        with pytest.raises(InputError, match="1 of 15 values are NaN or infinite"):
            metric(*pair)


@pytest.mark.parametrize("metric", [frechet_distance_from_features, kernel_distance])
def test_too_little(metric):
    with pytest.raises(InputError, match="1 clip"):
        metric(normal(5, 3), normal(1, 3))
    with pytest.raises(InputError, match="one row"):
        metric(normal(5, 3), np.zeros(3))
    with pytest.raises(InputError, match="real numbers"):
        metric(normal(5, 3), np.array([["a", "b", "c"]] * 2))


def test_nan_in_moments_and_probabilities():
    with pytest.raises(InputError, match="sigma2"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.full((2, 2), np.nan))
    with pytest.raises(InputError, match="NaN"):
        inception_score(np.array([[np.nan, 1.0], [0.5, 0.5]]))


# Protocols


def test_protocols_say_what_they_mean():
    assert {"refnet_fd", "refnet_kid", "refnet_is", "refnet_acc"} <= set(PROTOCOLS)
    for name, entry in PROTOCOLS.items():
        assert protocol(name) is entry
        assert entry.name == name
        assert entry.extractor
        assert entry.description
        assert entry.context in ("floor", "ceiling", "real", "copy")
        assert (entry.context == "copy") == (entry.extractor == "pixels")
        assert entry.context in ("floor", "copy") or not entry.lower_is_better
        assert entry.uses_real or not entry.lower_is_better
        assert not {"statistic", "title", "meaning", "ends"} & set(entry.text())
        if entry.extractor in ("refnet", "pixels"):  # What the report explains.
            assert entry.title
            assert entry.meaning
    with pytest.raises(InputError, match="unknown protocol 'fvd'; known: refnet_fd"):
        protocol("fvd")


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if PROTOCOLS[name].extractor != "pixels"])
def test_what_a_protocol_says_is_what_is_computed(name):
    """Another ddof, number of splits or eps is another number."""
    entry, real, fake = protocol(name), featured(600, seed=1), featured(600, label_noise=0.3, seed=2)
    value = entry.measure(real, fake)
    for field, other in (("ddof", 0), ("splits", 3), ("eps", 1e-2)):
        if getattr(entry, field) is not None:
            assert replace(entry, **{field: other}).measure(real, fake) != value, field
    fields = {"ddof"} if "fd" in name or "fid" in name or "fvd" in name else set()
    fields |= {"splits", "eps"} if "is" in name.partition("v")[0].split("_") else set()
    assert {field for field in ("ddof", "splits", "eps") if getattr(entry, field) is not None} == fields


@pytest.mark.parametrize("name", metrics.__all__)
def test_every_public_name_is_there(name):
    found = getattr(metrics, name)
    assert name == "PROTOCOLS" or found.__name__ == name


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fvd'"):
        _ = metrics.fvd


def test_the_reference_knows_no_metric():
    code = "import sys, pipeline.reference; print(*(m for m in sys.modules if m.startswith('hrvgan.metrics')))"
    assert processes.run([sys.executable, "-c", code]).stdout == "\n"


# Files of features


def test_feature_files(tmp_path):
    sets = {"train": featured(2), "test": featured(2).take(np.arange(0))}
    for name in ("one.npz", "two.npz"):
        save_features(tmp_path / name, sets)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    loaded = load_features(tmp_path / "one.npz")
    assert list(loaded) == ["train", "test"]
    assert len(loaded["test"]) == 0
    for key, array in vars(sets["train"]).items():
        np.testing.assert_array_equal(vars(loaded["train"])[key], array)
    np.savez(tmp_path / "pickle.npz", **{"train/features": np.array([object()])})
    (tmp_path / "torn.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:200])
    for name in ("pickle.npz", "torn.npz", "missing.npz"):
        with pytest.raises(InputError, match="run the stage `reference` again"):
            load_features(tmp_path / name)


# Gates


def featured(n, label_noise=0.0, seed=0, groups=None, confidence=8.0):
    """Clips of four classes in features of width 4, with logits that know them as well as `label_noise` allows."""
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    said = np.where(draw.random(n) < label_noise, draw.integers(4, size=n), labels)
    features = np.eye(4)[labels] + 0.1 * draw.standard_normal((n, 4))
    groups = np.array([f"{seed}-{i}" for i in range(n)]) if groups is None else groups
    return Features(features.astype(np.float32), (confidence * np.eye(4)[said]).astype(np.float32), labels, groups)


def good_sets():
    val = featured(40, seed=1)
    sets = {"train": featured(40, seed=2), "val": val, "test": featured(40, seed=3), "exam": val}
    return sets | {name: Features(val.features + 1, val.logits, val.labels, val.groups) for name in PERTURBATIONS}


def failed(sets):
    return [gate.name for gate in check_gates(sets) if not gate.passed]


def test_gates_open():
    gates = check_gates(good_sets())
    assert len(gates) == 10
    assert all(gate.passed for gate in gates)
    assert all(gate.sentence and gate.measured and gate.needed for gate in gates)


def test_each_gate_closes():
    sets = good_sets()
    val, test = sets["val"], sets["test"]
    leak = Features(test.features, test.logits, test.labels, np.append(test.groups[1:], val.groups[0]))
    assert failed(sets | {"test": leak}) == ["group split"]
    assert failed(sets | {"exam": featured(40, label_noise=0.9, confidence=0.0)}) == ["accuracy"]
    assert failed(sets | {"exam": featured(40, label_noise=0.4)}) == ["calibration"]
    assert failed(sets | {"exam": featured(40, confidence=1.0)}) == ["calibration"]
    for name in ("noisy", "two-coloured"):
        assert failed(sets | {name: val}) == [f"sensitivity: {name}"]


def test_a_fault_that_real_clips_have_is_none():
    sets = good_sets()
    gates = {gate.name: gate for gate in check_gates(sets | {"two-coloured": sets["val"].take(np.arange(0))})}
    assert all(gate.passed for gate in gates.values())
    assert "themselves: it is no fault here" in gates["sensitivity: two-coloured"].sentence
    del sets["warped"]  # as in a reference of an older version
    (gate,) = [gate for gate in check_gates(sets) if not gate.passed]
    assert (gate.name, gate.measured) == ("sensitivity: warped", "not measured")
    assert "run the stage `reference` again" in gate.sentence


def test_gates_without_held_out_clips_say_so():
    sets = good_sets()
    nothing = sets["val"].take(np.arange(0))
    gates = check_gates({name: sets["train"] if name == "train" else nothing for name in sets})
    assert not any(gate.passed for gate in gates)
    assert "no held-out clips" in gates[0].sentence
    assert all(gate.value is None and gate.measured == "not measured" for gate in gates)


def test_a_gate_says_that_the_spread_of_few_groups_is_unknown():
    sets = good_sets()
    two = np.where(np.arange(40) < 20, "a", "b")
    sets |= {name: replace(sets[name], groups=two) for name in ("val", *PERTURBATIONS)}
    said = {gate.name: gate.needed for gate in check_gates(sets)}
    assert all(said[f"sensitivity: {name}"].endswith("their spread is unknown)") for name in PERTURBATIONS)
    assert not any("few groups" in gate.needed for gate in check_gates(good_sets()))


def test_accuracy_bar():
    assert accuracy_bar(0.125, 8) == pytest.approx(0.5625)
    assert accuracy_bar(1 / 101, 101) == pytest.approx(0.40)
    assert accuracy_bar(0.1, 101) == pytest.approx(0.5)
