"""What of a training step is not training: waiting for data, the average of G, reporting.

    python -m benchmarks.overhead [--steps 60]

Trains the laptop's run of params.yaml on a small set of shapes. The wait is what the loop itself reports, of all steps
but the first ten; the average and a report are timed by themselves, on the same networks. The bar is 3 % together.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from hrvgan.clipstore.clips import Clips
from hrvgan.datasets import shapes
from hrvgan.extraction.extract import extract
from hrvgan.extraction.videos import write_videos_csv
from hrvgan.nn.base import VideoGAN
from hrvgan.training.ema import update_average
from hrvgan.training.loop import distance, train
from hrvgan.training.session import Meter, new_model

PARAMS = Path(__file__).parents[1] / "params.yaml"
LOG_EVERY, NUM_TERMS = 10, 12


def trained(root: Path, params: dict, steps: int) -> tuple[VideoGAN, float, float]:
    """(the model, seconds a step, share of these spent waiting for data)."""
    write_videos_csv(root / "videos.csv", shapes.fetch(root, num_groups=6, videos_per_group=2))
    extract(root, root / "clips", **params["extract"])
    clips, run = Clips(root / "clips").split("train"), params["runs"]["laptop"]
    gan = new_model(clips, run["model"], preset=run["preset"], net=run["net"], seed=0)
    recipe = params["train"] | {"steps": steps, "log_every": LOG_EVERY, "save_every": LOG_EVERY * 10**5}
    said: list[dict[str, float]] = []
    train(gan, clips, root / "state.pt", **recipe, log_losses=lambda _, values: said.append(values))
    rate, wait = (
        statistics.mean(values[f"speed/{name}"] for values in said[1:]) for name in ("clips_per_s", "data_wait")
    )
    return gan, recipe["batch_size"] / rate, wait


def seconds(function: Callable[[], object], rounds: int = 20) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def report(gan: VideoGAN, average: torch.nn.Module) -> None:
    """What the loop does for every report, with as many terms as it has."""
    meter = Meter(gan.device)
    for _ in range(LOG_EVERY):
        meter.add({f"term {number}": torch.ones(()) for number in range(NUM_TERMS)})
    meter.means(), distance(average, gan.G)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        gan, step, wait = trained(Path(root), yaml.safe_load(PARAMS.read_text()), arguments.steps)
    average = copy.deepcopy(gan.G)
    shares = {
        "waiting for data": wait,
        "the average of G": seconds(lambda: update_average(average, gan.G, 0.99)) / step,
        "reporting": seconds(lambda: report(gan, average)) / LOG_EVERY / step,
    }
    print(f"\na step of the laptop's run: {1e3 * step:.0f} ms")
    for name, share in (shares | {"together": sum(shares.values())}).items():
        print(f"{name:<17} {share:7.2%}")


if __name__ == "__main__":
    main()
