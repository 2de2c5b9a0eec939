"""Whether generated clips are of the class asked for: what marginal scores (FD, KID, IS) cannot see."""

import numpy as np

from hrvgan.errors import InputError
from hrvgan.metrics.arrays import clip_rows


def label_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of clips whose largest of (N, K) logits is the label asked for, labels (N,) in 0..K-1."""
    logits, labels = clip_rows(logits, "logits"), np.asarray(labels)
    if labels.shape != (len(logits),) or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise InputError(
            f"labels: shape {labels.shape}, need {len(logits)} labels in 0..{logits.shape[1] - 1}"
        )
    return float((logits.argmax(axis=1) == labels).mean())


def chance_accuracy(labels: np.ndarray) -> float:
    """What always answering the most frequent label scores."""
    return float(np.unique_counts(labels).counts.max() / len(labels))


def mean_confidence(logits: np.ndarray) -> float:
    """Mean largest class probability of (N, K) logits."""
    return float(softmax(logits).max(axis=1).mean())


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities, float64, of (N, K) logits."""
    logits = clip_rows(logits, "logits")
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
