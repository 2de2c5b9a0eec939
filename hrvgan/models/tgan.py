"""TGAN (Saito, Matsumoto & Saito 2017, "Temporal Generative Adversarial Nets with Singular Value Clipping"): one
generator makes a latent a frame, another makes each frame from it.

Shapes are (N, C, T, H, W), comments give those of 64 px x 16 frames at width 1, as published. At 32 px one level is
dropped, the widest: the 4x4 maps have 128 + 128 channels, and D's last kernel spans the two time steps that are left.
"""

import contextlib
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from hrvgan.errors import InputError
from hrvgan.nn.base import Batch, Phase, VideoGAN, channels, check_shape
from hrvgan.nn.losses import wasserstein_d, wasserstein_g
from hrvgan.nn.optim import rmsprop
from hrvgan.ops import batch_rng

SHAPES = ((32, 16), (64, 16))  # (pixels, frames)
INITS = ("image", "all")


def scaled(count: int, width: float) -> int:
    return max(2, round(width * count))


def without_beta(norm: nn.Module) -> nn.Module:
    """A batch norm that scales and does not shift, with Chainer's epsilon."""
    norm.register_parameter("bias", None)
    norm.eps = 2e-5
    return norm


class TemporalGenerator(nn.Sequential):
    """z_slow (N, z_dim, 1) -> z_fast (N, z_dim, 16) in [-1, 1]: a latent a frame."""

    def __init__(self, z_dim: int, width: float):
        widths = [scaled(count, width) for count in (512, 256, 128, 128)]
        layers = [nn.ConvTranspose1d(z_dim, widths[0], 1), without_beta(nn.BatchNorm1d(widths[0])), nn.ReLU()]
        for c_in, c_out in pairwise(widths):
            layers += [nn.ConvTranspose1d(c_in, c_out, 4, 2, 1), without_beta(nn.BatchNorm1d(c_out)), nn.ReLU()]
        super().__init__(*layers, nn.ConvTranspose1d(widths[-1], z_dim, 4, 2, 1), nn.Tanh())


class ImageGenerator(nn.Module):
    """(z_slow, z_fast of one frame) -> the frame, (N, 3, H, W)."""

    def __init__(self, size: int, z_dim: int, width: float):
        super().__init__()
        levels = int(math.log2(size)) - 2                     # 4 at 64 px
        widths = [scaled(32 * 2**level, width) for level in reversed(range(levels + 1))]
        half = widths[0] // 2
        self.slow, self.fast = self.seed(z_dim, half), self.seed(z_dim, widths[0] - half)
        layers = []
        for c_in, c_out in pairwise(widths):
            layers += [nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out, eps=2e-5), nn.ReLU()]
        self.up = nn.Sequential(*layers)
        self.rgb = nn.ConvTranspose2d(widths[-1], 3, 3, 1, 1)

    @staticmethod
    def seed(z_dim: int, count: int) -> nn.Sequential:
        values = count * 4 * 4
        return nn.Sequential(nn.Linear(z_dim, values, bias=False), nn.BatchNorm1d(values, eps=2e-5), nn.ReLU(),
                             nn.Unflatten(1, (count, 4, 4)))

    def forward(self, z_slow: Tensor, z_fast: Tensor) -> Tensor:
        """z_slow (N, z_dim), z_fast (N T, z_dim) -> (N T, 3, H, W)."""
        slow = self.slow(z_slow)                              # (N, 256, 4, 4)
        slow = slow.repeat_interleave(len(z_fast) // len(z_slow), 0)
        x = torch.cat([slow, self.fast(z_fast)], 1)           # (N T, 512, 4, 4)
        return self.rgb(self.up(x)).tanh()                    # (N T, 32, 64, 64) -> (N T, 3, 64, 64)


class Generator(nn.Module):
    def __init__(self, size: int, z_dim: int, width: float):
        super().__init__()
        self.temporal = TemporalGenerator(z_dim, width)
        self.image = ImageGenerator(size, z_dim, width)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        z_fast = self.temporal(z.unsqueeze(2)).transpose(1, 2)                # (N, 16, 100)
        frames = self.image(z, z_fast.flatten(0, 1))                          # (N 16, 3, 64, 64)
        return frames.unflatten(0, (len(z), -1)).transpose(1, 2).contiguous()  # (N, 3, 16, 64, 64)


class Discriminator(nn.Sequential):
    """Clips -> (N,), unbounded."""

    def __init__(self, size: int, num_frames: int, width: float):
        widths = channels(size, width)
        layers = [nn.Conv3d(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]        # (N, 64, 8, 32, 32)
        for c_in, c_out in pairwise(widths):
            layers += [nn.Conv3d(c_in, c_out, 4, 2, 1), without_beta(nn.BatchNorm3d(c_out)), nn.LeakyReLU(0.2)]
        last = (num_frames // 2 ** len(widths), 4, 4)         # a 2-D kernel of 4 where one time step is left
        super().__init__(*layers, nn.Conv3d(widths[-1], 1, last), nn.Flatten(0))


def initialise(module: nn.Module, uniform: bool) -> None:
    """Weights U(-0.01, 0.01), or LeCun's normal (Chainer's default); biases 0."""
    for name, parameter in module.named_parameters():
        if parameter.dim() < 2:
            nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
        elif uniform:
            nn.init.uniform_(parameter, -0.01, 0.01)
        else:
            nn.init.normal_(parameter, 0.0, parameter[0].numel() ** -0.5)


@torch.no_grad()
def clip_singular_values(weight: Tensor, limit: float = 1.0) -> None:
    """Sets the singular values of `weight`, reshaped to (out, -1), that exceed `limit` to `limit`, in place.

    With W W^T = U S^2 U^T only the directions above the limit change, W -= U (1 - limit / S) U^T W: no
    decomposition larger than (out, out), and nothing is done to the others.
    """
    matrix = weight.flatten(1).double()
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T)
    values = squares.clamp(min=limit**2).sqrt()
    above = vectors * (1 - limit / values)                    # 0 in every column that stays
    weight.sub_((above @ (vectors.T @ matrix)).view_as(weight))


@torch.no_grad()
def clip_scale(norm: nn.Module) -> None:
    """Clips the scale of a batch norm into [0.01 sigma, sigma], sigma that of its running variance.

    Of several processes each has seen clips of its own: they take the mean variance, or their weights would part.
    """
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(norm.running_var)
        norm.running_var /= dist.get_world_size()
    sigma = norm.running_var.sqrt()
    norm.weight.clamp_(0.01 * sigma, sigma)


@contextlib.contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Context in which batch norms normalise by the batch and leave their running statistics alone."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm3d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


class TGAN(VideoGAN):
    """Temporal GAN with singular value clipping, unconditional as published.

    Kept because they define the method: z_slow uniform in [-1, 1], the Wasserstein loss with a 1-Lipschitz D by
    singular value clipping every few steps, batch norms without shift in D and in the temporal generator, one step of
    G and then one of D on the same fakes. Published: batch 32, no average of G.

    Args:
        size, num_frames: 64 px (published) or 32, with 16 frames.
        width: multiplies every number of channels; 1 is the paper's.
        z_dim: length of z_slow, and of each z_fast.
        init: which weights start uniform in [-0.01, 0.01]: those of the "image" generator, or "all".
        clip_every: steps between two clippings of D.
        lr: RMSprop, for G and D.
    """

    conditional = False
    presets: ClassVar = {
        "paper": {"z_dim": 100, "width": 1.0, "init": "image", "clip_every": 5, "lr": 5e-5},
        # Four times the published rate, for runs of minutes: at 5e-5 a few hundred steps leave the clips grey.
        "quick": {"lr": 2e-4},
        "uniform": {"z_dim": 100, "width": 1.0, "init": "all", "clip_every": 5, "lr": 5e-5},
    }

    def __init__(
        self, size: int = 64, num_frames: int = 16, *, width: float = 1.0, z_dim: int = 100, init: str = "image",
        clip_every: int = 5, lr: float = 5e-5,
    ):
        super().__init__()
        check_shape("tgan", size, num_frames, SHAPES)
        if init not in INITS:
            raise InputError(f"tgan: init {init!r} is not known; choose one of {', '.join(INITS)}")
        self.num_classes, self.size, self.num_frames, self.z_dim = 0, size, num_frames, z_dim
        self.clip_every, self.lr = clip_every, lr
        self.G = Generator(size, z_dim, width)
        self.D = Discriminator(size, num_frames, width)
        for module, uniform in ((self.G.temporal, init == "all"), (self.G.image, True), (self.D, init == "all")):
            initialise(module, uniform)

    def judge(self, clips: Tensor, c: Tensor) -> Tensor:
        return self.D(clips)

    def latent(self, n: int, seed: int) -> Tensor:
        """(n, z_dim) uniform in [-1, 1]. Row i depends on (seed, i) alone."""
        rows = [np.random.default_rng((seed, i)).uniform(-1, 1, self.z_dim) for i in range(n)]
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def phases(self) -> list[Phase]:
        """One step of G, then one of D on the same fakes; D is clipped after its own."""
        return [
            Phase("g", self.G, rmsprop(self.G.parameters(), self.lr), self.g_terms),
            Phase("d", self.D, rmsprop(self.D.parameters(), self.lr), self.d_terms, self.clip),
        ]

    def g_terms(self, batch: Batch) -> dict[str, Tensor]:
        z = batch_rng.rand(len(batch.real), self.z_dim, like=batch.real) * 2 - 1
        fake = self.G(z)
        batch.fake = fake.detach()
        with frozen_statistics(self.D):
            return {"adv": wasserstein_g(self.D(fake).float())}

    def d_terms(self, batch: Batch) -> dict[str, Tensor]:
        # The running variance sees fakes, then real clips, once each: 47 % of it is of fakes.
        fake = self.D(batch.fake).float()
        return {"adv": wasserstein_d(self.D(batch.real).float(), fake)}

    def clip(self, step: int) -> None:
        """Clips D after its updates number clip_every, 2 clip_every, ...; `step` updates came before this one."""
        if (step + 1) % self.clip_every == 0:
            for module in self.D:
                if isinstance(module, nn.Conv3d):
                    clip_singular_values(module.weight)
                elif isinstance(module, nn.BatchNorm3d):
                    clip_scale(module)
