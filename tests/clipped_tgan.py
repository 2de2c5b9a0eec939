"""TGAN's clipping in several processes, each of which has seen clips of its own.

torchrun --nproc-per-node=2 clipped_tgan.py FOLDER
"""

import sys
from pathlib import Path

import torch

from hrvgan.models import build_model
from hrvgan.training import distributed


def run(folder: Path) -> None:
    """Leaves D's state in a file a process."""
    torch.manual_seed(0)
    gan = build_model("tgan", size=32, num_frames=16, width=0.05, clip_every=1)
    with distributed.joined(torch.device("cpu")):
        torch.manual_seed(1 + distributed.rank())
        gan.D((1 + distributed.rank()) * torch.randn(4, 3, 16, 32, 32))  # Batch norms take notice of it.
        gan.clip(0)
    torch.save(gan.D.state_dict(), folder / f"{distributed.rank()}.pt")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
