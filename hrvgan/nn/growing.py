"""Progressive growing (Karras et al. 2018; over space and time Acharya et al. 2018): levels, and clips at them."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Level(NamedTuple):
    """A resolution on the way up. While it fades in, `alpha` of a clip has it and the rest that of the level below."""

    shape: tuple[int, int, int]  # (T, H, W)
    alpha: float = 1.0
    below: tuple[int, int, int] | None = None  # the shape one level below, while alpha < 1


def position(num_clips: int, clips_per_level: int, num_levels: int) -> float:
    """Where a model stands that trains each level for `clips_per_level` clips and fades to the next over as many:
    1.25 is a quarter of the way from level 1 to level 2."""
    level, within = divmod(num_clips / clips_per_level, 2)
    return min(level + max(0.0, within - 1), num_levels - 1.0)


def at_level(clips: Tensor, level: Level) -> Tensor:
    """Clips (N, 3, T, H, W) of the full size -> (N, 3, *level.shape): means of blocks."""
    if clips.shape[2:] != level.shape:
        clips = F.adaptive_avg_pool3d(clips, level.shape)
    if level.below is None:
        return clips
    return fade(enlarge(F.adaptive_avg_pool3d(clips, level.below), level.shape), clips, level.alpha)


def fade(below: Tensor, above: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) below + alpha above; dtypes may differ, as under autocast they do."""
    return below + alpha * (above - below)


def enlarge(clips: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Clips (N, C, T, H, W) with every value repeated, to `shape` (T, H, W)."""
    return F.interpolate(clips, size=shape, mode="nearest")
