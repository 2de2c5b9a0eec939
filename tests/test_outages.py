"""A training whose MLflow server dies, whose MLflow store is locked, or whose clock jumps."""

import contextlib
import json
import sqlite3
import sys
from pathlib import Path

import pytest

from tests import processes
from tests.processes import wait_for
from tests.project import NO_TRACKER, STORE, digests, finished
from tests.test_machines import mlflow_server, trainings

pytestmark = [pytest.mark.faults, processes.in_full]
STEPS = 60


@pytest.fixture
def project(tmp_path, tmp_path_factory):
    """A finished project that is asked for more steps."""
    with finished(tmp_path_factory)[0].copied(tmp_path / "project") as project:
        project.edit_params(lambda v: v["train"].update(steps=STEPS))
        yield project


def steps_of(client, record) -> set[int]:
    return {point.step for point in client.get_metric_history(record.info.run_id, "loss/d/adv")}


@pytest.mark.parametrize("rows", [1, STEPS // 4, STEPS // 2])
def test_a_training_whose_mlflow_dies_ends_and_is_recorded_later(project, tmp_path, rows):
    """When so many rows have been logged: at the start, in the middle, at the end."""
    port = processes.free_port()
    env = {**project.environment(), "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    command = [sys.executable, "-m", "pipeline.train", "laptop"]

    def logged() -> bool:
        with contextlib.suppress(AttributeError):  # no experiment yet
            client, records = trainings(port, "laptop")
            return bool(records) and len(steps_of(client, records[0])) >= rows

    with (
        mlflow_server(tmp_path / "mlflow", port) as server,
        processes.start(command, cwd=project.root, env=env) as training,
    ):
        wait_for(logged, f"{rows} rows", pause=0.01, process=training)
        server.end()
        assert training.finish() == 0, training
    with mlflow_server(tmp_path / "mlflow", port):
        project.run(sys.executable, "-m", "pipeline.tracking", "record", "laptop", **env)
        client, records = trainings(port, "laptop")
        digest = digests(project.root / "models/laptop")["model.safetensors"]
        (record,) = [record for record in records if record.data.tags.get("model_digest") == digest]
        assert steps_of(client, record) == set(range(2, STEPS + 1, 2))


def test_a_locked_store_of_mlflow_stops_no_training(project):
    with contextlib.closing(sqlite3.connect(project.root / STORE)) as database:
        database.execute("BEGIN EXCLUSIVE")
        said = project.call("train", "laptop")
        database.rollback()
    assert "database is locked" in said
    assert "`python -m pipeline.tracking record laptop` completes the record later" in said
    project.call("tracking", "record", "laptop")
    client, (record, *_) = project.records("laptop", f" and params.`train.steps` = '{STEPS}'")
    assert steps_of(client, record) == set(range(2, STEPS + 1, 2))


def test_a_clock_that_jumps_changes_no_bit(project, tmp_path):
    """A day back in the middle of a training, then more than a year forth."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if not library:
        pytest.skip("libfaketime is not installed (apt-get install libfaketime)")
    train = ["dvc", "repro", "--single-item", "train@laptop"]
    project.run(*train, **NO_TRACKER, HRVGAN_STATE=str(tmp_path / "none"))
    model, clock = digests(project.root / "models/laptop"), tmp_path / "clock"
    clock.write_text("+0")
    env = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1"}
    env |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    env |= {"FAKETIME_FORCE_MONOTONIC_FIX": "0"}  # Otherwise waits of the interpreter's lock end at once.
    env |= {"HRVGAN_STATE": str(tmp_path / "state"), **NO_TRACKER}
    states = lambda: [path.stat().st_ino for path in tmp_path.glob("state/resume/*/state.pt")]  # noqa: E731
    with processes.start(
        [*train[:2], "--force", *train[2:]], cwd=project.root, env={**project.environment(), **env}
    ) as dvc:
        for jump in ("-1d", "+400d"):
            before = states()
            wait_for(lambda: states() != before, "a state", process=dvc)  # noqa: B023
            clock.write_text(jump)
        assert dvc.finish() == 0, dvc
    assert digests(project.root / "models/laptop") == model
    assert "train@laptop" not in project.stale()
    assert 0 < json.loads((project.root / "metrics/laptop.training.json").read_text())["seconds"] < 100
