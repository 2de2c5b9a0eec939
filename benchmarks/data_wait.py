"""How much of the time of a training step is spent waiting for data, in the recipe of params.yaml.

    python -m benchmarks.data_wait [--steps 60]

Trains the laptop's run on a small set of shapes. Prints the mean over the steps after the first ten; the bar is 2 %.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import yaml

from hrvgan.datasets import shapes
from hrvgan.datasets.clips import Clips
from hrvgan.datasets.videos import write_videos_csv
from hrvgan.extraction.extract import extract
from hrvgan.training.loop import train
from hrvgan.training.session import new_model

PARAMS = Path(__file__).parents[1] / "params.yaml"


def measure(root: Path, steps: int) -> list[float]:
    """The share of each ten steps."""
    params = yaml.safe_load(PARAMS.read_text())
    run, recipe = (
        params["runs"]["laptop"],
        params["train"] | {"steps": steps, "log_every": 10, "save_every": 10**6},
    )
    write_videos_csv(root / "videos.csv", shapes.fetch(root, num_groups=6, videos_per_group=2))
    extract(root, root / "clips", **params["extract"])
    clips = Clips(root / "clips").split("train")
    gan = new_model(clips, run["model"], preset=run["preset"], net=run["net"], seed=0)
    waits = []
    train(
        gan,
        clips,
        root / "state.pt",
        **recipe,
        log_losses=lambda _, said: waits.append(said["speed/data_wait"]),
    )
    return waits[1:]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data_wait", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--steps", type=int, default=60)
    with tempfile.TemporaryDirectory() as root:
        waits = measure(Path(root), parser.parse_args().steps)
    print(
        f"waiting for data: {statistics.mean(waits):.2%} of the time, at most {max(waits):.2%} of ten steps"
    )


if __name__ == "__main__":
    main()
