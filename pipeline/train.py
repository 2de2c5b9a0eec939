"""Train a run on the training clips of its data set and release models/<run>/. The same command resumes.

Under `torchrun --nproc-per-node=2 -m pipeline.train <run>` two processes share each batch.
"""

import contextlib
import functools
from pathlib import Path

import torch

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.files import write_json
from hrvgan.nn import checkpoint
from hrvgan.nn.base import VideoGAN
from hrvgan.training import distributed
from hrvgan.training.loop import train
from hrvgan.training.session import new_model
from pipeline import params, stage
from pipeline.resume_state import resume_folder
from pipeline.tracking import record
from pipeline.tracking.mlflow_logger import MLflowLogger

# Signature of what params.yaml may set in section train: the seed is the run's, the loggers are added here.
SETTABLE = functools.partial(train, seed=0, log_losses=None, log_samples=None)


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
    with resume_folder(run, gan, store, config) as resume:
        state, is_first = resume / "state.pt", distributed.rank() == 0
        arguments, logger = {**config["train"], "seed": config["seed"]}, contextlib.nullcontext()
        if is_first:  # Of several processes only the first one logs.
            logger = MLflowLogger(run, gan.arguments, str(params.device(config)), resume / "run_id")
            arguments |= {"log_losses": logger.losses, "log_samples": logger.samples}
        with logger:
            with params.blamed(where):
                average, history = train(gan, store.split("train"), state, **arguments)
            if is_first:
                data = {"dataset": config["dataset"], "data_digest": store.digest}
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


if __name__ == "__main__":
    stage.run(main, __doc__, argument="run")
