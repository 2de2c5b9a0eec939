"""What a kernel is compiled for, and what it is told when it runs."""

from typing import NamedTuple

from hrvgan.ops.cpu.launch import Fields
from hrvgan.ops.cpu.winograd_matrices import Matrix, Scheme

# Tiles, neighbours along the width, whose inputs are transformed at once; also a pair of bfloat16.
TOGETHER = 2
MIDDLE = 1  # the point of an axis at which A adds up all outputs of a tile


def ring_width(axis: Scheme) -> int:
    """Columns of x that tiles see together."""
    return len(axis.Bt[0]) + (TOGETHER - 1) * axis.step


class Plan(NamedTuple):
    axes: tuple[Scheme, Scheme, Scheme]
    half: bool  # bfloat16 in memory and in products, float32 in sums
    lanes: int  # channels in a vector of float32
    columns: int  # vectors of output channels that are computed together
    rows: int  # and how many rows with them, in registers
    tiles: int  # in the cache at a time
    together: int = 1  # points whose products are in registers at a time: one, or all of the last axis

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
        """What is made of the products of these points before they leave the registers."""
        return self.axes[2].At if self.together > 1 else ((1,),)

    @property
    def products(self) -> int:
        """How many are stored for a tile and an output channel."""
        return self.points // self.together * len(self.line)

    @property
    def pair(self) -> int:
        """Numbers in a word of 4 bytes: a float32, or two bfloat16 whose products one instruction adds up."""
        return 2 if self.half else 1

    @property
    def words(self) -> int:
        """Words of `lanes` channels."""
        return self.lanes // self.pair

    @property
    def wide(self) -> int:
        """Output channels that are computed together."""
        return self.lanes * self.columns

    def scratch(self, c_in: int) -> int:
        """Words that a thread of the convolution needs: for inputs, for products, and the ring."""
        inputs, products = self.points * c_in // self.pair, self.products * self.wide
        return self.tiles * (inputs + products) + self.ring(c_in)

    def ring(self, c_in: int) -> int:
        d, h, w = self.axes
        return d.points * h.points * ring_width(w) * c_in

    def scratch_by_weight(self, c_in: int, c_out: int) -> int:
        """Words that a thread of the gradient by the weights needs, for one point of the first axis."""
        return self.plane * self.tiles // self.pair * (c_in + c_out) + self.ring(c_in)


# Counts are of tiles in all and in a clip along each axis, channels, tiles in a segment of the gradient's sum, elements
# from weight to weight.
FIELDS = Fields(
    ("x", "y", "weight", "bias"),
    ("tiles", "times", "heights", "widths", "c_in", "c_out", "segment", "in_stride", "out_stride", "tap_stride"),
)  # fmt: skip
