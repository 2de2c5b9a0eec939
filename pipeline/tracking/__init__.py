"""MLflow tracking, the only package that imports mlflow: one MLflow run per trained model, found by its name and the
digest of its weights. Losing the tracker never loses the training."""

import contextlib
import csv
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import yaml
from filelock import FileLock

from hrvgan.errors import InputError, first_line
from hrvgan.files import file_digest
from pipeline import params
from pipeline.stage import read_json, state_folder

EXPERIMENT, EXTRACTIONS = "hrvgan", "hrvgan-clips"  # experiments: trainings, clip stores
ALIAS = "champion"  # of the best version of a registered model
DECISIVE = ("refnet_fd", "predict_psnr")  # scores that decide which is best: the first that a model has
LOCAL = "sqlite:///"  # how the address of a store in a file begins
BATCH = 1000  # metric values a request; sent one by one, each takes 18 ms
MAX_PARAM = 6000  # characters, MLflow's limit
# With the default retries, a tracking server that is down blocks the training for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def uri() -> str:
    """MLFLOW_TRACKING_URI if set, else a database below .state, as an absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{LOCAL}{state_folder()}/mlflow/mlflow.db"


def connect(name: str = EXPERIMENT):
    """(MlflowClient, id of the experiment `name`). Creates the local store and the experiment if they do not exist."""
    from mlflow import MlflowClient, set_tracking_uri

    set_tracking_uri(uri())
    if not uri().startswith(LOCAL):
        client = MlflowClient()
        return client, experiment_id(client, name)
    folder = state_folder() / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder.parents[1] / "mlflow.db"  # MLflow's own commands and clients look there.
    with FileLock(folder / "connect.lock"):  # MLflow fails where two processes make one database.
        if not os.path.lexists(link):
            link.symlink_to(Path(folder.parent.name, "mlflow/mlflow.db"))
        client = MlflowClient()
        return client, experiment_id(client, name, (folder / "artifacts").as_uri())


def experiment_id(client, name: str, artifacts: str | None = None) -> str:
    """The id of the experiment `name`, created with the artifact folder `artifacts` if there is none. One that was
    deleted in the UI is restored: its name stays taken, and nothing can be recorded in it."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return create_experiment(client, name, artifacts)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
        sys.stderr.write(f"note: the experiment {name} was deleted from MLflow at {uri()}; it is restored\n")
    return experiment.experiment_id


def create_experiment(client, name: str, artifacts: str | None = None) -> str:
    """The id of a new experiment, or of the one that another process has created meanwhile."""
    from mlflow.exceptions import MlflowException

    kind = {"mlflow.experimentKind": "custom_model_development"}
    try:
        return client.create_experiment(name, artifact_location=artifacts, tags=kind)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(name).experiment_id


def champion_of(client, run: str):
    """The present champion, a model version; None if there is none."""
    models = client.search_registered_models(f"name = '{run}'")
    version = models[0].aliases.get(ALIAS) if models else None
    return client.get_model_version(run, version) if version else None


@contextlib.contextmanager
def errors_as_warning(failure: str, remedy: str = "") -> Iterator[None]:
    """Report any exception of the block as a warning: the results are on disk, only their record is missing."""
    try:
        yield
    except Exception as error:
        sys.stderr.write(f"warning: {failure} in MLflow at {uri()} ({first_line(error)}){remedy}\n")


@contextlib.contextmanager
def errors_as_input_error(remedy: str) -> Iterator[None]:
    """Raise InputError for any exception of a block that asks MLflow, in one sentence that ends with `remedy`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"MLflow at {uri()} does not answer ({first_line(error)}); {remedy}") from error


def find(client, experiment: str, tags: dict[str, str]) -> list:
    """MLflow runs that carry all of `tags`, newest first."""
    condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    return list(client.search_runs([experiment], condition, order_by=["attributes.start_time DESC"]))


def flatten(values: dict, separator: str = ".", prefix: str = "") -> dict:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat = {}
    for key, value in values.items():
        nested = isinstance(value, dict)
        flat |= flatten(value, separator, f"{prefix}{key}{separator}") if nested else {prefix + key: value}
    return flat


def git_tags() -> dict[str, str]:
    """The commit and whether tracked files differ from it; {} outside a git checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()

    commit, changes = git("rev-parse", "--verify", "--quiet", "HEAD"), git("status", "--porcelain", "-uno")
    return {"mlflow.source.git.commit": commit, "git.dirty": str(bool(changes))} if commit else {}


def data_digest(dataset: str) -> str:
    """DVC's md5 of the clip store, from dvc.lock; "" before DVC has recorded it."""
    lock = Path("dvc.lock")
    stages = yaml.safe_load(lock.read_text())["stages"] if lock.exists() else {}
    outs = stages.get(f"extract@{dataset}", {}).get("outs", [])
    return next((out["md5"] for out in outs if out["path"] == f"data/clips/{dataset}"), "")


def describe(run: str, arguments: dict) -> tuple[dict[str, str], dict[str, str]]:
    """(params, tags) of a training. `arguments` are those of its model."""
    config = params.run(run)
    data = params.dataset(config["dataset"])
    values = {
        "run": run,
        **{key: config[key] for key in ("model", "preset", "seed", "dataset", "train")},
        "data": {"source": data["source"], **data["options"]},
        "clips": data["clips"],
        "net": arguments,
    }
    flat = {key: str(value)[:MAX_PARAM] for key, value in flatten(values).items()}
    return flat, {"run": run, "model": config["model"], "dataset": config["dataset"], **git_tags()}


def new_run(client, experiment: str, run: str, arguments: dict, tags: dict[str, str]) -> str:
    """Create an MLflow run with the params, tags and data set of a training, called by its run, seed and DVC
    experiment; returns its id."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag, Param
    from mlflow.tracking.context.registry import resolve_tags

    from pipeline.tracking.seeds import sweep_of

    values, own_tags = describe(run, arguments)
    digest = data_digest(values["dataset"])
    # MLflow's own tags come first: user and program.
    tags = {**resolve_tags(), **own_tags, "sweep": sweep_of(values, digest), **tags}
    name = f"{run} seed {values['seed']} {os.environ.get('DVC_EXP_NAME', '')}".rstrip()
    run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
    client.log_batch(run_id, params=[Param(key, value) for key, value in values.items()])
    if digest:
        source = CodeDatasetSource(tags={"dvc": f"data/clips/{values['dataset']}"})
        data = MetaDataset(source, name=values["dataset"], digest=digest)._to_mlflow_entity()
        client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
    return run_id


def log_metrics(client, run_id: str, rows: list[dict]) -> None:
    """Send `rows`, each {"step": n, name: value, ...}; empty values are left out."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    points = [
        Metric(key, float(value), now, int(row["step"]))
        for row in rows
        for key, value in row.items()
        if key != "step" and value != ""
    ]
    for start in range(0, len(points), BATCH):
        client.log_batch(run_id, metrics=points[start : start + BATCH])


def log_release(client, run_id: str, folder: Path) -> None:
    """Send the released model, loadable by MLflow. The tag `model_digest` comes last: a run that has it is complete."""
    with warnings.catch_warnings(action="ignore"), tempfile.TemporaryDirectory() as temporary:
        # The warnings are MLflow's, about type hints of its own and its use of pandas.
        from pipeline.tracking.pyfunc_model import save

        save(folder, model := Path(temporary) / "model")
        client.log_artifacts(run_id, str(model), "model")
    client.set_tag(run_id, "model_digest", file_digest(folder / "model.safetensors"))


def run_id_of(client, experiment: str, run: str) -> str:
    """The id of the MLflow run that made models/<run>; created from the released model if there is none."""
    folder = Path("models") / run
    # Runs of equal settings have equal digests, so the name is part of the key.
    tags = {"run": run, "model_digest": file_digest(folder / "model.safetensors")}
    if runs := find(client, experiment, tags):
        return runs[0].info.run_id
    arguments = read_json(folder / "model.json")["arguments"]
    run_id = new_run(client, experiment, run, arguments, {"recorded": "after the training"})
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        log_metrics(client, run_id, list(csv.DictReader(file)))
    log_release(client, run_id, folder)
    client.set_terminated(run_id)
    return run_id


def outputs_of(stage: str, run: str) -> tuple[dict[str, float], list[Path], str]:
    """(numbers, files, artifact folder of the files) that `stage` has written for `run`; empty if it did not run."""
    metrics, samples = Path("metrics"), Path("samples") / run
    if stage == "sample":
        return {}, [samples] if samples.is_dir() else [], "samples"
    if stage == "train":
        cost = read_json(metrics / f"{run}.training.json")
        return {f"training/{key}": v for key, v in cost.items() if not isinstance(v, str)}, [], ""
    files = [metrics / f"{run}{end}" for end in (".json", ".manifest.json", ".nearest.png")]
    values, manifest = map(read_json, files[:2])
    numbers = flatten({"cost": manifest.get("cost", {}), "metric": values}, "/")
    return numbers, [path for path in files if path.is_file()], "evaluation"


def record_all(run: str, stages: tuple[str, ...] = ("train", "sample", "evaluate")) -> None:
    """Add the outputs of `stages` to the MLflow run of models/<run>."""
    from pipeline.tracking import seeds

    client, experiment = connect()
    run_id = run_id_of(client, experiment, run)
    for stage in stages:
        numbers, files, folder = outputs_of(stage, run)
        if numbers:
            log_metrics(client, run_id, [{"step": 0, **numbers}])
        for file in files:
            log = client.log_artifacts if file.is_dir() else client.log_artifact
            log(run_id, str(file), folder)
    if "evaluate" in stages:
        seeds.summarise(client, experiment, run_id)


def record(run: str, stage: str) -> None:
    """Add the outputs of one stage; an unreachable tracker is a warning."""
    with errors_as_warning("not recorded", f"; `python -m pipeline.tracking record {run}` does it later"):
        record_all(run, (stage,))


def log_clips(dataset: str, manifest: Path, counts: dict[str, int], dropped: dict[str, list[str]]) -> None:
    """Log one run <dataset>, among EXTRACTIONS, per state of a clip store, identified by its file `manifest`: the
    counts, and the dropped videos as the table dropped.json. An unreachable tracker is a warning."""
    with errors_as_warning(f"the clips of {dataset} are not recorded"):
        client, experiment = connect(EXTRACTIONS)
        tags, state = {"clips": dataset}, {"account": file_digest(manifest)}
        if find(client, experiment, tags | state):
            return
        run = client.create_run(experiment, run_name=dataset, tags=tags | git_tags())
        run_id = run.info.run_id
        log_metrics(client, run_id, [{"step": 0, **flatten({"clips": counts}, "/")}])
        client.log_table(run_id, dropped, "dropped.json")
        client.set_tag(run_id, "account", state["account"])  # last: a run that has it is complete
        client.set_terminated(run_id)
