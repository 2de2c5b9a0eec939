"""Train a run on the training clips of its data set and release models/<run>/. The same command resumes."""

import functools
import hashlib
import json
import sys
from pathlib import Path

import torch

from hrvgan import checkpoint
from hrvgan.datasets.clips import Clips
from hrvgan.files import atomic_folder
from hrvgan.models import build_model
from hrvgan.training import pick_device, train
from pipeline import params, stage
from pipeline.tracking import Recorder

# Arguments of the training that do not change what a step does: with others, a training goes on where it is.
FREE = ("steps", "log_every", "save_every", "sample_every", "samples_per_class", "device")


def main(run: str) -> None:
    config = params.run(run)
    store = Clips(Path("data/clips") / config["dataset"])
    clips = store.split("train")
    torch.manual_seed(config["seed"])
    given = {"num_classes": store.num_classes, "size": store.shape[1], **config["net"]}
    gan = build_model(config["model"], preset=config["preset"], **given)
    gan.classes, gan.fps = store.classes if gan.num_classes else [], store.fps
    resume = resume_folder(run, gan, store, config)
    recorder = Recorder(
        run, gan.arguments, str(pick_device(config["train"].get("device", "auto"))), resume / "run_id"
    )
    try:
        loop = functools.partial(
            train, seed=config["seed"], log_losses=recorder.losses, log_samples=recorder.samples
        )
        average, history = params.call(
            loop, gan, clips, resume / "state.pt", where=f"train or runs.{run}.train", values=config["train"]
        )
        data = {"dataset": config["dataset"], "data_digest": store.digest}
        with atomic_folder(Path("models") / run) as folder:
            checkpoint.release(folder, gan, average, history, data)
    except BaseException:
        recorder.abandon()
        raise
    recorder.finish(Path("models") / run)


def resume_folder(run: str, gan, store: Clips, config: dict) -> Path:
    """Where the state of exactly this training lies: another if model, data, seed or a training argument differs.

    Its length is no part of the name, so that asking for more steps continues.
    """
    fixed = {key: value for key, value in config["train"].items() if key not in FREE}
    identity = [gan.name, gan.arguments, store.digest, config["seed"], fixed]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    states = stage.state_folder() / "resume"
    folder = states / f"{run}-{key}"
    if (folder / "state.pt").exists():
        print(f"{run}: going on from {folder / 'state.pt'}", file=sys.stderr)
    elif any(states.glob(f"{run}-*/state.pt")):
        print(f"{run}: model, data or parameters are new, so training starts anew (old states stay in {states})",
              file=sys.stderr)  # fmt: skip
    return folder


if __name__ == "__main__":
    stage.run(main, __doc__, argument="run")
