"""The loop and what it leaves: exact resume after real kills, refusals, the released model."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import hrvgan
from hrvgan import checkpoint
from hrvgan.errors import InputError
from hrvgan.files import atomic_folder
from hrvgan.models import build_model
from hrvgan.training import train

TINY = {"num_classes": 8, "size": 32, "width": 0.04}
QUICK = {"batch_size": 4, "log_every": 2, "save_every": 2, "sample_every": 1000}


def tiny(**arguments):
    torch.manual_seed(0)
    return build_model("hrvgan", **{**TINY, **arguments})


def released(gan, average, history, folder):
    gan.classes = [f"class {i}" for i in range(gan.num_classes)]
    with atomic_folder(folder) as temporary:
        checkpoint.release(temporary, gan, average, history, {"dataset": "shapes", "data_digest": "0" * 64})
    return folder


def test_losses_are_logged_and_samples_drawn(shapes_clips, tmp_path):
    rows, pictures = [], []
    train(tiny(), shapes_clips, tmp_path / "state.pt", steps=4, **{**QUICK, "sample_every": 2},
          log_losses=lambda step, values: rows.append((step, values)),
          log_samples=lambda step, clips: pictures.append((step, clips.shape)))  # fmt: skip
    assert [step for step, _ in rows] == [2, 4]
    assert {"loss/d/adv", "loss/d/r1", "loss/g/adv", "speed/clips_per_s"} <= set(rows[0][1])
    assert pictures == [(2, (16, 8, 32, 32, 3)), (4, (16, 8, 32, 32, 3))]


def test_interrupted_training_ends_with_the_same_bits(shapes_clips, tmp_path):
    whole = train(tiny(), shapes_clips, tmp_path / "a.pt", steps=6, **QUICK)
    train(tiny(), shapes_clips, tmp_path / "b.pt", steps=4, **QUICK)
    parts = train(tiny(), shapes_clips, tmp_path / "b.pt", steps=6, **QUICK)  # "more steps" continues
    assert whole[1] == parts[1]
    for ours, theirs in zip(whole[0].state_dict().values(), parts[0].state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_fewer_steps_than_done_are_refused(shapes_clips, tmp_path):
    train(tiny(), shapes_clips, tmp_path / "state.pt", steps=4, **QUICK)
    with pytest.raises(InputError, match="4 steps already, 2 asked for"):
        train(tiny(), shapes_clips, tmp_path / "state.pt", steps=2, **QUICK)


PROGRAM = """
import sys, torch
from hrvgan.datasets.clips import Clips
from hrvgan.models import build_model
from hrvgan.training import train
torch.manual_seed(0)
gan = build_model("hrvgan", **{tiny})
train(gan, Clips(sys.argv[1]), sys.argv[2], steps=40, **{quick})
torch.save(gan.state_dict(), sys.argv[2] + ".final")
"""


def test_killed_training_ends_with_the_same_bits(shapes_clips, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(tiny=TINY, quick={**QUICK, "save_every": 2}))

    def start(state):
        command = [sys.executable, str(program), str(shapes_clips.folder), str(state)]
        return subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": os.getcwd()}, stderr=subprocess.DEVNULL
        )

    whole, killed = tmp_path / "whole.pt", tmp_path / "killed.pt"
    assert start(whole).wait() == 0
    for delay in (0.3, 0.7):  # seconds after the first state of this process: in mid-step or in mid-write
        process, before = start(killed), killed.stat().st_mtime_ns if killed.exists() else 0
        while not killed.exists() or killed.stat().st_mtime_ns == before:
            assert process.poll() is None, "training ended before it could be killed"
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(killed).wait() == 0
    first, second = (torch.load(f"{path}.final", weights_only=True) for path in (whole, killed))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    histories = [torch.load(path, weights_only=True)["history"] for path in (whole, killed)]
    assert histories[0] == histories[1]


def test_a_released_model_comes_back(shapes_clips, tmp_path):
    gan = tiny()
    average, history = train(gan, shapes_clips, tmp_path / "state.pt", steps=2, **QUICK)
    folder = released(gan, average, history, tmp_path / "model")
    again = hrvgan.load(folder)
    assert torch.equal(again.sample(3, seed=1), gan.sample(3, seed=1))
    assert again.classes == gan.classes
    columns = (folder / "history.csv").read_text().splitlines()[0].split(",")
    assert columns == ["step", *(key for key in history[0] if key != "step")]
    assert {"loss/d/adv", "loss/d/r1", "loss/g/adv"} <= set(columns)
    assert json.loads((folder / "model.json").read_text())["arguments"]["width"] == TINY["width"]
    assert set(load_file(folder / "model.safetensors")) == set(gan.G.state_dict())


def test_release_is_the_same_bytes_again(shapes_clips, tmp_path):
    folders = []
    for name in ("a", "b"):
        gan = tiny()
        average, history = train(gan, shapes_clips, tmp_path / f"{name}.pt", steps=2, **QUICK)
        folders.append(released(gan, average, history, tmp_path / name))
    for file in ("model.safetensors", "discriminator.safetensors", "model.json", "history.csv", "README.md"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), file


def test_weights_of_another_model_are_refused(shapes_clips, tmp_path):
    for name, width in (("small", 0.04), ("large", 0.1)):
        gan = tiny(width=width)
        average, history = train(gan, shapes_clips, tmp_path / f"{name}.pt", steps=2, **QUICK)
        released(gan, average, history, tmp_path / name)
    weights = tmp_path / "small" / "model.safetensors"
    weights.write_bytes((tmp_path / "large" / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"small: model\.json and the weights do not fit"):
        hrvgan.load(tmp_path / "small")
    with pytest.raises(InputError, match="not a state of this model"):
        train(tiny(width=0.1), shapes_clips, tmp_path / "small.pt", steps=4, **QUICK)


def test_a_folder_without_model_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match=r"no model\.json.*dvc repro"):
        hrvgan.load(tmp_path)


@pytest.mark.parametrize(
    ("model", "training", "sentence"),
    [
        ({"size": 64}, {}, "8 frames of 32 px, but the model makes 16 frames of 64 px"),
        ({"temporal": "ancestor"}, {}, "8 frames of 32 px, but the model makes 16 frames of 32 px"),
        ({"num_classes": 5}, {}, "8 classes, but the model has 5"),
        ({}, {"batch_size": 1000}, r"lower train\.batch_size"),
        ({}, {"precision": "float16"}, r"train\.precision 'float16'"),
        ({}, {"save_every": 3}, r"train\.save_every"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    shapes_clips, tmp_path, model, training, sentence
):
    with pytest.raises(InputError, match=sentence):
        train(tiny(**model), shapes_clips, tmp_path / "state.pt", steps=2, **{**QUICK, **training})
    assert not list(tmp_path.iterdir())


def test_divergence_stops_and_keeps_the_last_good_state(shapes_clips, tmp_path):
    state = tmp_path / "state.pt"
    with pytest.raises(InputError, match="diverged by step"):
        train(tiny(lr_g=1e30, lr_d=1e30), shapes_clips, state, steps=20, **QUICK)
    if state.exists():
        kept = torch.load(state, weights_only=True)
        assert all(value.isfinite().all() for value in kept["average"].values())


def test_two_runs_of_training_leave_no_temporary_files(shapes_clips, tmp_path):
    train(tiny(), shapes_clips, tmp_path / "state.pt", steps=4, **QUICK)
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
