"""What DVC knows: the order of the stages, why one is out of date, what it made, the metrics."""

from pathlib import Path

from dvc.repo import Repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro


def plan(root: Path, targets: list[str] | None = None) -> list[tuple[str, bool]]:
    """Stages that `dvc repro` would look at for `targets` (default all), in its order: (name, needs none).

    Raises DVC's StageNotFound, which names the target, for one that dvc.yaml does not have.
    """
    with Repo(str(root)) as repo:
        graph = get_active_graph(repo.index.graph)  # edges point from a stage to what it depends on
        stages = plan_repro(graph, collect_stages(repo, targets or ["dvc.yaml"]))
        return [(stage.addressing, graph.out_degree(stage) == 0) for stage in stages]


def look(root: Path, name: str) -> tuple[str, list[str]]:
    """Why stage `name` would run now ("" if it would not), and the hashes of its outputs as last recorded."""
    with Repo(str(root)) as repo:
        (stage,) = collect_stages(repo, [name])
        status = repo.status([name]).get(name, [])
        return "; ".join(map(in_words, status)), [str(out.hash_info) for out in stage.outs]


def in_words(change: str | dict) -> str:
    """One entry of `dvc status`: "changed command", {"changed deps": {"params.yaml": {"lr": "modified"}}}."""
    if isinstance(change, str):
        return change
    ((kind, files),) = change.items()
    found = []
    for file, how in files.items():  # of params.yaml, key by key
        found += (
            [f"{key} {what}" for key, what in how.items()] if isinstance(how, dict) else [f"{file} {how}"]
        )
    return f"{kind}: {', '.join(found)}"


def metrics(root: Path) -> dict[str, dict]:
    """Contents of every metrics file that dvc.yaml declares and that can be read, by path."""
    with Repo(str(root)) as repo:
        files = repo.metrics.show().get("", {}).get("data", {})
    return {path: found["data"] for path, found in files.items() if found.get("data")}
