"""Experiments and changes of what is active, with real git and DVC on a graph of one stage: nothing made is lost."""

import shutil
import sys

import pytest
import yaml

from tests.project import Project, digests

GRAPH = """
stages:
  train:
    foreach: ${runs}
    do:
      cmd: mkdir -p models/${key} && echo weights of ${key} > models/${key}/model.safetensors
      params: ["runs.${key}.train", train]
      outs: ["models/${key}/model.safetensors"]
"""
WHO = {f"GIT_{role}_{what}": "t@t" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


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
    project.run("git", "add", "--all")
    project.run("git", "commit", "-qm", "as it is", **WHO)
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


def test_an_experiment_that_fails_leaves_params_as_they_are(project):
    (project.root / "dvc.yaml").write_text(GRAPH.replace("mkdir", "false && mkdir"))
    before = (project.root / "params.yaml").read_text()
    said = project.run(sys.executable, "-m", "pipeline.experiment", "train.batch_size=8", code=1, **WHO)
    assert said.endswith("the experiment has failed; params.yaml is as before\n")
    assert (project.root / "params.yaml").read_text() == before


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
