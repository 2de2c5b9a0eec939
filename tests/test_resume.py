"""Exact resume: after a stop, after real kills, and what is no resume of the same training."""

import contextlib
import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.models import build_model
from hrvgan.training.iteration import use_bfloat16
from hrvgan.training.loop import FREE, train
from hrvgan.training.session import read_state
from pipeline.resume_state import make_room
from tests import processes

TINY = {"num_classes": 8, "size": 32, "width": 0.04, "augment": "colour,translation", "instance_noise": 0.1}
QUICK = {"batch_size": 4, "log_every": 1, "save_every": 1, "sample_every": 1000, "precision": "float32"}
STEPS, ENDLESS = 12, 10_000


def start(folder, state, **arguments):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gan = build_model("hrvgan", **TINY)
    return train(gan, Clips(folder), state, **{"steps": STEPS, "lr_decay": ENDLESS, **QUICK, **arguments})


def same_state(first, second):
    """All that two states hold is equal to the bit, but for how long it took."""
    first, second = (torch.load(path, weights_only=True) for path in (first, second))
    for part in ("history", "partial", "meter", "bfloat16"):
        assert first[part] == second[part]
    assert first["step"] == second["step"]
    assert bool(first["best"]) == bool(second["best"])
    if best := first["best"]:
        assert best.keys() == second["best"].keys()
        assert all(torch.equal(tensor, second["best"][key]) for key, tensor in best.items())
    for part in ("gan", "average"):
        assert first[part].keys() == second[part].keys()
        assert all(torch.equal(first[part][key], second[part][key]) for key in first[part])
    for name, optimizer in first["optimizers"].items():
        other = second["optimizers"][name]
        assert optimizer["param_groups"] == other["param_groups"]
        for slot, tensors in optimizer["state"].items():
            assert all(torch.equal(tensor, other["state"][slot][key]) for key, tensor in tensors.items())


@pytest.fixture(scope="module")
def whole(shapes_clips, tmp_path_factory):
    """The state of a training that nothing interrupted."""
    state = tmp_path_factory.mktemp("whole") / "state.pt"
    start(shapes_clips.folder, state)
    return state


def test_more_steps_continue(shapes_clips, tmp_path, whole):
    state = tmp_path / "state.pt"
    start(shapes_clips.folder, state, steps=5)
    start(shapes_clips.folder, state, log_every=1, save_every=4)  # When to report and save changes no step.
    same_state(state, whole)


def test_the_best_of_the_scored_averages_is_kept_over_a_stop(shapes_clips, tmp_path):
    """Whatever the score: here the distance of the mean brightness from what it was at step 6."""
    at_step_6, _ = start(shapes_clips.folder, tmp_path / "six.pt", steps=6)

    def brightness(network) -> float:
        gan = build_model("hrvgan", **TINY)
        gan.G.load_state_dict(network.state_dict())
        return float(gan.eval().sample(8, seed=0).float().mean())

    scored = {"score_every": 2, "keep": "best", "save_every": 2, "log_every": 2}
    scored["score"] = lambda gan: {"off": abs(brightness(gan.G) - brightness(at_step_6))}
    logged = []
    scored["log_losses"] = lambda step, values: logged.append((step, values))
    whole, history = start(shapes_clips.folder, tmp_path / "whole.pt", **scored)
    start(shapes_clips.folder, tmp_path / "parts.pt", **{**scored, "steps": 5})
    start(shapes_clips.folder, tmp_path / "parts.pt", **{**scored, "steps": 8})
    parts, again = start(shapes_clips.folder, tmp_path / "parts.pt", **scored)
    same_state(tmp_path / "parts.pt", tmp_path / "whole.pt")
    assert history == again
    scores = {row["step"]: row["score/off"] for row in history}
    assert list(scores) == [2, 4, 6, 8, 10, 12]
    assert scores[6] == 0
    assert all(scores[step] > 0 for step in scores if step != 6)
    for network in (whole, parts):
        assert all(torch.equal(tensor, at_step_6.state_dict()[key]) for key, tensor in network.state_dict().items())
    assert [(step, values["score/off"]) for step, values in logged if "score/off" in values][:6] == [*scores.items()]
    last, _ = start(shapes_clips.folder, tmp_path / "whole.pt", **{**scored, "keep": "last"})
    assert not torch.equal(last.state_dict()["rgb.weight"], whole.state_dict()["rgb.weight"])


def test_more_steps_leave_no_trace_of_where_it_stopped(shapes_clips, tmp_path):
    """Rows of the history cover four steps each, wherever a training ended in between."""
    states, rows = {}, {"log_every": 4, "save_every": 4}
    for name, ends in (("whole", [9]), ("parts", [2, 3, 6, 9])):
        states[name] = tmp_path / f"{name}.pt"
        histories = [start(shapes_clips.folder, states[name], steps=end, **rows)[1] for end in ends]
        assert [row["step"] for row in histories[-1]] == [4, 8, 9]
    assert [row["step"] for row in histories[1]] == [3]
    assert [row["step"] for row in histories[2]] == [4, 6]
    same_state(states["parts"], states["whole"])
    _, again = start(shapes_clips.folder, states["parts"], steps=9, **rows)
    assert again == histories[-1]


def test_auto_keeps_the_precision_that_it_began_with(shapes_clips, tmp_path, capsys):
    """As on another machine, of which the state says that it trained in bfloat16."""
    state = tmp_path / "state.pt"
    torch.set_num_threads(1)
    start(shapes_clips.folder, state, steps=1, precision="auto")
    held = torch.load(state, weights_only=True)
    here = held["bfloat16"]
    assert here == use_bfloat16("auto", torch.device("cpu"))
    torch.save({**held, "bfloat16": not here}, state)
    start(shapes_clips.folder, state, steps=2, precision="auto")
    assert f"goes on in {'float32' if here else 'bfloat16'}, as it began" in capsys.readouterr().err
    assert torch.load(state, weights_only=True)["bfloat16"] != here


def endless(folder, state):
    processes.default_signals()
    start(folder, state, steps=ENDLESS)


@contextlib.contextmanager
def victim(folder, state):
    """A training in a process of its own that has got as far as its loop, and is killed at the end of the block."""
    # Imports once, and then forks a clean process each time.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["hrvgan.training.loop", "hrvgan.models.hrvgan"])
    training = Victim(server.Process(target=endless, args=(folder, state), daemon=True), state)
    before = training.saved()
    training.process.start()
    try:
        training.wait_for(lambda: training.saved() != before, "the first save")
        yield training
    finally:
        training.process.kill()  # SIGKILL
        training.process.join(processes.LIMIT)
    assert training.process.exitcode == -signal.SIGKILL


@dataclass
class Victim:
    process: multiprocessing.Process
    state: Path

    def saved(self):
        return self.state.stat().st_mtime_ns if self.state.exists() else 0

    def unfinished(self):
        return list(self.state.parent.glob(".state-*.pt"))

    def wait_for(self, condition, what):
        def alive():
            assert self.process.is_alive(), "training ended before it could be killed"
            return condition()

        processes.wait_for(alive, what, pause=0.001)

    def stopped_in_a_save(self):
        """Stopped, it can be looked at: was it really writing?"""
        self.wait_for(self.unfinished, "a save")
        os.kill(self.process.pid, signal.SIGSTOP)
        time.sleep(0.1)
        unfinished = self.unfinished()
        if not unfinished:
            os.kill(self.process.pid, signal.SIGCONT)
        return unfinished


def ends_as_if_nothing_happened(folder, state):
    done = torch.load(state, weights_only=True)["step"]
    whole = state.with_name("whole.pt")
    for path in (state, whole):
        start(folder, path, steps=done + 1)
    same_state(state, whole)
    return done


@pytest.mark.faults
@pytest.mark.timeout(processes.faults(300, 1800))
def test_killed_at_random_moments_it_ends_with_the_same_bits(shapes_clips, tmp_path):
    """Somewhere in the iteration after the second one, which may take as long as that on this machine."""
    state, moments, kills = tmp_path / "state.pt", random.Random(0), processes.faults(4, 20)
    for _ in range(kills):
        with victim(shapes_clips.folder, state) as training:
            began, before = time.monotonic(), training.saved()
            training.wait_for(lambda: training.saved() != before, "the second save")  # noqa: B023
            time.sleep(moments.uniform(0, 1) * (time.monotonic() - began))
    assert ends_as_if_nothing_happened(shapes_clips.folder, state) >= 2 * kills


@pytest.mark.faults
def test_killed_while_a_state_is_written_it_ends_with_the_same_bits(shapes_clips, tmp_path):
    state = tmp_path / "state.pt"
    with victim(shapes_clips.folder, state) as training:
        processes.wait_for(training.stopped_in_a_save, "a stop while a state is written")
    assert training.unfinished()
    ends_as_if_nothing_happened(shapes_clips.folder, state)
    assert not training.unfinished()  # What the killed process left is cleared away.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_saves_and_ends_with_the_same_bits(shapes_clips, tmp_path, whole, capfd, number):
    state = tmp_path / "state.pt"
    hooks = signal.getsignal(number)

    def stop(step, _):
        if step == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as ended:
        start(shapes_clips.folder, state, save_every=100, log_losses=stop)
    assert ended.value.code == 128 + number
    assert f"stopped by {number.name}; the same command goes on from step 3" in capfd.readouterr().err
    assert signal.getsignal(number) == hooks
    start(shapes_clips.folder, state)
    same_state(state, whole)


@pytest.mark.parametrize(("save_every", "step"), [(1, 2), (100, 0)])
def test_a_second_ctrl_c_ends_at_once_and_names_the_step_of_the_state(shapes_clips, tmp_path, save_every, step):
    state, hooks = tmp_path / "state.pt", signal.getsignal(signal.SIGINT)

    def stop_twice(step, _):
        if step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=f"the same command goes on from step {step}$"):
        start(shapes_clips.folder, state, save_every=save_every, log_losses=stop_twice)
    assert signal.getsignal(signal.SIGINT) == hooks
    assert state.exists() == bool(step)


def test_fewer_steps_than_done_are_refused(shapes_clips, tmp_path):
    state = tmp_path / "state.pt"
    start(shapes_clips.folder, state, steps=2)
    with pytest.raises(InputError, match="2 steps already, 1 asked for"):
        start(shapes_clips.folder, state, steps=1)


CHANGED = {
    "batch_size": 8, "accumulate": 2, "seed": 1, "ema": 0.5, "lr_decay": 50, "clip_grad": 1.0, "flip": True,
    "class_balanced": True, "precision": "bfloat16",
}  # fmt: skip


def test_every_argument_that_changes_a_step_is_refused(shapes_clips, tmp_path):
    """What is not named in FREE must be in CHANGED: a new argument of `train` is one or the other."""
    assert {*train.__kwdefaults__} == {*CHANGED, *FREE}
    state = tmp_path / "state.pt"
    start(shapes_clips.folder, state, steps=1)
    before = state.read_bytes()
    for key, value in CHANGED.items():
        with pytest.raises(InputError, match=rf"the state of a training with {key} .*, not {value}; put that back"):
            start(shapes_clips.folder, state, **{key: value})
    assert state.read_bytes() == before


def test_another_model_or_other_data_are_refused(shapes_clips, tmp_path):
    state = tmp_path / "state.pt"
    start(shapes_clips.folder, state, steps=1)
    gan = build_model("hrvgan", **{**TINY, "lr_g": 0.1})
    with pytest.raises(InputError, match=r"with lr_g [0-9.]+, not 0\.1; put that back"):
        train(gan, shapes_clips, state, steps=2, lr_decay=ENDLESS, **QUICK)
    other = shapes_clips.split("train")
    other.digest = "f" * 64
    with pytest.raises(InputError, match=r"with data [0-9a-f]{64}, not f"):
        train(build_model("hrvgan", **TINY), other, state, steps=2, lr_decay=ENDLESS, **QUICK)


@pytest.mark.parametrize("kind", ["text", "empty", "cut short", "of something else", "a folder"])
def test_no_state_is_an_error_in_one_sentence(shapes_clips, tmp_path, whole, kind):
    state = tmp_path / "state.pt"
    if kind == "a folder":
        state.mkdir()
    elif kind == "of something else":
        torch.save(torch.zeros(3), state)
    else:
        length = whole.stat().st_size
        state.write_bytes({"text": b"no state", "empty": b"", "cut short": whole.read_bytes()[: length // 2]}[kind])
    assert read_state(state, "step", 0) == 0
    with pytest.raises(InputError, match=r"state\.pt: not a state of this model"):
        start(shapes_clips.folder, state)


def test_a_limit_of_minutes_ends_at_a_save_and_holds_over_resumes(shapes_clips, tmp_path):
    state = tmp_path / "state.pt"
    _, history = start(shapes_clips.folder, state, minutes=1e-4, save_every=2, steps=1000, lr_decay=0)
    assert history[-1]["step"] == 2
    _, again = start(shapes_clips.folder, state, minutes=1e-4, save_every=2, steps=1000, lr_decay=0)
    assert again == history  # It was used up.
    _, more = start(shapes_clips.folder, state, steps=6, save_every=2, lr_decay=0)
    assert [row["step"] for row in more] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(InputError, match=r"minutes already, 0\.0001 asked for; raise train\.minutes"):
        start(shapes_clips.folder, state, minutes=1e-4, save_every=2, steps=1000, lr_decay=0)


def test_more_steps_after_fewer_that_were_stopped_at_once_go_on(tmp_path):
    folder = tmp_path / f"laptop-{'0' * 16}"
    folder.mkdir()
    torch.save({"step": 8}, folder / "state.pt")
    make_room("laptop", folder, 4)
    assert not folder.exists()
    folder.mkdir()
    (folder / "run_id").write_text("of the shorter training, which was stopped before its first save")
    make_room("laptop", folder, 8)
    assert read_state(folder / "state.pt", "step", 0) == 8
    assert [path.name for path in folder.iterdir()] == ["state.pt"]
