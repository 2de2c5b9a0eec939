"""Experiments and changes of what is active, with real git and DVC on a graph of one stage: nothing made is lost."""

import csv
import os
import re
import shutil
import signal
import sys

import pytest
import yaml

from pipeline import cleanup
from tests import processes
from tests.project import WHO, Project, digests

GRAPH = """
stages:
  download:
    foreach: ${datasets}
    do:
      cmd: ls ${item.watch} > ${key}.txt
      deps: ["${item.watch}"]
      outs: ["${key}.txt"]
  train:
    foreach: ${runs}
    do:
      cmd: mkdir -p models/${key} && echo weights of ${key} > models/${key}/model.safetensors
      params: ["runs.${key}.train", train]
      outs: ["models/${key}/model.safetensors"]
  evaluate:
    foreach: ${runs}
    do:
      cmd: >-
        mkdir -p metrics && echo '{"refnet_fd": {"value": 0.4${item.seed}}, "gated": true}' > metrics/${key}.json
      metrics: ["metrics/${key}.json"]
"""
# A stage's program that does not get far.
TOY = """
import sys, time
from pathlib import Path
from hrvgan.errors import InputError
from pipeline import stage

how = sys.argv.pop()

def main(run):
    if how == "wrong":
        raise InputError("no clips")
    Path("began").touch()
    time.sleep(600)

stage.run(main, "A toy.", argument="run")
"""


@pytest.fixture
def project(tmp_path):
    """Configurations first (the run laptop, which is made) and second (the run second, with steps of its own)."""
    project = Project.new(tmp_path / "project", lambda values: None)
    (project.root / "dvc.yaml").write_text(GRAPH)
    values = yaml.safe_load((project.root / "params.yaml").read_text())
    second = values["runs"]["laptop"] | {"train": {"steps": 50, "lr_decay": 0}}
    for name, runs in (("first", values["runs"]), ("second", {"second": second})):
        text = yaml.safe_dump({"datasets": values["datasets"], "runs": runs})
        (project.root / f"conf/{name}.yaml").write_text(text)
    project.run("dvc", "repro")
    project.commit()
    return project


def test_settings_that_cannot_run_leave_params_and_models_as_they_are(project):
    before, models = (project.root / "params.yaml").read_text(), digests(project.root / "models")
    for setting, sentence in [
        ("+runs.laptop.net.objectiv=logistic", "model hrvgan has no argument 'objectiv'"),
        ("runs.laptop.net.objective=logistic", "a key that is not there yet needs a + before it"),
        ("train.steps=many", "steps 'many': need a whole number"),
    ]:
        said = project.call("experiment", setting, code=1)
        assert "error: params.yaml: " in said
        assert sentence in said
        assert (project.root / "params.yaml").read_text() == before
    assert digests(project.root / "models") == models


def test_what_cannot_run_is_not_queued(project):
    before = (project.root / "params.yaml").read_text()
    for arguments, sentence in [
        ((), r"nothing to queue; name settings \(SET=\) or training seeds \(SEEDS=\)"),
        (("train.steps=40,many",), "steps 'many': need a whole number"),
        (("--seeds", "1,x"), "seed 'x' in runs.laptop: need a whole number, 0 or more"),
        (("train.stepz=40,50",), "a key that is not there yet needs a \\+ before it"),
        (("datasets.shapes.watch=own",), "own is not in Git, so .* set watch and options.path to /.*/own"),
    ]:
        if "watch" in sentence:
            (project.root / "own").mkdir()
        said = project.call("experiment", "--queue", *arguments, code=1)
        assert re.search(f"error: .*{sentence}", said), said
    assert (project.root / "params.yaml").read_text() == before
    assert "No experiment tasks in the queue" in project.run("dvc", "queue", "status")


def test_make_passes_values_through_whole(project):
    settings = (
        "sample.classes=[DiscLeft, BarUp] +runs.laptop.net={width:0.5,z_dim:64} report.title='A  b=c (d)'  "
        "train.steps=40"
    )
    project.with_make().run("make", "exp", f"SET={settings}", **WHO)
    values = yaml.safe_load((project.root / "params.yaml").read_text())
    assert values["sample"]["classes"] == ["DiscLeft", "BarUp"]
    assert values["runs"]["laptop"]["net"] == {"width": 0.5, "code_bits": 4, "z_dim": 64}
    assert values["report"]["title"] == "A  b=c (d)"
    assert values["train"]["steps"] == 40


def test_an_experiment_that_fails_leaves_params_as_they_are(project):
    (project.root / "dvc.yaml").write_text(GRAPH.replace("mkdir", "false && mkdir"))
    before, models = (project.root / "params.yaml").read_text(), digests(project.root / "models")
    said = project.run(sys.executable, "-m", "pipeline.experiment", "train.batch_size=8", code=1, **WHO)
    assert said.endswith("the experiment has failed; params.yaml is as before\n")
    assert (project.root / "params.yaml").read_text() == before
    assert digests(project.root / "models") == models


@pytest.mark.faults
def test_a_stage_that_fails_or_is_stopped_leaves_what_it_made_last(project):
    """By `dvc repro` alone, which deletes the model before the stage runs."""
    models = digests(project.root / "models")
    (project.root / "toy.py").write_text(TOY)
    for how, number in (("wrong", 0), ("slow", signal.SIGINT)):
        (project.root / "dvc.yaml").write_text(GRAPH.replace("mkdir", f"python toy.py ${{key}} {how} && mkdir"))
        with processes.start(["dvc", "repro"], cwd=project.root, env=project.environment()) as repro:
            if number:
                processes.wait_for((project.root / "began").exists, "the stage", 250, process=repro)
                assert not list((project.root / "models").rglob("*.safetensors"))
                os.killpg(repro.pid, number)  # as a terminal does
            assert repro.finish(250) == 255, repro
            assert "back from DVC's cache: models/laptop/model.safetensors\n" in repro.output("stderr")
            assert digests(project.root / "models") == models


@pytest.mark.faults
def test_make_run_leaves_the_model_before_a_trainer_that_is_killed(project):
    """As by the system where memory runs out: the trainer itself can restore nothing."""
    models = digests(project.with_make().root / "models")
    (project.root / "dvc.yaml").write_text(GRAPH.replace("mkdir", "ls models/${key}; kill -9 $$; mkdir"))
    said = project.run("make", "run", code=2)
    assert "back from DVC's cache: models/laptop/model.safetensors\n" in said
    assert digests(project.root / "models") == models


def test_settings_that_differ_from_the_committed_file_are_named(project):
    committed = yaml.safe_load((project.root / "params.yaml").read_text())["train"]["steps"]
    assert "in Git" not in project.call("params", "use", "first")
    project.edit_params(lambda values: values["train"].update(steps=8))
    said = project.call("params", "use", "first")
    command = "git checkout HEAD -- params.yaml"
    remedy = f"`{command}`, and then this command again, puts it back"
    assert f"params.yaml: train.steps is 8 ({committed} in Git); {remedy}\n" in said
    project.run(*command.split())
    assert "in Git" not in project.call("params", "use", "first")


@pytest.mark.faults
@processes.in_full
def test_make_queues_experiments_for_someone_whom_git_does_not_know(project):
    """Each in a copy of the project, with videos that Git does not know either; nothing changes beside it."""
    home, models = project.with_make().root / "home", digests(project.root / "models")
    (project.root / "videos/walk").mkdir(parents=True)
    home.mkdir()
    project.call("params", "use", "folder", "--path", "videos")
    kept = (project.root / "params.yaml").read_text()

    def states() -> str:
        return project.run("dvc", "queue", "status")

    command = ["make", "queue", "SET=train.batch_size=8", "SEEDS=4,5"]
    env = {**project.environment(), "HOME": str(home)}
    with processes.start(command, cwd=project.root, env=env) as queue:  # its workers outlive it
        assert queue.finish() == 0, queue
        processes.wait_for(lambda: states().count("Success") == 2, "both experiments", 60, pause=2)
    shown = csv.DictReader(project.run("dvc", "exp", "show", "--csv").splitlines())
    rows = [(row["train.batch_size"], row["runs.videos.seed"]) for row in shown if row["Experiment"]]
    assert sorted(rows) == [("8", "4"), ("8", "5")]
    compared = project.call("compare").splitlines()
    assert {tuple(re.sub(".*: (mean.*)?", r"\1", line).split()[-2:]) for line in compared} >= {
        ("4", "0.440"), ("5", "0.450"), ("±", "0.007"),
    }  # fmt: skip
    assert (project.root / "params.yaml").read_text() == kept
    assert digests(project.root / "models") == models


def test_outputs_of_inactive_runs_stay_and_come_back_from_the_cache(project):
    laptop = project.root / "models/laptop"
    made = digests(laptop)
    assert "back from" not in project.call("params", "use", "second")
    said = project.run(sys.executable, "-m", "pipeline.experiment", "train.steps=40", **WHO)
    assert "runs.second.train.steps (50) overrides train.steps: set runs.second.train.steps instead" in said
    assert (project.root / "models/second/model.safetensors").exists()
    project.run("dvc", "checkout", "--force")
    assert digests(laptop) == made
    shutil.rmtree(laptop)
    said = project.call("params", "use", "first")
    assert "back from DVC's cache: models/laptop/model.safetensors\n" in said
    assert digests(laptop) == made


@pytest.mark.faults
def test_cleanup_shows_and_applies_its_rule(project, monkeypatch):
    states = project.root / ".state/resume"
    for number in range(5):
        folder = states / f"laptop-{number:016x}"
        folder.mkdir(parents=True)
        (folder / "state.pt").write_text("state")
        os.utime(folder / "state.pt", (number, number))
    for size in (8, 4):
        project.edit_params(lambda values, size=size: values["train"].update(batch_size=size))
        (project.root / "dvc.yaml").write_text(GRAPH.replace("weights of", f"{size} weights of"))
        project.run("dvc", "repro")
        project.run("dvc", "exp", "save", "--name", f"nightly-2026-01-0{size}", "--force", **WHO)
    project.run("git", "checkout", "--force", "HEAD")
    project.run("dvc", "checkout", "--force")
    cache = project.root / ".dvc/cache/files/md5"
    before, models = digests(cache), digests(project.root / "models")
    monkeypatch.setattr(cleanup, "NIGHTS", 1)
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(sys, "argv", ["cleanup"])
    cleanup.main()
    assert digests(cache) == before
    assert len(list(states.glob("*/state.pt"))) == 5
    monkeypatch.setattr(sys, "argv", ["cleanup", "--apply"])
    cleanup.main()
    assert sorted(path.parent.name[-1] for path in states.glob("*/state.pt")) == ["2", "3", "4"]
    shown = csv.DictReader(project.run("dvc", "exp", "show", "--csv", "--all-commits").splitlines())
    assert [row["Experiment"] for row in shown if row["Experiment"]] == ["nightly-2026-01-08"]
    assert len(digests(cache)) == len(before) - 1  # the weights of the older night
    assert digests(project.root / "models") == models
