"""MoCoGAN (Tulyakov, Liu, Yang & Kautz 2018, "Decomposing Motion and Content for Video Generation"): a GRU walks
through a space of motions while the content stands still; one discriminator sees frames, one sees clips.

Shapes are (N, C, T, H, W), comments give those of 64 px x 16 frames at width 1, as published. At 32 px one level is
dropped, the widest: G starts with 256 channels, and the last kernel of the video discriminator spans the 7 time steps
that are left.
"""

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvgan.nn.base import Batch, Phase, VideoGAN, channels, check_shape
from hrvgan.nn.losses import logistic_d, logistic_g
from hrvgan.nn.optim import adam
from hrvgan.ops import batch_rng

SHAPES = ((32, 16), (64, 16))  # (pixels, frames)


class Generator(nn.Module):
    """(z, c) -> clips. z holds all that is drawn for a clip: its content, the GRU's first state, the GRU's inputs."""

    def __init__(self, num_classes: int, size: int, num_frames: int, dim_content: int, dim_motion: int, width: float):
        super().__init__()
        self.num_classes = num_classes
        self.parts = [dim_content, dim_motion, num_frames * dim_motion]
        self.gru = nn.GRUCell(dim_motion, dim_motion)
        widths = channels(size, width)[::-1]
        dim_z = dim_content + num_classes + dim_motion
        layers = [nn.ConvTranspose2d(dim_z, widths[0], 4, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        for c_in, c_out in pairwise(widths):
            layers += [nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out),
                       nn.ReLU(inplace=True)]
        self.image = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1, bias=False), nn.Tanh())

    def frame_latents(self, z: Tensor, c: Tensor) -> Tensor:
        """z (N, z_dim), c (N,) labels or (N, num_classes) weights of the classes -> (N, T, content + classes + motion),
        what the image generator makes each frame of."""
        content, state, inputs = z.split(self.parts, 1)
        motion = []
        for step in inputs.split(state.shape[1], 1):
            state = self.gru(step, state)
            motion.append(state)
        motion = torch.stack(motion, 1)                       # (N, 16, 10)
        still = [content]
        if self.num_classes:
            still.append(c.to(z.dtype) if c.is_floating_point() else F.one_hot(c, self.num_classes).to(z.dtype))
        still = torch.cat(still, 1).unsqueeze(1).expand(-1, motion.shape[1], -1)
        return torch.cat([still, motion], 2)                  # (N, 16, 60 + K)

    def frames(self, latents: Tensor) -> Tensor:
        """(M, content + classes + motion) -> (M, 3, H, W)."""
        return self.image(latents[:, :, None, None])

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        frames = self.frames(self.frame_latents(z, c).flatten(0, 1))          # (N 16, 3, 64, 64)
        return frames.unflatten(0, (len(z), -1)).transpose(1, 2).contiguous()  # (N, 3, 16, 64, 64)


class Noise(nn.Module):
    """Adds N(0, sigma^2) in training."""

    def __init__(self, sigma: float):
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * batch_rng.randn(*x.shape, like=x) if self.training and self.sigma else x


class ImageDiscriminator(nn.Sequential):
    """Frames (M, 3, H, W) -> (M, 1, 4, 4), a logit a patch."""

    def __init__(self, size: int, width: float, noise: float):
        widths = channels(size, width)[:-1]                   # 64, 128, 256
        layers = [Noise(noise), nn.Conv2d(3, widths[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
        for c_in, c_out in pairwise(widths):
            layers += [Noise(noise), nn.Conv2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out),
                       nn.LeakyReLU(0.2, inplace=True)]
        super().__init__(*layers, Noise(noise), nn.Conv2d(widths[-1], 1, 4, 2, 1, bias=False))


class VideoDiscriminator(nn.Sequential):
    """Clips (N, 3, T, H, W) -> (N, 1 + classes): a logit real or fake, then one a class."""

    def __init__(self, num_classes: int, size: int, num_frames: int, width: float, noise: float):
        widths = channels(size, width)                        # time: 16, 13, 10, 7, 4, 1
        options = {"kernel_size": 4, "stride": (1, 2, 2), "padding": (0, 1, 1), "bias": False}
        layers = [Noise(noise), nn.Conv3d(3, widths[0], **options), nn.LeakyReLU(0.2, inplace=True)]
        for c_in, c_out in pairwise(widths):
            layers += [Noise(noise), nn.Conv3d(c_in, c_out, **options), nn.BatchNorm3d(c_out),
                       nn.LeakyReLU(0.2, inplace=True)]
        last = (num_frames - 3 * len(widths), 4, 4)
        super().__init__(*layers, nn.Conv3d(widths[-1], 1 + num_classes, last, bias=False), nn.Flatten())


def one_each(sequences: Tensor) -> Tensor:
    """(N, T, ...) -> (N, ...): of each sequence one step, at random."""
    when = batch_rng.randint(sequences.shape[1], len(sequences), like=sequences)
    return sequences[torch.arange(len(sequences), device=sequences.device), when]


class MoCoGAN(VideoGAN):
    """Motion and content apart; with classes, those are a third part (a one-hot code in G, a head in the video D).

    Kept because they define the method: the GRU over fresh noise, the discriminators of single frames (patches) and
    of clips, fake frames of many clips, three optimisers, fresh fakes in each of the three steps, labels
    drawn evenly, a D that learns the class of real clips only and teaches it to G. No average of G.

    Args:
        num_classes: 0 for an unconditional model.
        size, num_frames: 64 px (published) or 32, with 16 frames.
        width: multiplies every number of channels; 1 is the paper's.
        dim_content, dim_motion: lengths of the two parts of a frame's latent.
        noise: standard deviation of what is added to the input of the discriminators' convolutions.
        class_weight: of the two cross entropies of the class.
        lr, betas, weight_decay: Adam, for G and each D.
    """

    presets: ClassVar = {
        # The defaults of the authors' program (batches of 10 frames and 3 clips there).
        "paper": {"dim_content": 50, "dim_motion": 10, "width": 1.0, "noise": 0.0, "lr": 2e-4, "betas": (0.5, 0.999),
                  "weight_decay": 1e-5},
        # What they advise for UCF101 (batches of 32).
        "noisy": {"noise": 0.1},
    }

    def __init__(
        self, num_classes: int = 0, size: int = 64, num_frames: int = 16, *, width: float = 1.0,
        dim_content: int = 50, dim_motion: int = 10, noise: float = 0.0, class_weight: float = 1.0,
        lr: float = 2e-4, betas: tuple[float, float] = (0.5, 0.999), weight_decay: float = 1e-5,
    ):
        super().__init__()
        check_shape("mocogan", size, num_frames, SHAPES)
        self.num_classes, self.size, self.num_frames = num_classes, size, num_frames
        self.class_weight, self.lr, self.betas, self.weight_decay = class_weight, lr, tuple(betas), weight_decay
        self.G = Generator(num_classes, size, num_frames, dim_content, dim_motion, width)
        self.z_dim = sum(self.G.parts)
        self.D = nn.ModuleDict({
            "image": ImageDiscriminator(size, width, noise),
            "video": VideoDiscriminator(num_classes, size, num_frames, width, noise),
        })

    def judge(self, clips: Tensor, c: Tensor) -> Tensor:
        """Mean over the patches of all frames, plus the logit of the clip, plus the log-probability of the class."""
        frames = self.D["image"](clips.transpose(1, 2).flatten(0, 1)).flatten(1).mean(1)
        logits = self.D["video"](clips)
        score = frames.unflatten(0, (len(clips), -1)).mean(1) + logits[:, 0]
        return score - F.cross_entropy(logits[:, 1:], c, reduction="none") if self.num_classes else score

    def phases(self) -> list[Phase]:
        """One step of each discriminator, then one of G, each on fakes of its own."""
        def optimizer(module: nn.Module) -> torch.optim.Optimizer:
            return adam(module.parameters(), self.lr, betas=self.betas, weight_decay=self.weight_decay)

        return [
            Phase("d_image", self.D["image"], optimizer(self.D["image"]), self.image_terms),
            Phase("d", self.D["video"], optimizer(self.D["video"]), self.video_terms),
            Phase("g", self.G, optimizer(self.G), self.g_terms),
        ]

    def drawn(self, real: Tensor) -> tuple[Tensor, Tensor]:
        """(z, c) of as many clips as `real`, classes drawn evenly."""
        z = batch_rng.randn(len(real), self.z_dim, like=real)
        return z, batch_rng.randint(max(self.num_classes, 1), len(real), like=real)

    def fake_frames(self, real: Tensor) -> Tensor:
        """(N, 3, H, W): one frame of each of N clips of their own. (The authors choose from the latents of a large set
        of clips, so that hardly two frames share one.)"""
        return self.G.frames(one_each(self.G.frame_latents(*self.drawn(real))))

    def real_frames(self, real: Tensor) -> Tensor:
        """Clips (N, 3, T, H, W) -> one frame of each, at random, (N, 3, H, W)."""
        return one_each(real.transpose(1, 2))

    def image_terms(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.fake_frames(batch.real)
        real = self.real_frames(batch.real)
        return {"adv": logistic_d(self.D["image"](real).float(), self.D["image"](fake).float())}

    def video_terms(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.G(*self.drawn(batch.real))
        real_logits, fake_logits = self.D["video"](batch.real).float(), self.D["video"](fake).float()
        terms = {"adv": logistic_d(real_logits[:, 0], fake_logits[:, 0])}
        return terms | self.class_terms(real_logits, batch.c)

    def g_terms(self, batch: Batch) -> dict[str, Tensor]:
        z, c = self.drawn(batch.real)
        logits = self.D["video"](self.G(z, c)).float()
        terms = {
            "adv": logistic_g(logits[:, 0]),
            "adv_image": logistic_g(self.D["image"](self.fake_frames(batch.real)).float()),
        }
        return terms | self.class_terms(logits, c)

    def class_terms(self, logits: Tensor, c: Tensor) -> dict[str, Tensor]:
        """Cross entropy of the video discriminator's class head, logits (N, 1 + classes)."""
        return {"class": self.class_weight * F.cross_entropy(logits[:, 1:], c)} if self.num_classes else {}
