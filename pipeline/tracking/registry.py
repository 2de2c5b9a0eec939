"""Model registry: every evaluated model of a run is a version of its registered model; the best one has the alias
"champion"."""

import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hrvgan.errors import InputError, first_line
from hrvgan.files import atomic_folder
from hrvgan.metrics.protocols import differences, lower_is_better, with_scores, write_result
from hrvgan.nn.checkpoint import check_out
from pipeline.stage import read_json
from pipeline.tracking import (
    ALIAS,
    DECISIVE,
    champion_of,
    connect,
    errors_as_input_error,
    errors_as_warning,
    flatten,
    log_metrics,
    run_id_of,
    uri,
)

Result = tuple[dict, dict]  # (metrics, manifest)
Rescore = Callable[[Path], Result]  # of a released model
BEFORE, RETIRED = "champion_before", "taken_back"  # tags of a version


def try_promote(run: str, rescore: Rescore | None = None) -> None:
    """`promote`, and print the outcome; an unreachable registry is a warning."""
    with errors_as_warning(f"{run} is not registered"):
        print(promote(run, rescore))


def promote(run: str, rescore: Rescore | None = None) -> str:
    """Register models/<run> with its scores. It becomes the champion if it is better than the present one, which is
    scored anew by `rescore` if it was scored on other clips or by another network, or if the two cannot be compared.
    Returns the outcome as a sentence, which is recorded with both rows of scores."""
    client, experiment = connect()
    run_id = run_id_of(client, experiment, run)
    version = register(client, run, run_id)
    champion = champion_of(client, run)
    result, best = read_result(Path("metrics"), run), None
    name = next((name for name in DECISIVE if name in result[0]), "")
    rival = champion if champion and champion.run_id != run_id else None
    if not (name and result[0].get("gated")):
        return f"{run}: version {version}, whose scores may not be believed, is no champion"
    if RETIRED in client.get_model_version(run, version).tags:
        return f"{run}: version {version} was the champion and was taken back, so it is none"
    if rival and (best := result_of(client, experiment, run, rival.run_id)):
        best = comparable(client, run, rival.run_id, name, result, best, rescore)
    score = f"{name} {in_words(name, result)}"
    if best and not is_better(name, result, best):
        sentence = (
            f"{run}: version {rival.version} stays the champion, with {in_words(name, best)}; "
            f"version {version} has {score}, {lead_in_words(name, result, best)}"
        )
    else:
        reason = f"; version {rival.version} {defeat_in_words(name, result, best)}" if rival else ""
        sentence = f"{run}: version {version} is the champion, with {score}{reason}"
        client.set_registered_model_alias(run, ALIAS, version)
        if rival:
            client.set_model_version_tag(run, version, BEFORE, rival.version)
    rows = {version: result[0]} | ({rival.version: best[0]} if best else {})
    client.log_dict(run_id, {"decision": sentence, "versions": rows}, "evaluation/decision.json")
    client.set_model_version_tag(run, version, "decision", sentence)
    return sentence


def comparable(client, run: str, run_id: str, name: str, new: Result, best: Result, rescore: Rescore | None) -> Result:
    """The result of the champion, made by MLflow run `run_id`, by the yardstick of `new`: scored anew, and recorded, if
    it was another one. A champion that cannot be scored so keeps its old result, and the reason is printed."""
    if not rescore or not differences(name, new[1], best[1]):
        return best
    with tempfile.TemporaryDirectory() as folder:
        try:
            metrics, manifest = rescore(download(client, run_id, folder))
        except Exception as error:  # clips of another size, weights of a model that has changed since, ...
            print(f"{run}: the champion cannot be scored anew ({first_line(error)})")
            return best
        write_result(Path(folder) / f"{run}.json", metrics, manifest)
        values = read_json(Path(folder) / f"{run}.json")
        log_metrics(client, run_id, [{"step": 0, **flatten({"metric": values}, "/")}])
        for file in (f"{run}.json", f"{run}.manifest.json"):
            client.log_artifact(run_id, str(Path(folder) / file), "evaluation")
        return read_result(Path(folder), run)


def roll_back(run: str) -> tuple[str, str]:
    """Make the champion before the present one the champion again, which the present one never becomes any more;
    returns the versions of both. Raises InputError if there was none."""
    with errors_as_input_error("start it, or name yours in MLFLOW_TRACKING_URI"):
        client, _ = connect()
        champion = champion_of(client, run)
        if not champion or BEFORE not in champion.tags:
            raise InputError(f"{run}: no champion before {champion.version if champion else 'any'} to go back to")
        before = champion.tags[BEFORE]
        client.set_registered_model_alias(run, ALIAS, before)
        client.set_model_version_tag(run, champion.version, RETIRED, "true")
    return before, str(champion.version)


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


def fetch(run: str, out: Path, version: str = "") -> str:
    """Write the released model of a version, by default the champion, to the folder `out`; returns the version. Raises
    InputError if there is none, if its MLflow run was deleted, or if there is no answer."""
    check_out(out)
    with tempfile.TemporaryDirectory() as folder:
        with errors_as_input_error("start it, or name yours in MLFLOW_TRACKING_URI"):
            client, experiment = connect()
            wanted = version_of(client, run, version) if version else champion_of(client, run)
            if not wanted:
                missing = f"version {version}" if version else "champion"
                raise InputError(
                    f"{run}: no {missing} in MLflow at {uri()}; `dvc repro evaluate@{run}` makes the first"
                )
            if is_deleted(client, experiment, wanted.run_id):
                raise InputError(
                    f"{run}: the MLflow run of its {'version' if version else 'champion, version'} {wanted.version}, "
                    "was deleted; restore it in `make ui`, or train again: the next model that is scored becomes the "
                    "champion"
                )
            downloaded = download(client, wanted.run_id, folder)
        with atomic_folder(out) as new:
            shutil.copytree(downloaded, new, dirs_exist_ok=True)
    return str(wanted.version)


def champions_ever(client, run: str) -> set[str]:
    """The ids of the MLflow runs that made the champion, or one before it."""
    versions = list(client.search_model_versions(f"name = '{run}'"))
    numbers = {version.tags[BEFORE] for version in versions if BEFORE in version.tags}
    champion = champion_of(client, run)
    return {version.run_id for version in versions
            if BEFORE in version.tags or str(version.version) in numbers
            or (champion and version.version == champion.version)}  # fmt: skip


def version_of(client, run: str, version: str):
    """A version of a registered model; None if there is none."""
    versions = client.search_model_versions(f"name = '{run}'")
    return next((found for found in versions if str(found.version) == version), None)


def download(client, run_id: str, folder: str) -> Path:
    """The released model of an MLflow run, in `folder`."""
    downloaded = Path(client.download_artifacts(run_id, "model", folder))
    # Until models became loadable by MLflow, their files lay in the folder itself.
    return next(downloaded.glob("artifacts/*"), downloaded)
