"""An edit makes only those stages stale that can use the edited file, as `dvc status` says in a copy of the project."""

import pytest
from dvc.repo import Repo

from tests.project import Project, digests, finished

RUNS = ("laptop", "rival")
MODEL_STAGES = ("train", "sample", "evaluate")


def add_another_of_each(values: dict) -> None:
    """Params with two data sets and two runs of different models."""
    shapes, laptop = values["datasets"]["shapes"], values["runs"]["laptop"]
    values["datasets"]["mine"] = {**shapes, "source": "folder", "watch": "conf/folder.yaml"}
    own = "hrvgan/models/vgan.py"
    rival = {"dataset": "mine", "model": "vgan", "init_from": own, "score_with": own}
    values["runs"]["rival"] = {**laptop, **rival}


def fill_in(project: Project) -> None:
    """Make placeholders of the outputs that no stage has made, and record all of them as if their stages had."""
    with Repo(str(project.root)) as repo:
        paths = [project.root / str(out) for out in repo.index.outs]
    for path in paths:
        file = path if path.suffix else path / "placeholder"
        if not path.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("{}")
    project.run("dvc", "commit", "--force")


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A project of which one run is trained."""
    with finished(tmp_path_factory)[0].copied(tmp_path_factory.mktemp("graph") / "project") as graph:
        graph.edit_params(add_another_of_each)
        fill_in(graph)
        assert graph.stale() == set()
        yield graph


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("hrvgan/metrics/kernel.py", {*(f"evaluate@{run}" for run in RUNS), "report"}),
        ("hrvgan/models/vgan.py", {f"{stage}@rival" for stage in MODEL_STAGES}),
        ("hrvgan/models/hrvgan.py", {f"{stage}@laptop" for stage in MODEL_STAGES}),
        ("hrvgan/datasets/folder.py", {"upstream@mine", "download@mine"}),
        ("hrvgan/datasets/shapes.py", {"upstream@shapes", "download@shapes"}),
        ("pipeline/report/charts.py", {"report"}),
        ("pipeline/tracking/__init__.py", set()),
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
    path, model = graph.root / "hrvgan/nn/base.py", graph.root / "models/laptop"
    before = digests(model)
    path.write_text(path.read_text() + "\n# A comment.\n")
    assert graph.stale() == {f"{stage}@{run}" for stage in MODEL_STAGES for run in RUNS}
    said = graph.run("dvc", "repro", "--single-item", "train@laptop")
    assert "Running stage 'train@laptop'" in said
    assert "laptop: going on from" in said
    assert digests(model) == before
    assert "train@laptop" not in graph.stale()
