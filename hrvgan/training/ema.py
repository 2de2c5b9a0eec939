"""The average of G over its training: what is released and drawn from."""

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

BATCHES, BATCH_SIZE = 16, 16  # of which the statistics of batch norms are made


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
    for kept, new in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(new)


@torch.no_grad()
def distance(average: nn.Module, module: nn.Module) -> float:
    """|average - weights| / |weights|: near 0 means that the average is as noisy as the weights."""
    weights = list(module.parameters())
    apart = torch._foreach_sub(list(average.parameters()), weights)
    norms = [torch.nn.utils.get_total_norm(tensors) for tensors in (apart, weights)]
    return float(norms[0] / norms[1])


@contextmanager
def in_place_of_g(gan: VideoGAN, network: nn.Module) -> Iterator[None]:
    """`gan` draws with `network` for the time of the block."""
    trained, gan.G = gan.G, network
    try:
        yield
    finally:
        gan.G = trained


@torch.no_grad()
def with_own_statistics(gan: VideoGAN, average: nn.Module, clips: Clips) -> nn.Module:
    """`average` as it is to be drawn from: where it has batch norms a copy whose running statistics are its own, means
    over 16 batches of 16 latents, the same ones always, of all classes in turn. What training leaves behind belongs
    to other weights.

    A model that predicts is given first frames of `clips`, and their classes.
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
    with in_place_of_g(gan, settled):
        z, c, some = gan.latent(BATCHES * BATCH_SIZE, seed=0), gan.cycle_labels(BATCHES * BATCH_SIZE), None
        if gan.context:
            some = all_over(clips)
            c = torch.from_numpy(clips.labels[some])
        for rows in torch.arange(len(z)).split(BATCH_SIZE):
            given = [] if some is None else [first_frames(gan, clips, some[rows])]
            gan.generate(z[rows].to(gan.device), c[rows].to(gan.device), *given)
    for name in norms:
        settled.get_submodule(name).momentum = average.get_submodule(name).momentum
    return settled.eval()


def all_over(clips: Clips) -> np.ndarray:
    """Which clips to go on from: all over the set, and so over its classes, in each batch."""
    some = np.linspace(0, len(clips) - 1, BATCHES * BATCH_SIZE).astype(int)
    return some.reshape(BATCH_SIZE, BATCHES).T.flatten()


def first_frames(gan: VideoGAN, clips: Clips, some: np.ndarray) -> torch.Tensor:
    """Those that a model which predicts is given of `some` of the clips."""
    return to_float(torch.from_numpy(clips.read(some)[:, : gan.context]).to(gan.device))
