"""Winograd's minimal filtering along one axis, y = At [(G w) * (Bt x)], and what a kernel is compiled for.

One set of products gives a tile: `len(At)` neighbours of y, from a window of x that starts one before the tile's own
`step` elements. In three dimensions each axis has its scheme, and each product is one of matrices over channels. As y
is linear in w, the gradient w.r.t. w is Gt [(A g) * (Bt x)], given g = dL/dy (Lavin & Gray 2016).
"""

import math
from typing import NamedTuple, Self

import torch

from hrvgan.ops.cpu import jit

Matrix = tuple[tuple[float, ...], ...]
NUM_NEIGHBOURS = 2  # tiles along the width that are transformed at once; also the numbers of a bfloat16 pair
MIDDLE = 1  # the point of an axis at which A adds up all outputs of a tile
CACHE_WORDS = 2**18  # that the tables of a thread may have: 1 MiB
MAX_LINE_CHANNELS = 32  # c_in: with more, the weights of a line of points do not stay in the first cache
SIZES = ("times", "heights", "widths")  # kernel arguments: tiles along each axis


class Scheme(NamedTuple):
    Bt: Matrix  # (points, window)
    G: Matrix  # (points, 3)
    At: Matrix  # (outputs, points)
    step: int  # elements of x from tile to tile

    @property
    def A(self) -> Matrix:
        return tuple(zip(*self.At, strict=True))

    @property
    def Gt(self) -> Matrix:
        return tuple(zip(*self.G, strict=True))

    @property
    def points(self) -> int:
        return len(self.Bt)

    @property
    def outputs(self) -> int:
        return len(self.At)

    @property
    def ring_width(self) -> int:
        """Columns of x that neighbouring tiles see together."""
        return len(self.Bt[0]) + (NUM_NEIGHBOURS - 1) * self.step


# Three weights at stride 1: 4 products for 2 outputs, where the plain sum has 6 (Winograd's F(2, 3)).
SAME = Scheme(
    Bt=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    G=((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    At=((1, 1, 1, 0), (0, 1, -1, -1)),
    step=2,
)

# Nearest upsampling by 2, then three weights (g, h, k): 3 products, where a transposed convolution has 4. The two
# outputs of x[i] are s x[i] + g (x[i - 1] - x[i]) and s x[i] + k (x[i + 1] - x[i]), with s = g + h + k.
UP = Scheme(
    Bt=((1, -1, 0), (0, 1, 0), (0, -1, 1)), G=((1, 0, 0), (1, 1, 1), (0, 0, 1)), At=((1, 1, 0), (0, 1, 1)), step=1
)

# The adjoint of UP, its gradient w.r.t. x, for flipped weights as with SAME: (k, h, g).
DOWN = Scheme(
    Bt=((0, -1, 0, 1), (0, 1, 1, 0), (1, 0, -1, 0)), G=((0, 0, 1), (1, 1, 1), (1, 0, 0)), At=((1, 1, 1),), step=2
)

Axes = tuple[Scheme, Scheme, Scheme]
Factor = tuple[int, int, int]  # of nearest upsampling before the convolution, each 1 or 2


def schemes(factor: Factor, doubling: Scheme = UP) -> Axes:
    return tuple(doubling if f == 2 else SAME for f in factor)


class Plan(NamedTuple):
    """Constants that a kernel is compiled for."""

    axes: Axes
    half: bool  # bfloat16 in memory and in products, float32 in sums
    lanes: int  # channels in a vector of float32
    columns: int  # vectors of output channels that a block of registers holds sums of
    rows: int  # tiles (or input channels) that it holds sums of
    tiles: int  # in the cache at a time
    num_points: int = 1  # points that it holds sums of: one, or all of the last axis

    @classmethod
    def of_convolution(cls, axes: Axes, dtype: torch.dtype, c_in: int, c_out: int) -> Self:
        widest, half = jit.lanes(), dtype == torch.bfloat16
        lanes = 16 if widest == 16 and c_in % 16 == 0 and c_out % 16 == 0 else 8
        columns = 2 if c_out % (2 * lanes) == 0 else 1
        num_points, sums = 1, 24 if widest == 16 else 12  # in registers
        rows = sums // 2
        if widest == 16 and c_in <= MAX_LINE_CHANNELS:
            num_points = axes[2].points
            rows = sums // (num_points * columns)
        plans = [cls(axes, half, lanes, columns, rows, tiles, num_points) for tiles in (24, 12)]
        return next((plan for plan in plans if plan.scratch(c_in) <= CACHE_WORDS), plans[-1])

    @classmethod
    def of_weight_gradient(cls, axes: Axes, dtype: torch.dtype, c_in: int, c_out: int) -> Self:
        rows, tiles = 8 if jit.lanes() == 16 else 4, 64 if dtype == torch.bfloat16 else 32
        return cls.of_convolution(axes, dtype, c_in, c_out)._replace(rows=rows, tiles=tiles, num_points=1)

    def num_tiles(self, shape: torch.Size) -> dict[str, int]:
        """Kernel arguments for x of this shape: tiles along each axis, and in all."""
        counts = [n // axis.step for n, axis in zip(shape[2:], self.axes, strict=True)]
        return dict(zip(SIZES, counts, strict=True)) | {"tiles": shape[0] * math.prod(counts)}

    @property
    def points(self) -> int:
        return self.axes[0].points * self.plane

    @property
    def plane(self) -> int:
        """Points of the last two axes, for one of the first."""
        return self.axes[1].points * self.axes[2].points

    def point(self, d: int, h: int, w: int) -> int:
        return d * self.plane + h * self.axes[2].points + w

    @property
    def line(self) -> Matrix:
        """Transform of the sums of these points before they leave the registers."""
        return self.axes[2].At if self.num_points > 1 else ((1,),)

    @property
    def num_stored(self) -> int:
        """Sums that are stored for a tile and an output channel."""
        return self.points // self.num_points * len(self.line)

    @property
    def pair(self) -> int:
        """Numbers in a word of 4 bytes: a float32, or two bfloat16 for one dot product instruction."""
        return 2 if self.half else 1

    @property
    def words(self) -> int:
        """Words that hold `lanes` channels."""
        return self.lanes // self.pair

    @property
    def wide(self) -> int:
        """Output channels of a block of registers."""
        return self.lanes * self.columns

    def scratch(self, c_in: int) -> int:
        """Words that a thread of the convolution needs: for inputs, for sums, and the ring."""
        inputs, sums = self.points * c_in // self.pair, self.num_stored * self.wide
        return self.tiles * (inputs + sums) + self.ring(c_in)

    def ring(self, c_in: int) -> int:
        d, h, w = self.axes
        return d.points * h.points * w.ring_width * c_in

    def weight_gradient_scratch(self, c_in: int, c_out: int) -> int:
        """Words that a thread of the weight gradient needs, for one point of the first axis."""
        return self.plane * self.tiles // self.pair * (c_in + c_out) + self.ring(c_in)
