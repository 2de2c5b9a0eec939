"""Scores of generators whose skill is known: real clips, real clips gone wrong, and noise."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hrvgan.clipstore.clips import Clips
from hrvgan.clipstore.writer import Clip, write_clips
from hrvgan.errors import InputError
from hrvgan.evaluation.evaluate import evaluate_published, table
from hrvgan.evaluation.reference_scores import evaluate_refnet, featurise_draws
from hrvgan.evaluation.sources import SAMPLE_BATCH
from hrvgan.features import load_features
from hrvgan.features.inception_v3 import InceptionV3
from hrvgan.features.reference import PERTURBATIONS, build_reference
from hrvgan.features.refnet import load_refnet
from hrvgan.features.weight_files import WEIGHTS
from hrvgan.files import write_json
from hrvgan.models import build_model

DISTANCES = ("refnet_fd", "refnet_kid")
NEIGHBOURS = ("refnet_precision", "refnet_recall", "refnet_density", "refnet_coverage")


INCEPTION = "pt_inception-2015-12-05-6726825d.pth"


class Resampler:
    """A generator that draws real clips of the class asked for, done to as `how` says."""

    def __init__(self, clips, how="well", num_classes=None):
        self.clips, self.how, self.classes = clips, how, clips.classes
        self.num_classes = clips.num_classes if num_classes is None else num_classes
        self.seeds, self.largest = [], 0

    def sample(self, n, c=None, seed=0):
        assert (c is None) == (self.num_classes == 0)
        self.seeds.append(seed)
        self.largest = max(self.largest, n)
        rng, labels = np.random.default_rng(seed), self.clips.labels
        c = rng.choice(labels, size=n) if c is None else c.numpy()
        if self.how == "one class":
            c = 0 * c
        if self.how == "wrong class":
            c = (c + 1) % self.num_classes
        videos = self.clips.read([int(rng.choice(np.flatnonzero(labels == label))) for label in c])
        if self.how in PERTURBATIONS:
            videos = PERTURBATIONS[self.how](videos, rng)
        if self.how == "noise":
            videos = rng.integers(256, size=videos.shape, dtype=np.uint8)
        return torch.from_numpy(videos)


@pytest.fixture(scope="module")
def reference(shapes_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    build_reference(shapes_clips, folder, steps=100, width=8, lr=1e-2)
    return folder


@pytest.fixture(scope="module")
def results(reference, shapes_clips):
    test = shapes_clips.split("test")
    hows = ("well", "wrong class", "one class", "noise", *PERTURBATIONS)
    return {how: evaluate_refnet(Resampler(test, how), reference) for how in hows}


def values(results, name):
    return {how: metrics[name]["value"] for how, (metrics, _) in results.items()}


@pytest.mark.parametrize("name", ["refnet_fd", "refnet_kid"])
def test_distances_put_generators_in_order(results, name):
    value, entry = values(results, name), results["well"][0][name]
    for how in ("one class", "noise", *PERTURBATIONS):
        assert value[how] > value["well"], how
    assert value["well"] < entry["trivial_best"]
    # Every label wrong: invisible here, and the reason why there is refnet_acc.
    assert value["wrong class"] < min(value["one class"], value["noise"], value["frozen"])


def test_scores_that_need_labels(results):
    accuracy, inception = values(results, "refnet_acc"), values(results, "refnet_is")
    entry = results["well"][0]["refnet_acc"]
    assert accuracy["well"] > 0.7
    assert accuracy["wrong class"] < entry["chance"] + 0.1
    assert accuracy["one class"] <= 0.3
    assert entry["real"] > 0.7
    assert entry["chance"] == pytest.approx(1 / 8, abs=0.05)
    ceiling = results["well"][0]["refnet_is"]["ceiling"]
    assert 4 < ceiling <= 8
    assert inception["well"] == pytest.approx(ceiling, rel=0.3)
    assert max(inception["one class"], inception["noise"]) < 0.5 * ceiling


def test_what_is_written(results, reference):
    metrics, manifest = results["well"]
    assert set(metrics) == {*DISTANCES, *NEIGHBOURS, "refnet_is", "refnet_acc", "gated"}
    for name in DISTANCES:
        assert set(metrics[name]) == {"value", "sd", "n", "floor", "train", "trivial_best"}
    for name in NEIGHBOURS:
        assert set(metrics[name]) == {"value", "sd", "n", "real", "train", "trivial_best"}
    assert set(metrics["refnet_is"]) == {"value", "sd", "n", "ceiling"}
    assert set(metrics["refnet_acc"]) == {"value", "sd", "n", "real", "chance"}
    assert all(
        type(number) is float for entry in metrics.values() if entry is not True for number in entry.values()
    )
    _, info = load_refnet(reference)
    assert manifest["extractor"] == f"refnet-{info['id']}"
    assert manifest["real"] == {"data_digest": info["data_digest"], "split": "test"}
    assert manifest["num_real"] == manifest["num_fake"] == 8  # Half of 16 test clips.
    assert manifest["num_draws"] == 5
    assert set(manifest["protocols"]) == set(metrics) - {"gated"}
    assert any("not above D" in note for note in manifest["notes"])
    assert json.loads(json.dumps(manifest, allow_nan=False)) == manifest


def test_what_is_left_out_has_a_note(results):
    notes = results["well"][1]["notes"]
    assert "refnet_fd_inf is left out: 8 clips, need at least 500; give more" in notes
    assert "refnet_intra_kid is left out: 1 clip(s) of a class, need at least 2; give more" in notes


def test_gates_of_a_good_network(results):
    metrics, manifest = results["well"]
    assert metrics["gated"] is True
    assert manifest["ungated"] == []
    assert len(manifest["gates"]) == 6
    assert {"name", "passed", "value", "bar", "sentence", "measured", "needed"} <= set(manifest["gates"][0])


def test_evaluation_is_deterministic(results, reference, shapes_clips, tmp_path):
    again = evaluate_refnet(Resampler(shapes_clips.split("test")), reference)
    assert again == results["well"]
    write_json(tmp_path / "metrics.json", again[0])
    assert evaluate_refnet(Resampler(shapes_clips.split("test")), reference, seed=1)[0] != again[0]


def test_draws_come_in_chunks_of_their_own_seeds(reference, shapes_clips):
    gan, labels = Resampler(shapes_clips.split("train")), np.arange(70) % 8
    net, info = load_refnet(reference)
    (fake,) = featurise_draws(gan, net, [labels], info["clip_shape"], 0)
    assert len(fake) == 70
    assert gan.largest == SAMPLE_BATCH
    assert len(set(gan.seeds)) == 3
    np.testing.assert_array_equal(fake.labels, labels)
    assert (fake.logits.argmax(axis=1) == labels).mean() > 0.9


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """A store of films of two classes, ten clips a film, with its reference."""
    folder = tmp_path_factory.mktemp("two")
    clips = [
        replace(clip, class_name="ab"[number % 2])
        for number, split in enumerate(["train"] * 4 + ["val"] * 2 + ["test"] * 4)
        for clip in film(number, split)
    ]
    write_clips(folder / "clips", clips, shape=(8, 24, 24, 3), classes=["a", "b"], num_shards=1)
    store = Clips(folder / "clips")
    build_reference(store, folder, steps=4, batch_size=8, width=4)
    return store.split("test"), folder


def test_distance_within_classes(two_classes):
    test, folder = two_classes
    entries = {
        how: evaluate_refnet(Resampler(test, how), folder)[0]["refnet_intra_kid"]
        for how in ("well", "wrong class")
    }
    assert set(entries["well"]) == {"value", "sd", "n", "floor", "train", "trivial_best"}
    assert entries["well"]["value"] < entries["wrong class"]["value"]
    assert "refnet_intra_kid" not in evaluate_refnet(Resampler(test, num_classes=0), folder, draws=2)[0]


def test_an_untrained_model_is_far_off(reference, shapes_clips, results):
    gan = build_model("hrvgan", num_classes=8, size=32, width=0.05, z_dim=8)
    gan.classes = shapes_clips.classes
    metrics, _ = evaluate_refnet(gan, reference, draws=2)
    assert metrics["refnet_fd"]["value"] > 2 * results["well"][0]["refnet_fd"]["value"]
    assert metrics["refnet_acc"]["value"] < 0.5


def test_a_model_without_labels_has_no_accuracy(reference, shapes_clips):
    metrics, manifest = evaluate_refnet(
        Resampler(shapes_clips.split("test"), num_classes=0), reference, draws=2
    )
    assert set(metrics) == {*DISTANCES, *NEIGHBOURS, "refnet_is", "gated"}
    assert "refnet_acc" not in manifest["protocols"]


def test_published_protocols_go_on_without(shapes_clips, tmp_path):
    gan = Resampler(shapes_clips.split("test"))
    asked = ["fvd2048_16f", "isv9984_c3d"]
    metrics, manifest = evaluate_published(gan, shapes_clips, asked, weights=tmp_path, seed=0, num=2)
    assert metrics == manifest["protocols"] == {}
    assert [sentence.split(":")[0] for sentence in manifest["left_out"]] == asked
    torch.manual_seed(0)
    torch.save(InceptionV3().state_dict(), tmp_path / INCEPTION)
    asked = ["fvd2048_16f", "fid_frame_clean"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WEIGHTS, INCEPTION, replace(WEIGHTS[INCEPTION], size=None, sha256=""))
        metrics, manifest = evaluate_published(gan, shapes_clips, asked, weights=tmp_path, seed=0, num=2)
    assert set(metrics) == {"fid_frame_clean_n2_unverified"}
    assert set(metrics["fid_frame_clean_n2_unverified"]) == {"value", "sd", "n", "floor"}
    about = manifest["protocols"]["fid_frame_clean_n2_unverified"]
    assert about["extractor_id"].startswith("inception_2015_clean-float32-")
    assert "not above D = 2048" in about["warnings"][0]
    for num in (0, -3):
        with pytest.raises(InputError, match=f"{num} clip\\(s\\) a draw asked for"):
            evaluate_published(gan, shapes_clips, asked, weights=tmp_path, seed=0, num=num)


def test_the_table(results):
    lines = table(*results["well"]).splitlines()
    names = [line.split()[0] for line in lines]
    assert names == ["refnet_fd", "refnet_kid", "refnet_is", "refnet_acc", *NEIGHBOURS]
    assert "floor" in lines[0]
    assert "ceiling" in lines[2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"draws": 1}, "at least 2"),
        ({"num_clips": 9}, "half of the 16 real clips is 8"),
        ({"num_clips": 0}, "auto or a number"),
        ({"num_clips": "many"}, "auto or a number"),
        ({"num_halvings": 0}, "num_halvings"),
    ],
)
def test_numbers_that_make_no_sense(reference, shapes_clips, wrong, message):
    with pytest.raises(InputError, match=message):
        evaluate_refnet(Resampler(shapes_clips), reference, **wrong)


def test_a_model_of_other_clips(reference, shapes_clips):
    gan = Resampler(shapes_clips)
    gan.classes = gan.classes[::-1]
    with pytest.raises(InputError, match="the model makes the classes DiscUp"):
        evaluate_refnet(gan, reference)
    other = build_model("hrvgan", num_classes=8, size=16, width=0.05, z_dim=8)
    other.classes = shapes_clips.classes
    with pytest.raises(InputError, match=r"makes clips of \(\d+, 16, 16, 3\)"):
        evaluate_refnet(other, reference)


def film(number, split, count=10):
    """Clips of one video without a class: a square that wanders over a texture of its own."""
    rng = np.random.default_rng(number)
    ground = rng.integers(100, size=(24, 24, 3), dtype=np.uint8)
    places = np.cumsum(rng.integers(-2, 3, size=(count + 8, 2)), axis=0) % 16
    frames = np.repeat(ground[None], count + 8, axis=0)
    for frame, (y, x) in zip(frames, places, strict=True):
        frame[y : y + 6, x : x + 6] = 200 + number
    return [
        Clip(f"film{number}@{start}", f"film{number}", "", "0" * 32, split, f"film{number}", start, 1, 8.0, 1.0,
             frames[start : start + 8])
        for start in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("splits", [["train"], ["train", "train", "val", "test"]])
def test_videos_without_labels(splits, tmp_path):
    clips = [clip for number, split in enumerate(splits) for clip in film(number, split)]
    write_clips(tmp_path / "clips", clips, shape=(8, 24, 24, 3), classes=[], num_shards=1)
    store = Clips(tmp_path / "clips")
    info = build_reference(store, tmp_path, steps=4, batch_size=8, width=4)
    assert not info["labelled"]
    assert info["answers"] == ["forward", "shuffled", "half speed"]
    metrics, manifest = evaluate_refnet(Resampler(store.split("train")), tmp_path, draws=2)
    assert set(metrics) == {
        *DISTANCES[:2],
        "gated",
    }  # Five clips a side have no fifth neighbour and make no line.
    assert metrics["gated"] is False
    assert manifest["real"]["split"] == ("test" if "test" in splits else "train")
    reasons = " ".join(manifest["ungated"])
    assert ("there are no held-out clips" in reasons) == ("val" not in splits)
    assert ("train" in metrics["refnet_fd"]) == ("test" in splits)
    assert any("pretext" in note for note in manifest["notes"])
    assert len(load_features(tmp_path / "features.npz")["noisy"]) == 10 * splits.count("val")
