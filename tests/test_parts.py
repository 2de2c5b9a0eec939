"""A batch in parts (micro-batches, processes) trains as the whole does."""

import json
import os
import re
import signal
import sys
from pathlib import Path

import part_training
import pytest
import torch

import hrvgan
from hrvgan import cli
from hrvgan.errors import InputError
from hrvgan.models import build_model
from hrvgan.nn.cost import LiveBytes
from hrvgan.ops import batch_rng as draws
from hrvgan.training import distributed
from hrvgan.training.loop import train
from tests import processes

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ROOT = Path(__file__).resolve().parents[1]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def torchrun(*arguments) -> None:
    processes.run([*TORCHRUN, *arguments], env=ENVIRONMENT)


@pytest.fixture(scope="module")
def whole(shapes_clips, tmp_path_factory):
    """The state after training on whole batches in one process."""
    folder = tmp_path_factory.mktemp("whole")
    part_training.run(shapes_clips.folder, folder)
    return torch.load(folder / "state.pt", weights_only=True)


def trains_alike(state, whole):
    for key, weights in whole["gan"].items():
        torch.testing.assert_close(state["gan"][key], weights, rtol=0, atol=1e-11)
    for row, expected in zip(state["history"], whole["history"], strict=True):
        assert row == pytest.approx(expected, rel=1e-6)


def test_the_weights_move_by_more_than_the_tolerance(whole):
    torch.manual_seed(0)
    before = build_model("hrvgan", **part_training.MODEL).state_dict()
    moved = [(whole["gan"][key] - value).abs().max() for key, value in before.items() if key.endswith("weight")]
    assert min(moved) > 5e-6


def test_micro_batches(shapes_clips, tmp_path, whole):
    part_training.run(shapes_clips.folder, tmp_path, accumulate=2)
    trains_alike(torch.load(tmp_path / "state.pt", weights_only=True), whole)


@pytest.mark.faults
def test_two_processes(shapes_clips, tmp_path, whole):
    torchrun(ROOT / "tests/part_training.py", shapes_clips.folder, tmp_path)
    trains_alike(torch.load(tmp_path / "state.pt", weights_only=True), whole)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["losses-0.json", "samples-0.json", "state.pt"]
    assert json.loads((tmp_path / "losses-0.json").read_text()) == [3, "losses"]


@pytest.mark.faults
def test_processes_clip_alike(tmp_path):
    """TGAN's clipping reads running variances, which are of each process's own clips."""
    torchrun(ROOT / "tests/clipped_tgan.py", tmp_path)
    ours, theirs = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    scales = [key for key in ours if key.endswith("running_var")]
    assert scales
    assert all((ours[key] != 1).all() for key in scales)
    for key, value in ours.items():
        if not key.endswith("running_mean"):  # It decides nothing in training.
            assert torch.equal(value, theirs[key]), key


@pytest.mark.faults
def test_the_command_line_releases_once_and_goes_on_alone(shapes_clips, tmp_path):
    command = ["train", str(shapes_clips.folder), str(tmp_path / "model"), "--net", "{width: 0.04}", "--train"]
    torchrun("-m", "hrvgan.cli", *command, "{steps: 2, batch_size: 4, log_every: 2, save_every: 2}")
    assert hrvgan.load(tmp_path / "model").size == 32
    more = "{steps: 4, batch_size: 4, log_every: 2, save_every: 2}"
    cli.main([*command, more])
    rows = (tmp_path / "model" / "history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "2", "4"]
    assert sorted(file.name for file in tmp_path.glob("[!.]*")) == ["model", "model.state.pt"]
    assert not list(tmp_path.glob(".*.pt"))


@pytest.mark.faults
def test_told_to_stop_all_processes_end_at_the_same_step_and_it_is_saved(shapes_clips, tmp_path):
    command = [*TORCHRUN, "-m", "hrvgan.cli", "train", shapes_clips.folder, tmp_path / "model"]
    command += ["--net", "{width: 0.04}", "--train"]
    command += ["{steps: 10000, batch_size: 4, log_every: 1, save_every: 20}"]
    with processes.start(command, env=ENVIRONMENT) as training:
        processes.wait_for((tmp_path / "model.state.pt").exists, "the first save", process=training)
        training.send_signal(signal.SIGTERM)
        assert training.finish()
        said = training.output("stderr")
    step = re.search(r"stopped by SIGTERM; the same command goes on from step (\d+)", said)[1]
    assert torch.load(tmp_path / "model.state.pt", weights_only=True)["step"] == int(step) < 10000


def test_a_batch_that_does_not_divide_is_refused(shapes_clips, tmp_path):
    with pytest.raises(InputError, match=r"batch_size \(4\) must be a multiple of 3: 1 processes, train.accumulate 3"):
        part_training.run(shapes_clips.folder, tmp_path, accumulate=3)


def test_parts_draw_the_rows_of_the_whole():
    like = torch.zeros(1)

    def drawn(index, count, n):
        with draws.part(index, count, (7, 1)):
            first = draws.randn(n, 2, like=like), draws.rand(n, like=like), draws.randint(9, n, like=like)
            return (*first, draws.randn(n, 5000, like=like), torch.randn(4))

    whole, left, right = drawn(0, 1, 6), drawn(0, 2, 3), drawn(1, 2, 3)
    for all_rows, ours, theirs in list(zip(whole, left, right, strict=True))[:4]:
        assert torch.equal(all_rows, torch.cat([ours, theirs]))
    assert not torch.equal(left[4], right[4])  # Torch's own numbers are not repeated in another part.
    assert torch.equal(drawn(1, 2, 3)[0], right[0])


def test_what_is_drawn_is_distributed_as_asked():
    like = torch.zeros(1)
    with draws.part(0, 1, (3,)):
        normal, uniform = draws.randn(20, 5000, like=like), draws.rand(20, 500, like=like)
        whole = draws.randint(4, 40_000, like=like)
        again = draws.randn(20, 5000, like=like)
    assert (normal.mean().item(), normal.std().item()) == pytest.approx((0, 1), abs=0.02)
    assert (uniform.mean().item(), uniform.var().item()) == pytest.approx((0.5, 1 / 12), abs=0.01)
    assert torch.bincount(whole).tolist() == pytest.approx([10_000] * 4, rel=0.05)
    rows = torch.cat([normal, again])
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.1  # No row repeats another, nor another draw.


def test_a_part_draws_its_own_rows_alone():
    """Of 64 parts each takes the time and the memory of one."""
    with draws.part(63, 64, (7,)), LiveBytes() as live:
        draws.randn(2, 5000, like=torch.zeros(1))
    assert live.peak < 3 * 2 * 5000 * 4


def test_outside_a_part_they_are_torchs_own():
    torch.manual_seed(3)
    ours = draws.rand(4, 2, like=torch.zeros(1))
    torch.manual_seed(3)
    assert torch.equal(ours, torch.rand(4, 2))


def test_one_process_is_the_first_of_one():
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    values = [torch.tensor([1.0, 2.0])]
    distributed.average_(values)
    assert values[0].tolist() == [1, 2]
    assert distributed.broadcast_from_rank0(3.5) == 3.5


def test_a_model_may_share_its_fake_between_phases(shapes_clips, tmp_path):
    """What a phase leaves on a micro-batch is there for the next phase."""
    from hrvgan.models.hrvgan import HRVGAN
    from hrvgan.nn.base import Phase

    class Sharing(HRVGAN):
        def phases(self):
            d, g = super().phases()
            return [Phase("g", g.module, g.optimizer, self.leave), Phase("d", d.module, d.optimizer, self.take)]

        def leave(self, batch):
            batch.fake = self.G(self.noise(batch), batch.c)
            return {"adv": -self.D(batch.fake, batch.c).mean()}

        def take(self, batch):
            return {"adv": self.D(batch.fake.detach(), batch.c).mean() - self.D(batch.real, batch.c).mean()}

    gan = Sharing(8, width=0.04)
    gan.name, gan.arguments = "sharing", {}
    recipe = {"steps": 2, "batch_size": 4, "accumulate": 2, "log_every": 1, "save_every": 2}
    _, history = train(gan, shapes_clips, tmp_path / "state.pt", **recipe)
    assert len(history) == 2
