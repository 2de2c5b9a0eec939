"""Layers of HRVGAN's ladder: norms, convolutions that change the size, modulation. Shapes are (N, C, T, H, W)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hrvgan.ops.conv3d import Conv3d, ConvLeakyReLUPool
from hrvgan.ops.elementwise import leaky_relu, leaky_relu_pool, pixel_norm, pixel_norm_act


def full(x: Tensor) -> Tensor:
    """`x` in float32 where autocast has made it smaller: for sums that lose too much otherwise."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class PixelNorm(nn.Module):
    """b = a / sqrt(mean over channels of a^2 + 1e-8) (eq. 8). Channels are axis 1."""

    def forward(self, x: Tensor) -> Tensor:
        return pixel_norm(x)


class InstanceNorm(nn.Module):
    """gamma (x - mu) / (sqrt(sigma^2) + eps) + beta over the positions of a channel (eq. 9), eps outside the root.

    The paper names no eps. With 1e-3 a channel that is all but constant is amplified at most a thousandfold, which
    keeps a gradient penalty through it finite.
    """

    def __init__(self, channels: int, eps: float = 1e-3):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, (2, 3, 4), correction=0, keepdim=True)
        weight, bias = (p[:, None, None, None] for p in (self.weight, self.bias))
        gain = weight / ((variance + 1e-12).sqrt() + self.eps)   # (N, C, 1, 1, 1); 1e-12: a root has no slope at 0
        return torch.addcmul(bias - mean * gain, x, gain)


NORMS = {
    "batch": nn.BatchNorm3d,
    "instance": InstanceNorm,
    "pixel": lambda channels: PixelNorm(),
    "none": lambda channels: nn.Identity(),
}


class LeakyReLU(nn.LeakyReLU):
    """LeakyReLU in place of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return leaky_relu(x, self.negative_slope)


class MinibatchStd(nn.Module):
    """Appends one map: the mean over all positions of the standard deviation over the batch (Karras et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        std = (full(x).var(0, correction=0) + 1e-8).sqrt().mean().to(x.dtype)
        return torch.cat([x, std.expand(len(x), 1, *x.shape[2:])], 1)


class Block(nn.Module):
    """Convolution, norm, (leaky) ReLU, with He's initialisation for that slope.

    With `w_dim`, every channel is scaled and shifted after the norm by what an affine map of w says (self-modulation,
    Chen et al. 2019): the latent and the class speak at every level, and not through the first layer alone.
    """

    def __init__(self, layer: nn.Conv3d, norm: str, slope: float, w_dim: int = 0):
        super().__init__()
        nn.init.kaiming_normal_(layer.weight, a=slope)
        nn.init.zeros_(layer.bias)
        self.layer, self.norm = layer, NORMS[norm](layer.out_channels)
        self.act = LeakyReLU(slope)
        self.affine = nn.Linear(w_dim, 2 * layer.out_channels) if w_dim else None
        if w_dim:
            nn.init.normal_(self.affine.weight, std=w_dim**-0.5)
            nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, w: Tensor | None = None) -> Tensor:
        """x (N, C, T, H, W), w (N, S, w_dim): one vector for a clip (S = 1) or for each of S spans of its time."""
        x = self.layer(x)
        if self.affine is None:
            return self.act(self.norm(x))
        spans = self.affine(w).transpose(1, 2)                # (N, 2 C, S)
        if spans.shape[2] > 1:
            spans = spans.repeat_interleave(x.shape[2] // spans.shape[2], 2)
        gain, shift = spans[..., None, None].chunk(2, 1)
        if isinstance(self.norm, PixelNorm) and self.act.negative_slope == 0:
            return pixel_norm_act(x, 1 + gain, shift)
        return self.act(torch.addcmul(shift, self.norm(x), 1 + gain))


class DownBlock(Block):
    """A block that ends with average pooling by `factor`; without a norm, the layer pools as well."""

    def __init__(self, c_in: int, c_out: int, norm: str, slope: float, factor: tuple[int, int, int]):
        pools = norm == "none"
        layer = ConvLeakyReLUPool(c_in, c_out, slope, factor) if pools else Conv3d(c_in, c_out, 3, padding=1)
        super().__init__(layer, norm, slope)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return x if self.layer.pool else leaky_relu_pool(self.norm(x), self.act.negative_slope, self.factor)


class Scale(nn.Module):
    """Parametrisation: weight = c * stored."""

    def __init__(self, c: float):
        super().__init__()
        self.c = c

    def forward(self, stored: Tensor) -> Tensor:
        return stored * self.c

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / self.c


def equalise(network: nn.Module) -> None:
    """Equalised learning rate (Karras et al. 2018, 4.1): every weight is stored divided by the standard deviation with
    which it was initialised, so that all are stored with sd 1 and an adaptive optimiser moves all layers alike. Their
    He constant sqrt(2 / fan in) is that sd for the convolutions; dense and RGB layers begin with smaller weights, and
    He's constant would let Adam move these 2.4 times as far. The function computed stays the same."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv3d | nn.Linear):
            c = module.weight.detach().std(correction=0).item() or math.sqrt(2 / module.weight[0].numel())   # for zeros
            parametrize.register_parametrization(module, "weight", Scale(c))
