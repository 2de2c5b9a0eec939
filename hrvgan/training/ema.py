"""EMA (exponential moving average) of G: the weights that are released and sampled from."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hrvgan.clipstore.clips import Clips
from hrvgan.clipstore.layout import to_float
from hrvgan.nn.base import VideoGAN

BATCHES, BATCH_SIZE = 16, 16  # for the running statistics of batch norms


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
    for kept, new in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(new)


@torch.no_grad()
def distance(average: nn.Module, module: nn.Module) -> float:
    """Relative distance |average - weights| / |weights|; near 0 the average is as noisy as the weights."""
    weights = list(module.parameters())
    differences = torch._foreach_sub(list(average.parameters()), weights)
    norms = [torch.nn.utils.get_total_norm(tensors) for tensors in (differences, weights)]
    return float(norms[0] / norms[1])


@contextmanager
def swapped_generator(gan: VideoGAN, network: nn.Module) -> Iterator[None]:
    """`gan` generates with `network` in place of G for the time of the block."""
    trained, gan.G = gan.G, network
    try:
        yield
    finally:
        gan.G = trained


@torch.no_grad()
def with_batch_norm_statistics(gan: VideoGAN, average: nn.Module, clips: Clips) -> nn.Module:
    """`average`, or where it has batch norms a copy whose running statistics are recomputed: means over 16 batches of
    16 fixed latents of all classes in turn. Those accumulated in training belong to other weights.

    A prediction model gets the first frames of `clips`, and their classes.
    """
    norms = [name for name, module in average.named_modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return average
    settled = copy.deepcopy(average).eval()
    for name in norms:
        norm = settled.get_submodule(name)
        norm.reset_running_stats()
        norm.momentum = None  # A mean over all batches.
        norm.train()
    with swapped_generator(gan, settled):
        z, c, numbers = gan.latent(BATCHES * BATCH_SIZE, seed=0), gan.cycle_labels(BATCHES * BATCH_SIZE), None
        if gan.context:
            numbers = spread_over(clips)
            c = torch.from_numpy(clips.labels[numbers])
        for rows in torch.arange(len(z)).split(BATCH_SIZE):
            context = [] if numbers is None else [first_frames(gan, clips, numbers[rows])]
            gan.generate(z[rows].to(gan.device), c[rows].to(gan.device), *context)
    for name in norms:
        settled.get_submodule(name).momentum = average.get_submodule(name).momentum
    return settled.eval()


def spread_over(clips: Clips) -> np.ndarray:
    """Clip numbers such that each batch spans the whole set, and so its classes."""
    numbers = np.linspace(0, len(clips) - 1, BATCHES * BATCH_SIZE).astype(int)
    return numbers.reshape(BATCH_SIZE, BATCHES).T.flatten()


def first_frames(gan: VideoGAN, clips: Clips, numbers: np.ndarray) -> torch.Tensor:
    """The context frames (N, 3, context, H, W) of the clips `numbers`, for a prediction model."""
    return to_float(torch.from_numpy(clips.read(numbers)[:, : gan.context]).to(gan.device))
