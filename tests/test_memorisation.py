"""The training clips nearest to generated ones, and how ranks of models hold over networks."""

import numpy as np
import pytest
import torch
from PIL import Image

from hrvgan.evaluation.memorisation import closeness, first_predictions, first_samples, write_nearest
from hrvgan.evaluation.reference_scores import evaluate_networks
from hrvgan.features import Features, load_features
from hrvgan.features.reference import build_reference
from hrvgan.features.refnet import load_refnet
from hrvgan.metrics.protocols import rank_stability, ranks_of
from hrvgan.video.grids import BAND, GAP, labelled_columns


class Copier:
    """A generator that gives training clips back, one of each class."""

    def __init__(self, clips):
        self.clips, self.classes, self.num_classes = clips, clips.classes, clips.num_classes

    def latent(self, n, seed):
        return torch.full((n, 1), float(seed))

    def rows(self, c):
        return [int(np.flatnonzero(self.clips.labels == label)[0]) for label in c.tolist()]

    def draw(self, z, c, psi=1.0):
        assert (z == 3).all()
        return torch.from_numpy(self.clips.read(self.rows(c)))

    def sample(self, n, c=None, seed=0):
        return torch.from_numpy(self.clips.read(self.rows(c)))


@pytest.fixture(scope="module")
def references(shapes_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    build_reference(shapes_clips, folder, steps=15, width=4, num_features=8, networks=2)
    return folder


def test_copies_are_found(references, shapes_clips, tmp_path):
    train = shapes_clips.split("train")
    gan, known = Copier(train), load_features(references / "features.npz")["train"]
    net, _ = load_refnet(references)
    made = first_samples(gan, list(range(8)), seed=3)
    shown = write_nearest(tmp_path / "nearest.png", made, gan.classes, net, train, known)
    assert [row["class"] for row in shown] == [row["clip_class"] for row in shown] == shapes_clips.classes
    names = train.index["clip_id"].to_pylist()
    assert [row["clip_id"] for row in shown] == [names[row] for row in gan.rows(torch.arange(8))]
    assert max(row["distance"] for row in shown) < 1e-3
    picture = np.asarray(Image.open(tmp_path / "nearest.png")).astype(int)
    left, right = picture[:, : picture.shape[1] // 2 - 6], picture[:, picture.shape[1] // 2 + 6 :]
    strip = 8 * (2 * 32 + GAP)  # eight frames, twice as wide, with their gaps
    # Names of classes on both sides, and heads above that differ.
    np.testing.assert_array_equal(left[BAND:], right[BAND:])
    heads = [half[:BAND, -strip:] for half in (left, right)]
    for head, words in zip(heads, ("generated", "nearest training clip"), strict=True):
        np.testing.assert_array_equal(head, labelled_columns(np.zeros((1, strip, 3), np.uint8), [words])[:BAND])
    assert picture.shape[0] == 8 * (2 * 32 + GAP) + BAND


def test_predictions_of_each_class(shapes_clips):
    class Forecaster:
        num_frames = 6

        def predict(self, clips, c, seed):
            assert seed == 5
            assert clips.shape[1] == 6
            self.labels = c.tolist()
            return clips

    gan, test = Forecaster(), shapes_clips.split("test")
    labels, made = first_predictions(gan, test, seed=5, most=7)
    assert gan.labels == labels == list(range(7))
    np.testing.assert_array_equal(made[2], test[int(np.flatnonzero(test.labels == 2)[0])][:6])


def test_closeness_by_hand():
    def rows(values):
        values = np.array(values, np.float32)[:, None] * np.ones((1, 2), np.float32)
        return Features(values, values, np.zeros(len(values), int), np.arange(len(values)).astype(str))

    train = rows([0, 10, 20])
    far = closeness([rows([1, 9]), rows([21, 20])], rows([12, 2, 18]), train)
    assert far["generated"] == pytest.approx(np.sqrt(2))  # Distances 1, 1, 1, 0 times the diagonal.
    assert far["held_out"] == pytest.approx(2 * np.sqrt(2))
    assert far["ratio"] == pytest.approx(0.5)


def test_every_network_scores(references, shapes_clips):
    metrics, manifest = evaluate_networks(Copier(shapes_clips.split("train")), references, draws=2)
    first, second = manifest["networks"].values()
    assert next(iter(manifest["networks"])) == manifest["extractor"]
    assert first["refnet_fd"] == metrics["refnet_fd"]["value"] != second["refnet_fd"]
    assert manifest["memorisation"]["generated"] < 1e-3
    assert set(manifest["ungated_networks"]) <= set(manifest["networks"])
    assert manifest["gated"] == (manifest["extractor"] not in manifest["ungated_networks"])
    assert load_refnet(references / "network-1")[1]["training"]["seed"] == 1


def test_rank_stability_by_hand():
    # Three models, three networks. The first two agree; the third swaps one pair of three: tau = 1/3.
    scores = {"a": [1.0, 10.0, 2.0], "b": [2.0, 20.0, 1.0], "c": [3.0, 30.0, 3.0]}
    assert rank_stability(scores) == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert rank_stability({"a": [1.0, 2.0], "b": [2.0, 1.0]}) == -1
    manifests = {
        model: {"networks": {f"net{i}": {"fd": value} for i, value in enumerate(values)}}
        for model, values in scores.items()
    }
    assert ranks_of(manifests) == {"fd": pytest.approx(5 / 9)}
    manifests["a"]["networks"]["net0"]["acc"] = 1.0  # Not every model has it.
    assert set(ranks_of(manifests)) == {"fd"}
    assert ranks_of({"a": {}, "b": {}}) == {}
    manifests["b"]["ungated_networks"] = {"net2": ["accuracy: it is right about 10.0% of 40 val clips"]}
    assert ranks_of(manifests) == {"fd": pytest.approx(1)}  # The network that disagrees is not believed.
    assert rank_stability({"a": [1.0], "b": [2.0]}) is None
    assert rank_stability({"a": [1.0, 1.0]}) is None
