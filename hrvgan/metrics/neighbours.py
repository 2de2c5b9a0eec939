"""Precision, recall, density and coverage by nearest neighbours, and the search for the nearest clip.

Kynkaanniemi et al. 2019 (eq. 1 and 2), Naeem et al. 2020 (eq. 3 and 4); all in float64.
"""

from functools import partial
from numbers import Integral

import numpy as np

from hrvgan.errors import InputError
from hrvgan.metrics.arrays import bounded, finite, same_width
from hrvgan.metrics.protocols import Protocol

BLOCK = 2048  # Rows of the distance matrix in memory at a time.
ROUNDING = 1e-12  # Squared distances below this share of the squared lengths are copies.
NEIGHBOURS = 5
TIE = 1e-9  # Squared distances that differ by less than this share are equal.


def prdc(real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density, coverage of features (N, D) and (M, D), N, M > k, by balls of k neighbours.

    precision: share of fake clips inside a ball of a real one; recall: the reverse; density: in how many real
    balls a fake clip lies, over k (may exceed 1); coverage: share of real balls that hold a fake clip. A ball
    reaches, exclusively, to the clip's k-th nearest neighbour in its own set.
    """
    real, fake = same_width(real, fake)
    fewest = min(len(real), len(fake))
    if not isinstance(k, Integral):
        raise InputError(f"k: {k!r} is no whole number; 5 is usual")
    if not 1 <= k < fewest:
        raise InputError(f"k: {k}, need 1 to {fewest - 1}: there are {fewest} clips; lower k or give more")
    centre = real.mean(axis=0)  # Distances do not change, and their rounding shrinks.
    real, fake = real - centre, fake - centre
    real_reach, fake_reach = _reach(real, k), _reach(fake, k)
    num_balls = np.zeros(len(fake))
    recalled, covered = np.zeros(len(real), dtype=bool), np.zeros(len(real), dtype=bool)
    for rows, squares in _blocks(real, fake):
        inside = squares < real_reach[rows, None]
        num_balls += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (squares < fake_reach).any(axis=1)
    return {
        "precision": float((num_balls > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(num_balls.mean() / k),
        "coverage": float(covered.mean()),
    }


def nearest(rows: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index int64 (N,) and distance float64 (N,) of the nearest of `among` (M, D) to each of `rows` (N, D)."""
    among, rows = (bounded(finite(values, "features"), "features") for values in (among, rows))
    centre = among.mean(axis=0)
    index, squares = np.empty(len(rows), dtype=np.int64), np.empty(len(rows))
    for block, distances in _blocks(rows - centre, among - centre):
        index[block] = distances.argmin(axis=1)
        squares[block] = distances.min(axis=1)
    return index, np.sqrt(squares)


def _reach(x: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each row to its k-th nearest other row, less a tolerance for ties: rounding, which depends on
    a clip's row number, must not decide."""
    reach = np.empty(len(x))
    for rows, squares in _blocks(x, x):
        squares[np.arange(len(squares)), rows] = np.inf  # A row is no neighbour of itself.
        reach[rows] = np.partition(squares, k - 1, axis=1)[:, k - 1] * (1 - TIE)
    return reach


def _blocks(x: np.ndarray, y: np.ndarray):
    """(row numbers of x, squared distances of these rows to all of y), a bounded number of rows at a time."""
    lengths = (y * y).sum(axis=1)
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK]
        sums = (block * block).sum(axis=1)[:, None] + lengths
        squares = sums - 2 * (block @ y.T)
        squares[squares < ROUNDING * sums] = 0  # Copies are at distance 0, not at the rounding of it.
        yield np.arange(start, start + len(block)), squares


_prdc = partial(
    Protocol,
    extractor="refnet",
    statistic=lambda real, fake, protocol: prdc(real.features, fake.features),
    context="real",
    least_clips=NEIGHBOURS + 1,
    ends=(0.0, 1.0),
)
PROTOCOLS = [
    _prdc(
        "refnet_precision",
        part="precision",
        description="share of generated clips that lie among real ones, k = 5 (Kynkaanniemi et al. 2019)",
        title="Precision",
        meaning="The share of generated clips that lie among real ones: low where clips look wrong.",
    ),
    _prdc(
        "refnet_recall",
        part="recall",
        description="share of real clips that lie among generated ones, k = 5 (Kynkaanniemi et al. 2019)",
        title="Recall",
        meaning="The share of real clips that lie among generated ones: low where variety is missing.",
    ),
    _prdc(
        "refnet_density",
        part="density",
        description="in how many real neighbourhoods a generated clip lies, over k = 5 (Naeem et al. 2020)",
        title="Density",
        meaning="In how many real neighbourhoods a generated clip lies; precision that outliers sway less.",
        ends=(0.0, None),
    ),
    _prdc(
        "refnet_coverage",
        part="coverage",
        description="share of real neighbourhoods that hold a generated clip, k = 5 (Naeem et al. 2020)",
        title="Coverage",
        meaning="The share of real neighbourhoods that hold a generated clip.",
    ),
]
