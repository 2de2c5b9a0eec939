"""Along one axis: y = At [(G w) * (Bt x)], with fewer products than taps times outputs.

A tile is what one set of products gives: `len(At)` neighbours of y, from a window of x that starts one before the
tile's own `step` elements. In three dimensions each axis has its scheme, and each product is one of matrices over
channels. As y is linear in w, the gradient by w is Gt [(A g) * (Bt x)], given g, that by y (Lavin & Gray 2016).
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


# Three taps at stride 1: 4 products for 2 outputs, where one by one they are 6 (Winograd's F(2, 3)).
SAME = Scheme(
    Bt=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    G=((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    At=((1, 1, 1, 0), (0, 1, -1, -1)),
    step=2,
)

# Nearest upsampling by 2, then three taps (g, h, k): 3 products, where a transposed convolution does 4. The two outputs
# of x[i] are s x[i] + g (x[i - 1] - x[i]) and s x[i] + k (x[i + 1] - x[i]), with s = g + h + k.
UP = Scheme(
    Bt=((1, -1, 0), (0, 1, 0), (0, -1, 1)),
    G=((1, 0, 0), (1, 1, 1), (0, 0, 1)),
    At=((1, 1, 0), (0, 1, 1)),
    step=1,
)

# The adjoint of UP, its gradient by x, written for taps that are turned round as for SAME: (k, h, g).
DOWN = Scheme(
    Bt=((0, -1, 0, 1), (0, 1, 1, 0), (1, 0, -1, 0)),
    G=((0, 0, 1), (1, 1, 1), (1, 0, 0)),
    At=((1, 1, 1),),
    step=2,
)
