"""The whole graph on real files, small: what `dvc repro` makes, and what it does not make again."""

import csv
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import hrvgan
from hrvgan.clipstore.clips import Clips
from hrvgan.files import file_digest
from pipeline.tracking.client import connect
from pipeline.tracking.mlflow_logger import MLflowLogger

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("hrvgan", "pipeline", "conf")
TWIN = '''"""A second model, to see what adding and editing one reruns."""

from hrvgan.models.hrvgan import HRVGAN


class Twin(HRVGAN):
    pass
'''
LOSS = """
    def d_terms(self, batch):
        return {name: 2 * term for name, term in super().d_terms(batch).items()}
"""


class Project:
    """A copy of the project, with small params, in its own git and DVC checkout."""

    def __init__(self, root: Path):
        self.root = root
        for room in ROOMS:
            shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
            shutil.copy(ROOT / file, root / file)
        self.edit_params(self.shrink)
        self.run("git", "init", "-q")
        self.run("dvc", "init", "-q")

    @staticmethod
    def shrink(values: dict) -> None:
        values["datasets"]["shapes"]["options"] = {"num_groups": 6, "videos_per_group": 1}
        values["runs"]["laptop"]["net"]["width"] = 0.04
        values["reference"] |= {"steps": 20}
        values["train"] |= {"steps": 4, "batch_size": 4, "log_every": 2, "save_every": 2, "sample_every": 4}
        values["evaluate"] |= {"draws": 2}

    def edit_params(self, change) -> None:
        path = self.root / "params.yaml"
        values = yaml.safe_load(path.read_text())
        change(values)
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    def run(self, *command: str, code: int = 0) -> str:
        """Everything that `command` printed; the tools are those of this Python's environment."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_"))
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, check=False, timeout=600,
            env=environment | {"PATH": path},
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def repro(self, *arguments: str) -> set[str]:
        """The stages that `dvc repro` ran."""
        return set(re.findall(r"Running stage '([^']+)'", self.run("dvc", "repro", *arguments)))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("project"))
    project.ran = project.repro()
    return project


def digests(folder: Path) -> dict[str, str]:
    """Of all files below `folder`, by their paths in it."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): file_digest(file) for file in files}


def test_one_command_makes_everything(project):
    assert project.ran == {
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


def test_a_failed_repro_can_be_undone(project):
    kept, before = (project.root / "params.yaml").read_text(), digests(project.root / "models/laptop")
    project.edit_params(lambda v: v["train"].update(stepz=1))
    assert "unknown key 'stepz'" in project.run("dvc", "repro", "train@laptop", code=255)
    (project.root / "params.yaml").write_text(kept)
    project.run("dvc", "checkout", "--force")
    assert digests(project.root / "models/laptop") == before
    assert project.repro() == set()


def test_make_runs_an_experiment_for_someone_whom_git_does_not_know(project):
    home, venv = project.root / "home", project.root / ".venv"
    home.mkdir(), venv.mkdir()
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, project.root / file)
    for part in ("pyvenv.cfg", "bin", "lib"):  # installed already
        (venv / part).symlink_to(Path(sys.prefix) / part)
    (venv / "ready").touch()
    project.run("git", "add", "--all")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "as it is")
    said = project.run("env", f"HOME={home}", "make", "exp", "SET=sample.clips_per_class=2 sample.seed=1")
    assert "Running stage 'sample@laptop'" in said
    assert "Running stage 'train@laptop'" not in said
    assert 'make exp SET="train.steps=4000"' in said.partition("what was made")[2]
    assert json.loads((project.root / "samples/laptop/samples.json").read_text())["seed"] == 1


def test_dvc_shows_metrics_and_plots(project):
    shown = json.loads(project.run("dvc", "metrics", "show", "--json"))
    assert "metrics/laptop.json" in next(iter(shown.values()))["data"]
    assert "loss/d/adv" in project.run("dvc", "plots", "show", "--json")


def test_a_metric_reruns_evaluate_and_report_alone(project):
    with (project.root / "hrvgan/metrics/kernel.py").open("a") as file:
        file.write("\n# edited\n")
    ran = project.repro()
    assert "evaluate@laptop" in ran
    assert ran <= {"evaluate@laptop", "report"}
    assert project.repro() == set()


def test_another_model_touches_its_own_stages_alone(project):
    (project.root / "hrvgan/models/twin.py").write_text(TWIN)
    registry = project.root / "hrvgan/models/__init__.py"
    registry.write_text(
        registry.read_text().replace("MODELS = {", 'MODELS = {"twin": "hrvgan.models.twin.Twin",')
    )
    project.edit_params(lambda v: v["runs"].update(second={**v["runs"]["laptop"], "model": "twin"}))
    own = {"train@second", "sample@second", "evaluate@second", "report"}
    assert project.repro() == own  # Adding it.
    before = digests(project.root / "models/second")
    (project.root / "hrvgan/models/twin.py").write_text(TWIN + "\n# edited\n")
    assert project.repro() == own - {"report"}  # A comment changes no byte of what the report shows.
    assert digests(project.root / "models/second") == before


def test_another_loss_trains_anew(project):
    before = digests(project.root / "models/second")
    (project.root / "hrvgan/models/twin.py").write_text(TWIN + LOSS)
    assert "so training starts anew" in project.run("dvc", "repro", "train@second")
    after = digests(project.root / "models/second")
    assert after["model.safetensors"] != before["model.safetensors"]


def test_mlflow_holds_one_run_a_model(project):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.root}/.state/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("hrvgan").experiment_id
    runs = client.search_runs([experiment], "tags.run = 'laptop'")
    assert len(runs) == 1
    (run,) = runs
    assert run.info.status == "FINISHED"
    assert run.data.tags["model_digest"] == file_digest(project.root / "models/laptop/model.safetensors")
    assert run.data.params["train.steps"] == "4"
    assert run.data.params["net.width"] == "0.04"
    assert {"loss/d/adv", "loss/g/adv", "speed/clips_per_s", "metric/refnet_fd", "metric/refnet_acc"} <= set(
        run.data.metrics
    )
    lock = yaml.safe_load((project.root / "dvc.lock").read_text())["stages"]["extract@shapes"]["outs"]
    assert run.inputs.dataset_inputs[0].dataset.digest in {out["md5"] for out in lock}
    names = {
        file.path
        for folder in ("samples", "model", "evaluation")
        for file in client.list_artifacts(run.info.run_id, folder)
    }
    assert {"samples/classes.png", "samples/classes.mp4", "model/model.safetensors"} <= names


def test_a_lost_record_is_made_again_from_the_model(project):
    from mlflow import MlflowClient

    state = project.root / "another-state"
    project.run("env", f"HRVGAN_STATE={state}", sys.executable, "-m", "pipeline.tracking", "record", "laptop")
    client = MlflowClient(f"sqlite:///{state}/mlflow/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("hrvgan").experiment_id])
    text = (project.root / "models/laptop/history.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    curve = client.get_metric_history(run.info.run_id, "loss/g/adv")
    assert [point.value for point in curve] == pytest.approx([float(row["loss/g/adv"]) for row in rows])
    assert {"metric/refnet_kid", "metric/refnet_kid/sd", "training/steps", "cost/G/parameters"} <= set(
        run.data.metrics
    )
    files = {file.path for file in client.list_artifacts(run.info.run_id, "evaluation")}
    assert files == {f"evaluation/laptop.{kind}" for kind in ("json", "manifest.json", "nearest.png")}
    said = project.run(sys.executable, "-m", "pipeline.tracking", "record", "nope", code=1)
    assert said == "error: params.yaml: no 'nope' in runs; active: laptop, second\n"


def test_runs_of_equal_settings_have_a_record_each(project):
    from mlflow import MlflowClient

    kept = (project.root / "params.yaml").read_text()
    project.edit_params(lambda v: v["runs"].update(again=v["runs"]["laptop"]))
    shutil.copytree(project.root / "models/laptop", project.root / "models/again")
    project.run(sys.executable, "-m", "pipeline.sample", "again")
    (project.root / "params.yaml").write_text(kept)
    client = MlflowClient(f"sqlite:///{project.root}/.state/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("hrvgan").experiment_id
    (run,) = client.search_runs([experiment], "tags.run = 'again'")
    assert client.list_artifacts(run.info.run_id, "samples")


def test_more_steps_continue_and_fewer_stand_apart(project):
    def train(**values) -> str:
        project.edit_params(lambda v: v["train"].update(values))
        return project.run("dvc", "repro", "train@laptop")

    assert "laptop: going on from" in train(steps=6)
    longer = digests(project.root / "models/laptop")
    said = train(steps=2)
    assert "laptop: trained for 6 steps already, 2 asked for" in said
    assert "training starts anew" in said
    assert "parameters are new" not in said
    rows = list(csv.DictReader((project.root / "models/laptop/history.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [2]
    said = train(steps=6)
    assert "laptop: going on from" in said
    assert "trained for" not in said
    assert digests(project.root / "models/laptop") == longer


def test_more_steps_have_a_record_of_their_own(project):
    """That of the shorter training keeps its params, weights and scores."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.root}/.state/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("hrvgan").experiment_id

    def record(steps: int) -> tuple[str, list[int]]:
        wanted = f"tags.run = 'laptop' and params.`train.steps` = '{steps}' and params.seed = '{seed}'"
        (run,) = client.search_runs([experiment], wanted)
        points = client.get_metric_history(run.info.run_id, "loss/d/adv")
        return run.data.tags["model_digest"], [point.step for point in points]

    def train(steps: int) -> str:
        project.edit_params(lambda v: (v["train"].update(steps=steps), v["runs"]["laptop"].update(seed=seed)))
        project.run("dvc", "repro", "train@laptop")
        return file_digest(project.root / "models/laptop/model.safetensors")

    kept, seed = (project.root / "params.yaml").read_text(), 9
    shorter = train(4)
    longer = train(8)
    (project.root / "params.yaml").write_text(kept)
    assert record(4) == (shorter, [2, 4])
    assert record(8) == (longer, [2, 4, 6, 8])


def test_only_records_whose_process_is_gone_are_marked_dead(project, tmp_path, monkeypatch):
    """Experiments of a queue train beside one another, and teams share a tracker."""
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("HRVGAN_STATE", str(tmp_path / "state"))
    client, experiment = connect()
    ended = subprocess.Popen(["true"])
    ended.wait()
    processes = {
        "KILLED": f"{ended.pid}@{platform.node()}",
        "RUNNING": f"{os.getpid()}@{platform.node()}",
        "elsewhere": f"{ended.pid}@another-machine",
        "unknown": "",
    }
    runs = {name: client.create_run(experiment, tags={"run": "laptop", "process": process}).info.run_id
            for name, process in processes.items()}  # fmt: skip
    logger = MLflowLogger("laptop", {}, "cpu", tmp_path / "run_id")
    logger.abandon()
    status = {name: client.get_run(run_id).info.status for name, run_id in runs.items()}
    assert status == {"KILLED": "KILLED"} | dict.fromkeys(("RUNNING", "elsewhere", "unknown"), "RUNNING")
    assert client.get_run(logger.id).info.status == "FAILED"


def test_dvc_gives_back_no_model_or_clips_of_another_size(project):
    """Its run cache leaves parameters called `size` out of its keys."""
    before = {name: digests(project.root / name) for name in ("models/laptop", "data/clips/shapes")}
    for size in (16, 32):
        project.edit_params(lambda v, size=size: v["extract"].update(size=size))
        assert project.repro("extract@shapes") == {"extract@shapes"}
        assert Clips(project.root / "data/clips/shapes").shape[1] == size
    assert before == {name: digests(project.root / name) for name in before}
    kept = (project.root / "params.yaml").read_text()
    project.edit_params(lambda v: v["runs"]["laptop"]["net"].update(size=16))
    assert "the model makes 8 frames of 16 px" in project.run("dvc", "repro", "train@laptop", code=255)
    (project.root / "params.yaml").write_text(kept)
    project.run("dvc", "checkout", "--force")


def test_a_tracker_that_is_down_stops_nothing(project):
    project.edit_params(lambda v: v["train"].update(steps=8))
    said = project.run(
        "env", "MLFLOW_TRACKING_URI=http://127.0.0.1:9", sys.executable, "-m", "pipeline.train", "laptop"
    )
    assert "does not answer" in said
    assert hrvgan.load(project.root / "models/laptop").size == 32


@pytest.mark.parametrize(
    ("change", "command", "sentence"),
    [
        (
            lambda v: v["train"].update(stepz=1),
            "train laptop",
            "unknown key 'stepz' in train or runs.laptop.train; known: .*steps",
        ),
        (
            lambda v: v["runs"]["laptop"].update(model="hrgan"),
            "train laptop",
            "unknown model 'hrgan'; known: .*hrvgan",
        ),
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
            lambda v: v["datasets"]["shapes"]["clips"].update(num_frames=999),
            "extract shapes",
            "need 999; lower extract.num_frames",
        ),
        (lambda v: None, "train lapto", "no 'lapto' in runs; active: laptop"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_lost(project, change, command, sentence):
    kept = (project.root / "params.yaml").read_text()
    before = {
        name: digests(project.root / name)
        for name in ("models/laptop", "data/clips/shapes", "data/raw/shapes")
    }
    try:
        project.edit_params(change)
        stage, name = command.split()
        said = project.run(sys.executable, "-m", f"pipeline.{stage}", name, code=1)
    finally:
        (project.root / "params.yaml").write_text(kept)
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert re.search(sentence, error)
    assert "Traceback" not in said
    assert before == {name: digests(project.root / name) for name in before}


def test_a_run_starts_from_another_which_is_then_trained_before_it(project):
    kept = (project.root / "params.yaml").read_text()
    project.edit_params(
        lambda v: v["runs"].update(tuned={**v["runs"]["laptop"], "init_from": "models/laptop", "seed": 5})
    )
    try:
        assert "train@tuned" in project.repro("train@tuned")
        base, tuned = (hrvgan.load(project.root / "models" / run) for run in ("laptop", "tuned"))
        assert tuned.origin == "-".join(
            file_digest(project.root / "models/laptop" / file)[:16]
            for file in ("model.safetensors", "discriminator.safetensors")
        )
        assert base.origin == ""
        project.edit_params(lambda v: v["runs"]["laptop"].update(seed=1))
        assert project.repro("train@tuned") == {"train@laptop", "train@tuned"}
    finally:
        (project.root / "params.yaml").write_text(kept)


def test_two_processes_train_a_run(project):
    project.edit_params(lambda v: v["train"].update(steps=10))
    said = project.run(
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "-m", "pipeline.train", "laptop",
    )  # fmt: skip
    assert said.count("laptop: going on from") == 1
    rows = list(csv.DictReader((project.root / "models/laptop/history.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8, 10]


def test_two_programs_do_not_write_one_output(project):
    lock = project.root / ".state/locks/sample-laptop.lock"
    code = "import sys, pipeline.stage as s\nwith s.lock('sample-laptop'): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=project.root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    said = project.run(sys.executable, "-m", "pipeline.sample", "laptop", code=1)
    assert f"sample-laptop is running already (process {holder.pid})" in said
    holder.communicate()
    assert lock.exists()


def test_a_training_waits_for_one_that_uses_its_states(project):
    """As two experiments of a queue do that differ in the number of steps: each has a copy of the project."""
    code = (
        "import contextlib, sys\nfrom pathlib import Path\nfrom hrvgan.lock import locked\n"
        "with contextlib.ExitStack() as stack:\n"
        "    [stack.enter_context(locked(path, 'it')) for path in Path('.state/resume').glob('*.lock')]\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    options = {"cwd": project.root, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    holder = subprocess.Popen([sys.executable, "-c", code], **options)
    assert holder.stdout.readline() == "held\n"
    training = [sys.executable, "-m", "pipeline.train", "laptop"]
    with subprocess.Popen(training, **options, stderr=subprocess.PIPE) as second:
        waits = f"training of laptop is running already (process {holder.pid}); waiting\n"
        assert waits in iter(second.stderr.readline, "")
        holder.communicate()
        second.communicate(timeout=120)
    assert second.returncode == 0
