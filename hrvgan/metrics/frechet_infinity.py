"""The Frechet distance without its bias by the number of clips: extrapolated to infinitely many."""

import numpy as np

from hrvgan.metrics.arrays import same_width, whole_number
from hrvgan.metrics.frechet import frechet_distance_from_features


def frechet_distance_infinity(
    real: np.ndarray, fake: np.ndarray, *, points: int = 15, seed: int = 0, ddof: int = 1
) -> float:
    """Where a line through the distances of smaller and smaller sets meets 1/N = 0 (Chong and Forsyth 2020).

    The bias falls as 1/N on both sides, so N clips of both features (N, D) and (M, D) are taken, drawn without
    replacement, at `points` values of N evenly spread in 1/N from half of the clips to all of them. May be
    negative, by noise. With N below D the bias is no straight line, and the result is too large.
    """
    real, fake = same_width(real, fake)
    whole_number(points, "points", 2)
    most, rng = min(len(real), len(fake)), np.random.default_rng(seed)
    inverses = np.linspace(1 / most, 1 / max(2, most // 2), points)
    sizes = np.clip(np.round(1 / inverses).astype(int), 2, most)
    values = [
        frechet_distance_from_features(
            *(rows[rng.permutation(len(rows))[:size]] for rows in (real, fake)), ddof=ddof
        )
        for size in sizes
    ]
    if len(set(sizes)) < 2:
        return float(np.mean(values))
    return float(np.polynomial.Polynomial.fit(1 / sizes, values, 1)(0.0))
