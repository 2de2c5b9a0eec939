"""Frechet distance between Gaussians fitted to features (Heusel et al. 2017, eq. 6), in float64.

|mu1 - mu2|^2 + tr(S1 + S2 - 2 sqrt(S1 S2)). The last trace needs only eigenvalues, of a symmetric matrix
that has those of S1 S2; which one is smallest depends on the number of clips. Nothing is added to a diagonal.
"""

from dataclasses import dataclass

import numpy as np

from hrvgan.errors import InputError
from hrvgan.metrics.arrays import LARGEST, bounded, finite, same_width

TOLERANCE = np.sqrt(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Moments:
    """Count, mean (D,) and scatter (D, D), the sum of outer products about the mean, of the clips seen so far.

    Public, for streams whose features do not fit into memory; the scores here keep features, which other metrics
    than the Frechet distance need.
    """

    n: int
    mean: np.ndarray
    scatter: np.ndarray

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both sets together (Chan et al. 1979), exact also for means far from zero."""
        n, gap = self.n + other.n, other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(gap, gap) * (self.n * other.n / n)
        return Moments(n, self.mean + gap * (other.n / n), scatter)

    def covariance(self, ddof: int = 1) -> np.ndarray:
        if self.n <= ddof:
            raise InputError(
                f"a covariance over n - {ddof} of {self.n} clip(s) does not exist; give more clips"
            )
        return self.scatter / (self.n - ddof)


def moments(features: np.ndarray) -> Moments:
    """Moments of one batch (N, D), N >= 1. Those of a stream are the sum of those of its batches."""
    features = bounded(finite(features, "features"), "features")
    if features.ndim != 2 or not features.size:
        raise InputError(f"features: shape {features.shape}, need (N, D) with at least one clip")
    mean = features.mean(axis=0)
    centred = features - mean
    return Moments(len(features), mean, centred.T @ centred)


def frechet_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """Distance of N(mu1, sigma1) and N(mu2, sigma2): means (D,), covariances (D, D), singular ones included.

    Raises InputError for unequal shapes, NaN, infinity or what overflows, and for a matrix that is no covariance.
    A singular covariance that was once rounded to float32 has eigenvalues of up to 1e-7 of the largest where it had
    zeros, and the distance is off by their root, some 3e-4 of the trace. Negative ones of that size are forgiven in a
    float32 array; in float64 they may be refused.
    """
    mu1, mu2 = finite(np.atleast_1d(mu1), "mu1"), finite(np.atleast_1d(mu2), "mu2")
    sigma1, sigma2 = np.atleast_2d(sigma1), np.atleast_2d(sigma2)
    shapes = [array.shape for array in (mu1, sigma1, mu2, sigma2)]
    if shapes != [(mu1.size,), (mu1.size, mu1.size)] * 2:
        raise InputError(f"mu1, sigma1, mu2, sigma2 have shapes {shapes}; need (D,), (D, D), (D,), (D, D)")
    # What rounding can do to an eigenvalue, relative to the largest: generous, half of the digits of what came in.
    tolerance = max(np.sqrt(np.finfo(np.result_type(sigma, np.float32)).eps) for sigma in (sigma1, sigma2))
    sigma1, sigma2 = finite(sigma1, "sigma1"), finite(sigma2, "sigma2")
    for values, name, most in ((mu1, "mu1", LARGEST), (mu2, "mu2", LARGEST),
                               (sigma1, "sigma1", LARGEST**2), (sigma2, "sigma2", LARGEST**2)):  # fmt: skip
        bounded(values, name, most)
    root = _root(sigma1, "sigma1", tolerance)
    _root(sigma2, "sigma2", tolerance)  # Only checked: a singular sigma1 would hide what is wrong with it.
    trace = np.trace(sigma1) + np.trace(sigma2)
    return _distance(mu1 - mu2, trace, _trace_root(root.T @ sigma2 @ root))


def frechet_distance_from_moments(real: Moments, fake: Moments, ddof: int = 1) -> float:
    """The same between the moments of two streams, covariances over N - `ddof`."""
    return frechet_distance(real.mean, real.covariance(ddof), fake.mean, fake.covariance(ddof))


def frechet_distance_from_features(real: np.ndarray, fake: np.ndarray, ddof: int = 1) -> float:
    """The same between features (N, D) and (M, D), N, M >= 2, covariances over N - `ddof`, in the cheapest form.

    With A, B the centred features over sqrt(n - ddof), so that S1 = A^T A and S2 = B^T B. Raises InputError
    for NaN, infinity or what overflows, fewer than two clips, unequal D.
    """
    real, fake = same_width(real, fake)
    few_real, few_fake = (len(features) <= features.shape[1] for features in (real, fake))
    gap = real.mean(axis=0) - fake.mean(axis=0)
    a, b = _centred(real, ddof), _centred(fake, ddof)
    trace = np.vdot(a, a) + np.vdot(b, b)
    if few_real and few_fake:
        return _distance(gap, trace, np.linalg.svd(a @ b.T, compute_uv=False).sum())
    if few_fake:
        a, b = b, a
    if few_real or few_fake:
        return _distance(gap, trace, _trace_root(a @ (b.T @ b) @ a.T))
    root = _factor(a.T @ a, "covariance of the real features", TOLERANCE)
    return _distance(gap, trace, _trace_root(root.T @ (b.T @ b) @ root))


def _centred(features: np.ndarray, ddof: int) -> np.ndarray:
    if not 0 <= ddof < len(features):
        raise InputError(f"ddof: {ddof} with {len(features)} clips; need 0 or 1, and more clips than that")
    return (features - features.mean(axis=0)) / np.sqrt(len(features) - ddof)


def _distance(gap: np.ndarray, trace: float, trace_root: float) -> float:
    return max(0.0, float(gap @ gap + trace - 2 * trace_root))  # Rounding may leave -1e-12 for equal sets.


def _root(sigma: np.ndarray, name: str, tolerance: float) -> np.ndarray:
    """R with R R^T = sigma, of a matrix that somebody has given: it may not even be symmetric."""
    if np.abs(sigma - sigma.T).max() > tolerance * np.abs(sigma).max():
        raise InputError(
            f"{name} is not symmetric, so it is no covariance; compute it with numpy.cov(x, rowvar=False)"
        )
    return _factor(sigma, name, tolerance)


def _factor(sigma: np.ndarray, name: str, tolerance: float) -> np.ndarray:
    """R with R R^T = sigma: Cholesky where it exists (faster), V sqrt(w) where sigma is singular."""
    try:
        return np.linalg.cholesky(sigma)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(sigma)
        return vectors * np.sqrt(_nonnegative(values, tolerance, name))


def _trace_root(product: np.ndarray) -> float:
    """tr sqrt(S1 S2) from a symmetric matrix with the eigenvalues of S1 S2.

    Of two covariances none is negative. Where they share no direction all are rounding, of either sign, so there is
    no tolerance to be had from the largest: what is no covariance is found before it comes to a product.
    """
    return np.sqrt(np.linalg.eigvalsh(product).clip(min=0)).sum()


def _nonnegative(values: np.ndarray, tolerance: float, name: str) -> np.ndarray:
    if values.min() < -tolerance * np.abs(values).max():
        raise InputError(
            f"{name} has the eigenvalue {values.min():.3g}, so it is no covariance; recompute it in float64"
        )
    return values.clip(min=0)
