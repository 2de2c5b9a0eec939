"""An edit makes only those stages stale that can use the edited file, as `dvc status` says in a copy of the project."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from hrvgan.files import file_digest

ROOT = Path(__file__).resolve().parents[1]
RUNS = ("laptop", "rival")
MODEL_STAGES = ("train", "sample", "evaluate")
PARTS = ("hrvgan", "pipeline", "conf", "dvc.yaml", "params.yaml", ".dvcignore", ".gitignore")


class Graph:
    """A copy of the project with two data sets and two runs of different models. One run is trained, for two steps;
    the other outputs are placeholders, which DVC records as if their stages had made them."""

    def __init__(self, root: Path):
        self.root = root
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, root / part)
        values = yaml.safe_load((root / "params.yaml").read_text())
        values["train"] |= {"steps": 2, "batch_size": 4, "log_every": 1, "save_every": 1, "sample_every": 2}
        shapes, laptop = values["datasets"]["shapes"], values["runs"]["laptop"]
        shapes["options"], laptop["net"]["width"] = {"num_groups": 4, "videos_per_group": 1}, 0.04
        values["datasets"]["mine"] = {**shapes, "source": "folder", "watch": "conf/folder.yaml"}
        rival = {"dataset": "mine", "model": "vgan", "init_from": "hrvgan/models/vgan.py"}
        values["runs"]["rival"] = {**laptop, **rival}
        (root / "params.yaml").write_text(yaml.safe_dump(values))
        self.run("git", "init", "-q")
        self.run("dvc", "init", "-q")

    def run(self, *command: str) -> str:
        """Everything that `command` printed."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(self.root)}
        environment.pop("MLFLOW_TRACKING_URI", None)
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def fill_in(self) -> None:
        """Make the outputs that no stage has made, and record all of them."""
        with Repo(str(self.root)) as repo:
            paths = [self.root / str(out) for out in repo.index.outs]
        for path in paths:
            file = path if path.suffix else path / "placeholder"
            if not path.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("{}")
        self.run("dvc", "commit", "--force")

    def stale(self) -> set[str]:
        return set(json.loads(self.run("dvc", "status", "--json")))

    def model_digests(self) -> dict[str, str]:
        return {file.name: file_digest(file) for file in (self.root / "models/laptop").iterdir()}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    graph = Graph(tmp_path_factory.mktemp("graph"))
    assert "Running stage 'train@laptop'" in graph.run("dvc", "repro", "train@laptop")
    graph.fill_in()
    assert graph.stale() == set()
    return graph


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("hrvgan/metrics/kernel.py", {*(f"evaluate@{run}" for run in RUNS), "report"}),
        ("hrvgan/models/vgan.py", {f"{stage}@rival" for stage in MODEL_STAGES}),
        ("hrvgan/models/hrvgan.py", {f"{stage}@laptop" for stage in MODEL_STAGES}),
        ("hrvgan/datasets/folder.py", {"upstream@mine", "download@mine"}),
        ("hrvgan/datasets/shapes.py", {"upstream@shapes", "download@shapes"}),
        ("pipeline/report/charts.py", {"report"}),
        ("pipeline/tracking/client.py", set()),
        ("hrvgan/progress.py", set()),
    ],
)
def test_an_edit_makes_its_own_stages_stale(graph, file, stages):
    path = graph.root / file
    before = path.read_text()
    try:
        path.write_text(before + "\nEDITED = True\n")
        assert graph.stale() == stages
    finally:
        path.write_text(before)


def test_a_comment_in_a_shared_room_retrains_no_model(graph):
    path, before = graph.root / "hrvgan/nn/base.py", graph.model_digests()
    path.write_text(path.read_text() + "\n# A comment.\n")
    assert graph.stale() == {f"{stage}@{run}" for stage in MODEL_STAGES for run in RUNS}
    said = graph.run("dvc", "repro", "--single-item", "train@laptop")
    assert "Running stage 'train@laptop'" in said
    assert "laptop: going on from" in said
    assert graph.model_digests() == before
    assert "train@laptop" not in graph.stale()
