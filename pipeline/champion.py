"""The best model of a run so far, whatever the last training came to: in MLflow's registry every scored model of a run
is a version of it, and the best one has the alias "champion".

    python -m pipeline.champion laptop --out champion/laptop      # its released model, as a folder to draw from
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from hrvgan.checkpoint import check_out
from hrvgan.errors import InputError, first_line, one_sentence
from hrvgan.files import atomic_folder
from hrvgan.metrics.comparability import differences
from pipeline import tracking
from pipeline.report.score_display import lower_is_better

ALIAS = "champion"
DECIDES = ("refnet_fd", "predict_psnr")  # the first that a model has
Result = tuple[dict, dict]  # (metrics, manifest)


def contend(run: str) -> None:
    """`crown`, which says so, and stops nothing, when the registry is away."""
    try:
        print(crown(run))
    except Exception as error:  # The model and its scores are on disk and recorded.
        sys.stderr.write(
            f"warning: {run} is not registered in MLflow at {tracking.uri()} ({first_line(error)})\n"
        )


def crown(run: str) -> str:
    """Registers models/<run> with its scores; it becomes the champion if it is better than the one there is, or if that
    was scored by another yardstick (new clips, another network). Returns what has become of it, as a sentence."""
    client, experiment = tracking.connect()
    run_id = tracking.run_of(client, experiment, run)
    version = register(client, run, run_id)
    champion = champion_of(client, run)
    result = tuple(tracking.read(Path("metrics") / f"{run}{kind}.json") for kind in ("", ".manifest"))
    name = next((name for name in DECIDES if name in result[0]), "")
    if not (name and result[0].get("gated")):
        return f"{run}: version {version}, whose scores may not be believed, is no champion"
    score = f"{name} {result[0][name]['value']:.3g}"
    if champion and champion.run_id != run_id:
        theirs = result_of(client, run, champion.run_id)
        had = f"{theirs[0][name]['value']:.3g}" if name in theirs[0] else "none"
        if not is_better(name, result, theirs):
            return f"{run}: version {champion.version} stays the champion, with {had}; version {version} has {score}"
        score += f"; version {champion.version} had {had}"
    client.set_registered_model_alias(run, ALIAS, version)
    return f"{run}: version {version} is the champion, with {score}"


def register(client, run: str, run_id: str) -> str:
    """The version of the model that MLflow's run `run_id` made."""
    if not client.search_registered_models(f"name = '{run}'"):
        client.create_registered_model(run)
    known = client.search_model_versions(f"name = '{run}' and run_id = '{run_id}'")
    made = known[0] if known else client.create_model_version(run, f"runs:/{run_id}/model", run_id)
    return str(made.version)


def champion_of(client, run: str):
    """Its version in the registry, or None."""
    found = client.search_registered_models(f"name = '{run}'")
    version = found[0].aliases.get(ALIAS) if found else None
    return client.get_model_version(run, version) if version else None


def result_of(client, run: str, run_id: str) -> Result:
    """What stage `evaluate` recorded with it."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(client.download_artifacts(run_id, "evaluation", folder))
        return tracking.read(there / f"{run}.json"), tracking.read(there / f"{run}.manifest.json")


def is_better(name: str, ours: Result, theirs: Result) -> bool:
    if name not in theirs[0] or differences(name, ours[1], theirs[1]):
        return True
    values = [metrics[name]["value"] for metrics in (ours[0], theirs[0])]
    return values[0] < values[1] if lower_is_better(name) else values[0] > values[1]


def fetch(run: str, out: Path) -> str:
    """Writes the released model of the champion of `run` to the folder `out`; returns its version."""
    check_out(out)
    client, _ = tracking.connect()
    champion = champion_of(client, run)
    if champion is None:
        raise InputError(
            f"{run}: no champion in MLflow at {tracking.uri()}; `dvc repro evaluate@{run}` makes the first"
        )
    with tempfile.TemporaryDirectory() as folder, atomic_folder(out) as new:
        downloaded = client.download_artifacts(champion.run_id, "model", folder)
        shutil.copytree(downloaded, new, dirs_exist_ok=True)
    return str(champion.version)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.champion", description="Get the best model of a run so far from MLflow's registry."
    )  # fmt: skip
    parser.add_argument("run", help="a name that `runs` of params.yaml has, or had")
    parser.add_argument("--out", type=Path, help="folder to write the released model to: champion/<run>")
    arguments = parser.parse_args()
    out = arguments.out or Path("champion") / arguments.run
    with one_sentence():
        version = fetch(arguments.run, out)
        steps = json.loads((out / "model.json").read_text())["steps"]
        print(
            f"{out}: version {version} of {arguments.run}, {steps} steps; `hrvgan sample {out} --out clips.mp4`"
        )


if __name__ == "__main__":
    main()
