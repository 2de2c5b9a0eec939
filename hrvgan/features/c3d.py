"""C3D (Tran et al. 2015), Sports-1M then UCF101: the network of TGAN's Inception Score and TGANv2's FID.

Its published file is conv3d_deepnetA_ucf.npz (a Chainer model): arrays `conv1a/W`, `conv1a/b` to `fc8/b`.
mean2.npz holds the mean cube that is subtracted, `mean` (3, 16, 128, 171) in BGR.
"""

import hashlib
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

FRAMES, SIDE = 16, 112


class C3D(nn.Module):
    """BGR minus the mean cube, float (N, 3, 16, 112, 112) -> fc7 after ReLU (N, 4096), logits (N, 101).

    With `dropout` (N, 2, 4096), fc6 and fc7 are multiplied by it after their ReLU.
    """

    def __init__(self):
        super().__init__()
        conv = partial(nn.Conv3d, kernel_size=3, padding=1)
        self.conv1a = conv(3, 64)
        self.conv2a = conv(64, 128)
        self.conv3a = conv(128, 256)
        self.conv3b = conv(256, 256)
        self.conv4a = conv(256, 512)
        self.conv4b = conv(512, 512)
        self.conv5a = conv(512, 512)
        self.conv5b = conv(512, 512)
        self.fc6 = nn.Linear(512 * 4 * 4, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, 101)

    def forward(self, x: Tensor, dropout: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = _pool(self.conv1a(x).relu(), (1, 2, 2))  # (N, 64, 16, 56, 56)
        x = _pool(self.conv2a(x).relu())  # (N, 128, 8, 28, 28)
        x = self.conv3b(self.conv3a(x).relu()).relu()
        x = self.conv4a(_pool(x)).relu()  # (N, 512, 4, 14, 14)
        x = _pool(self.conv4b(x).relu())  # (N, 512, 2, 7, 7)
        x = self.conv5b(self.conv5a(x).relu()).relu()
        x = _pool(x).flatten(1)  # (N, 512 x 1 x 4 x 4): 7 becomes 4, rounded up
        of_fc6, of_fc7 = (1, 1) if dropout is None else dropout.unbind(1)
        fc6 = self.fc6(x).relu() * of_fc6
        fc7 = self.fc7(fc6).relu() * of_fc7
        return fc7, self.fc8(fc7)


def _pool(x: Tensor, side: tuple[int, int, int] = (2, 2, 2)) -> Tensor:
    return F.max_pool3d(x, side, ceil_mode=True)


def file_name(parameter: str) -> str:
    """`conv1a.weight` -> `conv1a/W`, as Chainer writes it."""
    layer, _, kind = parameter.rpartition(".")
    return f"{layer}/{'W' if kind == 'weight' else 'b'}"


def prepare_tgan(clips: Tensor, mean: Tensor) -> Tensor:
    """uint8 RGB (N, 16, H, W, 3) -> input, as TGAN: bicubic to 128x128, minus columns 21:149 of the mean, crop 8:120.

    The bicubic kernel has a = -0.75 and no antialiasing, which is OpenCV's.
    """
    return crop_tgan(shrink_tgan(clips), mean)


def shrink_tgan(clips: Tensor) -> Tensor:
    return _resize(clips, 128, mode="bicubic", align_corners=False)


def crop_tgan(x: Tensor, mean: Tensor) -> Tensor:
    return (x - mean[..., 21:149])[..., 8:120, 8:120]


def dropout_factors(clips: Tensor) -> Tensor:
    """uint8 clips -> dropout of fc6 and fc7, float (N, 2, 4096): 0 or 2 with probability 1/2 each, as Chainer's.

    A hash of the clip is the seed, so that its features depend neither on its batch nor on the device.
    """
    seeds = [int.from_bytes(hashlib.sha256(clip.numpy().tobytes()).digest()) for clip in clips.cpu()]
    kept = np.stack([np.random.default_rng(seed).integers(2, size=(2, 4096)) for seed in seeds])
    return torch.as_tensor(2 * kept, dtype=torch.float32, device=clips.device)


def prepare_tganv2(clips: Tensor, mean: Tensor) -> Tensor:
    """uint8 RGB (N, 16, H, W, 3) -> input, as TGANv2: bilinear straight to 112x112, minus rows and columns 8:120.

    Corners are aligned, as Chainer's resize_images does.
    """
    return crop_tganv2(shrink_tganv2(clips), mean)


def shrink_tganv2(clips: Tensor) -> Tensor:
    return _resize(clips, SIDE, mode="bilinear", align_corners=True)


def crop_tganv2(x: Tensor, mean: Tensor) -> Tensor:
    return x - mean[..., 8:120, 8:120]


def _resize(clips: Tensor, side: int, **options: object) -> Tensor:
    """uint8 RGB (N, T, H, W, 3) -> BGR levels, float (N, 3, T, side, side)."""
    frames = clips.flatten(0, 1).permute(0, 3, 1, 2)
    few = frames.split(max(1, 2**24 // frames[0].numel()))  # floats of HD video are large
    resized = torch.cat([F.interpolate(some.flip(1).float(), size=(side, side), **options) for some in few])
    return resized.unflatten(0, clips.shape[:2]).transpose(1, 2)


def mean_cube(arrays: dict[str, torch.Tensor]) -> Tensor:
    """The mean (3, 16, 128, 171) of mean2.npz, which is stored with or without a leading axis of 1."""
    return arrays["mean"].float().reshape(3, FRAMES, 128, 171)
