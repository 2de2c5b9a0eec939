"""What extraction tells the tracker."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow.entities import Param

from hrvgan.extraction.extract import extract
from hrvgan.extraction.manifest import dropped_table
from pipeline import tracking
from pipeline.tracking import mlflow_logger, seeds
from tests import processes
from tests.processes import wait_for
from tests.project import NO_TRACKER, ROOT
from tests.test_extraction import SMALL, write_raw


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    """A folder with an empty MLflow store of its own."""
    monkeypatch.setenv("HRVGAN_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.mark.filterwarnings("ignore:For backward compatibility")  # of pandas, to MLflow
def test_an_extraction_is_a_run_with_its_counts_and_a_table_of_what_was_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HRVGAN_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = tmp_path / "clips"
    counts = extract(write_raw(tmp_path, {"a.avi": 8, "b.avi": 3}), store, **SMALL)
    for _ in range(2):  # Once is enough.
        tracking.log_clips("mine", store / "videos.parquet", counts, dropped_table(store))
    client, experiment = tracking.connect(tracking.EXTRACTIONS)
    (run,) = tracking.find(client, experiment, {"clips": "mine"})
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert not client.search_runs([tracking.connect()[1]])  # those of trainings stand apart
    assert {"clips/videos": 2, "clips/clips": 2, "clips/short": 1}.items() <= run.data.metrics.items()
    path = client.download_artifacts(run.info.run_id, "dropped.json", str(tmp_path))
    cause = "3 frames, need 4; lower extract.num_frames or drop the video"
    assert json.loads(Path(path).read_text())["data"] == [["b.avi", "", "short", cause]]


def test_an_experiment_that_was_deleted_is_restored(store, capfd):
    (store / "videos.parquet").write_bytes(b"")
    client, experiment = tracking.connect(tracking.EXTRACTIONS)
    client.delete_experiment(experiment)
    tracking.log_clips("mine", store / "videos.parquet", {}, {"cause": []})
    assert len(tracking.find(client, experiment, {"clips": "mine"})) == 1
    assert (
        f"the experiment hrvgan-clips was deleted from MLflow at {tracking.uri()}; it is restored"
        in capfd.readouterr().err
    )


RECORD = """
import sys
from pathlib import Path
from pipeline import tracking
print("ready", flush=True)
sys.stdin.readline()
tracking.log_clips(sys.argv[1], Path("videos.parquet"), {"clips": 1}, {"cause": []})
"""


@pytest.mark.faults
def test_two_first_recordings_at_once_both_succeed(store):
    (store / "videos.parquet").write_bytes(b"")
    options = {"cwd": store, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "stdin": subprocess.PIPE}
    with (
        processes.start([sys.executable, "-c", RECORD, "a"], **options) as first,
        processes.start([sys.executable, "-c", RECORD, "b"], **options) as second,
    ):
        for process in (first, second):
            wait_for(lambda process=process: "ready" in process.output(), "an import", process=process)
        for process in (first, second):
            process.stdin.write(b"go\n")
            process.stdin.flush()
        for process in (first, second):
            assert process.finish() == 0, process
            assert "warning" not in process.output("stderr"), process
    client, experiment = tracking.connect(tracking.EXTRACTIONS)
    for name in ("a", "b"):
        assert len(tracking.find(client, experiment, {"clips": name})) == 1


def test_an_experiment_that_another_process_has_just_created_is_taken(store):
    client, experiment = tracking.connect()
    assert tracking.create_experiment(client, tracking.EXPERIMENT) == experiment


def test_trainings_that_differ_in_their_seed_have_a_parent_with_mean_and_sd(store):
    client, experiment = tracking.connect()

    def train(seed: int, score: float, steps: int = 8) -> str:
        values = {"seed": str(seed), "train.steps": str(steps)}
        tags = {"run": "laptop", "model": "hrvgan", "dataset": "shapes", "sweep": seeds.sweep_of(values, "d1")}
        run_id = client.create_run(experiment, tags=tags).info.run_id
        client.log_batch(run_id, params=[Param(key, value) for key, value in values.items()])
        client.log_metric(run_id, "metric/refnet_fd", score)
        client.log_metric(run_id, "loss/d/adv", 1.0)
        seeds.summarise(client, experiment, run_id)
        return run_id

    first, _ = train(0, 9.0), train(0, 4.0, steps=16)
    assert not client.search_runs([experiment], "tags.`mlflow.parentRunId` != ''")
    runs = {train(1, 6.0), first, train(0, 2.0)}  # the seed 0 was trained again
    (parent,) = client.search_runs([experiment], "tags.`sweep.parent` != ''")
    assert (parent.info.run_name, parent.info.status) == ("laptop: mean of seeds 0, 1", "FINISHED")
    assert parent.data.params == {"train.steps": "8"}
    sd = math.sqrt(8)
    assert parent.data.metrics == pytest.approx({"metric/refnet_fd": 4.0, "sd_of_seeds/refnet_fd": sd})
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {run.info.run_id for run in children} == runs
    train(2, 7.0)
    (again,) = client.search_runs([experiment], "tags.`sweep.parent` != ''")
    assert (again.info.run_id, again.info.run_name) == (parent.info.run_id, "laptop: mean of seeds 0, 1, 2")
    assert again.data.metrics["metric/refnet_fd"] == pytest.approx(5.0)


def test_the_ui_opens_on_the_runs(store):
    """Also where a browser is told of them; MLflow itself would show traces of language models first."""
    (client, experiment), browser, seen = tracking.connect(), store / "browser", store / "seen"
    client.log_param(client.create_run(experiment).info.run_id, "train.steps", 500)
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o755)
    port = processes.free_port()
    command = [sys.executable, "-m", "pipeline.tracking", "ui", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BROWSER": f"{browser} %s"}
    view = "workflowType=machine_learning&viewStateShareKey=hrvgan"
    link = f"http://127.0.0.1:{port}/#/experiments/{experiment}/runs?{view}"
    with processes.start(command, cwd=store, env=environment) as ui:
        wait_for(seen.exists, "a browser", 150, process=ui)
        assert seen.read_text() == f"{link}\n"
        assert f"The runs: {link}\n" in ui.output()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        asked = f"/ajax-api/2.0/mlflow/experiments/get?experiment_id={experiment}"
        with opener.open(f"http://127.0.0.1:{port}{asked}", timeout=60) as answer:
            shown = json.load(answer)["experiment"]
        assert shown["name"] == "hrvgan"
        (shared,) = [json.loads(tag["value"]) for tag in shown["tags"] if "sharedViewState.hrvgan" in tag["key"]]
        assert {"metrics.`metric/refnet_fd`", "params.`seed`"} <= set(shared["selectedColumns"])
        assert [chart.get("step") for chart in shared["compareRunCharts"]] == [None, 500]
        assert (shared["orderByKey"], shared["orderByAsc"]) == ("metrics.`metric/refnet_fd`", True)
        second = processes.run(command, cwd=store, env=environment, check=False)
        assert f"port {port} is taken" in second.stderr
        ui.send_signal(signal.SIGINT)
        assert ui.finish() == 0, ui


def test_a_tracker_that_is_away_is_a_warning(tmp_path, monkeypatch, capfd):
    for name, value in NO_TRACKER.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "videos.parquet").write_bytes(b"")
    tracking.log_clips("mine", tmp_path / "videos.parquet", {}, {})
    assert "warning: the clips of mine are not recorded in MLflow at http://127.0.0.1:9" in capfd.readouterr().err


def test_a_tracker_that_stands_still_is_a_warning(tmp_path, monkeypatch, capfd):
    """A training ends although something is never sent; what comes in good time is waited for."""
    monkeypatch.setenv("HRVGAN_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow_logger, "PATIENCE", 0.2)
    recorded, sent = mlflow_logger.MLflowLogger("laptop", {}, "cpu", 10, tmp_path / "run_id"), []
    begun, never = threading.Event(), threading.Event()
    recorded.jobs.put(begun.set)
    assert begun.wait(120)
    assert not recorded.failed
    for number in range(4):
        recorded.jobs.put(lambda number=number: (time.sleep(0.15), sent.append(number)))
    recorded.jobs.put(never.wait)
    recorded._end("FINISHED")
    assert sent == [0, 1, 2, 3]
    assert recorded.failed
    assert "nothing sent for 0.2 seconds" in capfd.readouterr().err
    never.set()
