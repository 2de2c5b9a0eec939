"""The whole graph on real files, small: what `dvc repro` makes, and what it does not make again."""

import inspect
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

import hrvgan
from hrvgan.clipstore.clips import Clips
from hrvgan.files import file_digest
from pipeline import checks
from tests.project import WHO, Project, digests, finished, running

TWIN = '''"""A second model, to see what adding and editing one reruns."""

from hrvgan.models.hrvgan import HRVGAN


class Twin(HRVGAN):
    pass
'''
LOSS = """
plain = HRVGAN.d_terms
HRVGAN.d_terms = lambda self, batch: {name: 2 * term for name, term in plain(self, batch).items()}
"""
OWN = {"train@laptop", "sample@laptop", "evaluate@laptop"}  # the stages that a model belongs to


@pytest.fixture
def project(tmp_path, tmp_path_factory):
    with finished(tmp_path_factory)[0].copied(tmp_path / "project") as project:
        yield project


def test_one_command_makes_everything(tmp_path_factory):
    project, ran = finished(tmp_path_factory)
    assert ran == {
        "upstream@shapes", "download@shapes", "extract@shapes", "reference@shapes", "train@laptop", "sample@laptop",
        "evaluate@laptop",
        "report",
    }  # fmt: skip
    gan = hrvgan.load(project.root / "models/laptop")
    assert gan.classes[0] == "BarDown"
    assert gan.sample(1).shape == (1, 8, 32, 32, 3)
    metrics = json.loads((project.root / "metrics/laptop.json").read_text())
    assert {"refnet_fd", "refnet_kid", "refnet_is", "refnet_acc", "gated"} <= set(metrics)
    samples = json.loads((project.root / "samples/laptop/samples.json").read_text())
    for kind in samples["kinds"]:
        assert (project.root / "samples/laptop" / kind["png"]).stat().st_size > 1000
        assert (project.root / "samples/laptop" / kind["mp4"]).stat().st_size > 1000
    assert "BarDown" in (project.root / "report/index.html").read_text()


def test_nothing_changed_means_nothing_runs(project):
    assert project.repro() == set()
    assert project.stale() == set()


def test_dvc_shows_metrics_and_plots(project):
    (shown,) = json.loads(project.run("dvc", "metrics", "show", "--json")).values()
    (columns,) = (file["data"] for file in shown["data"].values())
    manifest = json.loads((project.root / "metrics/laptop.manifest.json").read_text())
    values = {name: entry["value"] for name, entry in manifest["scores"].items()}
    assert columns == values | {"gated": manifest["gated"]}
    assert manifest["scores"]["refnet_fd"].keys() >= {"sd", "floor"}
    assert "loss/d/adv" in project.run("dvc", "plots", "show", "--json")


def test_a_state_goes_from_one_clone_to_another(project, tmp_path):
    """By the commands of README: add dvc.lock, commit, push; clone, pull; compare scores with those of the commit."""
    project.run("dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    project.commit()
    project.run("dvc", "push")
    project.run("git", "clone", "-q", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "pull")
    assert clone.stale() == set()
    for folder in ("models", "metrics", "samples"):
        assert digests(clone.root / folder) == digests(project.root / folder)
    path = clone.root / "metrics/laptop.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"refnet_fd": values["refnet_fd"] + 1}))
    (changes,) = json.loads(clone.run("dvc", "metrics", "diff", "--json")).values()
    assert changes == {"refnet_fd": {"old": values["refnet_fd"], "new": values["refnet_fd"] + 1, "diff": 1.0}}


@pytest.mark.faults
def test_a_colleague_takes_a_training_from_the_run_cache(project, tmp_path):
    """One whose commit knows the clips and not the model, by the commands of README."""
    project.run("dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    lock = project.root / "dvc.lock"
    recorded = yaml.safe_load(lock.read_text())
    mine = {name: stage for name, stage in recorded["stages"].items() if name.endswith("@shapes")}
    project.run("dvc", "push", "--run-cache")
    lock.write_text(yaml.safe_dump(recorded | {"stages": mine}))
    project.commit()
    project.run("git", "clone", "-q", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "pull", "--run-cache", "--allow-missing", "--force")
    said = clone.run("dvc", "repro", "--pull", "train@laptop")
    assert "Stage 'train@laptop' is cached - skipping run" in said
    assert running(said) == []
    assert digests(clone.root / "models/laptop") == digests(project.root / "models/laptop")
    said = clone.call("tracking", "record", "laptop")
    assert said.startswith("laptop: recorded in MLflow")


COPY = "stages: {copy: {cmd: 'cp params.yaml copy.yaml%s', deps: [clips], params: [net], outs: [copy.yaml]}}"


@pytest.mark.faults
@pytest.mark.parametrize(("comment", "size"), [("", 1), (" # ${net}", 2)])
def test_the_run_cache_confuses_sizes_unless_the_command_names_them(tmp_path, comment, size):
    """The upstream fault, and the remedy in dvc.yaml: should the first case fail, DVC is mended and the comment there
    can go."""
    project = Project(tmp_path)
    for command in (("git", "init", "-q"), ("dvc", "init", "-q")):
        project.run(*command)
    (tmp_path / "clips").write_text("")
    (tmp_path / "dvc.yaml").write_text(COPY % comment)
    for number in (1, 2):
        (tmp_path / "params.yaml").write_text(f"net: {{size: {number}}}")
        project.run("dvc", "repro")
    assert yaml.safe_load((tmp_path / "copy.yaml").read_text()) == {"net": {"size": size}}


def test_no_other_setting_of_a_stage_in_the_run_cache_is_called_as_those_that_it_leaves_out():
    functions = {**checks.FUNCTIONS, **checks.FUNCTIONS_OF_RUNS}
    known = {name: set(inspect.signature(functions[name]).parameters) for name in functions}
    assert {name for name, names in known.items() if names & {"size", "nfiles"}} == set()


@pytest.mark.faults
def test_a_backup_brings_back_a_machine(project, tmp_path):
    """By the commands of docs/operations.md: at the same path, with experiments, records and states."""
    project.run("dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    project.commit()
    project.run("dvc", "exp", "save", "--name", "nightly-2026-01-01", **WHO)
    project.run("dvc", "push", "--all-commits")
    project.run("git", "bundle", "create", str(tmp_path / "hrvgan.bundle"), "--all")
    project.run("tar", "-czf", str(tmp_path / "state.tgz"), "--exclude=.state/tree", "--exclude=.state/locks", ".state")
    made = {name: digests(project.root / name) for name in ("models", "metrics", "samples", ".state/resume")}
    project.root.rename(tmp_path / "lost")
    Project(tmp_path).run("git", "clone", "-q", "hrvgan.bundle", str(project.root))
    project.run("git", "fetch", "-q", str(tmp_path / "hrvgan.bundle"), "refs/exps/*:refs/exps/*")
    project.run("tar", "-xzf", str(tmp_path / "state.tgz"))
    project.run("dvc", "pull")
    assert project.stale() == set()
    assert {name: digests(project.root / name) for name in made} == made
    assert "nightly-2026-01-01" in project.run("dvc", "exp", "list", "--all-commits", "--name-only")
    client, (record, *_) = project.records("laptop")
    weights = Path(client.download_artifacts(record.info.run_id, "model")).rglob("model.safetensors")
    assert file_digest(next(weights)) == record.data.tags["model_digest"]
    shutil.rmtree(tmp_path / "lost")


def test_make_runs_an_experiment_for_someone_whom_git_does_not_know(project):
    home = project.with_make().root / "home"
    home.mkdir()
    project.commit()
    said = project.run("make", "exp", "SET=report.title=Another extract.workers=1", HOME=str(home))
    assert running(said) == ["extract@shapes", "report"]  # All clips are there: nothing after it has changed.
    assert 'make exp SET="train.steps=4000 train.lr_decay=4200"' in said.partition("what was made")[2]
    assert "<title>Another" in (project.root / "report/index.html").read_text()


def test_a_metric_reruns_evaluate_and_report_alone(project):
    with (project.root / "hrvgan/metrics/kernel.py").open("a") as file:
        file.write("\n# edited\n")
    assert project.stale() == {"evaluate@laptop", "report"}
    ran = project.repro()
    assert ran == {"evaluate@laptop", "report"}
    assert project.stale() == set()


def test_another_model_touches_its_own_stages_alone(project):
    (project.root / "hrvgan/models/twin.py").write_text(TWIN)
    registry = project.root / "hrvgan/models/__init__.py"
    registry.write_text(registry.read_text().replace("MODELS = {", 'MODELS = {"twin": "hrvgan.models.twin.Twin",'))
    project.edit_params(lambda v: v["runs"].update(second={**v["runs"]["laptop"], "model": "twin"}))
    own = {"train@second", "sample@second", "evaluate@second"}
    assert project.stale() == own | {"report"}
    assert project.repro("train@second") == {"train@second"}
    (project.root / "hrvgan/models/twin.py").write_text(TWIN + "\n# edited\n")
    assert project.stale() == own | {"report"}


def test_another_loss_trains_anew(project):
    before = digests(project.root / "models/laptop")
    with (project.root / "hrvgan/models/hrvgan.py").open("a") as file:
        file.write(LOSS)
    assert project.stale() == OWN
    assert "so training starts anew" in project.run("dvc", "repro", "train@laptop")
    after = digests(project.root / "models/laptop")
    assert after["model.safetensors"] != before["model.safetensors"]


def test_a_comment_changes_no_byte_of_a_run(project):
    made = {name: digests(project.root / name) for name in ("models", "samples", "metrics")}
    with (project.root / "hrvgan/models/hrvgan.py").open("a") as file:
        file.write("\n# edited\n")
    assert project.stale() == OWN
    assert "laptop: going on from" in project.call("train", "laptop")
    for program in (
        "sample",
        "evaluate",
    ):  # in processes of their own, as at first: bits may depend on a process's past
        project.run(sys.executable, "-m", f"pipeline.{program}", "laptop")
    assert made == {name: digests(project.root / name) for name in made}
    assert project.stale() == OWN  # and not the report, whose inputs are the same


@pytest.mark.faults
def test_a_failed_training_leaves_the_model_before_it(project):
    """It fails, and no other model comes back: DVC's run cache leaves parameters called `size` out of its keys."""
    kept, before = (project.root / "params.yaml").read_text(), digests(project.root / "models/laptop")
    project.edit_params(lambda v: v["runs"]["laptop"]["net"].update(size=16))
    said = project.run("dvc", "repro", "train@laptop", code=255)
    assert "the model makes 8 frames of 16 px" in said
    assert re.search("back from DVC's cache: .*models/laptop/README.md", said)
    assert digests(project.root / "models/laptop") == before
    assert "train@laptop" in project.stale()
    (project.root / "params.yaml").write_text(kept)
    assert project.stale() == set()


def test_dvc_gives_back_no_clips_of_another_size(project):
    """As no model: see test_a_failed_repro_can_be_undone."""
    names = ("models/laptop", "data/clips/shapes")
    before = {name: digests(project.root / name) for name in names}
    project.edit_params(lambda v: v["extract"].update(size=16, workers=1))
    assert project.repro("extract@shapes") == {"extract@shapes"}
    assert Clips(project.root / "data/clips/shapes").shape[1] == 16
    project.edit_params(lambda v: v["extract"].update(size=32))
    project.call("extract", "shapes")
    assert before == {name: digests(project.root / name) for name in before}
