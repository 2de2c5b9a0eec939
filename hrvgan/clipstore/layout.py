"""Conversion between the two tensor layouts of the project.

On disk and in `video/`: uint8 (T, H, W, C). In models: float (N, C, T, H, W) in [-1, 1].
"""

import torch
from torch import Tensor


def to_float(clips: Tensor) -> Tensor:
    """uint8 (N, T, H, W, C) -> torch's default dtype, float32, (N, C, T, H, W) in [-1, 1], on the device of `clips`."""
    return clips.permute(0, 4, 1, 2, 3).to(torch.get_default_dtype()).div_(127.5).sub_(1)


def to_uint8(clips: Tensor) -> Tensor:
    """float (N, C, T, H, W) in [-1, 1] -> uint8 (N, T, H, W, C), rounded: truncating would shift every level down."""
    levels = clips.float().add(1).mul(127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()
