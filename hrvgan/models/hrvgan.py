"""HRVGAN (Sagar, "HRVGAN: High Resolution Video Generation using Spatio-Temporal GAN"): Tables 1 and 2, eq. 1-15.

Shapes are (N, C, T, H, W). At 256 px: 32 frames, six levels. A smaller `size` is the same ladder, cut earlier.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvgan.errors import InputError
from hrvgan.nn import losses
from hrvgan.nn.augment import Augment
from hrvgan.nn.base import Batch, Phase, VideoGAN
from hrvgan.nn.layers import NORMS, Block, DownBlock, LeakyReLU, MinibatchStd, PixelNorm, equalise, full
from hrvgan.nn.optim import OPTIMIZERS, make_optimizer
from hrvgan.ops import batch_rng
from hrvgan.ops.conv3d import Conv3d, FromRGB, UpConv3d, without_autocast
from hrvgan.ops.elementwise import avg_pool

LADDER = (8, 16, 32, 64, 128, 256)
# The sizes at which time doubles too: Table 1, and the progressive GAN that its tables descend from
# (Acharya et al. 2018), which has 16 frames at 32 px.
DOUBLES_TIME = {"paper": (8, 64, 256), "ancestor": (8, 32, 128)}
LATENTS = ("vector", "sequence")
TASKS = ("generate", "predict")
SPANS = 4  # base time steps, for each of which a sequence of latents is mixed to one
GAMMA_PIXELS = 8 * 32 * 32  # pixels of a clip (T x H x W) for which the gammas of R1 and R2 are meant
WON, STUCK = 0.05, 0.02  # D's loss, in shares of that by chance: below the one, or within the other of it
W_DIM = 128  # what the first layer of Table 1 makes of z and the class


def num_channels(px: int, width: float) -> int:
    """Table 1: min(1024 / 2^s, 128) with s = log2(px) - 1, times `width`, at least 4."""
    return max(4, round(width * min(2048 // px, 128)))


def ladder(size: int) -> tuple[int, ...]:
    return LADDER[: LADDER.index(size) + 1]


def scale(px: int, temporal: str) -> tuple[int, int, int]:
    """Upsampling factor of (T, H, W) from the level below to `px`."""
    return (2 if px in DOUBLES_TIME[temporal] else 1, 2, 2)


def frames_at(size: int, temporal: str) -> int:
    return 4 * math.prod(scale(px, temporal)[0] for px in ladder(size))


def silence(*layers: nn.Module) -> None:
    """Makes the output of convolutions 0 until they have learnt something."""
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def add_enlarged(small: Tensor, large: Tensor) -> Tensor:
    """`small` (N, C, T, H, W), enlarged linearly to the size of `large`, and `large`."""
    return large + F.interpolate(small, large.shape[2:], mode="trilinear", align_corners=False)


class Spans(nn.Linear):
    """One vector a frame -> one for each of the 4 base time steps: learnt mixing over time, at first the mean of the
    frames under each step, kept at unit variance."""

    def __init__(self, num_frames: int):
        super().__init__(num_frames, SPANS, bias=False)
        under = num_frames // SPANS
        with torch.no_grad():
            self.weight.copy_(torch.eye(SPANS).repeat_interleave(under, 1) / math.sqrt(under))

    def forward(self, z: Tensor) -> Tensor:
        """(N, T, D) -> (N, 4, D)"""
        return super().forward(z.transpose(1, 2)).transpose(1, 2)


class Generator(nn.Module):
    """Table 1: (z, c) -> clips. z and the class are normalised each, so that neither drowns the other.

    `E` (section 4.2) maps clips to latents, G(E(Y)) = Y, where `encodes`; where `context` > 0 it sees the first
    frames of a clip, and G draws the rest.
    """

    def __init__(
        self, num_classes: int, size: int, temporal: str, width: float, z_dim: int, norm: str, modulate: bool,
        latent: str, encodes: bool, context: int, rgb_skips: bool, code_bits: int,
    ):
        super().__init__()
        base, w_dim = num_channels(4, width), W_DIM if modulate else 0
        self.context, self.num_frames = context, frames_at(size, temporal)
        self.z_norm = PixelNorm()
        self.spans = Spans(self.num_frames) if latent == "sequence" else None
        self.embed = nn.Embedding(num_classes, z_dim) if num_classes else None
        self.code_bits, self.codes = code_bits, nn.Embedding(2**code_bits, z_dim) if code_bits else None
        num_told = 1 + (context > 0) + (code_bits > 0) + (num_classes > 0)
        self.fc = nn.Linear(z_dim * num_told, W_DIM)
        self.seed = nn.Linear(W_DIM, base * 4 * 4 * (1 if self.spans else 4))
        self.seed_norm = NORMS[norm](base)
        self.levels = nn.ModuleDict()
        for px in ladder(size):
            c_in, c_out = num_channels(px // 2, width), num_channels(px, width)
            up, same = UpConv3d(c_in, c_out, scale(px, temporal)), Conv3d(c_out, c_out, 3, padding=1)
            self.levels[f"{px}px"] = nn.ModuleList([Block(up, norm, 0.0, w_dim), Block(same, norm, 0.0, w_dim)])
        self.rgb = Conv3d(num_channels(size, width), 3, 1)
        lower = ladder(size)[:-1] if rgb_skips else ()        # levels that draw, too
        self.small_rgbs = nn.ModuleList([Conv3d(num_channels(px, width), 3, 1) for px in lower])
        self.E = self.skips = None
        if encodes or context:
            self.E = Encoder(size, temporal, width, z_dim, SPANS if self.spans else 1)
        if context:
            channels = {px: num_channels(px // 2, width) for px in ladder(size)}
            self.skips = nn.ModuleDict({f"{px}px": Conv3d(n, n, 1) for px, n in channels.items()})
            silence(self.rgb, *self.small_rgbs)               # Training starts from copies of the last frame seen.

    def forward(
        self, z: Tensor, c: Tensor, x: Tensor | None = None, psi: float = 1.0, centre: Tensor | None = None,
    ) -> Tensor:
        """z (N, z_dim), (N, T, z_dim) with a latent sequence, or E's (N, S, z_dim); c (N,) labels, or (N, num_classes)
        weights of the classes, between which one may walk -> (N, 3, T, size, size).

        With `context`, x (N, 3, context, size, size) are the first frames, and the first of the clip returned. With
        `centre`, the means of w for each c (N, S, 128), w goes from there only `psi` of the way to its own place.
        """
        code, seen = self.E(self.pad(x)) if self.context else (None, {})
        w = self.mix(z, c, code)                              # (N, S, 128): S = 1, or 4 with a latent sequence
        w = w if centre is None else torch.lerp(centre, w, psi)
        h = self.seed(w).unflatten(2, (-1, 4 // w.shape[1], 4, 4))
        h = h.transpose(1, 2).flatten(2, 3)                   # (N, 128w, 4, 4, 4)
        h = self.seed_norm(h).relu().contiguous(memory_format=torch.channels_last_3d)
        maps = []
        for name, (up, same) in self.levels.items():
            if self.context:
                h = h + self.skips[name](seen[name][:, :, -1:])   # what E made of the last frame, at every time
            h = same(up(h, w), w)                             # (N, c(px), t(px), px, px)
            maps.append(h)
        rgb = self.picture(maps)                       # (N, 3, T, size, size)
        return self.go_on(x, rgb) if self.context else rgb.tanh()   # ReLU, as printed, could not go below 0

    def picture(self, maps: list[Tensor]) -> Tensor:
        """Colours (N, 3, T, size, size), before tanh, from what each level made. With `rgb_skips` it is a sum: each
        level adds its own to the enlarged sum of those below."""
        drawing = [*self.small_rgbs, self.rgb]
        drawn = zip(drawing, maps[-len(drawing) :], strict=True)
        return functools.reduce(add_enlarged, [full(rgb(h)) for rgb, h in drawn])   # float32, whatever made them

    def mix(self, z: Tensor, c: Tensor, code: Tensor | None) -> Tensor:
        """All that G is told, (N, S, 128): the latents, E's code, the discrete code and the class, each normalised."""
        if z.ndim == 2:
            z = z[:, None]
        elif self.spans is not None and z.shape[1] > SPANS:   # one a frame; E gives one a span already
            z = self.spans(z)
        told = [z] if code is None else [z, code]
        if self.codes is not None:
            told.append(self.codes(self.code(z))[:, None])
        told = [self.z_norm(v.flatten(0, 1)).view_as(v) for v in told]   # (N, S, z_dim) each
        if self.embed is not None:
            c = c @ self.embed.weight if c.is_floating_point() else self.embed(c)
            told.append(self.z_norm(c)[:, None].expand_as(z))
        return self.fc(torch.cat(told, 2)).relu()

    def code(self, z: Tensor) -> Tensor:
        """z (N, 1, z_dim) -> (N,) int64: the signs of its first values, read as a binary number."""
        positive = z[:, 0, : self.code_bits] > 0
        return (positive * 2 ** torch.arange(self.code_bits, device=z.device)).sum(1)

    def pad(self, x: Tensor) -> Tensor:
        """The first frames of a clip (N, 3, context, H, W), the first of them repeated before, as long as a clip."""
        return torch.cat([x[:, :, :1].expand(-1, -1, self.num_frames - x.shape[2], -1, -1), x], 2)

    def go_on(self, x: Tensor, rgb: Tensor) -> Tensor:
        """The frames given, and after them what `rgb` changes about the last one."""
        last = torch.atanh(x[:, :, -1:] * 0.98)               # 0.98: white and black stay within reach
        return torch.cat([x, torch.tanh(rgb[:, :, x.shape[2]:] + last)], 2)


def run(layer: nn.Module, x: Tensor, exact: bool) -> Tensor:
    """`layer` of x; in float32 where `exact`, also under autocast to bfloat16."""
    with without_autocast(x) if exact else nullcontext():
        return layer(full(x) if exact else x)


def down_levels(size: int, temporal: str, width: float, norm: str) -> nn.ModuleDict:
    """The mirror of G's ladder, from `size` px down to 4: two convolutions and average pooling each."""
    levels = nn.ModuleDict()
    for px in reversed(ladder(size)):
        c_in, c_out = num_channels(px, width), num_channels(px // 2, width)
        same = Conv3d(c_in, c_in, 3, padding=1)
        down = DownBlock(c_in, c_out, norm, 0.2, scale(px, temporal))
        levels[f"{px}px"] = nn.Sequential(Block(same, norm, 0.2), down)
    return levels


class Encoder(nn.Module):
    """E of section 4.2: clips (N, 3, T, H, W) -> latents (N, S, z_dim), and its maps at the foot of each level.

    The paper draws no E: this is D's ladder without the minibatch statistics. S is 1, or 4 with a latent sequence.
    """

    def __init__(self, size: int, temporal: str, width: float, z_dim: int, num_spans: int):
        super().__init__()
        base, self.num_spans = num_channels(4, width), num_spans
        self.rgb = nn.Sequential(FromRGB(num_channels(size, width)), LeakyReLU(0.2))
        self.levels = down_levels(size, temporal, width, "none")
        self.fc = nn.Linear(base * 4 * 4 * (4 // num_spans), z_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x, maps = self.rgb(x.contiguous(memory_format=torch.channels_last_3d)), {}
        for name, level in self.levels.items():
            x = maps[name] = level(x)                         # (N, c(px / 2), t(px / 2), px / 2, px / 2)
        spans = x.unflatten(2, (self.num_spans, -1)).transpose(1, 2)   # (N, S, 128w, 4 / S, 4, 4)
        return self.fc(spans.flatten(2)), maps


class Discriminator(nn.Module):
    """Table 2, read as the mirror of Table 1: (clips, c) -> logits (N,). The class enters by projection
    (Miyato & Koyama 2018) on the 128 features."""

    def __init__(
        self, num_classes: int, size: int, temporal: str, width: float, norm: str, rgb_skips: bool
    ):
        super().__init__()
        base = num_channels(4, width)
        self.rgb = nn.Sequential(FromRGB(num_channels(size, width)), LeakyReLU(0.2))
        lower = ladder(size)[:-1] if rgb_skips else ()        # levels that see the clip, too
        self.small_rgbs = nn.ModuleList(
            [nn.Sequential(FromRGB(num_channels(px, width)), LeakyReLU(0.2)) for px in lower]
        )
        self.levels = down_levels(size, temporal, width, norm)
        self.std = MinibatchStd()
        self.top = Block(Conv3d(base + 1, base, 3, padding=1), "none", 0.2)
        self.fc = nn.Linear(base * 4 * 4 * 4, 128)
        self.out = nn.Linear(128, 1)
        self.embed = nn.Embedding(num_classes, 128) if num_classes else None

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        # In bfloat16 the first convolutions and the smallest maps make most of the error of a penalty's gradient.
        exact = x.requires_grad and self.fc.weight.requires_grad
        x = x.contiguous(memory_format=torch.channels_last_3d)
        h, size = run(self.rgb, x, exact), x.shape[-1]
        for (same, down), rgb in itertools.zip_longest(self.levels.values(), reversed(self.small_rgbs)):
            px = h.shape[-1]
            h = run(same, h, exact and px in (8, size))
            h = run(down, h, exact and px == 8)               # (N, c(px / 2), t(px / 2), px / 2, px / 2)
            if rgb is not None:
                x = avg_pool(x, down.factor)
                h = h + rgb(x)
        x = run(self.top, self.std(h), exact)                 # (N, 128w, 4, 4, 4)
        h = full(F.leaky_relu(self.fc(x.flatten(1)), 0.2))    # (N, 128)
        # Logits in bfloat16 would differ by 1/128 of themselves or not at all.
        with without_autocast(h):
            logits = self.out(h).squeeze(1)
            if self.embed is not None:
                logits = logits + (self.embed(c) * h).sum(1) / math.sqrt(h.shape[1])
        return logits                                         # (N,)


class HRVGAN(VideoGAN):
    """The conditional spatio-temporal GAN of the paper.

    Args:
        num_classes: action classes; 0 for an unconditional model.
        size: height and width in pixels, one of LADDER. The number of frames follows from it and `temporal`.
        temporal: "paper" doubles time at 8, 64 and 256 px; "ancestor" at 8, 32 and 128 px.
        width: multiplies every number of channels; 1 is the paper's.
        rgb_skips: every level of G draws a picture, and the clip is their sum, each enlarged to the next; every level
            of D sees the clip at its size (Karras et al. 2020, "Analyzing and Improving", fig. 7b). A larger model may
            then start from a smaller one as the same function (`init_from`).
        latent: "vector", one z a clip (Table 1), or "sequence", one z a frame (section 4.2).
        z_dim: length of a latent vector.
        code_bits: the signs of so many values of z choose one of 2^code_bits vectors that G learns, a discrete code
            beside the continuous z (Bernoulli latents in Brock et al. 2019, E; codes in Chen et al. 2016). What comes
            in kinds, such as a colour, then needs no blends between them. Of a latent vector alone; 0 = off.
        task: "generate" (z, c) -> clip; or "predict" the rest of a clip from its first `context` frames.
        norm_g, norm_d: "batch", "instance", "pixel" or "none".
        modulate: z and c scale and shift the channels of G at every level, after the norm.
        equalised: equalised learning rate.
        objective: "logistic", "minimax", "relativistic", "wasserstein", "hinge" or "bce" (eq. 11-14).
        k, lambda1, lambda2: of eq. 12-14, for "bce".
        alpha, beta: weights of the adversarial loss and of the pixel MSE (eq. 15). With beta > 0 in task "generate",
            the reconstruction network of section 4.2 trains beside G: an encoder E, and G(E(Y)) is held against Y.
        r1_gamma, r2_gamma: weights of the penalties on real and on generated clips; 0 = off. They are sums over the
            pixels of a clip, so that the same D, seen at n times as many pixels, has 1/n of them: at other sizes than
            8 frames of 32 px they are weighted up by the number of pixels, and a gamma means the same at every size
            (Karras et al. 2020, "Analyzing and Improving", B: gamma in proportion to pixels).
        r1_every: they are computed on every `r1_every`-th step and weighted up by as much.
        gp_weight: weight of WGAN-GP's penalty (lambda of eq. 6); 0 = off.
        drift: weight of E D(x)^2, which keeps a Wasserstein D near 0 (Karras et al. 2018, A.1).
        ms_weight: weight of the mode-seeking term, which keeps G from ignoring z; 0 = off.
        augment: what is done to all that D sees, such as "colour,translation,cutout"; for small data sets.
        instance_noise: sd of the noise added to all that D sees, in units of pixel values in [-1, 1].
        optimizer: "adam" with `betas`, the paper's "sgd", or "rmsprop".
        lr_g, lr_d: learning rates.
    """

    presets: ClassVar = {
        # What we recommend: fakes held against real clips pair by pair, R1 and R2 instead of a Lipschitz penalty, no
        # norm in D, and in G one in which no clip sees another.
        "best": {},
        # The paper's, where it says: eq. 11-15, norms, SGD. It gives no rates, k or lambdas: these are our choices.
        "paper": {
            "norm_g": "batch", "norm_d": "instance", "modulate": False, "objective": "bce", "gp_weight": 10.0,
            "alpha": 0.5, "beta": 0.5, "r1_gamma": 0.0, "r2_gamma": 0.0, "ms_weight": 0.0,
            "optimizer": "sgd", "lr_g": 1e-1, "lr_d": 1e-2,   # G's gradients are a twentieth of D's, by its weights
        },
        # Losses, rates and doubling of time of the network that the tables descend from (Acharya et al. 2018), in the
        # network of Tables 1 and 2. Theirs also grows from 4 px, has leaky ReLU in G with pixel norm after it, one more
        # convolution at 4 px, a linear RGB, and deviations over groups of four clips in D.
        "wgan-gp": {
            "temporal": "ancestor", "modulate": False, "equalised": True, "objective": "wasserstein",
            "gp_weight": 10.0, "drift": 1e-3, "r1_gamma": 0.0, "r2_gamma": 0.0, "ms_weight": 0.0,
            "lr_g": 1e-3, "lr_d": 1e-3,
        },
    }

    def __init__(
        self, num_classes: int = 0, size: int = 32, *, temporal: str = "paper", width: float = 1.0,
        rgb_skips: bool = False, latent: str = "vector", z_dim: int = 128, code_bits: int = 0,
        task: str = "generate", context: int = 4,
        norm_g: str = "pixel", norm_d: str = "none", modulate: bool = True, equalised: bool = False,
        objective: str = "relativistic", k: float = 0.0, lambda1: float = 1.0, lambda2: float = 1.0,
        alpha: float = 1.0, beta: float = 0.0, r1_gamma: float = 3.0, r2_gamma: float = 3.0, r1_every: int = 8,
        gp_weight: float = 0.0, drift: float = 0.0, ms_weight: float = 0.02, augment: str = "",
        instance_noise: float = 0.0, optimizer: str = "adam", lr_g: float = 1e-3,
        lr_d: float = 5e-4, betas: tuple[float, float] = (0.0, 0.99),
    ):
        super().__init__()
        for name, value, known in [
            ("size", size, LADDER), ("temporal", temporal, DOUBLES_TIME), ("latent", latent, LATENTS),
            ("task", task, TASKS), ("norm_g", norm_g, NORMS), ("norm_d", norm_d, NORMS),
            ("objective", objective, losses.OBJECTIVES), ("optimizer", optimizer, OPTIMIZERS),
        ]:
            if value not in known:
                raise InputError(f"hrvgan: {name} {value!r} is not known; choose one of {', '.join(map(str, known))}")
        self.num_classes, self.size, self.z_dim = num_classes, size, z_dim
        self.num_frames = frames_at(size, temporal)
        self.context = context if task == "predict" else 0
        if task == "predict" and not 0 < context < self.num_frames:
            raise InputError(f"hrvgan: context {context}, need 1 to {self.num_frames - 1} of {self.num_frames} frames")
        if norm_d == "batch" and gp_weight:
            raise InputError("hrvgan: norm_d 'batch' mixes the clips of a batch, and WGAN-GP's penalty is per clip; "
                             "set norm_d to instance, pixel or none, or gp_weight to 0")
        self.latent_kind, self.temporal, self.rgb_skips = latent, temporal, rgb_skips
        encodes = beta > 0 and task == "generate"
        self.G = Generator(
            num_classes, size, temporal, width, z_dim, norm_g, modulate, latent, encodes, self.context, rgb_skips,
            code_bits if latent == "vector" else 0,
        )
        self.D = Discriminator(num_classes, size, temporal, width, norm_d, rgb_skips)
        if equalised:
            equalise(self.G)
            equalise(self.D)
        self.loss_d, self.loss_g = losses.objective_pair(objective, k, lambda1, lambda2)
        self.paired, self.alpha, self.beta = objective in losses.PAIRED, alpha, beta
        self.r1_gamma, self.r2_gamma, self.r1_every = r1_gamma, r2_gamma, r1_every
        self.gp_weight, self.drift, self.ms_weight = gp_weight, drift, ms_weight
        self.in_pairs = ms_weight > 0
        self.augment, self.instance_noise = Augment(augment), instance_noise
        self.optimizer, self.lr_g, self.lr_d, self.betas = optimizer, lr_g, lr_d, tuple(betas)

    @property
    def z_shape(self) -> tuple[int, ...]:
        return (self.num_frames, self.z_dim) if self.latent_kind == "sequence" else (self.z_dim,)

    def phases(self) -> list[Phase]:
        """Algorithm 1: one step of D, then one of G."""
        options = {"betas": self.betas} if self.optimizer == "adam" else {}
        d = make_optimizer(self.optimizer, self.D.parameters(), self.lr_d, **options)
        g = make_optimizer(self.optimizer, self.G.parameters(), self.lr_g, **options)
        return [Phase("d", self.D, d, self.d_terms), Phase("g", self.G, g, self.g_terms)]

    def d_terms(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.draw_fake(self.noise(batch), batch.c, batch.real)
        lazy, weight = batch.step % self.r1_every == 0, self.r1_every * batch.real[0, 0].numel() / GAMMA_PIXELS
        r1, r2 = self.r1_gamma > 0 and lazy, self.r2_gamma > 0 and lazy
        real = self.show(batch.real).detach().requires_grad_(r1)
        fake = self.show(fake).detach().requires_grad_(r2)
        real_logits, fake_logits = self.judge(real, batch.c), self.judge(fake, batch.c)
        batch.notes = {"logits/real": real_logits.mean(), "logits/fake": fake_logits.mean()}
        terms = {"adv": self.loss_d(real_logits, fake_logits)}
        if r1:
            terms["r1"] = self.r1_gamma / 2 * weight * losses.zero_centred_penalty(real_logits, real)
        if r2:
            terms["r2"] = self.r2_gamma / 2 * weight * losses.zero_centred_penalty(fake_logits, fake)
        if self.gp_weight:
            terms["gp"] = self.gp_weight * losses.gradient_penalty(self.judge, real.detach(), fake.detach(), batch.c)
        if self.drift:
            terms["drift"] = self.drift * real_logits.square().mean()
        return terms

    def g_terms(self, batch: Batch) -> dict[str, Tensor]:
        z, c, given = self.noise(batch), batch.c, batch.real
        if self.ms_weight:  # Neighbours share their class and first frames, so that z alone tells them apart.
            first = torch.arange(len(z)) // 2 * 2
            c, given = c[first], given[first]
        fake = self.draw_fake(z, c, given)
        real_logits = None
        if self.paired:
            with torch.no_grad():
                real_logits = self.judge(self.show(given), c)   # of the classes that the fakes have
        terms = {"adv": self.alpha * self.loss_g(self.judge(self.show(fake), c), real_logits)}
        if self.ms_weight:
            terms["ms"] = self.ms_weight * losses.mode_seeking(fake, z)
        if self.beta and self.context:
            terms["mse"] = self.beta * F.mse_loss(fake[:, :, self.context:], given[:, :, self.context:])
        elif self.beta:
            terms["mse"] = self.beta * F.mse_loss(self.G(self.encode(batch.real), batch.c), batch.real)
        return terms

    def imbalance(self, rows: Sequence[dict[str, float]]) -> str:
        undecided = torch.zeros(1)
        chance = self.loss_d(undecided, undecided).item()     # D's loss where it gives every clip the same logit
        losses = [row["loss/d/adv"] for row in rows]
        if chance > 0 and max(losses) < WON * chance:
            return (f"D tells all generated clips from real ones (loss/d/adv below {WON * chance:.2f}), so G learns "
                    "little from it: raise r1_gamma and r2_gamma, or lower lr_d")
        if chance > 0 and all(abs(loss - chance) < STUCK * chance for loss in losses):
            return (f"D tells no generated clip from a real one (loss/d/adv {chance:.2f}, as by chance), so G learns "
                    "nothing from it: lower r1_gamma and r2_gamma, or raise lr_d")
        return ""

    def noise(self, batch: Batch) -> Tensor:
        return batch_rng.randn(len(batch.real), *self.z_shape, like=batch.real)

    def draw_fake(self, z: Tensor, c: Tensor, real: Tensor) -> Tensor:
        """Clips from latents, and in task "predict" from the first frames of `real`, with which they then begin."""
        return self.G(z, c, real[:, :, : self.context] if self.context else None)

    def show(self, clips: Tensor) -> Tensor:
        """Input of D: clips, real or generated, with augmentation and instance noise."""
        clips = self.augment(clips)
        return clips + self.instance_noise * batch_rng.randn(*clips.shape, like=clips) if self.instance_noise else clips

    def generate(self, z: Tensor, c: Tensor, x: Tensor | None = None, *, psi: float = 1.0) -> Tensor:
        """z (N, *z_shape), c (N,) int64, and in task "predict" the first frames x (N, 3, context, size, size) in
        [-1, 1] -> clips (N, 3, T, size, size) in [-1, 1].

        `psi` truncates w, as StyleGAN does (Karras et al. 2019, B), and not z, of which G sees the direction alone.
        """
        if (x is not None) != bool(self.context):
            raise InputError("this model draws clips from first frames: use predict" if self.context else
                             "this model was not trained to predict: train one with task: predict")
        if psi != 1 and self.context:
            raise InputError("truncation is for models that draw from z alone; predict with psi 1")
        return self.G(z, c, x, psi, None if psi == 1 else self.centre(z, c))

    def centre(self, z: Tensor, c: Tensor, num: int = 512) -> Tensor:
        """The mean of w over `num` latents, the same ones always, of the class and the discrete code of each row of
        `z` and `c`: (N, S, 128)."""
        bits, centres = self.G.code_bits, []
        kinds = torch.cat([c.view(len(c), -1).double(), z.flatten(1)[:, :bits].sign()], 1)
        _, which = kinds.unique(dim=0, return_inverse=True)
        for kind in range(int(which.max()) + 1):
            row, latents = int((which == kind).nonzero()[0]), self.latent(num, seed=0).to(z)
            if bits:
                latents[:, :bits] = latents[:, :bits].abs() * z[row, :bits].sign()
            centres.append(self.G.mix(latents, c[row].expand(num, *c.shape[1:]), None).mean(0))
        return torch.stack(centres)[which]

    def take_levels(self, other: VideoGAN) -> dict[str, str]:
        if not self.rgb_skips or other.size >= self.size:
            return {}
        known, new = LADDER.index(other.size), ladder(self.size)[LADDER.index(other.size) + 1 :]
        silence(self.G.rgb, *self.G.small_rgbs[known + 1 :])
        silence(*(self.D.levels[f"{px}px"][-1].layer for px in new))
        if not other.rgb_skips:                                # Its lower levels neither draw nor see.
            silence(*self.G.small_rgbs[:known], *(rgb for rgb, _ in self.D.small_rgbs[:known]))
        return {"rgb.": f"small_rgbs.{known}."}

    def encode(self, clips: Tensor) -> Tensor:
        """Real clips (N, 3, T, size, size) in [-1, 1] -> E(Y) (N, S, z_dim), the latents from which `generate` draws
        them."""
        if self.G.E is None or self.context:
            raise InputError("this model has no encoder; train one with beta > 0 (task: generate)")
        return self.G.E(clips)[0]
