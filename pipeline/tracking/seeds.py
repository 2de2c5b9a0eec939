"""Parent runs in MLflow: trainings that differ in their seed alone, with mean and sd of their scores."""

import hashlib
import json
import statistics

from filelock import FileLock

from pipeline.stage import state_folder
from pipeline.tracking import find, log_metrics

SCORES = "metric/"


def sweep_of(values: dict[str, str], data: str) -> str:
    """Tag that trainings with the params `values`, on clips of the digest `data`, share whatever their seed is."""
    facts = json.dumps([{**values, "seed": ""}, data], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def summarise(client, experiment: str, run_id: str) -> None:
    """Create or update the parent of run `run_id` and of those that differ in their seed alone, if there are any; of
    several trainings of a seed the newest counts."""
    from mlflow.entities import Param

    tags = client.get_run(run_id).data.tags
    folder = state_folder() / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "seeds.lock"):  # Two experiments of a queue may end at once.
        runs = find(client, experiment, {"sweep": tags.get("sweep", "")})
        by_seed = {run.data.params["seed"]: run for run in reversed(runs) if scores_of(run)}
        if len(by_seed) < 2:
            return
        name = f"{tags['run']}: mean of seeds {', '.join(sorted(by_seed))}"
        if parents := find(client, experiment, {"sweep.parent": tags["sweep"]}):
            parent = parents[0].info.run_id
        else:
            own = {"sweep.parent": tags["sweep"], "model": tags["model"], "dataset": tags["dataset"]}
            parent = client.create_run(experiment, run_name=name, tags=own).info.run_id
            values = runs[0].data.params.items()
            client.log_batch(parent, params=[Param(key, value) for key, value in values if key != "seed"])
        client.update_run(parent, name=name)
        for run in by_seed.values():
            client.set_tag(run.info.run_id, "mlflow.parentRunId", parent)
        log_metrics(client, parent, [{"step": 0, **means([scores_of(run) for run in by_seed.values()])}])
        client.set_terminated(parent)


def scores_of(run) -> dict[str, float]:
    return {key: value for key, value in run.data.metrics.items() if key.startswith(SCORES)}


def means(scores: list[dict[str, float]]) -> dict[str, float]:
    """Means under the names of the scores, which so stand in their columns, and sds."""
    common = set.intersection(*map(set, scores))
    values = {key: [own[key] for own in scores] for key in sorted(common)}
    sds = {f"sd_of_seeds/{key.removeprefix(SCORES)}": statistics.stdev(own) for key, own in values.items()}
    return {key: statistics.mean(own) for key, own in values.items()} | sds
