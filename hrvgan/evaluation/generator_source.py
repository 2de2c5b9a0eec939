"""Clips out of a generator, in chunks that bound the memory and have seeds of their own."""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hrvgan.errors import InputError
from hrvgan.evaluation.sources import Cut
from hrvgan.features.refnet import RefNet, featurise
from hrvgan.metrics.features import Features
from hrvgan.progress import bar

CHUNK = 32  # Clips in memory at a time. Fixed: it decides the seeds, and so the clips.


class Generator(Protocol):
    """What is scored: a VideoGAN, or anything that draws like one."""

    num_classes: int  # 0: takes no label
    classes: list[str]

    def sample(self, n: int, c: Tensor | None = None, seed: int = 0) -> Tensor:
        """uint8 (n, T, H, W, 3) of labels `c` (n,) int64."""


def chunks(gan: Generator, labels: np.ndarray, seed: list[int]) -> Iterator[Tensor]:
    """One clip for each label (N,): uint8 (n, T, H, W, 3), CHUNK at a time."""
    for start in range(0, len(labels), CHUNK):
        c = torch.as_tensor(labels[start : start + CHUNK])
        own_seed = int(np.random.SeedSequence([*seed, start]).generate_state(1)[0])
        yield gan.sample(len(c), c if gan.num_classes else None, seed=own_seed)


def draw_all(
    gan: Generator, net: RefNet, labels: list[np.ndarray], shape: list[int], seed: int
) -> list[Features]:
    """One draw for each array of labels to ask for, each with its own seed."""
    with bar(desc="draw clips", total=sum(map(len, labels)), unit="clip") as progress:
        return [
            draw(gan, net, asked, shape, [seed, number], progress=progress.update)
            for number, asked in enumerate(labels)
        ]


def draw(
    gan: Generator,
    net: RefNet,
    labels: np.ndarray,
    shape: list[int],
    seed: list[int],
    progress: Callable[[int], object] = lambda count: None,
) -> Features:
    """Features of one generated clip for each label (N,). Memory holds CHUNK clips at a time, whatever N."""

    def checked() -> Iterator[Tensor]:
        for videos in chunks(gan, labels, seed):
            if list(videos.shape[1:]) != list(shape):
                made, known = tuple(videos.shape[1:]), tuple(shape)
                remedy = "evaluate it on clips of the shape that it was trained on"
                raise InputError(
                    f"the model makes clips of {made}, the reference network knows {known}; {remedy}"
                )
            yield videos
            progress(len(videos))

    return Features(*featurise(net, checked()), labels, np.arange(len(labels)).astype(str))


class GeneratorSource:
    """A generator as a source of `num` clips (see sources.py), with the classes in the shares of `labels`."""

    digest = ""  # Of real clips only.

    def __init__(self, gan: Generator, labels: np.ndarray, num: int, seed: int):
        self.gan, self.seed, self.name = gan, seed, "generated"
        self.classes = list(gan.classes) if gan.num_classes else []
        shuffled = np.random.default_rng(seed).permutation(labels)
        self.labels = np.resize(shuffled, num)  # Over and over, if there are fewer.
        self.groups = self.videos = np.arange(num).astype(str)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: np.ndarray, cut: Cut) -> Iterator[np.ndarray]:
        done = 0
        for videos in chunks(self.gan, self.labels[rows], [self.seed, int(rows[0])]):
            some = rows[done : done + len(videos)]
            done += len(videos)
            pairs = zip(videos.numpy(), some.tolist(), strict=True)
            yield np.stack([cut(clip, row, f"{self.name}, clip {row}") for clip, row in pairs])
