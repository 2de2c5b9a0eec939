"""The best model so far, in a real registry: who becomes it, who stays it, and how to get it."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from hrvgan.errors import InputError
from pipeline import tracking
from pipeline.tracking import registry
from tests import processes
from tests.project import NO_TRACKER, ROOT


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("HRVGAN_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())


def retrain(weights: str, fd: float, gated: bool = True, clips: str = "a") -> str:
    """What stages train and evaluate leave behind of a model; returns what becomes of it."""
    model, metrics = Path("models/laptop"), Path("metrics")
    for folder in (model, metrics):
        folder.mkdir(parents=True, exist_ok=True)
    (model / "model.safetensors").write_text(weights)
    (model / "model.json").write_text(json.dumps({"arguments": {}, "steps": 800}))
    (model / "history.csv").write_text("step,loss/d/adv\n10,0.5\n")
    entry = {"refnet_fd": {"value": fd, "sd": 0.05}, "gated": gated}
    manifest = {"protocols": {"refnet_fd": {"real_digest": clips, "num_real": 120}}, "num_draws": 5}
    (metrics / "laptop.json").write_text(json.dumps(entry))
    (metrics / "laptop.manifest.json").write_text(json.dumps(manifest))
    tracking.record_all("laptop")
    return registry.promote("laptop")


def promoted() -> str:
    return str(registry.champion_of(tracking.connect()[0], "laptop").version)


def test_the_best_model_is_the_champion_whatever_comes_after(project):
    with pytest.raises(InputError, match=r"laptop: no champion in MLflow at sqlite:.*evaluate@laptop"):
        registry.fetch("laptop", Path("best"))
    assert "version 1, whose scores may not be believed" in retrain("ungated", 0.1, gated=False)
    assert retrain("first", 0.8) == "laptop: version 2 is the champion, with refnet_fd 0.8"
    assert retrain("first", 0.8) == "laptop: version 2 is the champion, with refnet_fd 0.8"  # scored again
    stays = "laptop: version 2 stays the champion, with 0.8; version"
    needed = "where more than 0.063 is needed"  # 2 sqrt(2 * 0.05^2 / 5)
    assert retrain("worse", 0.9) == f"{stays} 3 has refnet_fd 0.9, a lead of -0.1 {needed}"
    assert retrain("lucky", 0.75) == f"{stays} 4 has refnet_fd 0.75, a lead of 0.05 {needed}"
    assert "no champion" in retrain("unbelievable", 0.2, gated=False)
    assert registry.fetch("laptop", Path("best")) == "2"
    assert Path("best/model.safetensors").read_text() == "first"
    lead = f"a lead of 0.1 {needed}"
    better = f"version 6 is the champion, with refnet_fd 0.7; version 2 had 0.8, {lead}"
    assert better in retrain("better", 0.7)
    assert registry.fetch("laptop", Path("best")) == "6"
    assert Path("best/model.safetensors").read_text() == "better"
    assert "had 0.7, which cannot be compared: different real clips" in retrain(
        "on new clips", 3.0, clips="b"
    )
    assert promoted() == "7"  # By another yardstick nobody is better or worse.


def test_nothing_else_is_overwritten_and_runs_have_champions_of_their_own(project):
    retrain("first", 0.8)
    Path("best").mkdir()
    Path("best/diary.txt").write_text("mine")
    with pytest.raises(InputError, match="best: is there already and no released model"):
        registry.fetch("laptop", Path("best"))
    assert Path("best/diary.txt").read_text() == "mine"
    with pytest.raises(InputError, match="other: no champion"):
        registry.fetch("other", Path("new"))
    assert not Path("new").exists()


def test_a_prediction_that_is_nearer_is_better():
    ours, theirs = ({"predict_psnr": {"value": value}} for value in (22.0, 20.0))
    manifest = {"protocols": {"predict_psnr": "as ever"}}
    assert registry.is_better("predict_psnr", (ours, manifest), (theirs, manifest))
    assert not registry.is_better("predict_psnr", (theirs, manifest), (ours, manifest))


def scored(rng: np.random.Generator, fd: float) -> registry.Result:
    """Result of a model whose draws are those of the default run: sd 0.11, five of them."""
    draws = rng.normal(fd, 0.11, size=5)
    entry = {"value": draws.mean(), "sd": draws.std(ddof=1)}
    return {"refnet_fd": entry}, {"protocols": {"refnet_fd": {}}, "num_draws": 5}


def test_noise_makes_no_champion_and_a_better_model_does():
    rng, nights, repeats = np.random.default_rng(0), 20, 200
    changes = 0
    for _ in range(repeats):
        best = scored(rng, 0.8)
        for _ in range(nights):
            new = scored(rng, 0.8)
            if registry.is_better("refnet_fd", new, best):
                best, changes = new, changes + 1
    assert changes <= repeats  # at most one in 20 comparisons
    pairs = [(scored(rng, 0.6), scored(rng, 0.8)) for _ in range(2000)]
    assert sum(registry.is_better("refnet_fd", *pair) for pair in pairs) >= 1500


def test_the_champion_is_chosen_on_val_and_test_is_reported():
    """Of 30 equal models the best by a score looks better than it is by that score, and by no other."""
    rng, reported = np.random.default_rng(0), []
    for _ in range(100):
        results = []
        for _ in range(30):
            (metrics, manifest), (on_val, _) = scored(rng, 0.8), scored(rng, 0.8)
            on_val = on_val["refnet_fd"]
            metrics["refnet_fd"] |= {"val": on_val["value"], "val_sd": on_val["sd"]}
            results.append((metrics, manifest))
        best = results[0]
        for new in results:
            best = new if registry.is_better("refnet_fd", new, best) else best
        reported.append(best[0]["refnet_fd"]["value"])
    assert np.mean(reported) == pytest.approx(0.8, abs=0.02)
    worse, better = ({"refnet_fd": {"value": 0.5, "val": val, "val_sd": 0.05}} for val in (0.9, 0.8))
    about = {"protocols": {"refnet_fd": {}}, "num_draws": 5}
    assert registry.lead_of("refnet_fd", (better, about), (worse, about)) == pytest.approx(
        (0.1, 0.0632), abs=1e-4
    )
    assert registry.in_words("refnet_fd", (better, about)) == "0.5 (0.8 on val)"


def test_a_registry_that_is_away_is_a_warning(project, monkeypatch, capfd):
    for name, value in NO_TRACKER.items():
        monkeypatch.setenv(name, value)
    registry.try_promote("laptop")
    assert "warning: laptop is not registered in MLflow at http://127.0.0.1:9" in capfd.readouterr().err


def test_a_champion_whose_run_was_deleted_gives_way(project):
    retrain("first", 0.5)
    mlflow = tracking.connect()[0]
    mlflow.delete_run(registry.champion_of(mlflow, "laptop").run_id)
    with pytest.raises(InputError, match="the MLflow run of its champion, version 1, was deleted; restore"):
        registry.fetch("laptop", Path("best"))
    assert "version 2 is the champion, with refnet_fd 0.9; version 1 was deleted" in retrain("second", 0.9)
    assert registry.fetch("laptop", Path("best")) == "2"


def test_a_champion_whose_run_is_gone_for_good_gives_way(project):
    retrain("first", 0.5)
    mlflow = tracking.connect()[0]
    store = mlflow._tracking_client.store
    run = registry.champion_of(mlflow, "laptop").run_id
    mlflow.delete_run(run)
    store._hard_delete_run(run)  # as `mlflow gc` does
    assert "version 1 was deleted" in retrain("second", 0.9)


def test_a_registry_that_is_away_is_one_sentence_of_the_command(project):
    command = [sys.executable, "-m", "pipeline.champion", "laptop"]
    done = processes.run(command, env={**os.environ, **NO_TRACKER, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith("error: MLflow at http://127.0.0.1:9 does not answer (")
    assert said.endswith("; start it, or name yours in MLFLOW_TRACKING_URI")
    assert not Path("champion").exists()
