"""A small finished project to report on: real stores, models and videos in the folders of the graph."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml

from hrvgan.clipstore.clips import Clips
from hrvgan.clipstore.writer import Clip, motion, write_clips
from hrvgan.evaluation.gates import Gate
from hrvgan.files import write_json
from hrvgan.metrics import PROTOCOLS
from hrvgan.metrics.protocols import write_result
from hrvgan.models import build_model
from hrvgan.nn.base import VideoGAN
from hrvgan.nn.checkpoint import release
from hrvgan.sampling.samples import write_samples
from tests import processes

ROOT = Path(__file__).parents[1]
SPLITS = ("train", "train", "train", "val", "test")
FRAMES, SIZE, FPS = 8, 16, 8.0
DIRECTIONS = {"Left": (0, -1), "Right": (0, 1), "Up": (-1, 0), "Down": (1, 0)}
SCORES = {
    "refnet_fd": {"value": 31.42, "sd": 1.37, "floor": 4.61, "train": 35.08, "trivial_best": 88.1},
    "refnet_kid": {"value": 0.4213, "sd": 0.0312, "floor": -0.0021, "train": 0.4633, "trivial_best": 1.204},
    "refnet_is": {"value": 2.61, "sd": 0.08, "ceiling": 3.87},
    "refnet_acc": {"value": 0.86, "sd": 0.022, "real": 0.995, "chance": 0.25},
}


def square(direction: str, seed: int) -> np.ndarray:
    """A bright square that moves, uint8 (T, H, W, 3)."""
    colour = np.array([(255, 92, 72), (72, 222, 118), (86, 148, 255)][seed % 3])
    y, x = np.mgrid[:SIZE, :SIZE]
    centres = np.linspace(-5, 5, FRAMES)[:, None] * DIRECTIONS[direction] + SIZE / 2
    inside = np.stack([np.maximum(abs(y - cy), abs(x - cx)) < 4 for cy, cx in centres])
    return np.where(inside[..., None], colour, (14, 16, 30)).astype(np.uint8)


def make_project(folder: Path, runs: dict[str, str], labelled: bool = True) -> None:
    """`runs`: name -> data set. Everything that the stages before the report would have left in `folder`."""
    datasets = sorted(set(runs.values()))
    write_params(folder, runs)
    for number, dataset in enumerate(datasets):
        make_store(folder / "data/clips" / dataset, first_seed=100 * number, labelled=labelled)
    for number, (run, dataset) in enumerate(runs.items()):
        clips = Clips(folder / "data/clips" / dataset)
        gan = make_model(folder / "models" / run, clips, dataset, seed=number)
        write_samples(gan, folder / "samples" / run, clips_per_class=2, interpolation_steps=3)
        make_scores(folder / "metrics", run, clips)


def write_params(folder: Path, runs: dict[str, str]) -> None:
    dataset = {"source": "folder", "watch": "data/videos", "options": {}, "clips": {}}
    run = {
        "model": "hrvgan",
        "preset": "best",
        "seed": 0,
        "init_from": "",
        "score_with": "",
        "net": {"size": SIZE},
        "train": {"steps": 1700},
        "sample": {},
        "evaluate": {},
    }
    sections = {name: {} for name in ("extract", "reference", "train", "sample", "evaluate", "report")}
    params = {"datasets": dict.fromkeys(runs.values(), dataset), **sections}
    params["runs"] = {name: {**run, "dataset": dataset} for name, dataset in runs.items()}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def make_store(folder: Path, first_seed: int, labelled: bool, splits: Sequence[str] = SPLITS) -> None:
    names = list(DIRECTIONS) if labelled else []
    clips = [
        make_clip(direction, split, first_seed + number, labelled)
        for direction in DIRECTIONS
        for number, split in enumerate(splits)
    ]
    write_clips(folder, clips, shape=(FRAMES, SIZE, SIZE, 3), classes=names, num_shards=1)


def make_clip(direction: str, split: str, seed: int, labelled: bool) -> Clip:
    frames, name = square(direction, seed), f"{direction}{seed}"
    label = direction if labelled else ""
    return Clip(name, name, label, "0" * 32, split, f"g{seed}", 0, 1, FPS, motion(frames), frames)


def make_model(folder: Path, clips: Clips, dataset: str, seed: int) -> VideoGAN:
    """An untrained model, released with a history that looks like a training."""
    gan = build_model("hrvgan", num_classes=clips.num_classes, size=SIZE, width=0.05, z_dim=8)
    gan.classes, gan.fps = clips.classes, clips.fps
    draw, steps = np.random.default_rng(seed), np.arange(10, 1710, 10)
    decay = 0.7 + np.exp(-steps / 300)
    history = [
        {
            "step": int(step),
            "loss/d/adv": float(level + draw.normal(0, 0.08)),
            "loss/g/adv": float(2.2 - level + draw.normal(0, 0.15)),
        }
        | ({"loss/d/r1": float(0.02 * draw.gamma(2) * level)} if step % 20 == 0 else {})
        for step, level in zip(steps, decay, strict=True)
    ]
    folder.mkdir(parents=True)
    release(folder, gan, gan.G, history, {"dataset": dataset, "data_digest": clips.digest})
    return gan


def make_scores(folder: Path, run: str, clips: Clips, gated: bool = True) -> None:
    """The files of stage `evaluate`, with numbers that can be found on the page."""
    undefined = () if clips.classes else ("refnet_is", "refnet_acc")
    scores = {name: entry for name, entry in SCORES.items() if name not in undefined}
    accuracy = Gate("accuracy", gated, "0.310", "at least 0.625", "it is right about 31.0% of 4 val clips")
    manifest = {
        "extractor": "refnet-0123",
        "real": {"data_digest": clips.digest, "split": "test"},
        "num_real": 2,
        "num_fake": 2,
        "num_draws": 5,
        "protocols": {name: PROTOCOLS[name].text() for name in scores},
        "reference": {"accuracy": {"train": 1.0, "val": 0.31, "test": 0.286}},
        "gates": [asdict(accuracy)],
        "ungated": [] if gated else [f"accuracy: {accuracy.sentence}"],
        "cost": {"G": {"parameters": 938516, "gflop": 0.571}, "D": {"parameters": 3028992, "gflop": 1.52}},
        "notes": ["N = 2 is not above D = 48: refnet_fd is mostly bias, read refnet_kid"],
    }
    write_result(folder / f"{run}.json", {**scores, "gated": gated}, manifest)
    took = {"steps": 1700, "clips_seen": 27200, "seconds": 600.0, "clips_per_s": 45.3, "machine": "a CPU, 2 threads"}
    write_json(folder / f"{run}.training.json", took)


def write_report(folder: Path) -> Path:
    """Run the stage as DVC does; the page that it writes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes.run([sys.executable, "-m", "pipeline.report"], cwd=folder, env=environment)
    return folder / "report/index.html"
