"""Real clips spoilt in known ways: in their time, by noise, and by the faults of generators.

The reference network must tell them from real clips (`hrvgan/evaluation/gates.py`), and is trained to see the faults.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hrvgan.clipstore.layout import to_float, to_uint8

NOISE = 0.2  # Standard deviation, as a share of the range.
# Strength 1 of each fault of generators.
WARP = 1 / 16  # The largest shift, as a share of the frame: 2 px of 32.
WARP_GRID = 4  # Shifts are drawn at so many points a side, and interpolated.
GHOST = 0.15  # Opacity.
CHECKER, CELLS = 6, 32  # Levels between neighbouring cells; cells across the frame, of a pixel or more.

Fault = Callable[[Tensor, np.random.Generator, np.ndarray], Tensor]


# In time, and noise: uint8 (N, T, H, W, 3).

def shuffled(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames of each clip in random order, never the right one (if there are two frames)."""
    orders = [_wrong_order(clips.shape[1], rng) for _ in clips]
    return np.stack([clip[order] for clip, order in zip(clips, orders, strict=True)]) if orders else clips


def _wrong_order(length: int, rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(length)
    while length > 1 and (np.diff(order) == 1).all():
        order = rng.permutation(length)
    return order


def frozen(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One frame, drawn for each clip, repeated."""
    chosen = rng.integers(clips.shape[1], size=len(clips))
    return np.repeat(clips[np.arange(len(clips)), chosen][:, None], clips.shape[1], axis=1)


def half_speed(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each frame twice, from a start drawn for each clip."""
    length = clips.shape[1]
    starts = rng.integers((length + 1) // 2, size=(len(clips), 1))
    order = starts + np.arange(length) // 2
    return np.take_along_axis(clips, order[:, :, None, None, None], axis=1)


def noisy(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Independent Gaussian noise on every value, clipped to the range."""
    noise = rng.standard_normal(clips.shape, dtype=np.float32) * (255 * NOISE)
    return (clips + noise).round().clip(0, 255).astype(np.uint8)


# Faults of generators: float (N, 3, T, H, W) in [-1, 1], with strengths (N,).

def warped(video: Tensor, rng: np.random.Generator, strength: np.ndarray) -> Tensor:
    """Elastic: smooth shifts, drawn anew for each frame."""
    n, _, num_frames, height, width = video.shape
    shifts = rng.uniform(-1, 1, size=(n, num_frames, 2, WARP_GRID, WARP_GRID)) * 2 * WARP
    shifts = torch.as_tensor(shifts * _column(strength)).to(video).flatten(0, 1)
    shifts = F.interpolate(shifts, (height, width), mode="bilinear", align_corners=True).movedim(1, -1)
    places = F.affine_grid(torch.eye(2, 3).to(video).expand(len(shifts), 2, 3), (len(shifts), 1, height, width), False)
    frames = video.transpose(1, 2).flatten(0, 1)
    frames = F.grid_sample(frames, places + shifts, padding_mode="border", align_corners=False)
    return frames.unflatten(0, (n, num_frames)).transpose(1, 2)


def ghosted(video: Tensor, rng: np.random.Generator, strength: np.ndarray) -> Tensor:
    """Another clip of the batch shines through."""
    order = rng.permutation(len(video))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)
    opacity = torch.as_tensor(GHOST * _column(strength)).to(video)
    return torch.lerp(video, video[other], opacity)


def two_coloured(video: Tensor, rng: np.random.Generator, strength: np.ndarray) -> Tensor:
    """Half of what stands out from the ground, beside a line through its middle, has the colour of another clip's.

    That of the batch whose colour differs most: many clips have the same.
    """
    n, _, _, height, width = video.shape
    inside, colour = _objects(video)
    other = torch.cdist(colour.flatten(1), colour.flatten(1)).argmax(dim=1)
    angle = torch.as_tensor(_column(rng.uniform(0, 2 * np.pi, size=n))).to(video)
    y, x = (torch.arange(side).to(video) for side in (height, width))
    across = x * angle.cos() + y[:, None] * angle.sin()  # (N, 1, 1, H, W)
    area = inside.sum(dim=(3, 4), keepdim=True).clamp(min=1e-6)  # (N, 1, T, 1, 1)
    half = across > (inside * across).sum(dim=(3, 4), keepdim=True) / area
    mixed = inside * half * torch.as_tensor(_column(strength.clip(max=1))).to(video)
    return (video + mixed * (colour[other] - colour)).clamp(-1, 1)


def _objects(video: Tensor) -> tuple[Tensor, Tensor]:
    """Share (N, 1, T, H, W) of each pixel in what stands out from the ground, and its mean colour (N, 3, 1, 1, 1)."""
    ground = video.flatten(2).median(dim=2).values[..., None, None, None]
    distance = (video - ground).norm(dim=1, keepdim=True)
    inside = (2 * distance / distance.amax(dim=(1, 2, 3, 4), keepdim=True).clamp(min=1e-6) - 0.5).clamp(0, 1)
    volume = inside.sum(dim=(2, 3, 4), keepdim=True).clamp(min=1e-6)
    return inside, (inside * video).sum(dim=(2, 3, 4), keepdim=True) / volume


def colours_apart(clips: np.ndarray) -> float:
    """Median over uint8 (N, T, H, W, 3) of the distance to the most different object's colour, over the sd of an
    object's own colours: about 1 where objects have several colours themselves."""
    video = to_float(torch.as_tensor(clips))
    inside, colour = _objects(video)
    variance = (inside * (video - colour).square()).sum(dim=(1, 2, 3, 4)) / inside.sum(dim=(1, 2, 3, 4)).clamp(min=1e-6)
    farthest = torch.cdist(colour.flatten(1), colour.flatten(1)).amax(dim=1)
    return float((farthest / variance.sqrt().clamp(min=1e-6)).median())


def checkered(video: Tensor, rng: np.random.Generator, strength: np.ndarray) -> Tensor:
    """Every other cell brighter, its neighbours darker."""
    y, x = (torch.arange(side) // max(1, side // CELLS) for side in video.shape[3:])
    sign = 1.0 - (y[:, None] + x) % 2 * 2
    step = torch.as_tensor(_column(CHECKER / 127.5 * strength))
    return (video + (sign * step / 2).to(video)).clamp(-1, 1)


def _column(values: np.ndarray) -> np.ndarray:
    return values[:, None, None, None, None]


def of_levels(fault: Fault, strength: float = 1.0) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """`fault` at `strength`, of uint8 (N, T, H, W, 3)."""

    def perturb(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not len(clips):
            return clips
        return to_uint8(fault(to_float(torch.as_tensor(clips)), rng, np.full(len(clips), strength))).numpy()

    return perturb


FAULTS = {"warped": warped, "ghosted": ghosted, "two-coloured": two_coloured, "checkered": checkered}
PERTURBATIONS = {"shuffled": shuffled, "frozen": frozen, "noisy": noisy} | {
    name: of_levels(fault) for name, fault in FAULTS.items()
}
