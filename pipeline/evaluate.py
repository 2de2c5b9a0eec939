"""Score a trained run against the real clips of its data set: metrics/<run>.json and <run>.manifest.json."""

from pathlib import Path

from hrvgan.checkpoint import load
from hrvgan.evaluation import evaluate, table
from hrvgan.files import file_digest, write_json
from pipeline import params, stage, tracking


def main(run: str) -> None:
    model = Path("models") / run
    reference = Path("data/reference") / params.run(run)["dataset"]
    metrics, manifest = params.call(
        evaluate, load(model), reference, where="evaluate", values=params.section("evaluate")
    )
    manifest |= {"run": run, "model_digest": file_digest(model / "model.safetensors")}
    metrics_file, manifest_file = Path("metrics") / f"{run}.json", Path("metrics") / f"{run}.manifest.json"
    write_json(manifest_file, manifest)
    write_json(metrics_file, metrics)
    print(table(metrics))
    for reason in manifest["ungated"]:
        print(f"not to be believed: {reason}")
    for note in manifest["notes"]:
        print(f"note: {note}")
    tracking.log_evaluation(run, metrics, files=(metrics_file, manifest_file))


if __name__ == "__main__":
    stage.run(main, __doc__, argument="run")
