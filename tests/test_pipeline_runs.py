"""Programs of the graph on a finished project: trainings that go on, their records, bad input, and two at once."""

import contextlib
import csv
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

import hrvgan
from hrvgan.files import file_digest
from pipeline import tracking
from pipeline.tracking.mlflow_logger import MLflowLogger
from tests import processes
from tests.project import NO_TRACKER, STORE, Project, digests, finished, running


@pytest.fixture
def project(tmp_path, tmp_path_factory):
    with finished(tmp_path_factory)[0].copied(tmp_path / "project") as project:
        yield project


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """A project for tests that change nothing, or put it back."""
    with finished(tmp_path_factory)[0].copied(tmp_path_factory.mktemp("unchanged") / "project") as project:
        yield project


def history(project: Project) -> list[dict[str, str]]:
    """The rows of the history of the run laptop."""
    with open(project.root / "models/laptop/history.csv", newline="") as file:
        return list(csv.DictReader(file))


def steps(project: Project) -> list[int]:
    return [int(row["step"]) for row in history(project)]


def test_mlflow_holds_one_run_a_model(unchanged):
    client, runs = unchanged.records("laptop")
    assert len(runs) == 1
    (run,) = runs
    assert (run.info.status, run.info.run_name) == ("FINISHED", "laptop seed 0")
    assert {"mlflow.user", "mlflow.source.name"} <= set(run.data.tags)
    assert run.data.tags["model_digest"] == file_digest(unchanged.root / "models/laptop/model.safetensors")
    assert run.data.params["train.steps"] == "4"
    assert run.data.params["net.width"] == "0.04"
    assert {"loss/d/adv", "loss/g/adv", "speed/clips_per_s", "metric/refnet_fd", "metric/refnet_acc"} <= set(
        run.data.metrics
    )
    lock = yaml.safe_load((unchanged.root / "dvc.lock").read_text())["stages"]["extract@shapes"]["outs"]
    assert run.inputs.dataset_inputs[0].dataset.digest in {out["md5"] for out in lock}
    names = {
        file.path
        for folder in ("samples", "model", "evaluation", "videos")
        for file in client.list_artifacts(run.info.run_id, folder)
    }
    assert {"samples/classes.png", "samples/classes.mp4", "model/MLmodel", "videos/samples-000004.mp4"} <= names


def test_dvc_plots_shows_pictures_and_every_curve(unchanged):
    unchanged.run("dvc", "plots", "show")
    folder = unchanged.root / "dvc_plots"
    titles = set(re.findall(r'"title": "([^"]+)"', (folder / "index.html").read_text()))
    assert titles == set(history(unchanged)[0])
    assert {"loss/d/adv", "grad/g", "logits/fake"} <= titles
    pictures = sorted(path.name.rpartition("_")[2] for path in (folder / "static").iterdir())
    assert pictures == ["classes.png", "interpolation.png", "nearest.png"]


def test_a_lost_record_is_made_again_from_the_model(project):
    shutil.rmtree((project.root / STORE).parent)
    project.call("tracking", "record", "laptop")
    client, (run,) = project.records("laptop")
    curve = client.get_metric_history(run.info.run_id, "loss/g/adv")
    assert [point.value for point in curve] == pytest.approx([float(row["loss/g/adv"]) for row in history(project)])
    scores = {key for key in run.data.metrics if key.startswith("metric/")}
    assert scores == {f"metric/{name}" for name in json.loads((project.root / "metrics/laptop.json").read_text())}
    assert run.data.metrics["metric/gated"] in (0, 1)
    assert {"metric/refnet_kid", "training/steps", "cost/G/parameters"} <= set(run.data.metrics)
    files = {file.path for file in client.list_artifacts(run.info.run_id, "evaluation")}
    assert files == {f"evaluation/laptop.{kind}" for kind in ("json", "manifest.json", "nearest.png")}
    said = project.call("tracking", "record", "nope", code=1)
    assert said == "error: params.yaml: no 'nope' in runs; active: laptop\n"


def test_runs_of_equal_settings_have_a_record_each(project):
    project.edit_params(lambda v: v["runs"].update(again=v["runs"]["laptop"]))
    shutil.copytree(project.root / "models/laptop", project.root / "models/again")
    project.call("sample", "again")
    client, (run,) = project.records("again")
    assert client.list_artifacts(run.info.run_id, "samples")


def test_more_steps_continue_and_fewer_stand_apart(project):
    def train(steps: int) -> str:
        project.edit_params(lambda v: v["train"].update(steps=steps))
        return project.call("train", "laptop")

    assert "laptop: going on from" in train(6)
    longer = digests(project.root / "models/laptop")
    said = train(2)
    assert "laptop: trained for 6 steps already, 2 asked for" in said
    assert "training starts anew" in said
    assert "parameters are new" not in said
    assert steps(project) == [2]
    said = train(6)
    assert "laptop: going on from" in said
    assert "trained for" not in said
    assert digests(project.root / "models/laptop") == longer


def test_more_steps_have_a_record_of_their_own(project):
    """That of the shorter training keeps its params, weights and scores."""

    def record(steps: int) -> tuple[str, list[int]]:
        client, (run,) = project.records("laptop", f" and params.`train.steps` = '{steps}' and params.seed = '9'")
        points = client.get_metric_history(run.info.run_id, "loss/d/adv")
        assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(run.data.metrics)
        return run.data.tags["model_digest"], [point.step for point in points]

    def train(steps: int) -> str:
        project.edit_params(lambda v: (v["train"].update(steps=steps), v["runs"]["laptop"].update(seed=9)))
        project.call("train", "laptop", MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.05")
        return file_digest(project.root / "models/laptop/model.safetensors")

    shorter = train(4)
    longer = train(8)
    assert record(4) == (shorter, [2, 4])
    assert record(8) == (longer, [2, 4, 6, 8])


def test_only_records_whose_process_is_gone_are_marked_dead(project, tmp_path, monkeypatch):
    """Experiments of a queue train beside one another, and teams share a tracker."""
    monkeypatch.chdir(project.root)
    for name in ("HRVGAN_STATE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    client, experiment = tracking.connect()
    ended = subprocess.Popen(["true"])
    ended.wait()
    tags = {
        "KILLED": f"{ended.pid}@{platform.node()}",
        "RUNNING": f"{os.getpid()}@{platform.node()}",
        "elsewhere": f"{ended.pid}@another-machine",
        "unknown": "",
    }
    runs = {name: client.create_run(experiment, tags={"run": "laptop", "process": process}).info.run_id
            for name, process in tags.items()}  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt), MLflowLogger("laptop", {}, "cpu", 10, tmp_path / "run_id") as logger:
        raise KeyboardInterrupt
    status = {name: client.get_run(run_id).info.status for name, run_id in runs.items()}
    assert status == {"KILLED": "KILLED"} | dict.fromkeys(("RUNNING", "elsewhere", "unknown"), "RUNNING")
    assert client.get_run(logger.id).info.status == "FAILED"


def test_a_tracker_that_is_down_stops_nothing(project):
    project.edit_params(lambda v: v["train"].update(steps=8))
    said = project.call("train", "laptop", **NO_TRACKER)
    assert "does not answer" in said
    assert steps(project) == [2, 4, 6, 8]
    assert hrvgan.load(project.root / "models/laptop").size == 32


@pytest.mark.parametrize(
    ("change", "command", "sentence"),
    [
        (
            lambda v: v["train"].update(stepz=1),
            "train laptop",
            "unknown key 'stepz' in train or runs.laptop.train; known: .*steps",
        ),
        (lambda v: v["runs"]["laptop"].update(model="hrgan"), "train laptop", "unknown model 'hrgan'; known: .*hrvgan"),
        (
            lambda v: v["runs"]["laptop"]["net"].update(size=24),
            "train laptop",
            "size 24 is not known; choose one of 8, 16",
        ),
        (
            lambda v: v["datasets"]["shapes"].update(source="shape"),
            "download shapes",
            "unknown source 'shape'; known: shapes",
        ),
        (
            lambda v: v["datasets"]["shapes"].update(source="folder", options={"path": "no/such"}),
            "download shapes",
            "no/such",
        ),
        (
            lambda v: v["datasets"]["shapes"]["clips"].update(num_frames=999, workers=1),
            "extract shapes",
            "need 999; lower extract.num_frames",
        ),
        (lambda v: None, "train lapto", "no 'lapto' in runs; active: laptop"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_lost(unchanged, change, command, sentence):
    kept, before = (unchanged.root / "params.yaml").read_text(), made(unchanged)
    unchanged.edit_params(change)
    try:
        said = unchanged.call(*command.split(), code=1)
    finally:
        (unchanged.root / "params.yaml").write_text(kept)
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert re.search(sentence, error)
    assert "Traceback" not in said
    assert made(unchanged) == before


def made(project: Project) -> dict[str, dict[str, str]]:
    return {name: digests(project.root / name) for name in ("models/laptop", "data/clips/shapes", "data/raw/shapes")}


def test_the_sentence_is_all_that_a_process_says(unchanged):
    said = unchanged.run(sys.executable, "-m", "pipeline.train", "lapto", code=1)
    assert said == "error: params.yaml: no 'lapto' in runs; active: laptop\n"


def test_a_run_starts_from_another_which_is_then_trained_before_it(project):
    def train(run: str) -> None:
        project.call("train", run)
        project.run("dvc", "commit", "--force", f"train@{run}")  # as if DVC had run it

    project.edit_params(
        lambda v: v["runs"].update(tuned={**v["runs"]["laptop"], "init_from": "models/laptop", "seed": 5})
    )
    train("tuned")
    base, tuned = (hrvgan.load(project.root / "models" / run) for run in ("laptop", "tuned"))
    assert tuned.origin == "-".join(
        file_digest(project.root / "models/laptop" / file)[:16]
        for file in ("model.safetensors", "discriminator.safetensors")
    )
    assert base.origin == ""
    assert "train@tuned" not in project.stale()
    project.edit_params(lambda v: v["runs"]["laptop"].update(seed=1))
    train("laptop")
    assert "train@tuned" in project.stale()
    project.edit_params(lambda v: [v["runs"][run].update(seed=2) for run in ("laptop", "tuned")])
    assert running(project.run("dvc", "repro", "--dry", "train@tuned")) == ["train@laptop", "train@tuned"]


def test_a_run_that_is_scored_while_it_trains_releases_the_best_weights(project):
    """DVC then makes the reference before it trains."""
    project.edit_params(lambda v: v["train"].update(steps=12, score_every=2, keep="best"))
    project.edit_params(lambda v: v["runs"]["laptop"].update(score_with="data/reference/shapes"))
    assert "going on from" in project.run("dvc", "repro", "train@laptop")
    scores = {int(row["step"]): float(row["score/refnet_fd"]) for row in history(project) if row["score/refnet_fd"]}
    assert list(scores) == [6, 8, 10, 12]  # The first four steps were made without.
    model = project.root / "models/laptop"
    described = json.loads((model / "model.json").read_text())
    assert (described["steps"], described["weights_of_step"]) == (12, min(scores, key=scores.get))
    (record,) = [run for run in project.records("laptop")[1] if run.data.params["train.steps"] == "12"]
    assert record.data.metrics["score/refnet_fd"] == pytest.approx(scores[12])
    refnet = project.root / "hrvgan/features/refnet.py"
    refnet.write_text(f"{refnet.read_text()}\nEDITED = True\n")
    assert running(project.run("dvc", "repro", "--dry", "train@laptop")) == ["reference@shapes"]


@contextlib.contextmanager
def holder(project: Project, lock: str) -> Iterator[processes.Process]:
    """A process that holds `lock`, an expression, until its stdin is closed."""
    code = f"import sys\nwith {lock}:\n    print('held', flush=True)\n    sys.stdin.read()"
    command = [sys.executable, "-c", code]
    with processes.start(command, cwd=project.root, stdin=subprocess.PIPE) as process:
        processes.wait_for(process.output, "a process that holds the lock", process=process)
        yield process


def test_status_is_one_screen(tmp_path, monkeypatch):
    project = Project.new(tmp_path / "project", lambda values: None)
    nobody = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    assert project.call("status", **nobody).startswith("champions    none yet\n")
    monkeypatch.chdir(project.root)
    for name in ("HRVGAN_STATE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    client, experiment = tracking.connect()
    run = client.create_run(experiment).info.run_id
    client.log_metric(run, "metric/refnet_fd", 0.31250001)
    client.create_registered_model("laptop")
    client.create_model_version("laptop", f"runs:/{run}/model", run)
    client.set_registered_model_alias("laptop", "champion", "1")
    with holder(project, "__import__('pipeline.stage').stage.lock('sample-laptop')") as process:
        lines = project.call("status", **nobody).splitlines()
    assert lines[0] == "champions    laptop: version 1, refnet_fd 0.313"
    assert lines[1].startswith("nights       no Prefect server at http://127.0.0.1:9/api (")
    assert re.fullmatch(r"out of date  upstream@shapes, .*, report \(`make run`\)", lines[2])
    assert lines[3:] == [f"runs now     sample-laptop (process {process.pid})"]


def test_two_programs_do_not_write_one_output(unchanged):
    lock = unchanged.root / ".state/locks/sample-laptop.lock"
    with holder(unchanged, "__import__('pipeline.stage').stage.lock('sample-laptop')") as process:
        said = unchanged.call("sample", "laptop", code=1)
        assert f"sample-laptop is running already (process {process.pid})" in said
    assert lock.exists()


@pytest.mark.faults
def test_a_training_waits_for_one_that_uses_its_states(project):
    """As two experiments of a queue do that differ in the number of steps: each has a copy of the project."""
    (lock,) = (project.root / ".state/resume").glob("*.lock")
    training = [sys.executable, "-m", "pipeline.train", "laptop"]
    with (
        holder(project, f"__import__('hrvgan.files').files.locked({str(lock)!r}, 'it')") as first,
        processes.start(training, cwd=project.root) as second,
    ):
        waits = f"training of laptop is running already (process {first.pid}); waiting\n"
        processes.wait_for(lambda: waits in second.output("stderr"), "a training that waits", process=second)
        first.stdin.close()
        assert second.finish() == 0, second


def said_with_mounts(project: Project, mounts: str, stage: str, code: int) -> str:
    """What a stage says in a namespace with `mounts` of its own, as a user who may make them there."""
    program = f"{mounts} && exec {sys.executable} -m pipeline.{stage}"
    return project.run("unshare", "--map-root-user", "--mount", "bash", "-c", program, code=code)


@processes.in_full
@pytest.mark.faults
@pytest.mark.parametrize(
    ("folder", "size", "stage"),
    [
        ("data/clips", "64k", "extract shapes"),
        ("data/reference", "8k", "reference shapes"),
        ("models", "8k", "train laptop"),
        ("samples", "8k", "sample laptop"),
    ],
)
def test_a_full_disk_is_one_sentence_and_what_was_there_stays(project, folder, size, stage):
    before = digests(project.root / folder)
    said = said_with_mounts(project, f"mount -t tmpfs -o size={size} tmpfs {folder}", stage, code=1)
    assert re.match("error: .*No space left on device.*; make room", said.splitlines()[-1])
    assert "Traceback" not in said
    assert digests(project.root / folder) == before


@processes.in_full
@pytest.mark.faults
def test_read_only_data_suffice_for_what_reads_them_alone(project):
    mounts = "mount --bind data data && mount -o remount,bind,ro data"
    said_with_mounts(project, mounts, "sample laptop", code=0)
    said = said_with_mounts(project, mounts, "extract shapes", code=1)
    assert re.match("error: .*cannot be written .Read-only file system.", said.splitlines()[-1])


@pytest.mark.faults
def test_two_processes_train_a_run(project):
    """By params.yaml under plain DVC; a wrong value is one sentence, and the processes say theirs once."""
    project.edit_params(lambda v: v["train"].update(steps=10, processes=0))
    assert "error: params.yaml: train.processes 0: need a number from 1 on, or auto" in project.call("checks", code=1)
    project.edit_params(lambda v: v["train"].update(processes=2))
    said = project.run("dvc", "repro", "--single-item", "train@laptop")
    assert said.count("laptop: going on from") == 1
    assert steps(project) == [2, 4, 6, 8, 10]
    cost = json.loads((project.root / "metrics/laptop.training.json").read_text())
    assert cost["machine"].endswith(", 2 threads")
    project.edit_params(lambda v: v["runs"]["laptop"].update(score_with="data/reference/shapes"))
    project.edit_params(lambda v: v["train"].update(steps=12, score_every=2, keep="best"))
    project.run("dvc", "repro", "--single-item", "train@laptop")
    assert [row["step"] for row in history(project) if row["score/refnet_fd"]] == ["12"]
    project.edit_params(lambda v: v["train"].update(batch_size=3, steps=14))
    said = project.run(sys.executable, "-m", "pipeline.train", "laptop", code=1)
    assert sum(line.startswith("error: ") for line in said.splitlines()) == 1
    assert "Traceback" not in said
