"""Any two sets of clips: sources, N and names, floors, the cache, refusals, and the commands."""

import json
import re
import tracemalloc
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from hrvgan import cli
from hrvgan.errors import InputError
from hrvgan.evaluation.clip_files import decode_clip
from hrvgan.evaluation.evaluate import candidates, compare_sources, plan, score_sources
from hrvgan.evaluation.frame_range import FrameRange
from hrvgan.evaluation.memorisation import collapse_warnings
from hrvgan.evaluation.real_baseline import spread
from hrvgan.evaluation.source_files import ArraySource, open_source
from hrvgan.evaluation.sources import FeatureCache, GeneratorSource, StoreSource
from hrvgan.features import Features, c3d, i3d, refnet
from hrvgan.features.extractors import Extractor
from hrvgan.features.reference import build_reference
from hrvgan.metrics import PROTOCOLS, frechet_distance_from_features, inception_score, kernel_distance
from hrvgan.metrics.protocols import compare, differences, protocol, write_result
from hrvgan.video.io import read_frames, write_video

RNG = np.random.default_rng(0)


def noise(n, frames=4, side=12, seed=0):
    return np.random.default_rng(seed).integers(256, size=(n, frames, side, side, 3), dtype=np.uint8)


def mean_colours(frames=4):
    """An extractor that can be worked out by hand: mean levels of the three colours, two logits."""

    def read(clips):
        features = clips.float().mean(dim=(1, 2, 3)) / 255
        return features, features[:, :2]

    return Extractor("colours-float32-0", frames, read)


# Sources


def read_all(source, cut=None):
    return np.concatenate(list(source.read(np.arange(len(source)), cut or FrameRange())))


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
    np.testing.assert_array_equal(np.concatenate(list(source.read(rows, FrameRange(2)))), clips[rows, :2])
    assert len(source.digest) == 64


def test_memory_does_not_grow_with_the_number_of_clips(tmp_path):
    peaks = []
    for count in (64, 640):
        np.savez_compressed(tmp_path / "many.npz", frames=np.zeros((count, 4, 32, 32, 3), np.uint8))
        source = ArraySource(tmp_path / "many.npz")
        tracemalloc.start()
        total = sum(batch.sum() for batch in source.read(np.arange(count), FrameRange()))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == 0
    assert peaks[1] < peaks[0] + 100_000 < 64 * 4 * 32 * 32 * 3


def test_a_folder_of_videos(tmp_path):
    for number in range(3):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        write_video(
            tmp_path / "ab"[number % 2] / f"{number}.mp4", np.full((6, 16, 16, 3), 80 * number, np.uint8), fps=8
        )
    source = open_source(tmp_path)
    assert source.classes == ["a", "b"]
    assert source.labels.tolist() == [0, 0, 1]
    clips = read_all(source, FrameRange(4, drawn=True))
    assert clips.shape == (3, 4, 16, 16, 3)
    np.testing.assert_allclose(clips.mean(axis=(1, 2, 3, 4)), [0, 160, 80], atol=3)
    before = source.digest
    write_video(tmp_path / "a" / "2.mp4", np.full((6, 16, 16, 3), 9, np.uint8), fps=8)
    assert open_source(tmp_path).digest != before
    with pytest.raises(InputError, match=r"allows, cannot be scored: .*[012]\.mp4: 6 frames, need 9"):
        read_all(source, FrameRange(9))


def test_bad_clips_of_a_folder_are_left_out_and_counted(tmp_path):
    """Of twenty, one is too short and one is cut; the score is that of the other eighteen."""
    np.save(tmp_path / "real.npy", noise(40, 4, 16))
    fake, good = tmp_path / "fake", []
    for number, clip in enumerate(noise(20, 4, 16, seed=1)):
        write_video(fake / f"{number:02d}.mp4", clip[: 2 if number == 7 else 4], fps=8)
        good += [read_frames(fake / f"{number:02d}.mp4")[0]] if number not in (7, 11) else []
    content = (fake / "11.mp4").read_bytes()
    (fake / "11.mp4").write_bytes(content[: len(content) // 3])
    np.save(tmp_path / "good.npy", good)

    def score(fake):
        sources = open_source(tmp_path / "real.npy"), open_source(fake, "", 0.1)
        return score_sources([protocol("fvd2048_16f")], *sources, lambda name: mean_colours())

    metrics, manifest = score(fake)
    assert metrics == score(tmp_path / "good.npy")[0]
    (about,) = manifest["protocols"].values()
    short, cut = about["bad_fake"]
    assert short == f"{fake / '07.mp4'}: 2 frames, need 4; leave it out or give longer videos"
    assert cut == f"{fake / '11.mp4'}: 0 of 4 frames decode; cut or damaged, replace it"
    assert "bad_real" not in about
    assert about["num_fake"] == 18
    assert about["warnings"][-1] == f"2 fake clip(s) are left out: {short}; {cut}"


def test_a_video_is_decoded_to_the_end_of_its_cut(tmp_path):
    """Frames after the cut cost no time and no memory, and may even be missing."""
    path, clip = tmp_path / "long.mp4", noise(1, 120, 48)[0]
    write_video(path, clip, fps=8)
    whole, cuts = read_frames(path)[0], [FrameRange(16, drawn=True, seed=seed) for seed in range(9)]
    for cut in (FrameRange(16), *cuts):
        np.testing.assert_array_equal(decode_clip((path, 0), cut), cut(whole, 0, ""))
    tracemalloc.start()
    decode_clip((path, 0), FrameRange(16))
    assert tracemalloc.get_traced_memory()[1] < 2.5 * 16 * clip[0].nbytes < clip.nbytes / 2
    tracemalloc.stop()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    np.testing.assert_array_equal(decode_clip((path, 0), FrameRange(16)), whole[:16])
    with pytest.raises(InputError, match=r"long\.mp4: \d+ of 120 frames decode"):
        decode_clip((path, 0), FrameRange(120))


SHRINKS = {
    "i3d": i3d.prepare,
    "tgan": c3d.shrink_tgan,
    "tganv2": c3d.shrink_tganv2,
    "refnet": partial(refnet.shrink, max_size=20),
}


@pytest.mark.parametrize("shrink", SHRINKS.values(), ids=SHRINKS)
def test_large_frames_are_shrunk_one_by_one_as_all_together(tmp_path, shrink):
    write_video(tmp_path / "a.mp4", noise(1, 6, 90)[0, :, :, :70], fps=8)
    extractor, job = Extractor("x", 4, None, shrink=shrink), (tmp_path / "a.mp4", 0)
    whole = decode_clip(job, FrameRange(4))
    assert whole.shape == (4, 90, 70, 3)
    together = shrink(torch.as_tensor(whole)[None])[0].numpy()
    one_by_one = decode_clip(job, FrameRange(4), extractor.shrink_frame)
    np.testing.assert_allclose(one_by_one, together, atol=1e-4 * abs(together).max())


def test_a_header_that_promises_more_frames_than_there_are(tmp_path, monkeypatch):
    path = tmp_path / "short.mp4"
    write_video(path, noise(1, 30, 32)[0], fps=8)
    whole = read_frames(path)[0]
    monkeypatch.setattr("hrvgan.evaluation.clip_files.expected_frames", lambda path: 31)
    for seed in range(20):
        cut = FrameRange(16, drawn=True, seed=seed)
        assert any((decode_clip((path, 0), cut) == whole[start : start + 16]).all() for start in range(15))
    with pytest.raises(InputError, match="30 frames, need 31"):
        decode_clip((path, 0), FrameRange(31))


def test_arrays_may_have_labels(tmp_path):
    clips = noise(6)
    np.savez(tmp_path / "a.npz", frames=clips, labels=np.arange(6) % 3, classes=["x", "y", "z"])
    np.savez(tmp_path / "b.npz", frames=clips, labels=np.arange(6) % 3)
    np.savez(tmp_path / "c.npz", frames=clips, labels=np.zeros(6, int), classes=np.array([], str))
    sources = [open_source(tmp_path / name) for name in ("a.npz", "b.npz", "c.npz")]
    assert [source.classes for source in sources] == [["x", "y", "z"], ["0", "1", "2"], []]
    assert sources[0].labels.tolist() == sources[1].labels.tolist() == [0, 1, 2, 0, 1, 2]
    for labels, message in ((["a"] * 6, "whole numbers"), ([0] * 5, "need 6"), ([3] * 6, "up to 3, but there are 3")):
        np.savez(tmp_path / "bad.npz", frames=clips, labels=labels, classes=["x", "y", "z"])
        with pytest.raises(InputError, match=f"bad.npz: labels.*{message}"):
            open_source(tmp_path / "bad.npz")


def test_a_clip_store_and_its_split(shapes_clips):
    source = StoreSource(shapes_clips.folder, "test")
    assert len(source) == 16
    np.testing.assert_array_equal(read_all(source), shapes_clips.split("test").read(range(16)))
    assert source.digest != StoreSource(shapes_clips.folder).digest
    assert source.classes == shapes_clips.classes


def test_drawn_starts_depend_on_the_clip_alone():
    clip = np.arange(10)
    starts = [FrameRange(4, drawn=True)(clip, row, "x")[0] for row in range(50)]
    assert set(starts) == set(range(7))
    assert FrameRange(4, drawn=True)(clip, 3, "x")[0] == starts[3]
    assert FrameRange(4)(clip, 3, "x").tolist() == [0, 1, 2, 3]


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


def test_a_split_of_what_has_none(shapes_clips, shapes_raw, tmp_path):
    np.save(tmp_path / "clips.npy", noise(4))
    np.save(tmp_path / "features.npy", RNG.standard_normal((20, 4)))
    for path in (shapes_raw, tmp_path / "clips.npy"):
        with pytest.raises(InputError, match=f"{path}: only a clip store has splits"):
            open_source(path, "test")
    features = str(tmp_path / "features.npy")
    with pytest.raises(SystemExit, match=r"features.npy: features have no splits; leave out --split"):
        cli.main(["score", "--real", features, "--fake", features, "--split", "test"])
    with pytest.raises(InputError, match=r"tset: 0 clip\(s\), need at least 2; the splits are train, val, test"):
        open_source(shapes_clips.folder, "tset")


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
    clips = np.concatenate(list(source.read(rows, FrameRange(2))))
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
    sets = compare_sources(entry, mean_colours(), source, other, FeatureCache(), num=5)
    assert (len(sets.baseline.real), [len(fake) for fake in sets.fakes]) == (5, [5] * 4)
    metrics, manifest = score_sources([entry], source, other, lambda name: mean_colours(), num=5)
    assert list(metrics) == ["fvd2048_16f_n5"]
    colours = clips.mean(axis=(1, 2, 3)) / 255
    values = [frechet_distance_from_features(sets.baseline.real.features, fake.features) for fake in sets.fakes]
    assert metrics["fvd2048_16f_n5"]["value"] == pytest.approx(np.mean(values))
    assert metrics["fvd2048_16f_n5"]["sd"] == pytest.approx(np.std(values, ddof=1))
    np.testing.assert_allclose(sets.baseline.real.features, colours[spread(21, 10)][spread(10, 5)], rtol=1e-5)
    about = manifest["protocols"]["fvd2048_16f_n5"]
    assert (about["num_real"], about["num_fake"], about["num_draws"], about["num_features"]) == (5, 5, 4, 3)
    assert about["extractor_id"] == "colours-float32-0"
    assert json.loads(json.dumps(manifest, allow_nan=False)) == manifest


def test_one_clip_of_each_real_video(tmp_path):
    source, entry = ArraySource(files_of(tmp_path, noise(12))), protocol("fvd2048_16f")
    source.videos = np.repeat(["a", "b", "c", "d", "e", "f"], 2)
    drawn = [candidates(entry, source, seed) for seed in range(20)]
    assert all(source.videos[rows].tolist() == list("abcdef") for rows in drawn)
    assert {tuple(rows % 2) for rows in drawn} > {tuple(drawn[0] % 2)}  # Not always the first one.
    assert candidates(protocol("fid_frame_clean"), source, 0).tolist() == list(range(12))
    sets = compare_sources(entry, mean_colours(), source, source, FeatureCache())
    assert len(sets.baseline.real) == len(sets.fakes[0]) == 6
    assert sets.provenance["seed"] == 0


def files_of(folder, clips):
    np.save(folder / "some.npy", clips)
    return folder / "some.npy"


def test_the_clips_of_a_video_in_a_store(shapes_clips):
    source = StoreSource(shapes_clips.folder)
    rows = candidates(protocol("fvd2048_16f"), source, 0)
    assert len(rows) == len(set(shapes_clips.index["video_id"].to_pylist())) == len(source) // 2


def test_protocols_of_one_network_and_cut_look_at_a_clip_once(files, tmp_path):
    real, fake, calls = ArraySource(files[0] / "clips.npy"), ArraySource(files[0] / "plain.npz"), []

    def counting(clips):
        calls.append(len(clips))
        return mean_colours().read(clips)

    real.classes, asked = fake.classes, np.union1d(spread(21, 18), spread(21, 20))
    entries = [replace(protocol("isv2048_c3d"), num_clips=num) for num in (6, 9)]
    entries += [replace(protocol("fid_c3d_fc7"), name="fid", real_start="the first frame", num_clips=5)]
    extractor = Extractor("counting", 4, counting)
    for expected in (21 + len(asked), len(asked)):  # The second time the real ones are known.
        metrics, _ = score_sources(entries, real, fake, lambda name: extractor, cache=tmp_path / "cache")
        assert set(metrics) == {"isv2048_c3d", "fid"}
        assert sum(calls) == expected
        calls.clear()


def test_features_of_real_clips_are_kept(files, tmp_path):
    folder, _ = files
    source, entry, calls = ArraySource(folder / "clips.npy"), protocol("fvd2048_16f"), []

    def counting(clips):
        calls.append(len(clips))
        return mean_colours().read(clips)

    extractor = Extractor("counting", 4, counting)

    def score(seed):
        return compare_sources(entry, extractor, source, source, FeatureCache(tmp_path / "cache"), num=5, seed=seed)

    results = [score(seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(results[0].baseline.real.features, results[1].baseline.real.features)
    real = [10, 0, 10]  # The second time only the fakes are looked at; another seed draws other starts.
    assert sum(calls) == sum(real) + 3 * 20
    for kept in (tmp_path / "cache").iterdir():
        kept.write_bytes(kept.read_bytes()[:300])  # Torn: as good as none.
    np.testing.assert_array_equal(score(0).baseline.real.features, results[0].baseline.real.features)
    assert sum(calls) == sum(real) + 3 * 20 + 10 + 20


def test_what_is_missing_is_a_sentence_and_others_go_on(files, shapes_clips, tmp_path):
    from functools import partial

    from hrvgan.cli.score import open_any

    source = ArraySource(files[0] / "clips.npy")
    opener = partial(open_any, reference=None, weights=tmp_path, device="cpu")
    asked = [protocol(name) for name in ("isv2048_c3d", "fvd2048_16f")]
    metrics, manifest = score_sources(asked, source, source, opener)
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
    assert collapse_warnings(real, rows(RNG.standard_normal((40, 3)), np.eye(2)[np.arange(40) % 2])) == []
    assert "vary 0" in collapse_warnings(real, rows(np.ones((40, 3))))[0]
    assert "copies" in collapse_warnings(real, rows(np.repeat(RNG.standard_normal((4, 3)), 10, axis=0)))[0]
    assert "same class" in collapse_warnings(real, rows(RNG.standard_normal((40, 3)), np.eye(2)[np.zeros(40, int)]))[0]


# Comparing


def test_only_like_is_compared_with_like():
    fact = {"extractor_id": "a-float32-1", "real_digest": "d", "num_real": 5, "num_fake": 5, "frames": 16}
    first, scores = {"protocols": {"fvd": fact}}, {"fvd": {"value": 1.0}}
    assert differences("fvd", first, {"protocols": {"fvd": dict(fact)}}) == []
    for key, value, words in (
        ("extractor_id", "a-float32-2", "different extractor"),
        ("real_digest", "e", "different real clips"),
        ("num_fake", 6, "different number of generated clips"),
        ("frames", 8, "different frames"),
        ("num_features", 7, "different D"),
        ("seed", 1, "different seed of the real clips"),
        ("start", "drawn", "different start of generated clips"),
        ("real_start", "drawn", "different start of real clips"),
        ("real_clips", "one a video", "different choice of real clips"),
    ):
        with pytest.raises(InputError, match=f"fvd cannot be compared: {words}"):
            compare([(scores, first), (scores, {"protocols": {"fvd": {**fact, key: value}}})])
    with pytest.raises(InputError, match="not scored by the same protocol"):
        compare([(scores, first), (scores, {"protocols": {"fvd_n5": fact}})])
    assert differences("fvd", first, {"protocols": {"fvd": {**fact, "num_draws": 1, "warnings": ["collapsed"]}}}) == []


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


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


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
    assert re.search(r"left out: .*fvd2048_16f.*i3d_torchscript.pt", err)
    metrics = json.loads((tmp_path / "videos.json").read_text())
    assert {"refnet_fd", "refnet_acc", "refnet_precision"} <= set(metrics)
    manifest = json.loads((tmp_path / "videos.manifest.json").read_text())
    assert {"value", "sd", "floor"} <= set(manifest["scores"]["refnet_fd"])
    assert metrics == {name: entry["value"] for name, entry in manifest["scores"].items()}
    assert manifest["gated"] is False  # Twenty steps teach it little.
    assert any(reason.startswith("accuracy: it is right about") for reason in manifest["ungated"])
    assert "refnet: ungated" in out
    assert f"  {manifest['ungated'][0]}\n" in out
    assert list((tmp_path / "home" / "hrvgan" / "features").glob("*.npz"))  # Real clips, for the next time.
    cli.main(["compare", str(tmp_path / "store.json"), str(tmp_path / "videos.json")])
    assert "refnet_kid" in capsys.readouterr().out
    cli.main([*common, "--fake", str(shapes_raw), "--out", str(tmp_path / "more.json"), "--protocol", "refnet_fd"])
    with pytest.raises(SystemExit, match="refnet_fd cannot be compared: different number of generated clips"):
        cli.main(["compare", str(tmp_path / "store.json"), str(tmp_path / "more.json")])


def test_results_of_one_name_are_told_apart_by_their_folders(tmp_path, capsys):
    networks = {"seed 0": {"refnet_fd": 1.0}, "seed 1": {"refnet_fd": 2.0}}
    about = {"protocols": {"refnet_fd": {"extractor": "refnet"}}, "networks": networks, "ungated": ["why"]}
    files = [tmp_path / folder / "metrics.json" for folder in "ab"]
    for number, file in enumerate(files):
        file.parent.mkdir()
        write_result(file, {"refnet_fd": {"value": 1.0 + number}}, about)
    cli.main(["compare", *map(str, files)])
    head, row, last = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == list(map(str, files))
    assert row.split()[:3] == ["refnet_fd", "1", "2"]
    assert last.endswith(", ".join(map(str, files)))


def test_score_features(tmp_path, capsys):
    probs = RNG.dirichlet(np.ones(4), size=60)
    np.savez(tmp_path / "a.npz", features=RNG.standard_normal((60, 5)), probs=probs, extractor="vgg-1")
    np.savez(tmp_path / "b.npz", features=RNG.standard_normal((50, 5)) + 1, probs=probs[:50], extractor="vgg-1")
    np.savez(tmp_path / "c.npz", features=RNG.standard_normal((50, 5)), extractor="vgg-2")
    np.save(tmp_path / "d.npy", RNG.standard_normal((9, 5)).astype(np.float32))
    score = ["score", "--real", str(tmp_path / "a.npz"), "--fake"]
    cli.main([*score, str(tmp_path / "b.npz"), "--out", str(tmp_path / "out.json")])
    metrics = json.loads((tmp_path / "out.json").read_text())
    assert set(metrics) == {
        name for name, known in PROTOCOLS.items() if name.startswith("features_") and known.least_clips <= 50
    }
    a, b = (np.load(tmp_path / name)["features"] for name in ("a.npz", "b.npz"))
    assert metrics["features_fd"] == pytest.approx(frechet_distance_from_features(a, b), rel=1e-12)
    assert metrics["features_is"] == pytest.approx(inception_score(probs[:50]), rel=1e-9)
    with pytest.raises(SystemExit, match="across extractors"):
        cli.main([*score, str(tmp_path / "c.npz")])
    with pytest.raises(SystemExit, match="across extractors"):
        cli.main([*score, str(tmp_path / "d.npy")])
    with pytest.raises(SystemExit, match="needs features of i3d_kinetics400"):
        cli.main([*score, str(tmp_path / "b.npz"), "--protocol", "fvd2048_16f"])
    capsys.readouterr()
    cli.main(["score", "--real", str(tmp_path / "d.npy"), "--fake", str(tmp_path / "d.npy")])
    out, err = capsys.readouterr()
    assert "features_is: the real clips have no classes (given features no class probabilities)" in err
    assert "features_kid" in out


def test_all_given_features_are_used(tmp_path, capsys):
    real, fake = RNG.standard_normal((200, 6)), RNG.standard_normal((90, 6)) + 0.3
    np.save(tmp_path / "real.npy", real)
    np.save(tmp_path / "fake.npy", fake)
    out = tmp_path / "out.json"
    cli.main(["score", "--real", str(tmp_path / "real.npy"), "--fake", str(tmp_path / "fake.npy"), "--out", str(out)])
    metrics, manifest = (json.loads(path.read_text()) for path in (out, out.with_suffix(".manifest.json")))
    assert metrics["features_fd"] == frechet_distance_from_features(real, fake)
    assert metrics["features_kid"] == pytest.approx(kernel_distance(real, fake), rel=1e-12)
    about = manifest["protocols"]["features_fd"]
    assert (about["num_real"], about["num_fake"], about["num_draws"]) == (200, 90, 1)
    assert "floor" in manifest["scores"]["features_fd"]
    assert "floor_n" not in manifest["scores"]["features_fd"]  # 90 of the real clips against the other 110.


def test_a_network_that_a_file_names_is_not_proven(tmp_path, capsys):
    digest = "0" * 64
    features, out = RNG.standard_normal((40, 400)), tmp_path / "out.json"
    np.savez(tmp_path / "a.npz", features=features, extractor=f"i3d_kinetics400-float32-{digest}")
    command = ["score", "--real", str(tmp_path / "a.npz"), "--fake", str(tmp_path / "a.npz"), "--out", str(out)]
    cli.main([*command, "--protocol", "fvd2048_16f"])
    assert set(json.loads(out.read_text())) == {"fvd2048_16f_n40_unverified"}
    about = json.loads(out.with_suffix(".manifest.json").read_text())["protocols"]["fvd2048_16f_n40_unverified"]
    assert about["extractor_id"] == f"i3d_kinetics400-float32-{digest}_unverified"


def test_refnet_by_given_features(tmp_path, capsys):
    """With labels in both files also the scores that ask for the class."""
    labels, out = np.arange(40) % 4, tmp_path / "out.json"
    logits = 5 * np.eye(4)[np.where(labels == 3, 0, labels)]
    about = {"features": RNG.standard_normal((40, 3)), "logits": logits, "extractor": "refnet-0123"}
    for name, more in (("a.npz", {"labels": labels}), ("b.npz", {})):
        np.savez(tmp_path / name, **about, **more)
    command = ["score", "--real", str(tmp_path / "a.npz"), "--protocol", "refnet_acc", "--out", str(out), "--fake"]
    cli.main([*command, str(tmp_path / "a.npz")])
    assert json.loads(out.read_text())["refnet_acc_unverified"] == pytest.approx(0.75)
    with pytest.raises(SystemExit, match="write them as `labels` into both files"):
        cli.main([*command, str(tmp_path / "b.npz")])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": np.empty((0, 4))}, r"features: 0 clip\(s\)"),
        ({"features": np.empty((9, 0))}, r"features: shape \(9, 0\)"),
        ({"features": np.full((9, 2), "a")}, "features: holds <U1"),
        ({"features": np.ones((9, 2)), "probs": np.ones(9)}, r"probs: shape \(9,\)"),
        ({"features": np.ones((9, 2)), "probs": np.full((9, 2), 3.5)}, "probs: rows are not >= 0 with sum 1"),
        ({"features": np.ones((9, 2)), "probs": np.full((8, 2), 0.5)}, "9 features, 8 rows of classes"),
        ({"features": np.ones((9, 2)), "logits": np.full((9, 2), np.nan)}, "logits: 18 of 18 values are NaN"),
        ({"features": np.ones((9, 2)), "labels": np.full(9, "a")}, "labels: <U1 .* whole numbers from 0 on"),
        ({"features": np.ones((9, 2)), "labels": np.full(9, -1)}, "labels: int64 .* with negative ones"),
        ({"features": np.ones((9, 2)), "labels": np.full(9, 0.5)}, "labels: float64"),
        ({"features": np.ones((9, 2)), "labels": np.zeros((9, 1), int)}, r"labels: int64 \(9, 1\)"),
        (
            {"features": np.ones((9, 2)), "labels": np.full(9, 2), "probs": np.full((9, 2), 0.5)},
            "labels up to 2, but there are 2 classes",
        ),
        ({}, "an .npz without any array"),
    ],
)
def test_files_of_features_that_are_wrong_name_the_array(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    np.savez(tmp_path / "good.npz", features=np.ones((9, 2)))
    for pair in (("bad.npz", "good.npz"), ("good.npz", "bad.npz")):
        real, fake = (str(tmp_path / name) for name in pair)
        with pytest.raises(SystemExit, match=rf"bad.npz: {message}"):
            cli.main(["score", "--real", real, "--fake", fake])


@pytest.mark.parametrize(
    ("num", "said"),
    [
        ("0", "--num 0: need 1 or more"),
        ("-3", "--num -3: need 1 or more"),
        ("1", r"1 clip\(s\) a draw asked for, need at least 2"),
    ],
)
def test_numbers_of_clips_that_make_no_score(tmp_path, num, said):
    np.save(tmp_path / "a.npy", RNG.standard_normal((20, 4)))
    np.save(tmp_path / "b.npy", noise(20))
    for name in ("a.npy", "b.npy"):
        command = ["score", "--real", str(tmp_path / name), "--fake", str(tmp_path / name), "--num", num]
        with pytest.raises(SystemExit, match=f"error: {said}"):
            cli.main(command)


@pytest.mark.parametrize("name", ["refnet_fd", "fvd2048_16f"])
def test_a_comparison_says_which_results_are_not_to_be_believed(tmp_path, capsys, name):
    for run, reasons in (("good", []), ("bad", ["accuracy: it is right about 31 %"])):
        manifest = {"protocols": {name: {}}, "gated": not reasons, "ungated": reasons}
        write_result(tmp_path / f"{run}.json", {name: {"value": 1.5}}, manifest)
    cli.main(["compare", str(tmp_path / "good.json"), str(tmp_path / "bad.json")])
    said = "refnet: ungated, its scores are not to be believed: bad\n" in capsys.readouterr().out
    assert said == (name == "refnet_fd")


@pytest.mark.parametrize("out", ["scores", "scores.csv", "folder.json"])
def test_where_no_result_can_be_written_nothing_is_scored(tmp_path, out):
    np.save(tmp_path / "a.npy", RNG.standard_normal((20, 4)))
    (tmp_path / "folder.json").mkdir()
    both = ["--real", str(tmp_path / "a.npy"), "--fake", str(tmp_path / "a.npy")]
    with pytest.raises(SystemExit, match=f"--out .*{out}: need the name of a .json file"):
        cli.main(["score", *both, "--out", str(tmp_path / out)])


def test_bad_features_are_a_sentence(tmp_path):
    good, bad = str(tmp_path / "good.npy"), tmp_path / "bad.npy"
    np.save(good, RNG.standard_normal((20, 4)))
    for array, message in (
        (np.full((20, 4), np.nan), "NaN or infinite"),
        (np.zeros((1, 4)), "1 clip"),
        (np.zeros((20, 3)), r"good.npy has features of D = 4, .*bad.npy of 3; use one extractor"),
        (np.zeros((20, 5)), r"good.npy has features of D = 4, .*bad.npy of 5; use one extractor"),
    ):
        np.save(bad, array)
        with pytest.raises(SystemExit, match=message):
            cli.main(["score", "--real", good, "--fake", str(bad), "--protocol", "features_fd"])
    with pytest.raises(SystemExit, match="one holds features, the other clips"):
        cli.main(["score", "--real", good, "--fake", str(tmp_path)])
    for k in (2, 3):
        np.savez(tmp_path / f"{k}.npz", features=np.eye(9, 4), probs=np.full((9, k), 1 / k))
    with pytest.raises(SystemExit, match=r"2.npz knows 2 classes, .*3.npz 3; use one network for both"):
        cli.main(["score", "--real", str(tmp_path / "2.npz"), "--fake", str(tmp_path / "3.npz")])
    with pytest.raises(SystemExit, match="no result with its manifest"):
        cli.main(["compare", str(tmp_path / "x.json"), str(Path(good))])
