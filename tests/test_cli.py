"""The command `hrvgan` as a user calls it."""

import subprocess
import sys

import numpy as np
import pytest

from hrvgan import cli
from hrvgan.datasets.clips import Clips
from hrvgan.video import probe

COMMANDS = ("train", "sample", "interpolate", "info", "clips")
TINY = ["--net", "{width: 0.04}", "--train", "{steps: 2, batch_size: 4, log_every: 2, save_every: 2}"]


@pytest.fixture(scope="module")
def model(shapes_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "model"
    cli.main(["train", str(shapes_clips.folder), str(folder), *TINY])
    return folder


def test_help_names_every_command():
    done = subprocess.run(
        [sys.executable, "-m", "hrvgan.cli", "--help"], capture_output=True, text=True, check=True
    )
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert "usage: hrvgan " + command in capsys.readouterr().out


@pytest.mark.parametrize("command", ["sample", "interpolate"])
@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png", ".npz"])
def test_clips_are_written_by_suffix(model, tmp_path, command, suffix):
    out = tmp_path / f"out{suffix}"
    cli.main([command, str(model), "--class", "DiscUp", "--num", "4", "--seed", "3", "--out", str(out)])
    if suffix == ".npz":
        arrays = np.load(out)
        assert arrays["frames"].shape == (4, 8, 32, 32, 3)
        assert set(arrays["labels"]) == {7}
    elif suffix == ".mp4":
        assert probe(out).num_frames == 8
    else:
        assert out.stat().st_size > 500


def test_info_prints_the_layers(capsys):
    cli.main(["info", "--net", "{size: 8, width: 0.1, num_classes: 3}"])
    said = capsys.readouterr().out
    assert "8 frames of 8x8 px, 3 classes" in said
    assert "G.levels.8px.0.0" in said
    assert "parameters" in said


def test_a_store_goes_to_npz_and_back(shapes_clips, tmp_path, capsys):
    cli.main(["clips", "show", str(shapes_clips.folder), str(tmp_path / "sheet.png")])
    assert "8 classes" in capsys.readouterr().out
    cli.main(["clips", "export", str(shapes_clips.folder), str(tmp_path / "clips.npz")])
    cli.main(["clips", "import", str(tmp_path / "again"), str(tmp_path / "clips.npz")])
    assert np.array_equal(Clips(tmp_path / "again").read(range(4)), shapes_clips.read(range(4)))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["sample", "{model}", "--class", "DiscUpp", "--out", "x.mp4"],
            "no class 'DiscUpp'; known: CrossDown",
        ),
        (["sample", "{model}", "--out", "x.avi"], "cannot write .avi; use .mp4"),
        (["sample", "no/model", "--out", "x.mp4"], "no/model: no model.json"),
        (["train", "no/store", "out"], "no/store: not a clip store"),
        (["info", "--net", "{size: 24}"], "size 24 is not known"),
    ],
)
def test_errors_are_one_sentence(model, arguments, sentence, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main([argument.replace("{model}", str(model)) for argument in arguments])
    assert ended.value.code.startswith("error: ")
    assert sentence in ended.value.code
    assert not list(tmp_path.iterdir())
