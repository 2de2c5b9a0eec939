"""The only file that knows MLflow. One run a model, found by its name and the digest of its weights; losing the
tracker never loses the training.

    python -m pipeline.tracking uri                 # the store, for `mlflow ui --backend-store-uri`
    python -m pipeline.tracking record laptop       # complete the record of models/laptop, when the tracker was away
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from hrvgan.errors import InputError, first_line
from hrvgan.files import file_digest
from pipeline import params, stage
from pipeline.report.score_display import flat

EXPERIMENT = "hrvgan"
# A tracker that is down answers late by default: minutes, within which the training would stand still at its end.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def uri() -> str:
    """MLFLOW_TRACKING_URI where a team sets it, else a database below .state: absolute, for runs in other folders."""
    folder = stage.state_folder() / "mlflow"
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder}/mlflow.db"


def connect():
    """(client, experiment id), with the local store made when it is not there."""
    from mlflow import MlflowClient, set_tracking_uri

    set_tracking_uri(uri())
    client = MlflowClient(uri())
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment:
        return client, experiment.experiment_id
    local = None
    if uri().startswith("sqlite:///"):
        folder = stage.state_folder() / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        local = (folder / "artifacts").as_uri()
    # What the UI shows first: curves of trainings, not traces of language models.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return client, client.create_experiment(EXPERIMENT, artifact_location=local, tags=kind)


def find(client, experiment: str, tags: dict[str, str]) -> list:
    """Runs that carry all of `tags`, the newest first."""
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    return list(client.search_runs([experiment], wanted, order_by=["attributes.start_time DESC"]))


def flatten(values: dict, prefix: str = "") -> dict[str, str]:
    """{"a": {"b": 1}} -> {"a.b": "1"}."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = str(value)
    return flat


def git_tags() -> dict[str, str]:
    """The commit, and whether files differ from it; empty outside a git checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    dirty = str(bool(git("status", "--porcelain", "--untracked-files=no")))
    return {"mlflow.source.git.commit": commit, "git.dirty": dirty} if commit else {}


def data_digest(dataset: str) -> str:
    """DVC's md5 of the clip store, from dvc.lock; "" before DVC has recorded it."""
    lock = Path("dvc.lock")
    stages = yaml.safe_load(lock.read_text())["stages"] if lock.exists() else {}
    outs = stages.get(f"extract@{dataset}", {}).get("outs", [])
    return next((out["md5"] for out in outs if out["path"] == f"data/clips/{dataset}"), "")


def describe(run: str, arguments: dict) -> tuple[dict[str, str], dict[str, str]]:
    """(params, tags) of a training: all that went in, flattened."""
    config = params.run(run)
    data = params.dataset(config["dataset"])
    values = {
        "run": run,
        "model": config["model"],
        "preset": config["preset"],
        "seed": config["seed"],
        "dataset": config["dataset"],
        "data": {"source": data["source"], **data["options"]},
        "clips": data["clips"],
        "net": arguments,
        "train": config["train"],
    }
    known = {key: value[:6000] for key, value in flatten(values).items()}  # MLflow takes no longer ones.
    return known, {"run": run, "model": config["model"], "dataset": config["dataset"], **git_tags()}


def new_run(client, experiment: str, run: str, arguments: dict, tags: dict[str, str]) -> str:
    """A run with the params, tags and data set of a training; returns its id."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag, Param

    values, more = describe(run, arguments)
    created = client.create_run(experiment, run_name=run, tags={**more, **tags})
    client.log_batch(created.info.run_id, params=[Param(key, value) for key, value in values.items()])
    dataset = values["dataset"]
    digest = data_digest(dataset)
    if digest:
        source = CodeDatasetSource(tags={"dvc": f"data/clips/{dataset}"})
        data = MetaDataset(source, name=dataset, digest=digest)._to_mlflow_entity()
        client.log_inputs(
            created.info.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
        )
    return created.info.run_id


def log_curves(client, run_id: str, rows: list[dict]) -> None:
    """rows: {"step": n, name: value, ...}; sent in batches of 1,000, as one by one takes 18 ms each."""
    from time import time

    from mlflow.entities import Metric

    now = int(time() * 1000)
    points = [
        Metric(key, float(value), now, int(row["step"]))
        for row in rows
        for key, value in row.items()
        if key != "step" and value != ""
    ]
    for start in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[start : start + 1000])


def log_release(client, run_id: str, folder: Path) -> None:
    """The released files, and last the digest by which the run is found: it says that the record is whole."""
    client.log_artifacts(run_id, str(folder), "model")
    client.set_tag(run_id, "model_digest", file_digest(folder / "model.safetensors"))


def run_of(client, experiment: str, run: str) -> str:
    """The id of the run that made models/<run>; made anew from the released model when the store has none."""
    folder = Path("models") / run
    tags = {
        "run": run,
        "model_digest": file_digest(folder / "model.safetensors"),
    }  # Equal settings, equal digests.
    found = find(client, experiment, tags)
    if found:
        return found[0].info.run_id
    arguments = json.loads((folder / "model.json").read_text())["arguments"]
    run_id = new_run(client, experiment, run, arguments, {"recorded": "after the training"})
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        log_curves(client, run_id, list(csv.DictReader(file)))
    log_release(client, run_id, folder)
    client.set_terminated(run_id)
    return run_id


def made(by: str, run: str) -> tuple[dict[str, float], list[Path], str]:
    """What stage `by` has left of a run: (numbers, files, the folder of the record for them); nothing where it did not
    run."""
    metrics, samples = Path("metrics"), Path("samples") / run
    if by == "sample":
        return {}, [samples] if samples.is_dir() else [], "samples"
    if by == "train":
        values = read(metrics / f"{run}.training.json")
        return {f"training/{key}": v for key, v in values.items() if not isinstance(v, str)}, [], ""
    names = [f"{run}.json", f"{run}.manifest.json", f"{run}.nearest.png"]
    costs = flatten({"cost": read(metrics / names[1]).get("cost", {})})
    numbers = {key.replace(".", "/"): float(number) for key, number in costs.items()}
    files = [metrics / name for name in names if (metrics / name).is_file()]
    values = read(metrics / names[0])
    numbers |= {f"metric/{key}": number for key, number in flat(values).items()}
    numbers |= {f"metric/{key}": float(v) for key, v in values.items() if isinstance(v, bool)}
    return numbers, files, "evaluation"


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def complete(run: str, stages: tuple[str, ...] = ("train", "sample", "evaluate")) -> None:
    """Adds what `stages` have made to the record of models/<run>."""
    client, experiment = connect()
    run_id = run_of(client, experiment, run)
    for by in stages:
        numbers, files, folder = made(by, run)
        if numbers:
            log_curves(client, run_id, [{"step": 0, **numbers}])
        for file in files:
            log = client.log_artifacts if file.is_dir() else client.log_artifact
            log(run_id, str(file), folder)


def record(run: str, stage: str) -> None:
    """`complete` for one stage, which says so, and stops nothing, when the tracker is away."""
    try:
        complete(run, (stage,))
    except Exception as error:  # The results are on disk; only their record is missing.
        sys.stderr.write(
            f"warning: not recorded in MLflow at {uri()} ({first_line(error)}); "
            f"`python -m pipeline.tracking record {run}` does it later\n"
        )


def log_clips(dataset: str, account: Path, counts: dict[str, int], dropped: dict[str, list[str]]) -> None:
    """A run clips/<dataset> for each state of a clip store, known by its file `account`: what was counted, and videos
    that were left out as a table, dropped.json. Says so, and stops nothing, when the tracker is away."""
    try:
        client, experiment = connect()
        tags, state = {"clips": dataset}, {"account": file_digest(account)}
        if find(client, experiment, tags | state):
            return
        run_id = client.create_run(
            experiment, run_name=f"clips/{dataset}", tags=tags | git_tags()
        ).info.run_id
        log_curves(
            client, run_id, [{"step": 0, **{f"clips/{name}": count for name, count in counts.items()}}]
        )
        client.log_table(run_id, dropped, "dropped.json")
        client.set_tag(run_id, "account", state["account"])  # last: it says that the record is whole
        client.set_terminated(run_id)
    except Exception as error:  # The same is on disk, in the store.
        sys.stderr.write(
            f"warning: the clips of {dataset} are not recorded in MLflow at {uri()} ({first_line(error)})\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("uri", help="print the address of the store")
    again = commands.add_parser("record", help="complete the record of a released model")
    again.add_argument("run", help="a name of the section `runs` of params.yaml")
    arguments = parser.parse_args()
    if arguments.command == "uri":
        print(uri())
        return
    run = arguments.run
    try:
        params.run(run)
        if not (Path("models") / run / "model.safetensors").is_file():
            raise InputError(f"models/{run}: no released model; train it with `dvc repro train@{run}`")
        complete(run)
        print(f"{run}: recorded in MLflow at {uri()}")
    except InputError as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        sys.exit(
            f"error: MLflow at {uri()} does not answer ({first_line(error)}); the same command tries again"
        )
