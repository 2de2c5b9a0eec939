"""A training whose MLflow server dies, or whose MLflow store is locked."""

import contextlib
import sqlite3
import sys

import pytest

from tests import processes
from tests.processes import wait_for
from tests.project import STORE, digests, finished
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
