"""Train a run on the training clips of its data set and release models/<run>/. The same command resumes.

With `train.processes` in params.yaml, or under `torchrun --nproc-per-node=2 -m pipeline.train <run>`, several processes
share each batch.
"""

import contextlib
import functools
import logging
import os
import signal
import sys
import uuid
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.evaluation.snapshots import snapshot_score
from hrvgan.files import write_json
from hrvgan.nn import checkpoint
from hrvgan.nn.base import VideoGAN
from hrvgan.training import distributed
from hrvgan.training.loop import CALLBACKS, kept_step, train
from hrvgan.training.session import new_model
from pipeline import params, stage
from pipeline.resume_state import resume_folder
from pipeline.tracking import record
from pipeline.tracking.mlflow_logger import MLflowLogger

# Signature of what params.yaml may set in section train: the seed is the run's, the loggers are added here.
SETTABLE = functools.partial(train, seed=0, **dict.fromkeys(CALLBACKS))


def main(run: str) -> None:
    config = params.run(run)
    store = Clips(Path("data/clips") / config["dataset"])
    where = f"train or runs.{run}.train"
    params.accept(SETTABLE, config["train"], where)
    # The model's own file in place of a released one means new weights.
    init_from = "" if config["init_from"].endswith(".py") else config["init_from"]
    with params.blamed(f"runs.{run}"):
        gan = new_model(
            store, config["model"], preset=config["preset"], net=config["net"], seed=config["seed"],
            init_from=init_from,
        )  # fmt: skip
    require_test_clips(gan, store)
    require_reference(run, config)
    score = snapshot_score(gan, config["score_with"]) if config["train"].get("score_every") else None
    with resume_folder(run, gan, store, config) as resume:
        state, is_first = resume / "state.pt", distributed.rank() == 0
        arguments, logger = {**config["train"], "seed": config["seed"], "score": score}, contextlib.nullcontext()
        if is_first:  # Of several processes only the first one logs.
            logger = MLflowLogger(run, gan.arguments, str(params.device(config)), gan.fps, resume / "run_id")
            arguments |= {"log_losses": logger.losses, "log_samples": logger.samples}
        with logger:
            with params.blamed(where):
                average, history = train(gan, store.split("train"), state, **arguments)
            if is_first:
                data = {"dataset": config["dataset"], "data_digest": store.digest}
                data |= kept_step(history, arguments.get("keep"))
                checkpoint.release(Path("models") / run, gan, average, history, data)
        if is_first:
            batch_size = config["train"].get("batch_size", train.__kwdefaults__["batch_size"])
            cost = training_cost(state, batch_size, gan.device)
            write_json(Path("metrics") / f"{run}.training.json", cost)
            record(run, "train")


def training_cost(state: Path, batch_size: int, device: torch.device) -> dict:
    """Steps, clips, seconds and machine of a training, from its last state. They differ from machine to machine, so
    they are not part of the released model."""
    last = torch.load(state, map_location="cpu", weights_only=True, mmap=True)
    clips, seconds = last["step"] * batch_size, last["seconds"]  # seconds of all processes that took turns
    return {
        "steps": last["step"],
        "clips_seen": clips,
        "seconds": seconds,
        "clips_per_s": clips / seconds,
        "machine": machine(device),
    }


def machine(device: torch.device) -> str:
    """Name and number of the GPUs, or the processor's name and the number of threads."""
    if device.type == "cuda":
        return f"{distributed.world_size()} x {torch.cuda.get_device_name(device)}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads() * distributed.world_size()
    return f"{names[0] if names else device.type}, {threads} thread{'' if threads == 1 else 's'}"


def require_test_clips(gan: VideoGAN, store: Clips) -> None:
    """Raises InputError if the evaluation of a predicting model would find no test clips, before the training."""
    if gan.context and not len(store.split("test")):
        raise InputError(
            f"{store.folder}: no test clips, by which a model that predicts is scored; "
            "raise extract.test_fraction, or give the data set more groups (source videos) a class"
        )


def require_reference(run: str, config: dict) -> None:
    """Raises InputError if the run is to be scored while it trains, and names no reference of its data set."""
    wanted, needed = config["train"].get("score_every", 0), f"data/reference/{config['dataset']}"
    if wanted and Path(config["score_with"]) != Path(needed):
        raise InputError(
            f"{params.FILE}: train.score_every {wanted}, but runs.{run}.score_with is {config['score_with']}; "
            f"set it to {needed}, which DVC then makes first, or train.score_every to 0"
        )


def launch(run: str) -> int | None:
    """Run this program in the processes that section train asks for, with "auto" one a GPU of this machine; returns the
    exit code of the first that failed, or 0. None if there is one, or if they have been started already."""
    if "RANK" in os.environ or (number := num_processes(params.run(run))) == 1:
        return None
    # Ctrl-C reaches them all, and each saves; a second signal from here would end them before that.
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGTERM"
    signal.signal(signal.SIGINT, lambda *_: None)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # They say it themselves.
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=number, max_restarts=0, monitor_interval=0.1,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id=uuid.uuid4().hex,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", "pipeline.train", run)
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    return 0


def num_processes(config: dict) -> int:
    if config["processes"] != "auto":
        return config["processes"]
    device = params.device(config)
    return max(1, torch.cuda.device_count()) if device.type == "cuda" and device.index is None else 1


if __name__ == "__main__":
    stage.run(main, __doc__, argument="run", launch=launch)
