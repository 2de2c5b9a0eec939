"""`train-flow`: every stage of dvc.yaml as a Prefect task that calls `dvc repro --single-item`.

The order, and whether a stage has anything to do, are DVC's answers, asked when the stage's turn comes:
nothing here changes when dvc.yaml does. Stages run in the Python environment of the worker.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import yaml
from filelock import FileLock, Timeout
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.futures import wait
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows import ROOT, graph, stages, worktree
from flows.exchange import Exchange
from flows.stages import PYTHON
from flows.summary import ASKED, FORCED, Outcome, report, verdict


@flow(name="train-flow", task_runner=ThreadPoolTaskRunner())
def train_flow(
    targets: list[str] | None = None,
    runs: list[str] | None = None,
    force: bool = False,
    refresh: bool = False,
    seed: int | None = None,
    overrides: list[str] | None = None,
    warm_start: int | None = None,
    retries: int = 0,
    parallel: int = 0,
    branch: str = "",
    save: str = "",
    commit: str = "",
) -> State:
    """Bring the stages `targets`, or those of `runs` (default: all), and what they need up to date.

    force: run every stage, changed or not. refresh: run the stages that need no other, since DVC cannot see
    new data at a source; the rest follows only if they made something new. seed, and overrides such as
    ["train.steps=4000"]: of `runs`, recorded as an experiment of DVC. warm_start: the version of its registered
    model from which each of `runs` starts, in such an experiment. retries: of each failing stage.
    parallel: stages at the same time, each with a GPU or a share of the cores; 0 is one a GPU. branch: work in
    a tree of its own at this branch of Git, and not on the files of this folder. save: a run that made something
    new becomes the experiment <save>-<date> of DVC. commit: work at this commit of Git on whatever machine, in a tree
    of its own: of `targets`, or all, each stage alone pulls its inputs from DVC's remote and pushes its outputs.
    The run's message says what happened and why; the artifact `train-flow` shows times and metrics.
    """
    commit = commit and worktree.whole_name(commit)
    with tree_at(branch, commit) as tree:
        if runs:
            targets = [*(targets or []), *graph.stages_of(tree, runs)]
        names = runs or list(yaml.safe_load((tree / "params.yaml").read_text()).get("runs", {}))
        settings = [*(overrides or []), *seeds(names, seed), *starts(tree, names, warm_start)]
        if commit and settings:
            raise ValueError("seed, overrides and warm_start make an experiment, which a commit is not; commit them")
        if not settings:
            stages.check(tree)
            exchange = Exchange.open(tree, commit) if commit else None
            experiment, outcomes = "", run_stages(tree, targets, force, refresh, retries, parallel, exchange)
        else:
            outcomes = run_sources(tree, targets, retries) if refresh else []
            experiment, made = run_experiment.with_options(retries=retries)(tree, settings, targets, force)
            outcomes += made
        sentence = verdict(outcomes, experiment)
        if save and not settings and any(outcome.new for outcome in outcomes):
            sentence += f" {save_experiment(tree, save, sentence, outcomes)}"
        get_run_logger().info(sentence)
        page = report(sentence, outcomes, graph.metrics(tree))
    create_markdown_artifact(key="train-flow", markdown=page)
    return Completed(message=sentence, data=[asdict(outcome) for outcome in outcomes])


@contextmanager
def tree_at(branch: str, commit: str = "") -> Iterator[Path]:
    """The folder to work in: the project's own, or a tree at a branch or commit. Waits until no other run works
    there."""
    tree = worktree.TREE if branch or commit else ROOT
    (ROOT / ".state").mkdir(exist_ok=True)
    lock = FileLock(ROOT / ".state" / f"{'train-flow' if tree == ROOT else tree.name}.lock")
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        get_run_logger().info("Another run is at work in this folder; waiting for its end.")
        held = lock.acquire()
    with held:
        if tree != ROOT:
            worktree.prepare(branch, commit)
        with chdir(tree):  # DVC's names of stages depend on the current folder.
            yield tree


def run_stages(
    tree: Path,
    targets: list[str] | None,
    force: bool,
    refresh: bool,
    retries: int,
    parallel: int,
    exchange: Exchange | None = None,
) -> list[Outcome]:
    """Run stages, as many at the same time as `parallel` says and the graph allows. Raises StageError for the first one
    that failed, once those that do not depend on it have ended."""
    slots, attempt, futures = stages.devices(parallel), stages.run_stage.with_options(retries=retries), {}
    try:
        for stage, needs in graph.plan(tree, targets, single_item=exchange is not None).items():
            because = FORCED if force else ASKED if refresh and not needs else ""
            before = [futures[need] for need in needs if need in futures]
            futures[stage] = attempt.submit(tree, stage, because, slots, needs, exchange, wait_for=before)
        wait(list(futures.values()))
    finally:
        stages.end_all()
    for future in futures.values():
        if future.state.is_failed():
            future.result()  # raises its error
    return [future.result() for future in futures.values()]


def run_sources(tree: Path, targets: list[str] | None, retries: int) -> list[Outcome]:
    """Ask for new data: run the stages that need no other."""
    sources = [stage for stage, needs in graph.plan(tree, targets).items() if not needs]
    return run_stages(tree, sources, force=False, refresh=True, retries=retries, parallel=1)


def seeds(runs: list[str], seed: int | None) -> list[str]:
    """Overrides that set the seed of `runs`."""
    return [] if seed is None else [f"runs.{run}.seed={seed}" for run in runs]


def starts(tree: Path, runs: list[str], version: int | None) -> list[str]:
    """Overrides by which `runs` start from that `version` of their models, which is fetched. A version is pinned: from
    the champion, which changes, a training would be out of date each night."""
    if version is None:
        return []
    folders = {run: f"champion/{run}-{version}" for run in runs}
    for run, folder in folders.items():
        command = [*PYTHON, "pipeline.champion", run, "--version", str(version), "--out", folder]
        stages.run(tree, command, f"version {version} of {run}")
    return [f"runs.{run}.init_from={folder}" for run, folder in folders.items()]


@task(task_run_name="dvc exp run", cache_policy=NO_CACHE)
def run_experiment(
    tree: Path, settings: list[str], targets: list[str] | None, force: bool
) -> tuple[str, list[Outcome]]:
    """Run `dvc exp run -S ...`; returns a name for what it did, and the stages."""
    options = [*["--force"][:force], *(word for target in targets or [] for word in ("--target", target))]
    command, what = [*PYTHON, "pipeline.experiment", *options, *settings], " ".join(settings)
    lines = stages.when_unlocked(lambda: stages.run(tree, command, what))
    made = [Outcome(stage, state, "", None, True) for stage, state in stages.states(lines).items()]
    return f"Experiment {name_of_experiment(lines)} ({what})", made


def name_of_experiment(lines: list[str]) -> str:
    """The name that DVC gave to an experiment, from its own lines."""
    return next((line.rpartition(" ")[2] for line in lines if line.startswith("Ran experiment(s): ")), "")


def save_experiment(tree: Path, prefix: str, message: str, outcomes: list[Outcome]) -> str:
    """Save what the stages have made as an experiment of DVC, whose name ends with the date; returns this as a
    sentence."""
    taken, first = graph.experiments(tree), f"{prefix}-{datetime.now(UTC).date()}"
    others = (f"{first}-{number}" for number in itertools.count(2))
    name = next(name for name in itertools.chain([first], others) if name not in taken)
    command = [*PYTHON, "dvc", "exp", "save", "--name", name, "--message", message]
    stages.when_unlocked(lambda: stages.run(tree, [*command, *(o.stage for o in outcomes)], "dvc exp save"))
    return f"Saved as the experiment {name}."


def require_server() -> None:
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error:
        sys.exit(
            f"error: no Prefect server at {client.api_url} ({error}); start one with `make schedule`, or "
            "name yours in PREFECT_API_URL"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m flows.train_flow",
        description="Run the flow here and now, on the server that `make schedule` started.",
    )
    parser.add_argument("targets", nargs="*", help="stages such as evaluate@laptop, and what they need; all without")
    parser.add_argument("--runs", nargs="+", metavar="RUN", help="their stages, and what they need")
    parser.add_argument("--force", action="store_true", help="run every stage, changed or not")
    parser.add_argument("--refresh", action="store_true", help="ask the sources for new data first, as nightly does")
    parser.add_argument("--seed", type=int, help="of the runs, in an experiment of DVC")
    parser.add_argument(
        "--set", nargs="+", dest="overrides", metavar="KEY=VALUE", help="values of params.yaml, in an experiment"
    )
    parser.add_argument(
        "--warm-start", type=int, metavar="VERSION", help="of its registered model, from which each run starts"
    )
    parser.add_argument("--retries", type=int, default=0, help="of each failing stage")
    parser.add_argument("--parallel", type=int, default=0, help="stages at the same time; one a GPU without")
    parser.add_argument("--branch", default="", help="work in a tree of its own at this branch")
    parser.add_argument("--save", default="", metavar="NAME", help="save what is new as experiment NAME-<date>")
    parser.add_argument("--commit", default="", help="work at this commit, with inputs and outputs on DVC's remote")
    arguments = vars(parser.parse_args())
    require_server()
    state = train_flow(**arguments, return_state=True)
    sys.exit(0 if state.is_completed() else 1)
