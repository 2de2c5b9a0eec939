"""DVC's answers about the graph: the order of the stages, why one is out of date, its outputs, the metrics."""

from pathlib import Path

from dvc.repo import Repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro


def plan(tree: Path, targets: list[str] | None = None, single_item: bool = False) -> dict[str, set[str]]:
    """The stages that `dvc repro` would check for `targets` (default all), in its order, each with the stages that it
    depends on; with `single_item` the targets alone. Raises DVC's StageNotFound for a target that dvc.yaml does not
    have."""
    with Repo(str(tree)) as repo:
        graph = get_active_graph(repo.index.graph)  # edges point from a stage to what it depends on
        wanted = collect_stages(repo, targets or ["dvc.yaml"])
        stages = [stage for stage in plan_repro(graph, wanted) if stage in wanted or not single_item]
        return {stage.addressing: {other.addressing for other in graph[stage]} for stage in stages}


def stages_of(tree: Path, runs: list[str]) -> list[str]:
    """The stages that dvc.yaml repeats for each of `runs`, such as evaluate@laptop. Raises ValueError for a name of
    which there are none."""
    stages = [(stage, stage.partition("@")[2]) for stage in plan(tree)]
    known = sorted({item for _, item in stages if item})
    for run in runs:
        if run not in known:
            raise ValueError(f"no stage of {run!r} in dvc.yaml; of: {', '.join(known)}")
    return [stage for stage, item in stages if item in runs]


def status(tree: Path, name: str) -> tuple[str, list[str]]:
    """Why stage `name` would run now ("" if it would not), and the recorded hashes of its outputs."""
    with Repo(str(tree)) as repo:
        (stage,) = collect_stages(repo, [name])
        changes = repo.status([name]).get(name, [])
        return "; ".join(map(in_words, changes)), [str(out.hash_info) for out in stage.outs]


def in_words(change: str | dict) -> str:
    """One entry of `dvc status`: "changed command", {"changed deps": {"params.yaml": {"lr": "modified"}}}."""
    if isinstance(change, str):
        return change
    ((kind, files),) = change.items()
    words = []
    for file, how in files.items():  # of params.yaml, key by key
        words += [f"{key} {what}" for key, what in (how if isinstance(how, dict) else {file: how}).items()]
    return f"{kind}: {', '.join(words)}"


def metrics(tree: Path, experiment: str = "") -> dict[str, dict]:
    """Contents of every metrics file that dvc.yaml declares and that can be read, by path: those of `tree`, or of an
    experiment."""
    with Repo(str(tree)) as repo:
        found = repo.metrics.show(revs=[experiment]) if experiment else repo.metrics.show()
    files = found.get(experiment, {}).get("data", {})
    return {path: file["data"] for path, file in files.items() if file.get("data")}


def experiments(tree: Path) -> set[str]:
    """Names of DVC's experiments, of whatever commit."""
    with Repo(str(tree)) as repo:
        return {name for names in repo.experiments.ls(all_commits=True).values() for name, _ in names}
