"""Several processes on one training, as `torchrun` starts them: NCCL between GPUs, gloo between CPUs.

Without torchrun there is one process, and nothing here does anything. Gradients are averaged by hand: DDP's wrapper
does not see those of `torch.autograd.grad`, of which gradient penalties are made.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from hrvgan.errors import InputError


def rank() -> int:
    """The number of this process. 0 writes and speaks for all."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Joins the processes that torchrun started, for the time of the block; yields this one's own device."""
    if device.index is not None and int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > 1:
        raise InputError(
            f"device {str(device)!r}: each process of a training takes a GPU of its own; write cuda"
        )
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if world_size() == 1:
        yield device
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
        dist.barrier()  # Nobody leaves while another still writes.
    finally:
        dist.destroy_process_group()


def average_(tensors: list[Tensor]) -> None:
    """Puts the mean over the processes in place of each tensor. In one message: many small ones take longer."""
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.div_(world_size()).split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])


def word_of_first(value: float) -> float:
    """The `value` of process 0, for all."""
    said = [value]
    if world_size() > 1:
        dist.broadcast_object_list(said)
    return said[0]
