"""Any two sets of clips: sources, N and names, floors, the cache, refusals, and the commands."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from hrvgan import cli
from hrvgan.errors import InputError
from hrvgan.metrics import frechet_distance_from_features
from hrvgan.metrics.comparing import check_comparable, compare, why_not
from hrvgan.metrics.extractors import Extractor
from hrvgan.metrics.features import Features
from hrvgan.metrics.health import health
from hrvgan.metrics.protocols import PROTOCOLS, protocol
from hrvgan.scoring.drawing import GeneratorSource
from hrvgan.scoring.reference import build_reference
from hrvgan.scoring.scores import plan, score_all, sets_of, spread
from hrvgan.scoring.source_files import ArraySource, open_source
from hrvgan.scoring.sources import Cut, StoreSource
from hrvgan.video.files import write_video

RNG = np.random.default_rng(0)


def noise(n, frames=4, side=12, seed=0):
    return np.random.default_rng(seed).integers(256, size=(n, frames, side, side, 3), dtype=np.uint8)


def mean_colours(frames=4):
    """An extractor that can be worked out by hand: mean levels of the three colours, two logits."""

    def read(clips):
        features = clips.float().mean(dim=(1, 2, 3)) / 255
        return features, features[:, :2]

    return Extractor("colours-float32-0", frames, 3, read)


# Sources


def read_all(source, cut=None):
    return np.concatenate(list(source.read(np.arange(len(source)), cut or Cut())))


@pytest.fixture
def files(tmp_path):
    clips = noise(21)
    np.save(tmp_path / "clips.npy", clips)
    np.savez(tmp_path / "plain.npz", labels=np.arange(21), frames=clips)
    np.savez_compressed(tmp_path / "small.npz", anything=clips)
    return tmp_path, clips


@pytest.mark.parametrize("name", ["clips.npy", "plain.npz", "small.npz"])
def test_arrays_stream(files, name):
    folder, clips = files
    source = open_source(folder / name)
    assert len(source) == 21
    np.testing.assert_array_equal(read_all(source), clips)
    rows = np.array([2, 3, 20])
    np.testing.assert_array_equal(np.concatenate(list(source.read(rows, Cut(2)))), clips[rows, :2])
    assert len(source.digest) == 64


def test_memory_does_not_grow_with_the_number_of_clips(tmp_path):
    peaks = []
    for count in (64, 640):
        np.savez_compressed(tmp_path / "many.npz", frames=np.zeros((count, 4, 32, 32, 3), np.uint8))
        source = ArraySource(tmp_path / "many.npz")
        tracemalloc.start()
        total = sum(batch.sum() for batch in source.read(np.arange(count), Cut()))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == 0
    assert peaks[1] < peaks[0] + 100_000 < 64 * 4 * 32 * 32 * 3


def test_a_folder_of_videos(tmp_path):
    for number in range(3):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        write_video(
            tmp_path / "ab"[number % 2] / f"{number}.mp4",
            np.full((6, 16, 16, 3), 80 * number, np.uint8),
            fps=8,
        )
    source = open_source(tmp_path)
    assert source.classes == ["a", "b"]
    assert source.labels.tolist() == [0, 0, 1]
    clips = read_all(source, Cut(4, drawn=True))
    assert clips.shape == (3, 4, 16, 16, 3)
    np.testing.assert_allclose(clips.mean(axis=(1, 2, 3, 4)), [0, 160, 80], atol=3)
    before = source.digest
    write_video(tmp_path / "a" / "2.mp4", np.full((6, 16, 16, 3), 9, np.uint8), fps=8)
    assert open_source(tmp_path).digest != before
    with pytest.raises(InputError, match=r"[012]\.mp4: 6 frames, need 9"):
        read_all(source, Cut(9))


def test_a_clip_store_and_its_split(shapes_clips):
    source = StoreSource(shapes_clips.folder, "test")
    assert len(source) == 16
    np.testing.assert_array_equal(read_all(source), shapes_clips.split("test").read(range(16)))
    assert source.digest != StoreSource(shapes_clips.folder).digest
    assert source.classes == shapes_clips.classes


def test_drawn_starts_depend_on_the_clip_alone():
    clip = np.arange(10)
    starts = [Cut(4, drawn=True)(clip, row, "x")[0] for row in range(50)]
    assert set(starts) == set(range(7))
    assert Cut(4, drawn=True)(clip, 3, "x")[0] == starts[3]
    assert Cut(4)(clip, 3, "x").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nothing", "no such file or folder"),
        (lambda p: (p / "a.txt").write_text("x") and p / "a.txt", "cannot be scored"),
        (lambda p: (p / "b.npz").write_bytes(b"PK torn") and p / "b.npz", "no readable numpy file"),
        (lambda p: np.save(p / "c.npy", np.zeros((3, 4))) or p / "c.npy", "need uint8 clips"),
        (lambda p: np.save(p / "d.npy", noise(1)) or p / "d.npy", r"1 clip\(s\), need at least 2"),
        (lambda p: np.save(p / "e.npy", np.array([{}])) or p / "e.npy", "need uint8 clips"),
        (lambda p: (p / "f").mkdir() or p / "f", "no videos"),
    ],
)
def test_what_is_no_source(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        open_source(make(tmp_path))


def test_an_array_that_ends_early(tmp_path):
    np.save(tmp_path / "a.npy", noise(8))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-100])
    with pytest.raises(InputError, match="ends in the middle of a clip"):
        read_all(open_source(tmp_path / "a.npy"))


class Coloured:
    """A generator whose clips are as bright as their class."""

    num_classes, classes = 3, ("dark", "grey", "light")

    def sample(self, n, c=None, seed=0):
        return (c[:, None, None, None, None] * 100 + torch.zeros(n, 4, 8, 8, 3)).to(torch.uint8)


def test_a_generator_is_a_source():
    source = GeneratorSource(Coloured(), np.array([0, 1, 1, 2]), 40, seed=0)
    rows = np.arange(0, 40, 2)
    clips = np.concatenate(list(source.read(rows, Cut(2))))
    assert clips.shape == (20, 2, 8, 8, 3)
    np.testing.assert_array_equal(clips[:, 0, 0, 0, 0], 100 * source.labels[rows])
    assert np.bincount(source.labels).tolist() == [10, 20, 10]


# N, floors, draws


def test_numbers_of_clips():
    fvd, fid, inception = protocol("fvd2048_16f"), protocol("fid_c3d_fc7"), protocol("isv2048_c3d")
    assert plan(fvd, 13_320, 50_000) == (4096, 2048, 5)  # Twice N for a floor at the same N.
    assert plan(fvd, 3000, 2048) == (3000, 2048, 1)
    assert plan(fvd, 500, 3000) == (500, 500, 5)  # Equal N: the smaller side decides.
    assert plan(fid, 9537, 4096) == (9537, 2048, 2)  # All real clips, as published.
    assert plan(inception, 100, 2048) == (100, 2048, 1)
    assert plan(fvd, 500, 500, num=50) == (100, 50, 5)
    assert fvd.reduced(2048).name == "fvd2048_16f"
    assert fvd.reduced(500).name == "fvd2048_16f_n500"
    assert protocol("refnet_fd").reduced(3).name == "refnet_fd"
    assert spread(10, 4).tolist() == [0, 2, 5, 7]


def test_scores_floor_and_draws_by_hand(files):
    folder, clips = files
    source, other = ArraySource(folder / "clips.npy"), ArraySource(folder / "plain.npz")
    entry = protocol("fvd2048_16f")
    sets = sets_of(entry, mean_colours(), source, other, num=5)
    assert (len(sets.real), [len(fake) for fake in sets.fakes]) == (5, [5] * 4)
    metrics, manifest = score_all([entry], source, other, lambda name: mean_colours(), num=5)
    assert list(metrics) == ["fvd2048_16f_n5"]
    colours = clips.mean(axis=(1, 2, 3)) / 255
    values = [frechet_distance_from_features(sets.real.features, fake.features) for fake in sets.fakes]
    assert metrics["fvd2048_16f_n5"]["value"] == pytest.approx(np.mean(values))
    assert metrics["fvd2048_16f_n5"]["sd"] == pytest.approx(np.std(values, ddof=1))
    np.testing.assert_allclose(sets.real.features, colours[spread(21, 10)][spread(10, 5)], rtol=1e-5)
    about = manifest["protocols"]["fvd2048_16f_n5"]
    assert (about["num_real"], about["num_fake"], about["num_draws"], about["num_features"]) == (5, 5, 4, 3)
    assert about["extractor_id"] == "colours-float32-0"
    assert json.loads(json.dumps(manifest, allow_nan=False)) == manifest


def test_features_of_real_clips_are_kept(files, tmp_path):
    folder, _ = files
    source, entry, calls = ArraySource(folder / "clips.npy"), protocol("fvd2048_16f"), []

    def counting(clips):
        calls.append(len(clips))
        return mean_colours().read(clips)

    extractor = Extractor("counting", 4, 3, counting)
    results = [
        sets_of(entry, extractor, source, source, num=5, cache=tmp_path / "cache", seed=seed)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(results[0].real.features, results[1].real.features)
    real = [10, 0, 10]  # The second time only the fakes are looked at; another seed draws other starts.
    assert sum(calls) == sum(real) + 3 * 20


def test_what_is_missing_is_a_sentence_and_others_go_on(files, shapes_clips, tmp_path):
    from functools import partial

    from hrvgan.commands.score import open_any

    source = ArraySource(files[0] / "clips.npy")
    opener = partial(open_any, reference=None, weights=tmp_path, device="cpu")
    asked = [protocol(name) for name in ("isv2048_c3d", "fvd2048_16f")]
    metrics, manifest = score_all(asked, source, source, opener)
    assert metrics == {}
    assert "isv2048_c3d: the real clips have no classes" in manifest["left_out"][0]
    assert "i3d_torchscript.pt (or i3d_pretrained_400.pt) is not in" in manifest["left_out"][1]
    with pytest.raises(InputError, match="need --reference"):
        opener("refnet")


def test_collapse_is_a_warning():
    def rows(values, logits=None):
        n = len(values)
        logits = np.zeros((n, 0)) if logits is None else logits
        return Features(np.asarray(values, np.float32), logits, np.zeros(n, int), np.arange(n).astype(str))

    real = rows(RNG.standard_normal((40, 3)), np.eye(2)[np.arange(40) % 2])
    assert health(real, [rows(RNG.standard_normal((40, 3)), np.eye(2)[np.arange(40) % 2])]) == []
    assert "vary 0" in health(real, [rows(np.ones((40, 3)))])[0]
    assert "copies" in health(real, [rows(np.repeat(RNG.standard_normal((4, 3)), 10, axis=0))])[0]
    assert "same class" in health(real, [rows(RNG.standard_normal((40, 3)), np.eye(2)[np.zeros(40, int)])])[0]


# Comparing


def test_only_like_is_compared_with_like():
    fact = {"extractor_id": "a-float32-1", "real_digest": "d", "num_real": 5, "num_fake": 5, "frames": 16}
    first = {"protocols": {"fvd": fact}}
    assert why_not("fvd", first, {"protocols": {"fvd": dict(fact)}}) == []
    for key, value, words in (
        ("extractor_id", "a-float32-2", "different extractor"),
        ("real_digest", "e", "different real clips"),
        ("num_fake", 6, "different number of generated clips"),
        ("frames", 8, "different frames"),
    ):
        with pytest.raises(InputError, match=f"fvd cannot be compared: {words}"):
            check_comparable("fvd", first, {"protocols": {"fvd": {**fact, key: value}}})
    with pytest.raises(InputError, match="not scored by the same protocol"):
        check_comparable("fvd", first, {"protocols": {"fvd_n5": fact}})


def test_predictions_are_compared_by_their_clips():
    def result(digest):
        about = {"protocols": {"predict_psnr": "PSNR"}, "extractor": "none", "real": {"data_digest": digest}}
        return {"predict_psnr": {"value": 20.0}}, about | {"num_real": 4, "num_fake": 4}

    assert compare([result("a"), result("a")]) == {"predict_psnr": [{"value": 20.0}] * 2}
    with pytest.raises(InputError, match="different real clips"):
        compare([result("a"), result("b")])
    with pytest.raises(InputError, match="not scored by the same protocol"):
        compare([result("a"), ({}, {"protocols": {}})])


# The commands


@pytest.fixture(scope="module")
def reference(shapes_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    build_reference(shapes_clips, folder, steps=20, width=4, num_features=8)
    return folder


def test_score_clips_and_compare(reference, shapes_clips, shapes_raw, tmp_path, capsys):
    common = ["score", "--real", str(shapes_clips.folder), "--split", "test", "--reference", str(reference)]
    for name, fake in (("store", shapes_clips.folder), ("videos", shapes_raw)):
        cli.main([*common, "--fake", str(fake), "--out", str(tmp_path / f"{name}.json"), "--num", "8"])
    out, err = capsys.readouterr()
    assert "refnet_fd " in out
    assert "refnet_coverage" in out
    assert "fvd2048_16f: i3d_torchscript.pt" in err
    metrics = json.loads((tmp_path / "videos.json").read_text())
    assert {"refnet_fd", "refnet_acc", "refnet_precision"} <= set(metrics)
    assert {"value", "sd", "floor"} <= set(metrics["refnet_fd"])
    cli.main(["compare", str(tmp_path / "store.json"), str(tmp_path / "videos.json")])
    assert "refnet_kid" in capsys.readouterr().out
    cli.main(
        [*common, "--fake", str(shapes_raw), "--out", str(tmp_path / "more.json"), "--protocol", "refnet_fd"]
    )
    with pytest.raises(SystemExit, match="refnet_fd cannot be compared: different number of real clips"):
        cli.main(["compare", str(tmp_path / "store.json"), str(tmp_path / "more.json")])


def test_score_features(tmp_path, capsys):
    probs = RNG.dirichlet(np.ones(4), size=60)
    np.savez(tmp_path / "a.npz", features=RNG.standard_normal((60, 5)), probs=probs, extractor="vgg-1")
    np.savez(
        tmp_path / "b.npz", features=RNG.standard_normal((50, 5)) + 1, probs=probs[:50], extractor="vgg-1"
    )
    np.savez(tmp_path / "c.npz", features=RNG.standard_normal((50, 5)), extractor="vgg-2")
    np.save(tmp_path / "d.npy", RNG.standard_normal((9, 5)).astype(np.float32))
    score = ["score", "--real", str(tmp_path / "a.npz"), "--fake"]
    cli.main([*score, str(tmp_path / "b.npz"), "--out", str(tmp_path / "out.json")])
    metrics = json.loads((tmp_path / "out.json").read_text())
    assert set(metrics) == {
        name for name, known in PROTOCOLS.items() if name.startswith("features_") and known.least_clips <= 50
    }
    a, b = (np.load(tmp_path / name)["features"] for name in ("a.npz", "b.npz"))
    assert metrics["features_fd"]["value"] == pytest.approx(
        frechet_distance_from_features(a[spread(60, 50)], b)
    )
    with pytest.raises(SystemExit, match="across extractors"):
        cli.main([*score, str(tmp_path / "c.npz")])
    with pytest.raises(SystemExit, match="across extractors"):
        cli.main([*score, str(tmp_path / "d.npy")])
    with pytest.raises(SystemExit, match="needs features of i3d_kinetics400"):
        cli.main([*score, str(tmp_path / "b.npz"), "--protocol", "fvd2048_16f"])
    capsys.readouterr()
    cli.main(["score", "--real", str(tmp_path / "d.npy"), "--fake", str(tmp_path / "d.npy")])
    out, err = capsys.readouterr()
    assert "features_is: the files hold no class probabilities" in err
    assert "features_kid" in out


def test_bad_features_are_a_sentence(tmp_path):
    good, bad = str(tmp_path / "good.npy"), tmp_path / "bad.npy"
    np.save(good, RNG.standard_normal((20, 4)))
    for array, message in (
        (np.full((20, 4), np.nan), "NaN or infinite"),
        (np.zeros((1, 4)), "1 clip"),
        (np.zeros((20, 3)), "use one extractor"),
    ):
        np.save(bad, array)
        with pytest.raises(SystemExit, match=message):
            cli.main(["score", "--real", good, "--fake", str(bad), "--protocol", "features_fd"])
    with pytest.raises(SystemExit, match="one holds features, the other clips"):
        cli.main(["score", "--real", good, "--fake", str(tmp_path)])
    with pytest.raises(SystemExit, match="no result with its manifest"):
        cli.main(["compare", str(tmp_path / "x.json"), str(Path(good))])
