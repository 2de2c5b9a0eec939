"""The command `hrvgan` as a user calls it."""

import contextlib
import csv
import functools
import inspect
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hrvgan
from hrvgan import cli
from hrvgan.cli import sample as draw
from hrvgan.clipstore.clips import Clips
from hrvgan.clipstore.writer import export_npz
from hrvgan.evaluation.source_files import open_source
from hrvgan.extraction.extract import extract
from hrvgan.features.reference import build_reference
from hrvgan.features.weight_files import WEIGHTS
from hrvgan.sampling.samples import check_grid, grid, titled
from hrvgan.training.session import new_model
from hrvgan.video.grids import BAND, GAP, filmstrips, labelled_columns, labelled_rows
from hrvgan.video.io import probe, read_frames, read_strip, write_video
from tests import processes


def help_text() -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        cli.main(["--help"])
    return said.getvalue()


COMMANDS = re.findall(r"^ {4}(\w+) ", help_text(), re.MULTILINE)
ALL = cli.COMMANDS | cli.CLIPS
TINY = ["--net", "{width: 0.04}", "--train", "{steps: 2, batch_size: 4, log_every: 2, save_every: 2}"]


@pytest.fixture(scope="module")
def model(shapes_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "model"
    cli.main(["train", str(shapes_clips.folder), str(folder), *TINY])
    return folder


@pytest.fixture(scope="module")
def trained(shapes_clips, tmp_path_factory):
    """Trains a model of two steps with these arguments, once."""

    @functools.cache
    def train(net: str) -> Path:
        folder = tmp_path_factory.mktemp("nets") / "model"
        cli.main(["train", str(shapes_clips.folder), str(folder), "--net", net, *TINY[2:]])
        return folder

    return train


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """20 frames of 40x40 px of noise that drifts, as many a second as the clips have."""
    path = tmp_path_factory.mktemp("video") / "drift.mp4"
    write_video(path, drift(), fps=12)
    return path


def drift() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    return np.stack([noise[:, t : t + 40] for t in range(20)])


def test_help_names_every_command():
    said = processes.run([sys.executable, "-m", "hrvgan.cli", "--help"]).stdout
    assert all(command in said for command in COMMANDS)
    assert {"train", "sample", "predict", "score", "compare", "weights", "info", "clips"} <= set(COMMANDS)


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-m", "hrvgan.cli", "info"]
    with processes.start(command, stdout=subprocess.PIPE) as process:
        process.stdout.close()
        process.finish()
        assert process.output("stderr") == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert "usage: hrvgan " + command in capsys.readouterr().out


@pytest.mark.parametrize("function", ALL, ids=lambda function: function.__name__)
def test_help_is_of_arguments_that_there_are_and_shows_their_defaults(function, capsys):
    parameters = inspect.signature(function).parameters
    assert set(ALL[function][1]) <= set(parameters)
    group = ["clips"] if function in cli.CLIPS else []
    with pytest.raises(SystemExit):
        cli.main([*group, function.__name__.rstrip("_"), "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for parameter in parameters.values():
        if parameter.default not in (parameter.empty, "", None):
            assert f"(default {parameter.default})" in said
    if "device" in parameters:
        assert parameters["device"].default == "auto"


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"hrvgan {hrvgan.__version__}\n"


@pytest.mark.parametrize("command", ["sample", "interpolate"])
@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png", ".npz"])
def test_clips_are_written_by_suffix(model, tmp_path, command, suffix):
    out = tmp_path / f"out{suffix}"
    cli.main([command, str(model), "--class", "DiscUp", "--num", "4", "--seed", "3", "--out", str(out)])
    if suffix == ".npz":
        arrays = np.load(out)
        assert arrays["frames"].shape == (4, 8, 32, 32, 3)
        assert set(arrays["labels"]) == {7}
        assert arrays["classes"][7] == "DiscUp"
        source = open_source(out)
        assert source.classes == list(hrvgan.load(model).classes)
        assert source.labels.tolist() == [7] * 4
    elif suffix == ".mp4":
        assert probe(out).num_frames == 8
    else:
        assert out.stat().st_size > 500


@pytest.mark.parametrize("kind", ["mp4", "gif", "png", "npz"])
def test_a_folder_has_a_file_a_clip(model, tmp_path, kind):
    """Clips are those that the same command draws into one file, of any number."""
    out, gan = tmp_path / "clips", hrvgan.load(model)
    cli.main(["sample", str(model), "--num", "35", "--seed", "3", "--format", kind, "--out", str(out)])
    rows = list(csv.DictReader((out / "clips.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == [gan.classes[n % 8] for n in range(35)]
    assert [int(row["label"]) for row in rows] == [n % 8 for n in range(35)]
    files = [out / row["file"] for row in rows]
    assert {*out.iterdir()} == {*files, out / "clips.csv", out / "samples.json"}
    clips = drawn("sample", model, "--num", 35, "--seed", 3, "--out", tmp_path / "clips.npz")
    if kind == "png":
        frames = [read_strip(frame, None)[0] for frame in sorted(files[34].iterdir())]
        assert np.array_equal(np.stack(frames), clips[34])
    elif kind == "npz":
        with np.load(files[34]) as stored:
            assert np.array_equal(stored["frames"], clips[34])
            assert (stored["label"], stored["class"], stored["fps"]) == (2, gan.classes[2], 12)
    elif kind == "mp4":
        assert probe(files[34]) == (32, 32, 12, 8)
        colours, expected = read_frames(files[34])[0].mean(axis=(1, 2)), clips[34].mean(axis=(1, 2))
        np.testing.assert_allclose(colours, expected, atol=6)  # H.264 loses details.
    else:
        with Image.open(files[34]) as image:
            assert (image.size, image.n_frames) == ((32, 32), 8)


def test_a_folder_of_clips_goes_on_where_it_was_stopped(model, tmp_path):
    out = tmp_path / "clips"
    command = ["sample", str(model), "--format", "npz", "--out", str(out), "--num"]
    cli.main([*command, "34"])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.npz")}
    lost = ["00001.npz", "00033.npz"]
    for name in (*lost, "clips.csv"):
        (out / name).unlink()
    cli.main([*command, "34"])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    kept = {name for name, time in times.items() if (out / name).stat().st_mtime_ns == time}
    assert kept == set(times) - set(lost)
    cli.main([*command, "36"])  # And with more.
    assert len(list(out.glob("*.npz"))) == 36
    for arguments, sentence in (
        (["34"], "clips: holds more than the 34 clips asked for, such as 00034.npz; name a new folder"),
        (["36", "--seed", "1"], "clips: holds clips drawn with other seed; name a new folder"),
        (["36", "--out", str(tmp_path)], "holds other files, such as clips; name a new folder"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            cli.main([*command, *arguments])


def test_a_folder_of_long_clips(trained, tmp_path):
    """Each clip is that of the same number in one file, also in the second batch."""
    model = trained("{width: 0.04, latent: sequence}")
    long = drawn("sample", model, "--num", 33, "--frames", 13, "--out", tmp_path / "long.npz")
    cli.main(["sample", str(model), "--num", "33", "--frames", "13", "--format", "npz", "--out",
              str(tmp_path / "long")])  # fmt: skip
    with np.load(tmp_path / "long" / "00032.npz") as stored:
        assert np.abs(stored["frames"].astype(int) - long[32]).max() <= 1


@pytest.mark.parametrize(("suffix", "num"), [(".mp4", 1145), (".gif", 4593)])
def test_a_grid_that_no_codec_holds_is_refused_before_it_is_drawn(model, tmp_path, suffix, num):
    out = tmp_path / f"grid{suffix}"
    sentence = rf"a side of {suffix} has at most \d+; name a folder .*: --out .*grid/ --format {suffix[1:]}"
    started = time.monotonic()
    with pytest.raises(SystemExit, match=sentence):
        cli.main(["sample", str(model), "--num", str(num), "--out", str(out)])
    assert time.monotonic() - started < 5
    check_grid(out, num - 1, 32, "")
    clips = np.zeros((num - 1, 1, 32, 32, 3), np.uint8)
    video = titled(grid(clips, captions=["DiscUp"] * (num - 1)), {0: "generated"})
    write_video(out, video, fps=12)  # The largest that is allowed is encoded.
    assert out.stat().st_size > 500


def test_info_prints_the_layers(capsys):
    cli.main(["info", "--net", "{size: 8, width: 0.1, num_classes: 3}"])
    said = capsys.readouterr().out
    assert "8 frames of 8x8 px, 3 classes" in said
    assert "G.levels.8px.0.layer" in said
    assert "parameters" in said
    assert "GFLOP a clip" in said
    assert "16 clips a step: about" in said


def test_info_of_a_model_says_what_it_was_trained_on(model, shapes_clips, capsys):
    cli.main(["info", str(model)])
    said = capsys.readouterr().out
    assert "hrvgan: 8 frames of 32x32 px, 8 classes\n" in said
    assert f"trained for 2 steps on clips (clips {shapes_clips.digest[:12]})\n" in said
    assert "classes: BarDown, BarLeft, BarRight, BarUp, DiscDown, DiscLeft, DiscRight, DiscUp; 12 frames" in said
    assert "'width': 0.04" in said
    assert "16 clips a step: about" in said


def test_training_says_from_which_step_it_goes_on(shapes_clips, tmp_path, capsys):
    command = ["train", str(shapes_clips.folder), str(tmp_path / "model"), *TINY[:2], "--train"]
    for steps in (2, 4):
        cli.main([*command, f"{{steps: {steps}, batch_size: 4, log_every: 2, save_every: 2}}"])
    assert "model.state.pt: going on from step 2\n" in capsys.readouterr().err


def drawn(*arguments: object) -> np.ndarray:
    cli.main([str(argument) for argument in arguments])
    return np.load(arguments[-1])["frames"]


def test_a_walk_between_classes_ends_at_both(model, tmp_path):
    walk = drawn("interpolate", model, "--class", "DiscUp", "--to-class", "BarLeft", "--num", 5,
                 "--out", tmp_path / "walk.npz")  # fmt: skip
    gan = hrvgan.load(model)
    z = gan.latent(2, seed=0)
    labels = np.load(tmp_path / "walk.npz")["labels"].tolist()
    assert labels == [gan.label("DiscUp")] * 3 + [gan.label("BarLeft")] * 2
    ends = gan.draw(z, torch.tensor([gan.label("DiscUp"), gan.label("BarLeft")])).numpy()
    assert np.abs(walk[[0, -1]].astype(int) - ends).max() <= 1


def test_a_walk_between_two_real_videos_has_them_at_its_ends(trained, video, tmp_path):
    walk = drawn("interpolate", trained("{width: 0.04, beta: 0.5}"), "--videos", video, video, "--num", 3,
                 "--refine", 2, "--out", tmp_path / "walk.npz")  # fmt: skip
    real = read_frames(video, walk.shape[2])[0][: walk.shape[1]]
    assert len(walk) == 5
    assert np.array_equal(walk[0], real)
    assert np.array_equal(walk[-1], real)
    assert np.abs(walk[1].astype(int) - walk[3]).max() <= 1  # The way from a video to itself.


def picture(*arguments: object) -> np.ndarray:
    cli.main([str(argument) for argument in arguments])
    with Image.open(arguments[-1]) as image:
        return np.asarray(image)


def shown(clips: np.ndarray, captions: list[str], above: list[str]) -> np.ndarray:
    """The picture of clips of 32 px, three times as large, with these labels."""
    strips = filmstrips(clips, enlarge=3)
    rows = labelled_rows(strips, captions)
    return labelled_columns(rows, above, rows.shape[1] - strips.shape[1])


def test_pictures_carry_what_they_show(trained, video, tmp_path):
    model = trained("{width: 0.04, task: predict, context: 3}")
    arguments = ["predict", model, "--video", video, "--class", "DiscUp", "--num", 2, "--out"]
    clips = drawn(*arguments, tmp_path / "next.npz")
    expected = shown(clips, ["real", "predicted 1", "predicted 2"],
                     ["frames given", "", "", "frames predicted", "", "", "", ""])  # fmt: skip
    assert np.array_equal(picture(*arguments, tmp_path / "next.png"), expected)
    arguments = ["sample", trained("{width: 0.04}"), "--num", 2, "--out"]
    clips = drawn(*arguments, tmp_path / "two.npz")
    expected = shown(clips, ["BarDown", "BarLeft"], ["generated", *[""] * 7])
    assert np.array_equal(picture(*arguments, tmp_path / "two.png"), expected)
    arguments = ["interpolate", trained("{width: 0.04, beta: 0.5}"), "--videos", video, video, "--num", 2, "--refine",
                 1, "--class", "BarUp", "--out"]  # fmt: skip
    clips = drawn(*arguments, tmp_path / "walk.npz")
    expected = shown(clips, ["real BarUp", "step 1", "2", "real BarUp"],
                     ["interpolation, generated", *[""] * 7])  # fmt: skip
    assert np.array_equal(picture(*arguments, tmp_path / "walk.png"), expected)


def test_videos_carry_what_they_show(trained, video, tmp_path):
    """Above all of them what the frame is, above each clip which one it is."""
    model, out = trained("{width: 0.04, task: predict, context: 3}"), tmp_path / "next.mp4"
    cli.main(["predict", str(model), "--video", str(video), "--class", "DiscUp", "--num", "2", "--out", str(out)])
    frames = read_frames(out)[0].astype(int)
    assert frames.shape[1:3] == (BAND + BAND + 96 + GAP, 8 * (96 + GAP))
    cells = np.zeros((BAND + 96 + GAP, frames.shape[2], 3), np.uint8)
    texts = [labelled_columns(cells, [f"frames {words}"])[:BAND] for words in ("given", "predicted")]
    for number, frame in enumerate(frames):
        nearer = [np.abs(frame[:BAND] - text).mean() for text in texts]
        assert np.argmin(nearer) == (0 if number < 3 else 1)
        assert min(nearer) < 4  # H.264 loses details.


def test_a_walk_between_videos_has_no_seed_at_its_end(model, video, tmp_path):
    with pytest.raises(SystemExit, match="--to-seed: a walk between two real videos starts and ends at them"):
        drawn("interpolate", model, "--videos", video, video, "--to-seed", 3, "--out", tmp_path / "walk.npz")


@pytest.mark.parametrize("place", ["video/walk.npz", "\u00fc" * 200 + ".npz"])
def test_what_the_system_refuses_is_one_sentence(model, video, tmp_path, place):
    (tmp_path / "video").write_bytes(video.read_bytes())
    with pytest.raises(SystemExit, match=r"error: .*; make room or rights for it, or name another place"):
        drawn("sample", model, "--num", 1, "--out", tmp_path / place)


def test_predictions_begin_with_the_video(trained, video, tmp_path):
    model = trained("{width: 0.04, task: predict, context: 3}")
    arguments = ["predict", model, "--video", video, "--num", 2]
    with pytest.raises(SystemExit, match="name the class of the video by --class; known: BarDown, "):
        drawn(*arguments, "--out", tmp_path / "next.npz")
    clips = drawn(*arguments, "--class", "DiscUp", "--out", tmp_path / "next.npz")
    assert len(clips) == 3
    assert np.array_equal(clips[0, :3], clips[1, :3])


@pytest.mark.parametrize(("fps", "crop"), [(24, True), (6, False)])
def test_real_videos_are_seen_as_the_clips_were(trained, tmp_path, fps, crop):
    """At the model's 12 frames a second: of 24 every second one, of 6 each twice; and cropped, or squashed."""
    gan = hrvgan.load(trained("{width: 0.04}"))
    assert (gan.fps, gan.crop) == (12, True)
    gan.crop = crop
    wide = tmp_path / "wide.mp4"
    write_video(wide, drift()[:, :20], fps=fps)  # 40x20 px
    real, _ = read_frames(wide, gan.size, crop=crop)
    expected = real[::2] if fps == 24 else real.repeat(2, axis=0)
    assert np.array_equal(draw.first_frames(gan, wide, 8, 8), expected[:8])


def test_a_squashed_store_makes_a_model_that_squashes(shapes_raw, tmp_path):
    extract(shapes_raw, tmp_path / "clips", size=32, num_frames=8, workers=1, crop=False)
    gan = new_model(Clips(tmp_path / "clips"), "hrvgan", preset="best", net={"width": 0.04}, seed=0)
    assert not gan.crop


def test_a_latent_sequence_draws_longer_clips(trained, tmp_path):
    model = trained("{width: 0.04, latent: sequence}")
    short, long = (
        drawn("sample", model, "--num", 2, "--frames", frames, "--out", tmp_path / f"{frames}.npz")
        for frames in (8, 21)
    )
    assert (short.shape[1], long.shape[1]) == (8, 21)
    assert np.abs(long[:, :4].astype(int) - short[:, :4]).max() <= 1  # Up to where the next window begins.


def test_a_folder_becomes_a_store(shapes_raw, shapes_clips, tmp_path, capsys, monkeypatch):
    """The classes are those of the folder's; the same command updates the store, and the folder stays as it is."""
    monkeypatch.chdir(tmp_path)
    for row in csv.DictReader((shapes_raw / "videos.csv").read_text().splitlines()):
        video = Path("videos", row["class_name"], Path(row["path"]).name)
        video.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shapes_raw / row["path"], video)
    before = sorted(Path("videos").rglob("*"))
    command = ["extract", "videos", "store", "--extract", "{size: 32, num_frames: 8, workers: 1}"]
    cli.main(command)
    assert "store: 48 videos, 96 clips, " in capsys.readouterr().out
    clips = Clips("store")
    assert (len(clips), clips.classes, clips.shape) == (96, shapes_clips.classes, shapes_clips.shape)
    ours, theirs = ({*store.index["digest"].to_pylist()} for store in (clips, shapes_clips))
    assert ours == theirs
    before[-1].unlink()
    cli.main(command)
    assert len(Clips("store")) == 94
    assert sorted(Path("videos").rglob("*")) == before[:-1]
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").write_text("years of work")
    with pytest.raises(SystemExit, match="thesis: is there already and no clip store; name a new folder"):
        cli.main(["extract", "videos", "thesis"])
    assert Path("thesis/chapter.tex").read_text() == "years of work"


def test_a_store_is_shown(shapes_clips, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["clips", "show", str(shapes_clips.folder)])
    said = capsys.readouterr().out
    assert "96 clips of 8 frames, 32x32 px, 12 a second" in said
    assert "48 in 6 groups" in said
    assert "8, of 12 to 12 clips each" in said
    assert "64 train (4 groups), 16 val (1 groups), 16 test (1 groups)" in said
    assert "dropped  0 videos" in said
    assert (tmp_path / "clips.png").stat().st_size > 10_000


def test_a_store_goes_to_npz_and_back_and_is_checked(shapes_clips, tmp_path, capsys):
    cli.main(["clips", "export", str(shapes_clips.folder), str(tmp_path / "clips.npz")])
    cli.main(["clips", "import", str(tmp_path / "again"), str(tmp_path / "clips.npz")])
    again = Clips(tmp_path / "again")
    assert np.array_equal(again.read(range(4)), shapes_clips.read(range(4)))
    cli.main(["clips", "check", str(again.folder)])
    assert "96 clips are as they were written" in capsys.readouterr().out
    assert again.index.equals(shapes_clips.index)
    row = again.index.slice(40, 1).to_pylist()[0]
    shard = again.folder / f"shard-{row['shard']:03d}.parquet"
    data = bytearray(shard.read_bytes())
    data[row["offset"]] ^= 1
    shard.write_bytes(data)
    with pytest.raises(SystemExit, match=rf"1 damaged clips, {row['clip_id']} first; extract"):
        cli.main(["clips", "check", str(again.folder)])


def test_samples_become_a_store(model, tmp_path):
    clips = drawn("sample", model, "--num", 10, "--out", tmp_path / "samples.npz")
    cli.main(["clips", "import", str(tmp_path / "store"), str(tmp_path / "samples.npz")])
    store = Clips(tmp_path / "store")
    assert np.array_equal(np.stack([store[number] for number in range(10)]), clips)
    assert [store.classes[label] for label in store.labels] == [*store.classes, *store.classes[:2]]
    assert store.fps == 12


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sample", "{model}", "--class", "DiscUpp", "--out", "x.mp4"], "no class 'DiscUpp'; known: BarDown"),
        (["sample", "{model}", "--out", "x.avi"], "x.avi: cannot write .avi; use one of .mp4"),
        (["sample", "no/model", "--out", "x.mp4"], "no/model: no model.json"),
        (["sample", "{model}", "--format", "avi", "--out", "x"], "--format 'avi' is unknown; known: mp4, gif"),
        (["sample", "{model}", "--format", "gif", "--out", "x.mp4"], "x.mp4: names a file, --format is for"),
        (["clips", "export", "no/store", "x.npz"], "no/store: not a clip store"),
        (["info", "{model}", "--net", "{size: 8}"], "is a model already; leave out --model, --preset and --net"),
        (["train", "no/store", "out"], "no/store: not a clip store"),
        (["train", "no/store", "out", "--train", "{stepz: 3}"], "--train: no argument 'stepz'; known: steps"),
        (["sample", "{model}", "--frames", "20", "--out", "x.mp4"], "train one with latent: sequence"),
        (["predict", "{model}", "--video", "x.avi", "--out", "x.mp4"], "train a model with task: predict"),
        (["extract", "no/videos", "x", "--extract", "{sise: 3}"], "--extract: no argument 'sise'; known: size"),
        (["extract", "no/videos", "x", "--extract", "{size: big}"], "--extract: size 'big': need a whole number"),
        (["extract", "no/videos", "x"], "no/videos: no such folder; put videos there"),
        (["info", "--net", "{size: 24}"], "size 24 is not known"),
        (["sample", "no/model", "--out", "x.bad"], "x.bad: cannot write .bad; use one of .mp4"),
        (["sample", "{model}", "--seed", "-1", "--out", "x.mp4"], "--seed -1: need 0 or more"),
        (["sample", "{model}", "--num", "0", "--out", "x.mp4"], "--num 0: need 1 or more"),
        (["sample", "{model}", "--frames", "-8", "--out", "x.mp4"], "--frames -8: need 0 or more"),
        (["sample", "{model}", "--device", "gpu", "--out", "x.mp4"], "device 'gpu' is not known; choose"),
        (["sample", "{model}", "--device", "cuda:99", "--out", "x.mp4"], "device 'cuda:99': torch sees"),
        (["info", "--batch-size", "-3"], "--batch-size -3: need 1 or more"),
        (["info", "--net", "{lr_g: fast}"], "hrvgan: lr_g 'fast': need a number"),
        (["info", "--net", "{r1_every: 0}"], "hrvgan: r1_every 0: need 1 or more"),
        (["info", "--net", "{width: -1}"], "hrvgan: width -1: need 0.001 or more"),
        (["info", "--net", "{betas: [0, 1]}"], "hrvgan: betas [0, 1]: need 0 or more, less than 1"),
        (["info", "--net", "{betas: 0.5}"], "hrvgan: betas 0.5: need [a number, a number]"),
        (["info", "--model", "tgan", "--net", "{num_frames: -16}"], "tgan: num_frames -16: need 1 or more"),
    ],
)
def test_errors_are_one_sentence(model, arguments, sentence, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main([argument.replace("{model}", str(model)) for argument in arguments])
    assert ended.value.code.startswith("error: ")
    assert sentence in ended.value.code
    assert not list(tmp_path.iterdir())


def test_networks_that_are_missing_are_one_line(shapes_clips, tmp_path):
    store, nowhere = str(shapes_clips.folder), str(tmp_path / "weights")
    names = ["isv2048_c3d", "fvd2048_16f"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["score", "--real", store, "--fake", store, "--weights", nowhere, "--cache", str(tmp_path / "cache"),
                  "--protocol", *names])  # fmt: skip
    remedy = "`hrvgan weights conv3d_deepnetA_ucf.npz i3d_torchscript.pt` gets the networks behind them"
    assert ended.value.code == f"error: nothing could be scored: {', '.join(names)}: {remedy}"


def test_weights_are_listed_by_where_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data/weights").mkdir(parents=True)
    Path("data/weights/mean2.npz").touch()
    cli.main(["weights"])
    lines = capsys.readouterr().out.splitlines()
    assert "mean2.npz: the mean cube of C3D; is in data/weights" in lines
    assert [line.partition(":")[0] for line in lines if "; missing, from https://" in line] == [
        name for name in WEIGHTS if name != "mean2.npz"
    ]


def test_gates_of_other_clips_are_not_believed(shapes_clips, shapes_raw, tmp_path, capsys):
    reference, other = tmp_path / "reference", tmp_path / "other"
    build_reference(shapes_clips, reference, steps=5, width=4, num_features=8)
    extract(shapes_raw, other, size=32, num_frames=8, workers=1, seed=1)
    export_npz(shapes_clips, tmp_path / "clips.npz")
    for real, sentence in [
        (shapes_clips.folder, "it is right about"),
        (other, f"{reference} was trained and examined on other clips than {other}; score by their own reference"),
        (tmp_path / "clips.npz", "clips.npz is unknown; give their clip store"),
    ]:
        cli.main(["score", "--real", str(real), "--fake", str(shapes_clips.folder), "--reference", str(reference),
                  "--protocol", "refnet_fd", "--cache", str(tmp_path / "cache")])  # fmt: skip
        assert sentence in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_training_deletes_nothing_that_is_no_model(shapes_clips, tmp_path, kind):
    out, kept = tmp_path / "out", tmp_path / "out"
    if kind == "folder":
        out.mkdir()
        kept = out / "thesis.tex"
    kept.write_text("years of work")
    with pytest.raises(SystemExit, match="out: is there already and no released model; name a new folder"):
        cli.main(["train", str(shapes_clips.folder), str(out), *TINY])
    assert kept.read_text() == "years of work"
    assert not (tmp_path / "out.state.pt").exists()


@pytest.mark.parametrize("umask", [0o002, 0o027])
def test_files_of_a_model_have_the_mode_of_the_umask(shapes_clips, tmp_path, umask):
    before = os.umask(umask)
    try:
        cli.main(["train", str(shapes_clips.folder), str(tmp_path / "model"), *TINY])
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("[!.]*")}
    assert modes.pop("model") == 0o777 & ~umask
    assert {"model.safetensors", "discriminator.safetensors", "model.json"} <= set(modes)
    assert set(modes.values()) == {0o666 & ~umask}


@pytest.mark.faults
def test_ctrl_c_saves_the_step_under_way_and_names_it(shapes_clips, tmp_path):
    wanted = "{steps: 10000, batch_size: 4, log_every: 1, save_every: 20}"
    command = [sys.executable, "-m", "hrvgan.cli", "train", shapes_clips.folder, tmp_path / "model"]
    with processes.start([*command, *TINY[:2], "--train", wanted]) as training:
        processes.wait_for((tmp_path / "model.state.pt").exists, "the first save", process=training)
        training.send_signal(signal.SIGINT)
        code, said = training.finish(), training.output("stderr")
    assert code == 130
    assert "stopping after this step; Ctrl-C again ends at once" in said
    step = re.search(r"stopped by SIGINT; the same command goes on from step (\d+)\n$", said)[1]
    assert torch.load(tmp_path / "model.state.pt", weights_only=True)["step"] == int(step) < 10000
    assert "Traceback" not in said
