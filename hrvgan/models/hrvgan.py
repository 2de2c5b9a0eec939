"""HRVGAN (Sagar, "HRVGAN: High Resolution Video Generation using Spatio-Temporal GAN"), Tables 1 and 2.

Shapes are (N, C, T, H, W). At 256 px: 32 frames, six levels. A smaller `size` is the same ladder, cut earlier.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvgan.errors import InputError
from hrvgan.losses import OBJECTIVES, PAIRED, gradient_penalty, mode_seeking, zero_centred_penalty
from hrvgan.models.base import Batch, Phase, VideoGAN

LADDER = (8, 16, 32, 64, 128, 256)
# The sizes at which time doubles too: Table 1, and the progressive GAN that its tables descend from
# (Acharya et al. 2018), which has 16 frames at 32 px.
DOUBLES_TIME = {"paper": (8, 64, 256), "ancestor": (8, 32, 128)}


def num_channels(px: int, width: float) -> int:
    """Table 1: min(1024 / 2^s, 128) with s = log2(px) - 1, times `width`, at least 4."""
    return max(4, round(width * min(2048 // px, 128)))


def scale(px: int, temporal: str) -> tuple[int, int, int]:
    """How much larger (T, H, W) is at `px` than one level below."""
    return (2 if px in DOUBLES_TIME[temporal] else 1, 2, 2)


class PixelNorm(nn.Module):
    """b = a / sqrt(mean over channels of a^2 + 1e-8) (eq. 8)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


NORMS = {
    "batch": nn.BatchNorm3d,
    "instance": lambda channels: nn.InstanceNorm3d(channels, affine=True),  # eq. 9
    "pixel": lambda channels: PixelNorm(),
    "none": lambda channels: nn.Identity(),
}


class UpConv3d(nn.Conv3d):
    """Nearest upsampling by `factor`, then a 3x3x3 convolution, computed as one transposed convolution.

    Exactly the same function: along an axis that doubles, the kernel summed over two shifts, with stride 2. It makes
    no upsampled tensor and half the work or less (twice as fast at 32 px).
    """

    def __init__(self, c_in: int, c_out: int, factor: tuple[int, int, int]):
        super().__init__(c_in, c_out, 3, padding=1)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.transpose(0, 1).flip(2, 3, 4)    # (c_in, c_out, 3, 3, 3)
        for axis, factor in enumerate(self.factor, start=2):
            if factor == 2:                                   # 3 taps become 4
                before = [0, 0] * (4 - axis)
                weight = F.pad(weight, [*before, 1, 0]) + F.pad(weight, [*before, 0, 1])
        return F.conv_transpose3d(x, weight, self.bias, stride=self.factor, padding=1)


def block(layer: nn.Conv3d, norm: str, slope: float) -> nn.Sequential:
    """Convolution, norm, (leaky) ReLU, with He's initialisation for that slope."""
    nn.init.kaiming_normal_(layer.weight, a=slope)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, NORMS[norm](layer.out_channels), nn.LeakyReLU(slope, inplace=True))


def conv(c_in: int, c_out: int, norm: str, slope: float) -> nn.Sequential:
    return block(nn.Conv3d(c_in, c_out, 3, padding=1), norm, slope)


class Generator(nn.Module):
    """Table 1: (z, c) -> clips. z and the class are normalised each, so that neither drowns the other."""

    def __init__(self, num_classes: int, size: int, temporal: str, width: float, z_dim: int, norm: str):
        super().__init__()
        base = num_channels(4, width)
        self.z_norm = PixelNorm()
        self.embed = nn.Embedding(num_classes, z_dim) if num_classes else None
        self.fc = nn.Linear(z_dim * (2 if num_classes else 1), 128)
        self.seed = nn.Linear(128, base * 4 * 4 * 4)
        self.seed_norm = NORMS[norm](base)
        self.levels = nn.ModuleDict()
        for px in LADDER[: LADDER.index(size) + 1]:
            c_in, c_out = num_channels(px // 2, width), num_channels(px, width)
            up = UpConv3d(c_in, c_out, scale(px, temporal))
            self.levels[f"{px}px"] = nn.Sequential(block(up, norm, 0.0), conv(c_out, c_out, norm, 0.0))
        self.rgb = nn.Conv3d(num_channels(size, width), 3, 1)

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        z = self.z_norm(z)
        if self.embed is not None:
            z = torch.cat([z, self.z_norm(self.embed(c))], 1)
        x = self.fc(z).relu()                                 # (N, 128)
        x = self.seed(x).unflatten(1, (-1, 4, 4, 4))          # (N, 128w, 4, 4, 4)
        x = self.seed_norm(x).relu().contiguous(memory_format=torch.channels_last_3d)
        for level in self.levels.values():
            x = level(x)                                      # (N, c(px), t(px), px, px)
        return self.rgb(x).tanh()                             # (N, 3, T, size, size); ReLU could not go below 0


class AveragePool(nn.Module):
    """Means of blocks of `factor`, space before time: torch's pooling in three dimensions is slow in channels-last."""

    def __init__(self, factor: tuple[int, int, int]):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        frames = x.transpose(1, 2).flatten(0, 1)              # (N T, C, H, W)
        x = F.avg_pool2d(frames, 2).unflatten(0, (len(x), -1))
        if self.factor[0] == 2:
            x = x.unflatten(1, (-1, 2)).mean(2)
        return x.transpose(1, 2)                              # (N, C, T / factor, H / 2, W / 2)


class MinibatchStd(nn.Module):
    """Appends one map: the mean over all positions of the standard deviation over the batch (Karras et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        std = (x.float().var(0, correction=0) + 1e-8).sqrt().mean().to(x.dtype)
        return torch.cat([x, std.expand(len(x), 1, *x.shape[2:])], 1)


class Discriminator(nn.Module):
    """Table 2, read as the mirror of Table 1: (clips, c) -> logits (N,). The class enters by projection
    (Miyato & Koyama 2018) on the 128 features."""

    def __init__(self, num_classes: int, size: int, temporal: str, width: float, norm: str):
        super().__init__()
        base = num_channels(4, width)
        self.rgb = nn.Sequential(nn.Conv3d(3, num_channels(size, width), 1), nn.LeakyReLU(0.2))
        self.levels = nn.ModuleDict()
        for px in reversed(LADDER[: LADDER.index(size) + 1]):
            c_in, c_out = num_channels(px, width), num_channels(px // 2, width)
            down = AveragePool(scale(px, temporal))
            self.levels[f"{px}px"] = nn.Sequential(conv(c_in, c_in, norm, 0.2), conv(c_in, c_out, norm, 0.2), down)
        self.std = MinibatchStd()
        self.top = conv(base + 1, base, "none", 0.2)
        self.fc = nn.Linear(base * 4 * 4 * 4, 128)
        self.out = nn.Linear(128, 1)
        self.embed = nn.Embedding(num_classes, 128) if num_classes else None

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = self.rgb(x.contiguous(memory_format=torch.channels_last_3d))
        for level in self.levels.values():
            x = level(x)                                      # (N, c(px / 2), t(px / 2), px / 2, px / 2)
        x = self.top(self.std(x))                             # (N, 128w, 4, 4, 4)
        h = F.leaky_relu(self.fc(x.flatten(1)), 0.2).float()  # (N, 128)
        logits = self.out(h).squeeze(1).float()
        if self.embed is not None:
            logits = logits + (self.embed(c) * h).sum(1) / math.sqrt(h.shape[1])
        return logits                                         # (N,)


class HRVGAN(VideoGAN):
    """The conditional spatio-temporal GAN of the paper.

    Args:
        num_classes: action classes; 0 for an unconditional model.
        size: height and width in pixels, one of `sizes`. The number of frames follows from it and `temporal`.
        temporal: "paper" doubles time at 8, 64 and 256 px; "ancestor" at 8, 32 and 128 px.
        width: multiplies every number of channels; 1 is the paper's.
        z_dim: length of the latent vector.
        norm_g, norm_d: "batch", "instance", "pixel" or "none".
        objective: "logistic", "relativistic", "wasserstein" or "hinge".
        r1_gamma, r2_gamma: weights of the penalties on real and on generated clips; 0 = off.
        r1_every: they are computed on every `r1_every`-th step and weighted up by as much.
        ms_weight: weight of the mode-seeking term, which keeps G from ignoring z; 0 = off.
        gp_weight: weight of WGAN-GP's penalty (lambda of eq. 6); 0 = off.
        lr_g, lr_d, betas: Adam.
    """

    sizes = LADDER
    presets: ClassVar = {
        # What we recommend: fakes held against real clips pair by pair, R1 instead of a Lipschitz penalty, no norm in
        # D, and in G one without running statistics, which would belong to other weights than those of the average.
        "best": {},
        # The paper's norms and penalty, with the optimiser of the network that its tables descend from.
        "paper": {
            "norm_g": "batch", "norm_d": "instance", "objective": "wasserstein", "gp_weight": 10.0,
            "r1_gamma": 0.0, "r2_gamma": 0.0, "ms_weight": 0.0, "lr_g": 1e-3, "lr_d": 1e-3, "betas": (0.0, 0.99),
        },
    }

    def __init__(
        self, num_classes: int = 0, size: int = 32, *, temporal: str = "paper", width: float = 1.0,
        z_dim: int = 128, norm_g: str = "pixel", norm_d: str = "none", objective: str = "relativistic",
        r1_gamma: float = 2.0, r2_gamma: float = 2.0, r1_every: int = 8, gp_weight: float = 0.0,
        ms_weight: float = 0.05, lr_g: float = 5e-4, lr_d: float = 5e-4, betas: tuple[float, float] = (0.0, 0.99),
    ):
        super().__init__()
        one_of("size", size, LADDER)
        one_of("temporal", temporal, DOUBLES_TIME)
        one_of("norm_g", norm_g, NORMS)
        one_of("norm_d", norm_d, NORMS)
        one_of("objective", objective, OBJECTIVES)
        if norm_d == "batch" and gp_weight:
            raise InputError("hrvgan: norm_d 'batch' mixes the clips of a batch, and WGAN-GP's penalty is per clip; "
                             "set norm_d to instance, pixel or none, or gp_weight to 0")
        self.num_classes, self.size, self.z_dim = num_classes, size, z_dim
        self.num_frames = 4 * math.prod(scale(px, temporal)[0] for px in LADDER[: LADDER.index(size) + 1])
        self.G = Generator(num_classes, size, temporal, width, z_dim, norm_g)
        self.D = Discriminator(num_classes, size, temporal, width, norm_d)
        self.to(memory_format=torch.channels_last_3d)
        self.loss_d, self.loss_g = OBJECTIVES[objective]
        self.paired = objective in PAIRED
        self.r1_gamma, self.r2_gamma, self.r1_every, self.gp_weight = r1_gamma, r2_gamma, r1_every, gp_weight
        self.ms_weight = ms_weight
        self.lr_g, self.lr_d, self.betas = lr_g, lr_d, tuple(betas)

    def phases(self) -> list[Phase]:
        """Algorithm 1: one step of D, then one of G."""
        adam = {"betas": self.betas, "eps": 1e-8, "foreach": True}
        return [
            Phase("d", self.D, torch.optim.Adam(self.D.parameters(), self.lr_d, **adam), self.d_terms),
            Phase("g", self.G, torch.optim.Adam(self.G.parameters(), self.lr_g, **adam), self.g_terms),
        ]

    def noise(self, batch: Batch) -> Tensor:
        return torch.randn(len(batch.real), self.z_dim, device=batch.real.device)

    def d_terms(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.G(self.noise(batch), batch.c)
        lazy = batch.step % self.r1_every == 0
        r1, r2 = self.r1_gamma > 0 and lazy, self.r2_gamma > 0 and lazy
        real, fake = batch.real.requires_grad_(r1), fake.requires_grad_(r2)
        real_logits, fake_logits = self.D(real, batch.c), self.D(fake, batch.c)
        terms = {"adv": self.loss_d(real_logits, fake_logits)}
        if r1:
            terms["r1"] = self.r1_gamma / 2 * self.r1_every * zero_centred_penalty(real_logits, real)
        if r2:
            terms["r2"] = self.r2_gamma / 2 * self.r1_every * zero_centred_penalty(fake_logits, fake)
        if self.gp_weight:
            terms["gp"] = self.gp_weight * gradient_penalty(self.D, real.detach(), fake.detach(), batch.c)
        return terms

    def g_terms(self, batch: Batch) -> dict[str, Tensor]:
        z, c = self.noise(batch), batch.c
        if self.ms_weight:  # Neighbours share their class, so that z alone tells them apart.
            c = c[::2].repeat_interleave(2)[: len(c)]
        fake = self.G(z, c)
        real_logits = None
        if self.paired:
            with torch.no_grad():
                real_logits = self.D(batch.real, batch.c)
        terms = {"adv": self.loss_g(self.D(fake, c), real_logits)}
        if self.ms_weight:
            terms["ms"] = self.ms_weight * mode_seeking(fake, z)
        return terms


def one_of(name: str, value: object, known: object) -> None:
    if value not in known:
        raise InputError(f"hrvgan: {name} {value!r} is not known; choose one of {', '.join(map(str, known))}")
