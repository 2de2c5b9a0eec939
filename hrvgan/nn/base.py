"""The contract between a model and the training loop, sampling and evaluation."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hrvgan.clipstore.layout import to_float, to_uint8
from hrvgan.errors import InputError

MAX_CLASSES = 12  # that pictures show


@dataclass
class Batch:
    """Inputs of one training step. A phase may leave something on it for the next (a fake that both use)."""

    real: Tensor  # (N, C, T, H, W) in [-1, 1]
    c: Tensor  # (N,) int64 labels; zeros when there are no classes
    step: int  # training steps done before this one
    fake: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)  # what else belongs to that fake
    part: tuple[int, int] = (0, 1)  # these are rows of a larger batch: which part, of how many (see ops/batch_rng.py)
    notes: dict[str, Tensor] = field(default_factory=dict)  # to be logged beside the losses: path -> scalar


@dataclass
class Phase:
    """One optimiser step: train `module`, everything else frozen, on the sum of the terms that `loss` returns."""

    name: str  # terms are logged as loss/<name>/<term>
    module: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Batch], dict[str, Tensor]]
    after: Callable[[int], None] = lambda step: None  # after each step, such as clipping weights


class VideoGAN(nn.Module):
    """`G` and `D` (either may be a ModuleDict), the phases that train them, and how clips are drawn from `G`.

    A subclass sets `size` (pixels), `num_frames`, `num_classes` (0 = unconditional), `z_dim` and `presets` (name ->
    constructor arguments).
    """

    presets: ClassVar[dict[str, dict]] = {}
    conditional: ClassVar[bool] = True  # False: has no argument num_classes, whatever classes the clips have

    G: nn.Module
    D: nn.Module
    size: int
    num_frames: int
    num_classes: int
    z_dim: int
    context: int = 0  # first frames that it must be given, and goes on from; 0: it draws from z alone

    in_pairs: bool = False  # its losses compare neighbours 0 and 1, 2 and 3, ... of a batch

    name: str  # in MODELS
    arguments: dict  # of the constructor, all of them: what rebuilds this model
    classes: Sequence[str] = ()  # names of the labels, from the data that it was trained on
    fps: float = 8.0  # of those data's clips
    crop: bool = True  # whether they were cropped to squares, not squashed
    origin: str = ""  # digest of the weights that it started from; "" = drawn anew

    @property
    def z_shape(self) -> tuple[int, ...]:
        """Shape of the latent of one clip."""
        return (self.z_dim,)

    def phases(self) -> list[Phase]:
        """The phases of one training iteration, in order. Makes the optimisers: call it once, on the final device."""
        raise TypeError(f"{type(self).__name__} does not say how it is trained")

    def generate(self, z: Tensor, c: Tensor, *, psi: float = 1.0) -> Tensor:
        """z (N, *z_shape), c (N,) int64 -> clips (N, 3, T, H, W) in [-1, 1]. A conditional model takes weights of its
        classes (N, num_classes), too.

        `psi` below 1 truncates: less variety, fewer failures. Here it scales z, which is right where G sees its length.
        """
        return self.G(z if psi == 1 else z * psi, c)

    def judge(self, clips: Tensor, c: Tensor) -> Tensor:
        """clips (N, 3, T, H, W) in [-1, 1], c (N,) int64 -> (N,): how real D finds them as clips of class c, a logit
        (higher is more real). Every part of D takes part."""
        return self.D(clips, c)

    def imbalance(self, rows: Sequence[dict[str, float]]) -> str:
        """What is wrong with D by the last `rows` of a training's history, as a sentence with what to try; "" where
        nothing is, or where a model cannot say it."""
        return ""

    def take_levels(self, other: "VideoGAN") -> dict[str, str]:
        """Prepares this model for the weights of `other`, a smaller one of its kind, so that it starts as the same
        function: its new levels add nothing yet. Returns beginnings of the names of weights there, and what they are
        here. Where a model cannot do so, nothing."""
        return {}

    def latent(self, n: int, seed: int) -> Tensor:
        """(n, *z_shape) standard normal. Row i depends on (seed, i) alone, never on `n` or on the device."""
        rows = [np.random.default_rng((seed, i)).standard_normal(self.z_shape, np.float32) for i in range(n)]
        return torch.from_numpy(np.stack(rows))

    @property
    def device(self) -> torch.device:
        return next(self.G.parameters()).device

    def label(self, name: str) -> int:
        """The label of the class `name`. Raises InputError with the known names."""
        if name not in self.classes:
            known = ", ".join(self.classes) or "none: it was trained without classes"
            raise InputError(f"the model knows no class {name!r}; known: {known}")
        return self.classes.index(name)

    def labels_to_show(self, names: Sequence[str] = (), most: int = MAX_CLASSES) -> list[int]:
        """The labels that pictures show: of the classes `names`, or where none are named of the first `most`."""
        return [self.label(name) for name in names] or list(range(min(max(self.num_classes, 1), most)))

    def titles(self, labels: Sequence[int]) -> list[str]:
        """The names of the classes `labels`; "" where there are no classes."""
        return [self.classes[label] if self.classes else "" for label in labels]

    def cycle_labels(self, n: int) -> Tensor:
        """(n,) int64 labels 0, 1, ... over and over; zeros when there are no classes."""
        return torch.arange(n) % max(self.num_classes, 1)

    @torch.no_grad()
    def draw(
        self, z: Tensor, c: Tensor, x: Tensor | None = None, batch_size: int = 0, psi: float = 1.0
    ) -> Tensor:
        """z (n, *z_shape), c (n,), for a model that predicts x (n, 3, m, H, W) -> uint8 clips (n, T, H, W, 3) on the
        CPU, in batches of `batch_size` (0: as many as take less memory than training); `psi` as `generate` has it."""
        self.eval()
        batch_size = batch_size or drawn_at_once((self.num_frames, self.size, self.size))
        given = [z, c] if x is None else [z, c, x]
        batches = zip(*(v.split(batch_size) for v in given), strict=True)
        clips = (self.generate(*(v.to(self.device) for v in batch), psi=psi) for batch in batches)
        return torch.cat([to_uint8(some).cpu() for some in clips])

    def sample(self, n: int, c: Tensor | None = None, seed: int = 0, batch_size: int = 0) -> Tensor:
        """`n` clips uint8 (n, T, H, W, 3); labels cycle through the classes unless `c` (n,) is given."""
        return self.draw(self.latent(n, seed), self.cycle_labels(n) if c is None else c, batch_size=batch_size)

    def predict(self, clips: Tensor, c: Tensor, seed: int = 0) -> Tensor:
        """Continuations of the first `context` frames of `clips`, uint8 (n, T, H, W, 3), labels `c` (n,): clips that
        begin with them, uint8 (n, num_frames, H, W, 3)."""
        return self.draw(self.latent(len(clips), seed), c, to_float(clips[:, : self.context]))


def drawn_at_once(shape: tuple[int, int, int]) -> int:
    """Number of clips (T, H, W) to draw at a time: 32, or as many as have a million pixels, one of 256 px."""
    return max(1, min(32, 2**20 // math.prod(shape)))


def check_shape(model: str, size: int, num_frames: int, known: Sequence[tuple[int, int]]) -> None:
    """Raises InputError that lists the (pixels, frames) which `model` supports, when these are none of them."""
    if (size, num_frames) not in known:
        shapes = ", ".join(f"{frames} frames of {px} px" for px, frames in known)
        raise InputError(f"{model}: {num_frames} frames of {size} px are not supported; choose one of: {shapes}")


def channels(size: int, width: float) -> list[int]:
    """Channels of the maps of half of `size`, a quarter, ..., 4x4: 64, 128, 256, 512 at 64 px, times `width`."""
    return [max(2, round(width * 64 * 2**level)) for level in range(int(math.log2(size)) - 2)]
