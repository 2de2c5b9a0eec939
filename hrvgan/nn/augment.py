"""Differentiable augmentation of the clips that D sees, real and generated (Zhao et al. 2020, DiffAugment).

A clip gets one draw for all its frames, so that its motion stays its own.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvgan.errors import InputError
from hrvgan.ops import batch_rng


def per_clip(clips: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), one a clip, that broadcast over (N, C, T, H, W)."""
    return batch_rng.rand(len(clips), 1, 1, 1, 1, like=clips)


def colour(clips: Tensor) -> Tensor:
    """Brightness shifted by up to a quarter of the range, saturation scaled by 0 to 2, contrast by 0.5 to 1.5."""
    clips = clips + per_clip(clips) - 0.5
    grey = clips.mean(1, keepdim=True)
    clips = grey + (clips - grey) * (per_clip(clips) * 2)
    mean = clips.mean((1, 2, 3, 4), keepdim=True)
    return mean + (clips - mean) * (per_clip(clips) + 0.5)


def translation(clips: Tensor, ratio: float = 0.125) -> Tensor:
    """Moved by up to `ratio` of the size along both axes; what comes in is black (-1)."""
    size = clips.shape[-1]
    most = max(1, int(size * ratio + 0.5))
    rows, columns = (batch_rng.randint(2 * most + 1, len(clips), 1, like=clips) for _ in range(2))
    inside = torch.arange(size, device=clips.device)
    rows, columns = rows + inside, columns + inside  # (N, size)
    padded = F.pad(clips + 1, [most] * 4).permute(0, 3, 4, 1, 2)  # (N, H + 2 most, W + 2 most, C, T)
    clip = torch.arange(len(clips), device=clips.device)[:, None, None]
    return padded[clip, rows[:, :, None], columns[:, None]].permute(0, 3, 4, 1, 2) - 1


def cutout(clips: Tensor, ratio: float = 0.5) -> Tensor:
    """A grey (0) square of `ratio` of the size, the same place in every frame."""
    size = clips.shape[-1]
    side = int(size * ratio + 0.5)
    inside = torch.arange(size, device=clips.device)
    hit = [
        (inside >= first - side // 2) & (inside < first - side // 2 + side)  # (N, size)
        for first in (batch_rng.randint(size + 1, len(clips), 1, like=clips) for _ in range(2))
    ]
    return clips * ~(hit[0][:, :, None] & hit[1][:, None])[:, None, None]


AUGMENTATIONS = {"colour": colour, "translation": translation, "cutout": cutout}


class Augment:
    """The augmentations named in `policy` ("colour,translation,cutout"; "" is none), one after the other."""

    def __init__(self, policy: str = ""):
        names = [name.strip() for name in policy.split(",") if name.strip()]
        for name in names:
            if name not in AUGMENTATIONS:
                raise InputError(f"augment: unknown {name!r}; known: {', '.join(AUGMENTATIONS)}")
        self.steps = [AUGMENTATIONS[name] for name in names]

    def __call__(self, clips: Tensor) -> Tensor:
        for step in self.steps:
            clips = step(clips)
        return clips
