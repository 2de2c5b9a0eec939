"""The best model so far, in a real registry: who becomes it, who stays it, and how to get it."""

import json
import os
import sys
import urllib.request
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from hrvgan import cli
from hrvgan.errors import InputError
from hrvgan.metrics.protocols import write_result
from hrvgan.models import build_model
from hrvgan.nn.checkpoint import release
from pipeline import cleanup, tracking
from pipeline.champion import main
from pipeline.tracking import registry, ui
from tests import processes
from tests.project import NO_TRACKER, ROOT, digests


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("HRVGAN_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())


def retrain(weights: str, fd: float, gated: bool = True, clips: str = "a", rescore=None) -> str:
    """What stages train and evaluate leave behind of a model; returns what becomes of it."""
    model = Path("models/laptop")
    model.mkdir(parents=True, exist_ok=True)
    (model / "model.safetensors").write_text(weights)
    about = {"arguments": {}, "steps": 800, "classes": ["a"], "clip_shape": [8, 32, 32, 3]}
    (model / "model.json").write_text(json.dumps(about))
    (model / "history.csv").write_text("step,loss/d/adv\n10,0.5\n")
    return evaluated(fd, gated, clips, rescore)


def result(fd: float, gated: bool, clips: str) -> registry.Result:
    entry = {"refnet_fd": {"value": fd, "sd": 0.05}, "gated": gated}
    return entry, {"protocols": {"refnet_fd": {"real_digest": clips, "num_real": 120}}, "num_draws": 5}


def evaluated(fd: float, gated: bool = True, clips: str = "a", rescore=None) -> str:
    """What stage evaluate does with models/laptop; returns what becomes of it."""
    write_result(Path("metrics/laptop.json"), *result(fd, gated, clips))
    tracking.record_all("laptop")
    return registry.promote("laptop", rescore)


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
    assert "had 0.7, which cannot be compared: different real clips" in retrain("on new clips", 3.0, clips="b")
    assert promoted() == "7"  # By another yardstick nobody is better or worse.


def test_on_new_clips_the_champion_is_scored_anew(project, tmp_path, capsys):
    """And the decision is recorded with both rows."""
    scored_anew = []

    def rescore(model: Path) -> registry.Result:
        scored_anew.append((model / "model.safetensors").read_text())
        return result(2.9, True, "b")

    retrain("first", 0.8)
    stays = retrain("second", 3.0, clips="b", rescore=rescore)
    assert stays.startswith("laptop: version 1 stays the champion, with 2.9; version 2 has refnet_fd 3, a lead of -0.1")
    assert "version 3 is the champion, with refnet_fd 2.5; version 1 had 2.9" in retrain(
        "third", 2.5, True, "b", rescore
    )
    assert scored_anew == ["first"]  # once: the registry keeps the new row
    mlflow = tracking.connect()[0]
    version = mlflow.get_model_version("laptop", "2")
    assert version.tags["decision"] == stays
    decided = json.loads(Path(mlflow.download_artifacts(version.run_id, "evaluation/decision.json")).read_text())
    assert decided["decision"] == stays
    rows = {number: row["refnet_fd"]["value"] for number, row in decided["versions"].items()}
    assert rows == {"1": 2.9, "2": 3.0}
    assert [m.value for m in mlflow.get_metric_history(champion_run("1"), "metric/refnet_fd")] == [0.8, 2.9]

    def too_small(model: Path) -> registry.Result:
        raise InputError("clips of 64 px; the model makes 32 px\nlong story")

    assert "had 2.5, which cannot be compared: different real clips" in retrain("4th", 9.0, True, "c", too_small)
    assert "the champion cannot be scored anew (clips of 64 px" in capsys.readouterr().out


def champion_run(version: str) -> str:
    return tracking.connect()[0].get_model_version("laptop", version).run_id


def test_one_command_goes_back_to_the_champion_before(project, monkeypatch):
    """And of old trainings, those that made a champion stay."""

    def command(*words: str) -> None:
        with mock.patch.object(sys, "argv", ["champion", "laptop", *words]):
            main()

    with pytest.raises(SystemExit, match="error: laptop: no champion before any to go back to"):
        command("--rollback")
    retrain("first", 0.8), retrain("second", 0.5)
    assert promoted() == "2"
    command("--rollback")
    assert promoted() == "1"
    assert retrain("second", 0.5) == "laptop: version 2 was the champion and was taken back, so it is none"
    assert promoted() == "1"
    with pytest.raises(SystemExit, match="error: laptop: no champion before 1 to go back to"):
        command("--rollback")
    retrain("third", 0.9)
    monkeypatch.setattr(cleanup, "TRAININGS", 0)
    (old,) = cleanup.old_trainings()  # The other two were champions.
    old.apply()
    assert list(cleanup.old_trainings()) == []
    command("--version", "2", "--out", "champion/laptop-2")
    assert Path("champion/laptop-2/model.safetensors").read_text() == "second"
    with pytest.raises(SystemExit, match="error: laptop: no version 7 in MLflow"):
        command("--version", "7")


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
    assert registry.lead_of("refnet_fd", (better, about), (worse, about)) == pytest.approx((0.1, 0.0632), abs=1e-4)
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


@pytest.fixture
def champion(project):
    """A small model that is the champion."""
    gan = build_model("hrvgan", num_classes=2, size=16, width=0.05, z_dim=8)
    gan.classes, gan.fps = ["Left", "Right"], 8.0
    history, data = [{"step": 1, "loss/d/adv": 0.5}], {"dataset": "shapes", "data_digest": "0" * 64}
    release(Path("models/laptop"), gan, gan.G, history, data)
    assert "is the champion" in evaluated(0.5)


ROWS = [{"class": "Right", "seed": 5, "psi": 0.7, "count": 3}, {"class": "", "seed": 0, "psi": 1.0, "count": 2}]


def sampled() -> np.ndarray:
    """What `hrvgan sample` draws of ROWS."""
    for name, options in (("a", "--class Right --seed 5 --truncation 0.7 --num 3"), ("b", "--num 2")):
        cli.main(["sample", "models/laptop", "--out", f"{name}.npz", *options.split()])
    return np.concatenate([np.load(f"{name}.npz")["frames"] for name in "ab"])


LOAD = """
import json, sys
import mlflow, numpy
model = mlflow.pyfunc.load_model("models:/laptop@champion")
numpy.savez("loaded.npz", rows=model.predict(json.loads(sys.argv[1])), count=model.predict([{"count": 2}]))
import hrvgan
requirements = open(mlflow.pyfunc.get_model_dependencies("models:/laptop@champion")).read()
example, signature = model.input_example.to_dict("records"), model.metadata.signature.to_dict()
print(json.dumps([hrvgan.__file__, example, signature, requirements]))
"""


def test_mlflow_loads_the_champion_and_draws_the_clips_of_hrvgan_sample(champion):
    """In the folder of the project without settings, by the model's own copy of hrvgan, and without pickle."""
    del os.environ["MLFLOW_TRACKING_URI"]  # MLflow's client has left it there.
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = processes.run([sys.executable, "-c", LOAD, json.dumps(ROWS)], env=environment)
    loaded, clips = np.load("loaded.npz"), sampled()
    np.testing.assert_array_equal(loaded["rows"], clips)
    np.testing.assert_array_equal(loaded["count"], clips[3:])  # the other columns by default
    code, example, signature, requirements = json.loads(done.stdout.splitlines()[-1])
    assert code.endswith("/code/hrvgan/__init__.py")
    assert example == [{"class": "Left", "seed": 0, "psi": 1.0, "count": 1}]
    assert [column["name"] for column in json.loads(signature["inputs"])] == ["class", "seed", "psi", "count"]
    (drawn,) = json.loads(signature["outputs"])
    assert drawn["tensor-spec"] == {"dtype": "uint8", "shape": [-1, 8, 16, 16, 3]}
    assert f"torch=={version('torch').partition('+')[0]}" in requirements.split()
    assert registry.fetch("laptop", Path("best")) == "1"
    assert digests(Path("best")) == digests(Path("models/laptop"))


def test_the_served_champion_draws_the_clips_of_hrvgan_sample(champion):
    port = processes.free_port()
    command = f"mlflow models serve -m models:/laptop@champion --env-manager local --port {port}"
    with processes.start([sys.executable, "-m", *command.split()]) as server:
        processes.wait_for(lambda: ui.answers(port), "a server", process=server)
        body = json.dumps({"dataframe_records": ROWS}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            clips = json.load(answer)["predictions"]
        np.testing.assert_array_equal(np.array(clips, np.uint8), sampled())


def test_a_registry_that_is_away_is_one_sentence_of_the_command(project):
    command = [sys.executable, "-m", "pipeline.champion", "laptop"]
    done = processes.run(command, env={**os.environ, **NO_TRACKER, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith("error: MLflow at http://127.0.0.1:9 does not answer (")
    assert said.endswith("; start it, or name yours in MLFLOW_TRACKING_URI")
    assert not Path("champion").exists()
