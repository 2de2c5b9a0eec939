"""HRVGAN written as one would write it first: every operation a layer of its own, float32, contiguous.

It has the parameters of hrvgan.models.hrvgan under the same names, so that weights go both ways, and computes the
same function (tests/test_plain.py: outputs and gradients in float64). What is fast is measured against it, and it is
left as it is.
"""

import math

import torch
from torch import Tensor, nn

from hrvgan.models.hrvgan import W_DIM, ladder, num_channels, scale


class PixelNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)


class GBlock(nn.Module):
    """Upsampling where `factor` says so, convolution, pixel norm, modulation, ReLU."""

    def __init__(self, c_in: int, c_out: int, factor: tuple[int, int, int] | None):
        super().__init__()
        self.up = nn.Upsample(scale_factor=factor, mode="nearest") if factor else nn.Identity()
        self.layer = nn.Conv3d(c_in, c_out, kernel_size=3, padding=1)
        self.norm = PixelNorm()
        self.affine = nn.Linear(W_DIM, 2 * c_out)
        self.act = nn.ReLU()

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = self.norm(self.layer(self.up(x)))
        gain, shift = self.affine(w).chunk(2, dim=1)
        x = x * (1 + gain[:, :, None, None, None]) + shift[:, :, None, None, None]
        return self.act(x)


class PlainGenerator(nn.Module):
    def __init__(self, num_classes: int, size: int, temporal: str, width: float, z_dim: int = 128):
        super().__init__()
        base = num_channels(4, width)
        self.norm = PixelNorm()
        self.embed = nn.Embedding(num_classes, z_dim)
        self.fc = nn.Linear(2 * z_dim, W_DIM)
        self.seed = nn.Linear(W_DIM, base * 4 * 4 * 4)
        self.levels = nn.ModuleDict()
        for px in ladder(size):
            c_in, c_out = num_channels(px // 2, width), num_channels(px, width)
            self.levels[f"{px}px"] = nn.ModuleList(
                [GBlock(c_in, c_out, scale(px, temporal)), GBlock(c_out, c_out, None)]
            )
        self.rgb = nn.Conv3d(num_channels(size, width), 3, kernel_size=1)

    def forward(self, z: Tensor, c: Tensor, *unused: object) -> Tensor:  # It does not predict.
        w = torch.relu(self.fc(torch.cat([self.norm(z), self.norm(self.embed(c))], dim=1)))
        x = self.seed(w).reshape(len(z), -1, 4, 4, 4)
        x = torch.relu(self.norm(x))
        for first, second in self.levels.values():
            x = second(first(x, w), w)
        return torch.tanh(self.rgb(x))


class DBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.layer = nn.Conv3d(c_in, c_out, kernel_size=3, padding=1)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.layer(x))


class PlainDiscriminator(nn.Module):
    def __init__(self, num_classes: int, size: int, temporal: str, width: float):
        super().__init__()
        base = num_channels(4, width)
        self.rgb = nn.Sequential(nn.Conv3d(3, num_channels(size, width), kernel_size=1), nn.LeakyReLU(0.2))
        self.levels = nn.ModuleDict()
        for px in reversed(ladder(size)):
            c_in, c_out = num_channels(px, width), num_channels(px // 2, width)
            pool = nn.AvgPool3d(scale(px, temporal))
            self.levels[f"{px}px"] = nn.Sequential(DBlock(c_in, c_in), DBlock(c_in, c_out), pool)
        self.top = DBlock(base + 1, base)
        self.fc = nn.Linear(base * 4 * 4 * 4, 128)
        self.out = nn.Linear(128, 1)
        self.embed = nn.Embedding(num_classes, 128)

    def forward(self, x: Tensor, c: Tensor, *unused: object) -> Tensor:
        x = self.rgb(x)
        for level in self.levels.values():
            x = level(x)
        std = torch.sqrt(torch.var(x, dim=0, unbiased=False) + 1e-8).mean()
        x = self.top(torch.cat([x, std.expand(len(x), 1, 4, 4, 4)], dim=1))
        h = nn.functional.leaky_relu(self.fc(x.flatten(1)), 0.2)
        return self.out(h).squeeze(1) + torch.sum(self.embed(c) * h, dim=1) / math.sqrt(128)
