"""Distributed training in the processes that `torchrun` starts: NCCL between GPUs, gloo between CPUs.

Without torchrun there is one process, and every function here returns at once. Gradients are averaged by hand: DDP's
wrapper does not see those of `torch.autograd.grad`, of which gradient penalties are made."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from hrvgan.errors import InputError


def rank() -> int:
    """The rank of this process; rank 0 writes files and logs."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Joins the process group of torchrun for the time of the block; yields the device of this process."""
    if device.index is not None and int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > 1:
        raise InputError(f"device {str(device)!r}: each process of a training takes a GPU of its own; write cuda")
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
    """Replaces each tensor by its mean over all processes, in one message: many small ones take longer."""
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.div_(world_size()).split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])


def broadcast_from_rank0(value: float) -> float:
    """The `value` of rank 0, in every process."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]
