"""The reference network: what it is given, what it learns, what it leaves on disk."""

import json
import math

import numpy as np
import pytest
import torch

from hrvgan.errors import InputError
from hrvgan.features import load_features
from hrvgan.features.perturbations import PERTURBATIONS
from hrvgan.features.reference import build_reference, label_task, motion_gain, pretext_task
from hrvgan.features.refnet import (
    SKETCH,
    RefNet,
    augment,
    batch_size_for,
    calibrate,
    changes,
    featurise,
    fit,
    golden_section,
    load_refnet,
    save_refnet,
    unexplained,
)

QUICK = {"steps": 3, "batch_size": 8, "width": 4, "num_features": 8}
RNG = np.random.default_rng(0)


def noise(n, frames, height, width):
    return RNG.integers(256, size=(n, frames, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def quick(shapes_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    return folder, build_reference(shapes_clips, folder, **QUICK)


@pytest.mark.parametrize("shape", [(8, 32, 32), (2, 8, 8), (40, 64, 48), (1, 16, 16)])
def test_any_clip_in_bounded_cost(shape):
    net = RefNet(5, num_features=12, width=4, max_size=32, max_frames=16).eval()
    video = net.prepare(torch.as_tensor(noise(2, *shape)))
    frames, height, width = video.shape[2:]
    assert frames <= 16
    assert max(height, width) == min(32, *[max(shape[1:])])
    assert height / width == pytest.approx(shape[1] / shape[2])
    assert video.abs().max() <= 1
    features, logits = net(torch.as_tensor(noise(2, *shape)))
    assert (features.shape, logits.shape) == ((2, 12), (2, 5))


def test_clips_that_fit_are_not_touched():
    clips = noise(1, 4, 16, 16)
    video = RefNet(2, max_size=16, max_frames=4).prepare(torch.as_tensor(clips))
    np.testing.assert_allclose(video.permute(0, 2, 3, 4, 1), clips / 127.5 - 1, atol=1e-6)
    assert math.prod((16, 64, 64, 3)) * batch_size_for((16, 64, 64, 3)) < 2**26
    assert batch_size_for((8, 32, 32, 3)) == 64


def test_small_motion_is_brought_to_one_scale():
    video = torch.zeros(1, 3, 4, 2, 2)
    video[0, :, 2] = 0.03  # Up by 0.03 after the second frame, down again after the third.
    torch.testing.assert_close(changes(video)[0, 0, :, 0, 0], torch.tensor([0, 0.03, -0.03]))

    class Train:
        def __len__(self):
            return 200

        def read(self, rows):
            assert len(rows) == 64
            levels = np.array([100, 104, 100, 104], np.uint8)
            return np.broadcast_to(levels[:, None, None, None], (len(rows), 4, 8, 8, 3)).copy()

    net = RefNet(3, width=4, motion=True).eval()
    assert motion_gain(net, Train()) == pytest.approx(0.5 / (4 / 127.5), rel=1e-5)
    assert "motion" in net.arguments
    assert "gain" in net.state_dict()
    clips = torch.as_tensor(noise(2, 4, 16, 16))
    features = net(clips)[0]
    net.gain.fill_(3)
    assert (net(clips)[0] - features).abs().max() > 1e-4


def test_features_do_not_depend_on_the_batch():
    net, clips = RefNet(3, width=4), noise(7, 4, 16, 16)
    whole, parts = featurise(net, [clips]), featurise(net, [clips[:1], clips[1:5], clips[5:]])
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    features, logits = featurise(net, [])
    assert (features.shape, logits.shape) == ((0, 32), (0, 3))


def test_every_parameter_learns_and_the_scale_divides():
    net, clips = RefNet(3, width=4), torch.as_tensor(noise(4, 4, 16, 16))
    net(clips)[1].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())
    net.eval()
    features, logits = net(clips)
    net.rms.fill_(2)
    net.temperature.fill_(4)
    halved, cooled = net(clips)
    torch.testing.assert_close(halved, features / 2)
    torch.testing.assert_close(cooled, logits / 4)


def test_augmentation_moves_whole_clips():
    video = torch.rand(50, 3, 4, 16, 16) * 0.1
    video[:, :, :, 8, 8] = 0.8  # One bright point.
    moved = augment(video, np.random.default_rng(0))
    assert moved.shape == video.shape
    places = moved.mean(dim=1).flatten(2).argmax(dim=2)  # (N, T)
    assert (places == places[:, :1]).all()  # The same shift for all frames of a clip.
    rows, columns = places[:, 0] // 16, places[:, 0] % 16
    assert set(rows.tolist()) == set(columns.tolist()) == set(range(6, 11))
    assert moved.amax(dim=(1, 2, 3, 4)).min() >= 0.8 * 0.8 - 1e-6
    assert moved.amax(dim=(1, 2, 3, 4)).max() <= 0.8 * 1.2 + 1e-6


def test_the_sketch_explains_variance():
    video = torch.randn(6, 3, 4, 8, 8)
    view = torch.nn.functional.adaptive_avg_pool3d(video, SKETCH).flatten(1)
    assert unexplained(view, video) == pytest.approx(0)
    assert unexplained(view.mean() * torch.ones_like(view), video) == pytest.approx(1, rel=1e-5)
    assert unexplained(torch.zeros_like(view), torch.zeros_like(video)) == 0


def test_pretext_answers_fit_the_clips(shapes_clips):
    train = shapes_clips.split("train")
    rows = np.arange(60)
    clips, answers = pretext_task(train)(np.random.default_rng(0), rows)
    originals = train.read(rows)
    assert set(answers) == {0, 1, 2}
    for clip, original, answer in zip(clips, originals, answers, strict=True):
        frames = {frame.tobytes() for frame in clip}
        if answer == 0:
            assert (clip == original).all()
        elif answer == 1:
            assert frames == {frame.tobytes() for frame in original}
            assert (clip != original).any()
        else:
            assert (clip[0::2] == clip[1::2]).all()


def test_calibration_finds_the_temperature():
    draw = np.random.default_rng(0)
    logits = draw.standard_normal((4000, 5)) * 2
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answers = np.array([draw.choice(5, p=p) for p in odds])
    assert calibrate(logits, answers) == pytest.approx(1, rel=0.1)
    assert calibrate(logits * 7, answers) == pytest.approx(7 * calibrate(logits, answers), rel=1e-3)
    certain = np.eye(3)[[0, 1, 2, 0]]
    assert 1 / 20 < calibrate(certain, np.array([0, 1, 2, 0])) < 1  # Sharper, but four answers prove little.
    assert golden_section(lambda x: (x - 0.3) ** 2, -4, 4) == pytest.approx(0.3, abs=1e-5)


def test_training_learns_the_classes_of_one_batch(shapes_clips):
    train = shapes_clips.split("train")
    torch.manual_seed(0)
    net, rows = RefNet(8, width=8), np.flatnonzero(train.labels < 2)
    clips, labels = train.read(rows), train.labels[rows]
    fit(
        net,
        lambda rng, chosen: (clips[chosen], labels[chosen]),
        len(rows),
        steps=60, batch_size=16, lr=1e-2, sketch_weight=0.5, fault_weight=1.0, most_move=0.25, seed=0,
    )  # fmt: skip
    _, logits = featurise(net, [clips])
    assert (logits.argmax(axis=1) == labels).mean() > 0.9


def test_the_folder_of_a_reference(quick, shapes_clips):
    folder, info = quick
    assert json.loads((folder / "refnet.json").read_text()) == info
    assert sorted(file.name for file in folder.iterdir()) == ["features.npz", "refnet.json", "refnet.safetensors"]
    assert info["labelled"]
    assert info["classes"] == info["answers"] == shapes_clips.classes
    assert info["num_clips"] == {"train": 64, "val": 16, "test": 16}
    assert info["data_digest"] == shapes_clips.digest
    sets = load_features(folder / "features.npz")
    assert np.square(sets["train"].features).mean() == pytest.approx(1, rel=1e-4)
    for name in ("train", "val", "test"):
        split, rows = shapes_clips.split(name), sets[name]
        np.testing.assert_array_equal(rows.labels, split.labels)
        assert rows.groups.tolist() == split.index["group"].to_pylist()
        assert info["accuracy"][name] == (rows.logits.argmax(axis=1) == rows.labels).mean()
    for name in PERTURBATIONS:
        assert sets[name].features.shape == sets["val"].features.shape
        assert not np.allclose(sets[name].features, sets["val"].features)
    np.testing.assert_array_equal(sets["exam"].logits, sets["val"].logits)
    for name in ("noise", "mean", "one"):
        assert sets[f"trivial_{name}"].labels.tolist() == list(range(8))


def test_the_stored_network_gives_the_stored_features(quick, shapes_clips):
    folder, info = quick
    net, loaded = load_refnet(folder)
    assert loaded == info
    test = shapes_clips.split("test")
    features, logits = featurise(net, [test.read(range(16))])
    stored = load_features(folder / "features.npz")["test"]
    np.testing.assert_allclose(features, stored.features, atol=1e-5)
    np.testing.assert_allclose(logits, stored.logits, atol=1e-5)


def test_the_same_seed_gives_the_same_bytes(quick, shapes_clips, tmp_path):
    folder, info = quick
    again, other = tmp_path / "again", tmp_path / "other"
    before = torch.random.get_rng_state()
    for out, seed in ((again, 0), (other, 1)):
        out.mkdir()
        build_reference(shapes_clips, out, seed=seed, **QUICK)
    assert (before == torch.random.get_rng_state()).all()
    for file in folder.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes()
    assert json.loads((other / "refnet.json").read_text())["id"] != info["id"]


def test_a_reference_that_does_not_belong_together(quick, tmp_path):
    folder, info = quick
    weights, text = (folder / "refnet.safetensors").read_bytes(), (folder / "refnet.json").read_text()
    for broken_weights, broken_text in (
        (weights[:-1] + bytes([weights[-1] ^ 1]), text),
        (b"\x80\x04.", text),  # A pickle.
        (weights, text[:40]),
        (weights, text.replace('"width": 4', '"width": 8')),
        (weights, json.dumps({**info, "arguments": {"colour": "red"}})),
        (None, text),
    ):
        (tmp_path / "refnet.json").write_text(broken_text)
        (tmp_path / "refnet.safetensors").unlink(missing_ok=True)
        if broken_weights is not None:
            (tmp_path / "refnet.safetensors").write_bytes(broken_weights)
        with pytest.raises(InputError, match="run the stage `reference` again"):
            load_refnet(tmp_path)


def test_the_id_covers_the_temperature(tmp_path):
    net = RefNet(2, width=4)
    first = save_refnet(net, tmp_path)["id"]
    net.temperature.fill_(2)
    assert save_refnet(net, tmp_path)["id"] != first


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"num_features": -1}, {"lr": 0.0}])
def test_numbers_that_make_no_sense(wrong, shapes_clips, tmp_path):
    with pytest.raises(InputError, match=rf"reference\.{next(iter(wrong))}"):
        build_reference(shapes_clips, tmp_path, **wrong)


def test_no_training_clips(shapes_clips, tmp_path):
    with pytest.raises(InputError, match="no training clips"):
        build_reference(shapes_clips.split("val"), tmp_path)


def test_the_label_task_is_the_store(shapes_clips):
    clips, labels = label_task(shapes_clips)(RNG, np.array([3, 1]))
    np.testing.assert_array_equal(clips, shapes_clips.read([3, 1]))
    np.testing.assert_array_equal(labels, shapes_clips.labels[[3, 1]])
