"""Train a run on the training clips of its data set and release models/<run>/. The same command resumes.

Under `torchrun --nproc-per-node=2 -m pipeline.train <run>` two processes share each batch.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from hrvgan import checkpoint
from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.nn.base import VideoGAN
from hrvgan.training import distributed
from hrvgan.training.loop import identity, train
from hrvgan.training.session import new_model
from pipeline import params, stage
from pipeline.resume_state import resume_folder
from pipeline.tracking.mlflow_logger import Recorder
from pipeline.training_cost import record_effort

# What section train and the run's own may say: its seed stands in the run, the rest is done here.
SETTABLE = functools.partial(train, seed=0, log_losses=None, log_samples=None)


def main(run: str) -> None:
    config = params.run(run)
    store = Clips(Path("data/clips") / config["dataset"])
    where = f"train or runs.{run}.train"
    params.accept(SETTABLE, config["train"], where=where, given=3)
    with params.blamed(f"runs.{run}"):
        gan = new_model(
            store, config["model"], preset=config["preset"], net=config["net"], seed=config["seed"],
            init_from=released(config["init_from"]),
        )  # fmt: skip
    require_test_clips(gan, store)
    with resume_folder(run, gan, store, config) as resume:
        go_on(run, gan, store, config, resume, where)


def go_on(run: str, gan: VideoGAN, store: Clips, config: dict, resume: Path, where: str) -> None:
    """Train from what lies in `resume`, or from the start, to the end; release the model."""
    with recorded(run, gan, config, resume) as logs:
        loop = functools.partial(train, seed=config["seed"], **logs)
        average, history = params.call(
            loop, gan, store.split("train"), resume / "state.pt", where=where, values=config["train"]
        )
        if distributed.rank() == 0:
            data = {"dataset": config["dataset"], "data_digest": store.digest}
            checkpoint.release(Path("models") / run, gan, average, history, data)
    if distributed.rank() == 0:
        batch_size = identity(gan, store, **config["train"])["batch_size"]
        record_effort(run, resume / "state.pt", batch_size, gan.device)


@contextlib.contextmanager
def recorded(run: str, gan: VideoGAN, config: dict, resume: Path) -> Iterator[dict[str, Callable]]:
    """The arguments of `train` by which MLflow hears of it; of several processes the first one speaks."""
    if distributed.rank():
        yield {}
        return
    device = str(params.device(config))
    recorder = Recorder(run, gan.arguments, device, resume / "run_id")
    try:
        yield {"log_losses": recorder.losses, "log_samples": recorder.samples}
    except BaseException:
        recorder.abandon()
        raise
    recorder.finish(Path("models") / run)


def require_test_clips(gan: VideoGAN, store: Clips) -> None:
    """Raises InputError where stages after this one would, after all the training."""
    if gan.context and not len(store.split("test")):
        raise InputError(
            f"{store.folder}: no test clips, by which a model that predicts is scored; "
            "raise extract.test_fraction, or give the data set more groups (source videos) a class"
        )


def released(init_from: str) -> str:
    """The released model to start from; "" where `init_from` is the model's own file, which draws new weights."""
    return "" if Path(init_from).suffix == ".py" else init_from


if __name__ == "__main__":
    stage.run(main, __doc__, argument="run")
