"""Frechet distance between Gaussians fitted to features (Heusel et al. 2017, eq. 6), in float64.

|mu1 - mu2|^2 + tr(S1 + S2 - 2 sqrt(S1 S2)). The last trace needs only eigenvalues, of a symmetric matrix
that has those of S1 S2; which one is smallest depends on the number of clips. Nothing is added to a diagonal.
"""

from functools import partial

import numpy as np

from hrvgan.errors import InputError
from hrvgan.features import Features
from hrvgan.metrics.arrays import LARGEST, bounded, finite, same_width, whole_number
from hrvgan.metrics.protocols import LINEAR, Protocol

TOLERANCE = np.sqrt(np.finfo(np.float64).eps)


def frechet_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """Distance of N(mu1, sigma1) and N(mu2, sigma2): means (D,), covariances (D, D), singular ones included.

    Raises InputError for unequal shapes, NaN, infinity, overflow, and for a matrix that is no covariance. A singular
    covariance that was rounded to float32 has eigenvalues of up to 1e-7 of the largest in place of zeros, and the
    distance is off by their root, some 3e-4 of the trace. Negative eigenvalues of that size are accepted in a float32
    array; in float64 they may be refused.
    """
    mu1, mu2 = finite(np.atleast_1d(mu1), "mu1"), finite(np.atleast_1d(mu2), "mu2")
    sigma1, sigma2 = np.atleast_2d(sigma1), np.atleast_2d(sigma2)
    shapes = [array.shape for array in (mu1, sigma1, mu2, sigma2)]
    if shapes != [(mu1.size,), (mu1.size, mu1.size)] * 2:
        raise InputError(f"mu1, sigma1, mu2, sigma2 have shapes {shapes}; need (D,), (D, D), (D,), (D, D)")
    # Rounding error of an eigenvalue, relative to the largest: generous, half of the input's digits.
    tolerance = max(np.sqrt(np.finfo(np.result_type(sigma, np.float32)).eps) for sigma in (sigma1, sigma2))
    sigma1, sigma2 = finite(sigma1, "sigma1"), finite(sigma2, "sigma2")
    for mu, sigma, side in ((mu1, sigma1, 1), (mu2, sigma2, 2)):
        bounded(mu, f"mu{side}")
        bounded(sigma, f"sigma{side}", LARGEST**2)
    root = _root(sigma1, "sigma1", tolerance)
    _root(sigma2, "sigma2", tolerance)  # Only checked: a singular sigma1 would hide its errors.
    trace = np.trace(sigma1) + np.trace(sigma2)
    return _distance(mu1 - mu2, trace, _trace_root(root.T @ sigma2 @ root))


def frechet_distance_from_features(real: np.ndarray, fake: np.ndarray, ddof: int = 1) -> float:
    """Distance between features (N, D) and (M, D), N, M >= 2, covariances over N - `ddof`, in the cheapest form.

    A and B are the centred features over sqrt(n - ddof), so that S1 = A^T A and S2 = B^T B. Raises InputError for NaN,
    infinity, overflow, fewer than two clips, unequal D.
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


def frechet_distance_infinity(
    real: np.ndarray, fake: np.ndarray, *, points: int = 15, seed: int = 0, ddof: int = 1
) -> float:
    """Distance extrapolated to infinitely many clips, linearly in 1/N (Chong and Forsyth 2020).

    The bias falls as 1/N on both sides, so N clips of both features (N, D) and (M, D) are taken, drawn without
    replacement, at `points` values of N evenly spread in 1/N from half of the clips to all of them. May be
    negative, by noise. With N below D the bias is no straight line, and the result is too large.
    """
    real, fake = same_width(real, fake)
    whole_number(points, "points", 2)
    most, rng = min(len(real), len(fake)), np.random.default_rng(seed)
    inverses = np.linspace(1 / most, 1 / max(2, most // 2), points)
    sizes = np.clip(np.round(1 / inverses).astype(int), 2, most)
    values = []
    for size in sizes:
        subsets = [rows[rng.permutation(len(rows))[:size]] for rows in (real, fake)]
        values.append(frechet_distance_from_features(*subsets, ddof=ddof))
    if len(set(sizes)) < 2:
        return float(np.mean(values))
    return float(np.polynomial.Polynomial.fit(1 / sizes, values, 1)(0.0))


def _centred(features: np.ndarray, ddof: int) -> np.ndarray:
    if not 0 <= ddof < len(features):
        raise InputError(f"ddof: {ddof} with {len(features)} clips; need 0 or 1, and more clips than that")
    return (features - features.mean(axis=0)) / np.sqrt(len(features) - ddof)


def _distance(gap: np.ndarray, trace: float, trace_root: float) -> float:
    return max(0.0, float(gap @ gap + trace - 2 * trace_root))  # Rounding may leave -1e-12 for equal sets.


def _root(sigma: np.ndarray, name: str, tolerance: float) -> np.ndarray:
    """R with R R^T = sigma. Raises InputError unless the matrix, which comes from a caller, is a covariance."""
    if np.abs(sigma - sigma.T).max() > tolerance * np.abs(sigma).max():
        remedy = "compute it with numpy.cov(x, rowvar=False)"
        raise InputError(f"{name} is not symmetric, so it is no covariance; {remedy}")
    return _factor(sigma, name, tolerance)


def _factor(sigma: np.ndarray, name: str, tolerance: float) -> np.ndarray:
    """R with R R^T = sigma: Cholesky where it exists (faster), V sqrt(w) where sigma is singular."""
    try:
        return np.linalg.cholesky(sigma)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(sigma)
    if (least := values.min()) < -tolerance * np.abs(values).max():
        remedy = "recompute it in float64"
        raise InputError(f"{name} has the eigenvalue {least:.3g}, so it is no covariance; {remedy}")
    return vectors * np.sqrt(values.clip(min=0))


def _trace_root(product: np.ndarray) -> float:
    """tr sqrt(S1 S2) from a symmetric matrix with the eigenvalues of S1 S2.

    The eigenvalues of a product of two covariances are not negative. If the two share no direction, all of them are
    rounding errors of either sign and the largest gives no tolerance, so invalid covariances are refused earlier.
    """
    return np.sqrt(np.linalg.eigvalsh(product).clip(min=0)).sum()


def _distance_of(real: Features, fake: Features, protocol: Protocol) -> float:
    return frechet_distance_from_features(real.features, fake.features, protocol.ddof)


def _infinity_of(real: Features, fake: Features, protocol: Protocol) -> float:
    return frechet_distance_infinity(real.features, fake.features, ddof=protocol.ddof)


_frechet = partial(Protocol, statistic=_distance_of, context="floor", lower_is_better=True, ddof=1)
PROTOCOLS = [
    _frechet(
        "refnet_fd",
        "refnet",
        num_real="all",
        description="Frechet distance of refnet's pooled features (Heusel et al. 2017, eq. 6)",
        title="Fréchet distance",
        meaning="How far the generated clips as a crowd lie from held-out real ones, in the features of the "
        "reference network. It compares mean and spread, so it sees both poor pictures and poor variety.",
    ),
    _frechet(
        "refnet_fd_inf",
        "refnet",
        num_real="all",
        statistic=_infinity_of,
        least_clips=500,  # With fewer a straight line is no model of the bias: floors of -1 were seen with 120.
        description="refnet_fd extrapolated to infinitely many clips (Chong and Forsyth 2020)",
        title="Fréchet distance, unbiased",
        meaning="The Fréchet distance as a line through smaller and smaller sets predicts it for infinitely many "
        "clips.",
        ends=(None, None),
    ),
    _frechet(
        "fvd2048_16f",
        "i3d_kinetics400",
        num_clips=2048,
        num_real=2048,
        real_clips="one a video",
        frames=16,
        real_start="drawn",
        resize="bilinear (no antialiasing, squashed) to 224x224",
        description="Frechet Video Distance (Unterthiner et al. 2018): I3D's logits, averaged over time",
    ),
    _frechet(
        "fid_c3d_fc7",
        "c3d_tganv2",
        num_clips=2048,
        num_real="all",
        frames=16,
        real_start="drawn",
        resize=LINEAR,
        description="Frechet distance of TGANv2 (Saito et al. 2020): C3D's fc7 after ReLU",
    ),
    _frechet(
        "fid_frame_clean",
        "inception_2015_clean",
        num_clips=10_000,
        num_real=10_000,
        frames=1,
        start="drawn",
        real_start="drawn",
        resize="Pillow's bicubic, antialiased, in float, to 299x299, clipped to [0, 255] (clean-fid)",
        description="Frechet Inception Distance of one frame a clip (Heusel et al. 2017, Parmar et al. 2022)",
    ),
]
