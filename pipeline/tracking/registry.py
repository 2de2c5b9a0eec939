"""Model registry: every evaluated model of a run is a version of its registered model; the best one has the alias
"champion"."""

import math
import shutil
import tempfile
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.files import atomic_folder
from hrvgan.metrics.protocols import differences, lower_is_better, with_scores
from hrvgan.nn.checkpoint import check_out
from pipeline.stage import read_json
from pipeline.tracking import (
    ALIAS,
    DECISIVE,
    champion_of,
    connect,
    errors_as_input_error,
    errors_as_warning,
    run_id_of,
    uri,
)

Result = tuple[dict, dict]  # (metrics, manifest)


def try_promote(run: str) -> None:
    """`promote`, and print the outcome; an unreachable registry is a warning."""
    with errors_as_warning(f"{run} is not registered"):
        print(promote(run))


def promote(run: str) -> str:
    """Register models/<run> with its scores. It becomes the champion if it is better than the present one, or if the
    two cannot be compared (new clips, another network, a deleted MLflow run). Returns the outcome as a sentence."""
    client, experiment = connect()
    run_id = run_id_of(client, experiment, run)
    version = register(client, run, run_id)
    champion = champion_of(client, run)
    result = read_result(Path("metrics"), run)
    name = next((name for name in DECISIVE if name in result[0]), "")
    if not (name and result[0].get("gated")):
        return f"{run}: version {version}, whose scores may not be believed, is no champion"
    score = f"{name} {in_words(name, result)}"
    if champion and champion.run_id != run_id:
        best = result_of(client, experiment, run, champion.run_id)
        if best and not is_better(name, result, best):
            return (
                f"{run}: version {champion.version} stays the champion, with {in_words(name, best)}; "
                f"version {version} has {score}, {lead_in_words(name, result, best)}"
            )
        score += f"; version {champion.version} {defeat_in_words(name, result, best)}"
    client.set_registered_model_alias(run, ALIAS, version)
    return f"{run}: version {version} is the champion, with {score}"


def in_words(name: str, result: Result) -> str:
    """A score on the test clips, and on those that it was chosen by, where these are others."""
    entry = result[0][name]
    return f"{entry['value']:.3g}" + (f" ({entry['val']:.3g} on val)" if "val" in entry else "")


def lead_in_words(name: str, new: Result, best: Result) -> str:
    lead, needed = lead_of(name, new, best)
    return f"a lead of {lead:.2g} where more than {needed:.2g} is needed"


def defeat_in_words(name: str, new: Result, best: Result | None) -> str:
    """The reason why the champion with the result `best` gives way."""
    if best is None:
        return "was deleted from MLflow"
    if name not in best[0]:
        return f"had no {name}"
    had = f"had {in_words(name, best)}"
    if reasons := differences(name, new[1], best[1]):
        return f"{had}, which cannot be compared: {'; '.join(reasons)}"
    return f"{had}, {lead_in_words(name, new, best)}"


def register(client, run: str, run_id: str) -> str:
    """The version of the model that MLflow run `run_id` made; created if there is none."""
    if not client.search_registered_models(f"name = '{run}'"):
        client.create_registered_model(run)
    versions = client.search_model_versions(f"name = '{run}' and run_id = '{run_id}'")
    version = versions[0] if versions else client.create_model_version(run, f"runs:/{run_id}/model", run_id)
    return str(version.version)


def result_of(client, experiment: str, run: str, run_id: str) -> Result | None:
    """The result that stage `evaluate` recorded with MLflow run `run_id`; None if that run was deleted."""
    if is_deleted(client, experiment, run_id):
        return None
    with tempfile.TemporaryDirectory() as folder:
        return read_result(Path(client.download_artifacts(run_id, "evaluation", folder)), run)


def is_deleted(client, experiment: str, run_id: str) -> bool:
    """True if an MLflow run is in the UI's trash, or gone for good: neither is found by a search."""
    return not client.search_runs([experiment], f"attributes.run_id = '{run_id}'")


def read_result(folder: Path, run: str) -> Result:
    values, manifest = read_json(folder / f"{run}.json"), read_json(folder / f"{run}.manifest.json")
    return with_scores(values, manifest), manifest


def is_better(name: str, new: Result, best: Result) -> bool:
    """True if the lead of `new` is larger than noise explains, or if the two cannot be compared."""
    if name not in best[0] or differences(name, new[1], best[1]):
        return True
    lead, needed = lead_of(name, new, best)
    return lead > needed


def lead_of(name: str, new: Result, best: Result) -> tuple[float, float]:
    """(lead of `new` over `best`, two standard errors of it). A score is a mean over draws, with their sd.

    It is that on val where both have one: the best of many models looks better than it is where it was chosen.
    """
    entries = [metrics[name] for metrics, _ in (new, best)]
    value, sd = ("val", "val_sd") if all("val" in entry for entry in entries) else ("value", "sd")
    difference = entries[0][value] - entries[1][value]
    num_draws = [manifest.get("num_draws", 1) for _, manifest in (new, best)]
    variance = sum(entry.get(sd, 0.0) ** 2 / n for entry, n in zip(entries, num_draws, strict=True))
    return -difference if lower_is_better(name) else difference, 2 * math.sqrt(variance)


def fetch(run: str, out: Path) -> str:
    """Write the champion's released model to the folder `out`; returns its version. Raises InputError if there is no
    champion, if its MLflow run was deleted, or if there is no answer."""
    check_out(out)
    with tempfile.TemporaryDirectory() as folder:
        with errors_as_input_error("start it, or name yours in MLFLOW_TRACKING_URI"):
            client, experiment = connect()
            if not (champion := champion_of(client, run)):
                raise InputError(
                    f"{run}: no champion in MLflow at {uri()}; `dvc repro evaluate@{run}` makes the first"
                )
            if is_deleted(client, experiment, champion.run_id):
                raise InputError(
                    f"{run}: the MLflow run of its champion, version {champion.version}, was deleted; restore it in "
                    "`make ui`, or train again: the next model that is scored becomes the champion"
                )
            downloaded = client.download_artifacts(champion.run_id, "model", folder)
        with atomic_folder(out) as new:
            # Until models became loadable by MLflow, their files lay in the folder itself.
            released = next(Path(downloaded).glob("artifacts/*"), downloaded)
            shutil.copytree(released, new, dirs_exist_ok=True)
    return str(champion.version)
