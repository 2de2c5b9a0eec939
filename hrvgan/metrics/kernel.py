"""Kernel distance (KID): unbiased squared MMD, cubic kernel (Binkowski et al. 2018, eq. 4), in float64."""

import numpy as np

from hrvgan.metrics.arrays import same_width

BLOCK = 2048  # Rows of the kernel matrix in memory at a time.


def kernel_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Full U-statistic over features (N, D) and (M, D), N, M >= 2, with k(x, y) = (x.y / D + 1)^3.

    Unbiased, so about zero for equal distributions and negative half of the time; never clipped.
    """
    real, fake = same_width(real, fake)
    within = _mean_of_pairs(real) + _mean_of_pairs(fake)
    return float(within - 2 * _kernel_sum(real, fake) / (len(real) * len(fake)))


def _mean_of_pairs(x: np.ndarray) -> float:
    """Mean kernel over the pairs of different clips."""
    diagonal = ((x * x).sum(axis=1) / x.shape[1] + 1) ** 3
    return (_kernel_sum(x, x) - diagonal.sum()) / (len(x) * (len(x) - 1))


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    blocks = (x[start : start + BLOCK] for start in range(0, len(x), BLOCK))
    return sum(((block @ y.T / x.shape[1] + 1) ** 3).sum() for block in blocks)
