"""`compare-flow`: several runs, or a grid of settings, brought up to date and shown in one table."""

import itertools
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows import graph, stages
from flows.stages import PYTHON
from flows.summary import in_figures
from flows.train_flow import name_of_experiment, run_stages, tree_at


@flow(name="compare-flow", task_runner=ThreadPoolTaskRunner())
def compare_flow(
    runs: list[str] | None = None,
    grid: dict[str, list] | None = None,
    force: bool = False,
    parallel: int = 0,
    branch: str = "",
) -> State:
    """Bring `runs` (default: all) up to date, and publish their metrics as a table, the artifact `compare-flow`.

    grid: values of settings, such as {"runs.laptop.seed": [0, 1], "train.batch_size": [8, 16]}. Each combination is
    an experiment of DVC in a copy of the folder, one after the other, and a row. parallel (of runs) and branch: as in
    train-flow.
    """
    with tree_at(branch) as tree:
        targets = graph.stages_of(tree, runs) if runs else []
        if grid:
            rows = run_grid(tree, grid, targets, force)
        else:
            stages.check(tree)
            run_stages(tree, targets, force, refresh=False, retries=0, parallel=parallel)
            metrics = {Path(path).stem: values for path, values in graph.metrics(tree).items()}
            rows = [{"run": run, **in_cells(values)} for run, values in metrics.items() if run in (runs or metrics)]
    create_table_artifact(key="compare-flow", table=rows)
    return Completed(message=f"Compared {len(rows)} {'experiments' if grid else 'runs'}.", data=rows)


def run_grid(tree: Path, grid: dict[str, list], targets: list[str], force: bool) -> list[dict]:
    """A row for each combination of the values in `grid`. Raises StageError for the first that failed, once the others
    have ended."""
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    # One after the other: DVC prepares them all in one stash, where two at a time swapped their settings.
    done = [run_copy(tree, each, targets, force, return_state=True) for each in combinations]
    names = [state.result() for state in done]
    rows = []
    for name, combination in zip(names, combinations, strict=True):
        cells = {"experiment": name, **combination}
        metrics = graph.metrics(tree, name)
        for path, values in metrics.items():
            cells |= in_cells(values, f"{Path(path).stem} " if len(metrics) > 1 else "")
        rows.append(cells)
    return rows


@task(task_run_name="{combination}", cache_policy=NO_CACHE)
def run_copy(tree: Path, combination: dict, targets: list[str], force: bool) -> str:
    """Run one experiment in a copy of `tree`; returns its name."""
    settings = [f"{key}={value}" for key, value in combination.items()]
    command = [*PYTHON, "dvc", "exp", "run", "--temp", *["--force"][:force], *targets]
    command += [word for setting in settings for word in ("-S", setting)]
    return name_of_experiment(stages.when_unlocked(lambda: stages.run(tree, command, " ".join(settings))))


def in_cells(values: dict, prefix: str = "") -> dict[str, str]:
    return {f"{prefix}{name}": in_figures(value) for name, value in values.items()}
