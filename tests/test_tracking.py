"""What extraction tells the tracker."""

import json
from pathlib import Path

import pytest

from hrvgan.extraction.accounting import dropped_table
from hrvgan.extraction.extract import extract
from pipeline import tracking
from tests.test_extraction import SMALL, write_raw


@pytest.mark.filterwarnings("ignore:For backward compatibility")  # of pandas, to MLflow
def test_an_extraction_is_a_run_with_its_counts_and_a_table_of_what_was_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HRVGAN_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = tmp_path / "clips"
    counts = extract(write_raw(tmp_path, {"a.avi": 8, "b.avi": 3}), store, **SMALL)
    for _ in range(2):  # Once is enough.
        tracking.log_clips("mine", store / "videos.parquet", counts, dropped_table(store))
    client, experiment = tracking.connect()
    (run,) = tracking.find(client, experiment, {"clips": "mine"})
    assert (run.info.run_name, run.info.status) == ("clips/mine", "FINISHED")
    assert {"clips/videos": 2, "clips/clips": 2, "clips/short": 1}.items() <= run.data.metrics.items()
    path = client.download_artifacts(run.info.run_id, "dropped.json", str(tmp_path))
    cause = "3 frames, need 4; lower extract.num_frames or drop the video"
    assert json.loads(Path(path).read_text())["data"] == [["b.avi", "", "short", cause]]


def test_a_tracker_that_is_away_is_a_warning(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (tmp_path / "videos.parquet").write_bytes(b"")
    tracking.log_clips("mine", tmp_path / "videos.parquet", {}, {})
    assert (
        "warning: the clips of mine are not recorded in MLflow at http://127.0.0.1:9"
        in capfd.readouterr().err
    )
