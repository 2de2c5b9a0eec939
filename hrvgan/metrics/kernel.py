"""Kernel distance (KID): unbiased squared MMD, cubic kernel (Binkowski et al. 2018, eq. 4), in float64."""

import numpy as np

from hrvgan.errors import InputError
from hrvgan.metrics.arrays import same_width, whole_number
from hrvgan.metrics.protocols import Protocol

BLOCK = 2048  # Rows of the kernel matrix in memory at a time.


def kernel_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Full U-statistic over features (N, D) and (M, D), N, M >= 2, with k(x, y) = (x.y / D + 1)^3.

    Unbiased, so about zero for equal distributions and negative half of the time; never clipped.
    """
    real, fake = same_width(real, fake)
    within = _mean_of_pairs(real) + _mean_of_pairs(fake)
    return float(within - 2 * _kernel_sum(real, fake) / (len(real) * len(fake)))


def kernel_distance_within_classes(
    real: np.ndarray, real_labels: np.ndarray, fake: np.ndarray, fake_labels: np.ndarray
) -> float:
    """Mean over the classes of `real` of `kernel_distance` between its clips of the class and the fake ones.

    Features (N, D) and (M, D), labels (N,) and (M,), two clips of each class on each side. Sees right clips under
    wrong labels, which marginal distances miss.
    """
    real, fake = same_width(real, fake)
    labels = [np.asarray(side) for side in (real_labels, fake_labels)]
    if [side.shape for side in labels] != [(len(real),), (len(fake),)]:
        shapes = " and ".join(str(side.shape) for side in labels)
        raise InputError(f"labels of shapes {shapes}, need one for each of {len(real)} and {len(fake)} clips")
    values = []
    for label in np.unique(labels[0]):
        pair = [rows[side == label] for rows, side in zip((real, fake), labels, strict=True)]
        if min(map(len, pair)) < 2:
            counts = f"{len(pair[0])} real and {len(pair[1])} fake"
            raise InputError(f"class {label}: {counts} clips, need at least 2 of each; give more")
        values.append(kernel_distance(*pair))
    return float(np.mean(values))


def kernel_distance_subsets(
    real: np.ndarray, fake: np.ndarray, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Mean and sd of the distance over random subsets of `size` clips of both, as KID is mostly published.

    The mean estimates what `kernel_distance` does, with more noise; the sd is that of sets of `size` clips, not
    the error of the mean. `size` is lowered to the number of clips where there are fewer.
    """
    real, fake = same_width(real, fake)
    whole_number(subsets, "subsets", 1)
    whole_number(size, "size", 2)
    size, rng = min(size, len(real), len(fake)), np.random.default_rng(seed)
    values = [
        kernel_distance(*(rows[rng.permutation(len(rows))[:size]] for rows in (real, fake))) for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def _mean_of_pairs(x: np.ndarray) -> float:
    """Mean kernel over the pairs of different clips."""
    diagonal = _cube((x * x).sum(axis=1) / x.shape[1] + 1)
    return (_kernel_sum(x, x) - diagonal.sum()) / (len(x) * (len(x) - 1))


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    blocks = (x[start : start + BLOCK] for start in range(0, len(x), BLOCK))
    return sum(_cube(block @ y.T / x.shape[1] + 1).sum() for block in blocks)


def _cube(values: np.ndarray) -> np.ndarray:
    return values * values * values  # numpy's ** 3 is a call of pow for each value


PROTOCOLS = [
    Protocol(
        name="refnet_kid",
        extractor="refnet",
        num_real="all",
        statistic=lambda real, fake, protocol: kernel_distance(real.features, fake.features),
        context="floor",
        lower_is_better=True,
        description="kernel distance of the same features, unbiased (Binkowski et al. 2018, eq. 4)",
        title="Kernel distance",
        meaning="The same question without the Fréchet distance's assumption of a Gaussian and without its bias from "
        "few clips. Around zero, and even below it, means that no difference was found.",
        ends=(None, None),
    ),
    Protocol(
        name="refnet_intra_kid",
        extractor="refnet",
        num_real="all",
        statistic=lambda real, fake, protocol: kernel_distance_within_classes(
            real.features, real.labels, fake.features, fake.labels
        ),
        context="floor",
        lower_is_better=True,
        needs_labels=True,
        asks_labels=True,
        least_of_class=2,
        description="refnet_kid between real clips and those asked for as their class, mean over classes",
        title="Kernel distance within classes",
        meaning="The kernel distance between generated clips and the real ones of the class asked for, class by class. "
        "It sees wrong labels, which the distances of whole crowds do not.",
        ends=(None, None),
    ),
]
