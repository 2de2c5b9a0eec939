"""Winograd's minimal filtering along one axis, y = At [(G w) * (Bt x)], and what a kernel is compiled for.

One set of products gives a tile: `len(At)` neighbours of y, from a window of x that starts one before the tile's own
`step` elements. In three dimensions each axis has its scheme, and each product is one of matrices over channels. As y
is linear in w, the gradient w.r.t. w is Gt [(A g) * (Bt x)], given g = dL/dy (Lavin & Gray 2016).
"""

from typing import NamedTuple

Matrix = tuple[tuple[float, ...], ...]


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
    Bt=((1, -1, 0), (0, 1, 0), (0, -1, 1)),
    G=((1, 0, 0), (1, 1, 1), (0, 0, 1)),
    At=((1, 1, 0), (0, 1, 1)),
    step=1,
)

# The adjoint of UP, its gradient w.r.t. x, for flipped weights as with SAME: (k, h, g).
DOWN = Scheme(
    Bt=((0, -1, 0, 1), (0, 1, 1, 0), (1, 0, -1, 0)),
    G=((0, 0, 1), (1, 1, 1), (1, 0, 0)),
    At=((1, 1, 1),),
    step=2,
)


# Neighbours along the width whose inputs are transformed at once; also the numbers of a bfloat16 pair.
NUM_NEIGHBOURS = 2
MIDDLE = 1  # the point of an axis at which A adds up all outputs of a tile


def ring_width(axis: Scheme) -> int:
    """Columns of x that neighbouring tiles see together."""
    return len(axis.Bt[0]) + (NUM_NEIGHBOURS - 1) * axis.step


class Plan(NamedTuple):
    """Constants that a kernel is compiled for."""

    axes: tuple[Scheme, Scheme, Scheme]
    half: bool  # bfloat16 in memory and in products, float32 in sums
    lanes: int  # channels in a vector of float32
    columns: int  # vectors of output channels that a block of registers holds sums of
    rows: int  # tiles (or input channels) that it holds sums of
    tiles: int  # in the cache at a time
    num_points: int = 1  # points that it holds sums of: one, or all of the last axis

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
        return d.points * h.points * ring_width(w) * c_in

    def weight_gradient_scratch(self, c_in: int, c_out: int) -> int:
        """Words that a thread of the weight gradient needs, for one point of the first axis."""
        return self.plane * self.tiles // self.pair * (c_in + c_out) + self.ring(c_in)
