"""The contract between a model and everything else: what the loop trains, what sampling draws."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hrvgan.errors import InputError
from hrvgan.layout import to_uint8


@dataclass
class Batch:
    """What one training step sees. A phase may leave something on it for the next (a fake that both use)."""

    real: Tensor  # (N, C, T, H, W) in [-1, 1]
    c: Tensor  # (N,) int64 labels; zeros when there are no classes
    step: int  # training steps done before this one
    fake: Tensor | None = None


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

    A subclass sets `size` (pixels), `num_frames`, `num_classes` (0 = unconditional), `z_dim`, `sizes` (those it
    supports) and `presets` (name -> constructor arguments).
    """

    sizes: tuple[int, ...] = ()
    presets: ClassVar[dict[str, dict]] = {}

    G: nn.Module
    D: nn.Module
    size: int
    num_frames: int
    num_classes: int
    z_dim: int

    name: str  # in MODELS
    arguments: dict  # of the constructor, all of them: what rebuilds this model
    classes: Sequence[str] = ()  # names of the labels, from the data that it was trained on
    fps: float = 8.0

    def phases(self) -> list[Phase]:
        """What one training iteration does, in order. Makes the optimisers: call it once, on the final device."""
        raise TypeError(f"{type(self).__name__} does not say how it is trained")

    def generate(self, z: Tensor, c: Tensor) -> Tensor:
        """z (N, z_dim), c (N,) int64 -> clips (N, 3, T, H, W) in [-1, 1]."""
        return self.G(z, c)

    def latent(self, n: int, seed: int) -> Tensor:
        """(n, z_dim) standard normal. Row i depends on (seed, i) alone, never on `n` or on the device."""
        rows = [np.random.default_rng((seed, i)).standard_normal(self.z_dim, np.float32) for i in range(n)]
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

    def cycle_labels(self, n: int) -> Tensor:
        """(n,) int64 labels 0, 1, ... over and over; zeros when there are no classes."""
        return torch.arange(n) % max(self.num_classes, 1)

    @torch.no_grad()
    def draw(self, z: Tensor, c: Tensor, batch_size: int = 32) -> Tensor:
        """z (n, z_dim), c (n,) -> uint8 clips (n, T, H, W, 3) on the CPU, in batches that bound the memory."""
        self.eval()
        pairs = zip(z.split(batch_size), c.split(batch_size), strict=True)
        return torch.cat([to_uint8(self.generate(z.to(self.device), c.to(self.device))).cpu() for z, c in pairs])

    def sample(self, n: int, c: Tensor | None = None, seed: int = 0, batch_size: int = 32) -> Tensor:
        """`n` clips uint8 (n, T, H, W, 3); labels cycle through the classes unless `c` (n,) is given."""
        return self.draw(self.latent(n, seed), self.cycle_labels(n) if c is None else c, batch_size)
