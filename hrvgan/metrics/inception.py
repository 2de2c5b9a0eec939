"""Inception Score (Salimans et al. 2016): exp of the mean KL divergence of p(y|x) from p(y), in float64."""

from functools import partial

import numpy as np

from hrvgan.errors import InputError
from hrvgan.features import Features
from hrvgan.metrics.arrays import clip_rows, softmax, whole_number
from hrvgan.metrics.protocols import LINEAR, Protocol


def inception_score(probs: np.ndarray, splits: int = 1, eps: float = 0.0) -> float:
    """Mean score over `splits` consecutive parts of the class probabilities (N, K), N >= 2, K >= 2; 1 to K.

    The number of splits decides the value (fewer clips a part score lower): one split is the headline. `eps` is
    added in both logarithms, as TGAN (1e-7) and TGANv2 (1e-20) do; with 0, 0 log 0 = 0.
    """
    probs = class_probabilities(probs)
    whole_number(splits, "splits", 1)
    if eps < 0:
        raise InputError(f"eps: {eps}, need 0 or more; TGAN has 1e-7, TGANv2 1e-20")
    if splits > len(probs) // 2:
        least = f"at least two of {len(probs)} clips a split"
        raise InputError(f"splits: {splits}, need 1 to {len(probs) // 2}: {least}")
    return float(np.mean([_score(part, eps) for part in np.array_split(probs, splits)]))


def class_probabilities(values: np.ndarray, name: str = "class probabilities") -> np.ndarray:
    """`values` as float64 (N, K), N, K >= 2; raises InputError unless each row is >= 0 and sums to 1."""
    probs = clip_rows(values, name)
    if probs.shape[1] < 2:
        raise InputError(f"{name}: one class only; the Inception Score needs labels, at least 2 classes")
    if probs.min() < 0 or np.abs(probs.sum(axis=1) - 1).max() > 1e-3:
        raise InputError(f"{name}: rows are not >= 0 with sum 1; give the softmax of the logits")
    return probs


def _score(probs: np.ndarray, eps: float) -> float:
    marginal = probs.mean(axis=0, keepdims=True)
    divergence = probs * (_log(probs + eps) - _log(marginal + eps))
    return np.exp(divergence.sum(axis=1).mean())


def _log(values: np.ndarray) -> np.ndarray:
    """log, with 0 in place of log 0: such terms are multiplied by 0 (p = 0 wherever its mean is)."""
    return np.log(values, out=np.zeros_like(values), where=values > 0)


def _score_of(real: Features, fake: Features, protocol: Protocol) -> float:
    return inception_score(softmax(fake.logits), protocol.splits, protocol.eps)


_inception = partial(Protocol, statistic=_score_of, context="ceiling", needs_labels=True, uses_real=False, splits=1)
_tgan = partial(
    _inception,
    num_clips=9984,
    frames=16,
    resize="bicubic (a = -0.75, no antialiasing) to 128x128, crop 8:120",
    eps=1e-7,
)
PROTOCOLS = [
    _inception(
        "refnet_is",
        "refnet",
        eps=0.0,
        description="Inception Score of refnet's calibrated class probabilities (Salimans et al. 2016)",
        title="Inception score",
        meaning="Whether single clips look plainly like one class while all of them together cover every class: "
        "1 is mush, the number of classes is perfect.",
        ends=(1.0, None),
    ),
    _tgan(
        "isv9984_c3d",
        "c3d_tgan",
        description="Inception Score of TGAN (Saito et al. 2017) as meant: C3D without dropout, one split",
    ),
    _tgan(
        "isv9984_c3d_dropout",
        "c3d_tgan_dropout",
        description="Inception Score of TGAN (Saito et al. 2017) as its program computes it: C3D with dropout of "
        "fc6 and fc7, one split",
    ),
    _inception(
        "isv2048_c3d",
        "c3d_tganv2",
        num_clips=2048,
        frames=16,
        resize=LINEAR,
        eps=1e-20,
        description="Inception Score of TGANv2 (Saito et al. 2020): C3D, one split",
    ),
]
