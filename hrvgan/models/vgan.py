"""VGAN (Vondrick, Pirsiavash & Torralba 2016, "Generating Videos with Scene Dynamics"): a moving foreground, a still
background and the mask between them.

Shapes are (N, C, T, H, W), comments give those of 64 px x 32 frames at width 1, as published. With 16 frames the first
layer makes one time step instead of two, and D's last kernel spans one. At 32 px one level is dropped, the widest: the
4x4 maps have 256 channels.
"""

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvgan.nn.base import Batch, Phase, VideoGAN, channels, check_shape
from hrvgan.nn.optim import adam
from hrvgan.ops import batch_rng

SHAPES = ((32, 16), (64, 16), (64, 32))  # (pixels, frames)
REAL, FAKE = 0, 1  # what D's two logits stand for


def stream(conv: type[nn.Module], norm: type[nn.Module], seed: nn.Module, widths: list[int]) -> nn.Sequential:
    """`seed`, then transposed convolutions that double every axis, each with batch norm and ReLU."""
    layers = [seed, norm(widths[0]), nn.ReLU(inplace=True)]
    for c_in, c_out in pairwise(widths):
        layers += [conv(c_in, c_out, 4, 2, 1), norm(c_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Generator(nn.Module):
    """z -> mask * foreground + (1 - mask) * background, the background the same in every frame."""

    def __init__(self, size: int, num_frames: int, z_dim: int, width: float):
        super().__init__()
        widths = channels(size, width)[::-1]                  # 512, 256, 128, 64
        first = (num_frames // 2 ** len(widths), 4, 4)
        seed2d, seed3d = nn.ConvTranspose2d(z_dim, widths[0], 4), nn.ConvTranspose3d(z_dim, widths[0], first)
        self.still = stream(nn.ConvTranspose2d, nn.BatchNorm2d, seed2d, widths)
        self.still_rgb = nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1)
        self.moving = stream(nn.ConvTranspose3d, nn.BatchNorm3d, seed3d, widths)
        self.moving_rgb = nn.ConvTranspose3d(widths[-1], 3, 4, 2, 1)
        self.mask = nn.ConvTranspose3d(widths[-1], 1, 4, 2, 1)

    def streams(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z (N, z_dim) -> foreground (N, 3, T, H, W), mask (N, 1, T, H, W) in [0, 1], background (N, 3, 1, H, W)."""
        x = self.still(z[:, :, None, None])                   # (N, 64, 32, 32)
        background = self.still_rgb(x).tanh().unsqueeze(2)    # (N, 3, 1, 64, 64)
        x = self.moving(z[:, :, None, None, None])            # (N, 64, 16, 32, 32)
        return self.moving_rgb(x).tanh(), self.mask(x).sigmoid(), background

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return blend(*self.streams(z))                        # (N, 3, 32, 64, 64)


def blend(foreground: Tensor, mask: Tensor, background: Tensor) -> Tensor:
    """Composes foreground and background by the mask."""
    return mask * foreground + (1 - mask) * background


class Discriminator(nn.Sequential):
    """Clips -> (N, 2) logits of a softmax: real, fake."""

    def __init__(self, size: int, num_frames: int, width: float):
        widths = channels(size, width)
        layers = [nn.Conv3d(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]  # (N, 64, 16, 32, 32)
        for c_in, c_out in pairwise(widths):
            layers += [nn.Conv3d(c_in, c_out, 4, 2, 1), nn.BatchNorm3d(c_out, eps=1e-3),
                       nn.LeakyReLU(0.2, inplace=True)]       # ... (N, 512, 2, 4, 4)
        last = (num_frames // 2 ** len(widths), 4, 4)
        super().__init__(*layers, nn.Conv3d(widths[-1], 2, last), nn.Flatten())


def initialise(module: nn.Module) -> None:
    """Convolutions N(0, 0.01) with biases 0, batch norms N(1, 0.02) with biases 0."""
    if hasattr(module, "weight"):
        convolution = module.weight.dim() > 1
        nn.init.normal_(module.weight, 0.0 if convolution else 1.0, 0.01 if convolution else 0.02)
        nn.init.zeros_(module.bias)


class VGAN(VideoGAN):
    """The two-stream GAN, unconditional as published.

    Kept because they define the method: the two streams and the mask with its sparsity penalty, a D with two logits
    under a softmax, one step of D and then one of G on the same fakes. Published: batch 64, no average of G.

    Args:
        size, num_frames: 64 px with 32 frames (published) or 16, or 32 px with 16.
        width: multiplies every number of channels; 1 is the paper's.
        z_dim: length of the latent vector.
        mask_weight: of the mean of the mask, so that the background shows what need not move.
        lr, betas: Adam, for G and D.
    """

    conditional = False
    presets: ClassVar = {
        "paper": {"z_dim": 100, "width": 1.0, "mask_weight": 0.1, "lr": 2e-4, "betas": (0.5, 0.999)},
    }

    def __init__(
        self, size: int = 64, num_frames: int = 16, *, width: float = 1.0, z_dim: int = 100,
        mask_weight: float = 0.1, lr: float = 2e-4, betas: tuple[float, float] = (0.5, 0.999),
    ):
        super().__init__()
        check_shape("vgan", size, num_frames, SHAPES)
        self.num_classes, self.size, self.num_frames, self.z_dim = 0, size, num_frames, z_dim
        self.mask_weight, self.lr, self.betas = mask_weight, lr, tuple(betas)
        self.G = Generator(size, num_frames, z_dim, width)
        self.D = Discriminator(size, num_frames, width)
        self.apply(initialise)

    def judge(self, clips: Tensor, c: Tensor) -> Tensor:
        logits = self.D(clips)
        return logits[:, REAL] - logits[:, FAKE]

    def phases(self) -> list[Phase]:
        """One step of D, then one of G on the fakes that D has just seen."""
        return [
            Phase("d", self.D, adam(self.D.parameters(), self.lr, betas=self.betas), self.d_terms),
            Phase("g", self.G, adam(self.G.parameters(), self.lr, betas=self.betas), self.g_terms),
        ]

    def verdict(self, clips: Tensor, label: int) -> Tensor:
        """Cross entropy of D's softmax against `label` for every clip."""
        logits = self.D(clips).float()
        return F.cross_entropy(logits, torch.full_like(logits[:, 0], label, dtype=torch.int64))

    def d_terms(self, batch: Batch) -> dict[str, Tensor]:
        # The step of G needs the graph of these fakes, so G is not frozen while it draws them.
        self.G.requires_grad_(True)
        z = batch_rng.randn(len(batch.real), self.z_dim, like=batch.real)
        foreground, mask, background = self.G.streams(z)
        batch.fake, batch.extra["mask"] = blend(foreground, mask, background), mask
        self.G.requires_grad_(False)
        return {"adv": self.verdict(batch.real, REAL) + self.verdict(batch.fake.detach(), FAKE)}

    def g_terms(self, batch: Batch) -> dict[str, Tensor]:
        return {
            "adv": self.verdict(batch.fake, REAL),  # non-saturating
            "mask": self.mask_weight * batch.extra["mask"].float().mean(),
        }
