"""A short training of a network in which no clip sees another: under torchrun each process has a part of the batch.

torchrun --nproc-per-node=2 part_training.py STORE FOLDER
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvgan.clipstore.clips import Clips
from hrvgan.models import build_model
from hrvgan.training import distributed
from hrvgan.training.loop import train

# Everything that draws random numbers, and a penalty by autograd.grad.
MODEL = {
    "num_classes": 8, "size": 32, "width": 0.04, "objective": "logistic", "gp_weight": 10.0, "r1_gamma": 1.0,
    "r2_gamma": 1.0, "r1_every": 2, "instance_noise": 0.1, "augment": "colour,translation,cutout",
}  # fmt: skip


class NoStatistics(nn.Module):
    """In place of the minibatch standard deviation: a map of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, 0, 0, 1))


@contextmanager
def float64() -> Iterator[None]:
    """What is made within is float64: parts then differ by rounding that no processor makes large."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@float64()
def run(store: Path, folder: Path, **arguments) -> None:
    """Leaves state.pt, and one file a process that logged anything."""
    torch.manual_seed(0)
    gan = build_model("hrvgan", **MODEL)
    gan.D.std = NoStatistics()

    def log(kind):
        file = folder / f"{kind}-{distributed.rank()}.json"
        return lambda step, values: file.write_text(json.dumps([step, kind]))

    recipe = {
        "steps": 3, "batch_size": 4, "log_every": 1, "save_every": 3, "precision": "float32", "flip": True,
        "class_balanced": True, **arguments,
    }  # fmt: skip
    train(gan, Clips(store), folder / "state.pt", log_losses=log("losses"), log_samples=log("samples"), **recipe)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
