"""I3D (Carreira and Zisserman 2017), RGB, Kinetics-400: the network of FVD (Unterthiner et al. 2018).

Parameter names are those of i3d_pretrained_400.pt, the TF-Hub weights as VideoGPT and TATS converted them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 224


class Unit(nn.Module):
    """Convolution with TensorFlow's SAME padding, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, side: int = 1, stride: int = 1, last: bool = False):
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, out_channels, side, stride, bias=last)
        # Sonnet's epsilon, which the weights were trained with.
        self.bn = None if last else nn.BatchNorm3d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3d(same(x, self.conv3d.kernel_size, self.conv3d.stride))
        return x if self.bn is None else self.bn(x).relu()


class Mixed(nn.Module):
    """Four branches side by side; `widths` as in Szegedy et al. 2015, table 1."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]):
        super().__init__()
        self.b0 = Unit(in_channels, widths[0])
        self.b1a, self.b1b = Unit(in_channels, widths[1]), Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = Unit(in_channels, widths[3]), Unit(widths[3], widths[4], 3)
        self.b3b = Unit(in_channels, widths[5])

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pool(x, (3, 3, 3), (1, 1, 1)))]
        return torch.cat(branches, dim=1)


class I3D(nn.Module):
    """Float (N, 3, T, 224, 224) in [-1, 1], T >= 9 -> logits (N, 400), averaged over time, before softmax."""

    def __init__(self):
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        self.Mixed_3b = Mixed(192, (64, 96, 128, 16, 32, 32))
        self.Mixed_3c = Mixed(256, (128, 128, 192, 32, 96, 64))
        self.Mixed_4b = Mixed(480, (192, 96, 208, 16, 48, 64))
        self.Mixed_4c = Mixed(512, (160, 112, 224, 24, 64, 64))
        self.Mixed_4d = Mixed(512, (128, 128, 256, 24, 64, 64))
        self.Mixed_4e = Mixed(512, (112, 144, 288, 32, 64, 64))
        self.Mixed_4f = Mixed(528, (256, 160, 320, 32, 128, 128))
        self.Mixed_5b = Mixed(832, (256, 160, 320, 32, 128, 128))
        self.Mixed_5c = Mixed(832, (384, 192, 384, 48, 128, 128))
        self.logits = Unit(1024, 400, last=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv3d_1a_7x7(x)                          # (N, 64, T/2, 112, 112)
        x = pool(x, (1, 3, 3), (1, 2, 2))                  # (N, 64, T/2, 56, 56)
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
        x = pool(x, (1, 3, 3), (1, 2, 2))                  # (N, 192, T/2, 28, 28)
        x = self.Mixed_3c(self.Mixed_3b(x))
        x = pool(x, (3, 3, 3), (2, 2, 2))                  # (N, 480, T/4, 14, 14)
        x = self.Mixed_4d(self.Mixed_4c(self.Mixed_4b(x)))
        x = self.Mixed_4f(self.Mixed_4e(x))
        x = pool(x, (2, 2, 2), (2, 2, 2))                  # (N, 832, T/8, 7, 7)
        x = self.Mixed_5c(self.Mixed_5b(x))
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)           # (N, 1024, T/8 - 1, 1, 1)
        return self.logits(x).mean(dim=(2, 3, 4))


def same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """TensorFlow's SAME padding with zeros: what is odd goes behind."""
    pads = []
    for length, side, step in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max(side - (length % step or step), 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    return F.max_pool3d(same(x, kernel, stride), kernel, stride)  # After ReLU, zeros change no maximum.


def prepare(clips: Tensor) -> Tensor:
    """uint8 (N, T, H, W, 3) -> input: bilinear to 224x224 (squashed, no antialiasing), 2x/255 - 1."""
    frames = clips.flatten(0, 1).permute(0, 3, 1, 2).float()
    resized = F.interpolate(frames, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return (2 * resized / 255 - 1).unflatten(0, clips.shape[:2]).transpose(1, 2)
