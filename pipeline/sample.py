"""Draw the pictures and videos of a trained run into samples/<run>/."""

from pathlib import Path

from hrvgan.checkpoint import load
from hrvgan.files import atomic_folder
from hrvgan.sampling import write_samples
from pipeline import params, stage, tracking


def main(run: str) -> None:
    gan = load(Path("models") / run)
    with atomic_folder(Path("samples") / run) as folder:
        params.call(write_samples, gan, folder, where="sample", values=params.section("sample"))
    tracking.record(run, files=Path("samples") / run, to="samples")


if __name__ == "__main__":
    stage.run(main, __doc__, argument="run")
