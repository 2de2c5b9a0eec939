"""Generate the pictures and videos of a trained run in samples/<run>/."""

from pathlib import Path

from hrvgan.clipstore.clips import Clips
from hrvgan.files import atomic_folder
from hrvgan.models import load
from hrvgan.sampling.samples import write_predictions, write_samples
from pipeline import params, stage
from pipeline.tracking import record


def main(run: str) -> None:
    config, where = params.run(run), f"sample or runs.{run}.sample"
    gan = load(Path("models") / run, params.device(config))
    values = config["sample"]
    params.accept(write_samples, values, where)  # Also where the model predicts.
    with atomic_folder(Path("samples") / run) as folder:
        if gan.context:
            held_out = Clips(Path("data/clips") / config["dataset"]).split("test")
            write_predictions(gan, held_out, folder, seed=values.get("seed", 0))
        else:
            params.call(write_samples, gan, folder, where=where, values=values)
    record(run, "sample")


if __name__ == "__main__":
    stage.run(main, __doc__, argument="run")
