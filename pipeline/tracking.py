"""The only file that knows MLflow. One run a model, found by the digest of its weights; losing the tracker never loses
the training.

    python -m pipeline.tracking uri                 # the store, for `mlflow ui --backend-store-uri`
    python -m pipeline.tracking record laptop       # complete the record of models/laptop, when the tracker was away
"""

import argparse
import csv
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import yaml

from hrvgan.files import file_digest
from pipeline import params, stage

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
    return flatten(values), {"run": run, "model": config["model"], "dataset": config["dataset"], **git_tags()}


class Recorder:
    """Sends to MLflow in the background what a training has to say. A failure is said once and stops nothing: the
    run then never gets its digest, and the next stage records it anew from the released model."""

    def __init__(self, run: str, arguments: dict, device: str, resume_file: Path):
        self.run, self.arguments, self.resume_file, self.device = run, arguments, resume_file, device
        self.failed, self.jobs = False, queue.Queue()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()
        self.jobs.put(self._start)

    def losses(self, step: int, values: dict[str, float]) -> None:
        self.jobs.put(lambda: log_curves(self.client, self.id, [{"step": step, **values}]))

    def samples(self, step: int, clips) -> None:
        """clips: uint8 (N, T, H, W, 3), drawn with the same z each time: one picture of a series, a row a clip."""
        from hrvgan.video.grids import filmstrips

        picture = filmstrips(clips.numpy(), enlarge=max(1, 64 // clips.shape[2]))
        self.jobs.put(lambda: self.client.log_image(self.id, picture, key="samples", step=step))

    def finish(self, folder: Path) -> None:
        """Records the released model and waits until everything is sent."""
        self.jobs.put(lambda: log_release(self.client, self.id, folder))
        self._end("FINISHED")

    def abandon(self) -> None:
        self._end("FAILED")

    def _end(self, status: str) -> None:
        self.jobs.put(lambda: self.client.set_terminated(self.id, status))
        self.jobs.put(None)
        self.thread.join(timeout=120)

    def _start(self) -> None:
        """Goes on with the run of a training that was killed; marks others of this name that never ended."""
        self.client, experiment = connect()
        known = self.resume_file.read_text() if self.resume_file.exists() else ""
        for other in find(self.client, experiment, {"run": self.run}):
            if other.info.status == "RUNNING" and other.info.run_id != known:
                self.client.set_terminated(other.info.run_id, "KILLED")
        if known in [run.info.run_id for run in find(self.client, experiment, {"run": self.run})]:
            self.id = known
            self.client.update_run(known, "RUNNING")
            return
        self.id = new_run(self.client, experiment, self.run, self.arguments, {"device": self.device})
        self.resume_file.parent.mkdir(parents=True, exist_ok=True)
        self.resume_file.write_text(self.id)

    def _work(self) -> None:
        while job := self.jobs.get():
            if self.failed:
                continue
            try:
                job()
            except Exception as error:  # Whatever the tracker's trouble is, the training goes on.
                self.failed = True
                reason = str(error).splitlines()[0]
                sys.stderr.write(
                    f"\nwarning: MLflow at {uri()} does not answer ({reason}); training goes on, and "
                    f"`python -m pipeline.tracking record {self.run}` completes the record later\n"
                )


def new_run(client, experiment: str, run: str, arguments: dict, tags: dict[str, str]) -> str:
    """A run with the params, tags and data set of a training; returns its id."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag, Param

    values, more = describe(run, arguments)
    created = client.create_run(experiment, run_name=run, tags={**more, **tags})
    client.log_batch(created.info.run_id, params=[Param(key, value[:6000]) for key, value in values.items()])
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
    found = find(client, experiment, {"model_digest": file_digest(folder / "model.safetensors")})
    if found:
        return found[0].info.run_id
    arguments = json.loads((folder / "model.json").read_text())["arguments"]
    run_id = new_run(client, experiment, run, arguments, {"recorded": "after the training"})
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        log_curves(client, run_id, list(csv.DictReader(file)))
    log_release(client, run_id, folder)
    client.set_terminated(run_id)
    return run_id


def record(run: str, metrics: dict | None = None, files: Path | None = None, to: str = "") -> None:
    """Adds scores and files to the run of models/<run>. Says so, and stops nothing, when the tracker is away."""
    try:
        client, experiment = connect()
        run_id = run_of(client, experiment, run)
        if metrics:
            log_curves(client, run_id, [{"step": 0, **metrics}])
        if files:
            log = client.log_artifacts if files.is_dir() else client.log_artifact
            log(run_id, str(files), to)
    except Exception as error:  # The results are on disk; only their record is missing.
        reason = str(error).splitlines()[0]
        sys.stderr.write(
            f"warning: not recorded in MLflow at {uri()} ({reason}); "
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
        reason = str(error).splitlines()[0]
        sys.stderr.write(
            f"warning: the clips of {dataset} are not recorded in MLflow at {uri()} ({reason})\n"
        )


def log_evaluation(run: str, metrics: dict, files: tuple[Path, ...] = ()) -> None:
    """Scores as metric/<protocol>, with metric/<protocol>/<floor, sd, ...> beside; the manifest as a file."""
    scores = {}
    for name, entry in metrics.items():
        for key, value in (entry if isinstance(entry, dict) else {"value": float(entry)}).items():
            scores["metric/" + (name if key == "value" else f"{name}/{key}")] = value
    record(run, scores)
    for file in files:
        record(run, files=file, to="evaluation")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("uri", help="print the address of the store")
    again = commands.add_parser("record", help="complete the record of a released model")
    again.add_argument("run")
    arguments = parser.parse_args()
    if arguments.command == "uri":
        print(uri())
    else:
        metrics = Path("metrics") / f"{arguments.run}.json"
        samples = Path("samples") / arguments.run
        record(arguments.run, files=samples if samples.exists() else None, to="samples")
        if metrics.exists():
            log_evaluation(arguments.run, json.loads(metrics.read_text()))


if __name__ == "__main__":
    main()
