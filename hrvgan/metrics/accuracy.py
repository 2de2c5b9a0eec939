"""Accuracy of generated clips against the class asked for (GAN-test); marginal scores do not see wrong labels."""

import numpy as np

from hrvgan.errors import InputError
from hrvgan.metrics.arrays import clip_rows, softmax
from hrvgan.metrics.protocols import Protocol


def label_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of clips whose largest of (N, K) logits is the label asked for, labels (N,) in 0..K-1."""
    logits, labels = clip_rows(logits, "logits"), np.asarray(labels)
    if labels.shape != (len(logits),) or labels.min() < 0 or labels.max() >= logits.shape[1]:
        wanted = f"{len(logits)} labels in 0..{logits.shape[1] - 1}"
        raise InputError(f"labels: shape {labels.shape}, need {wanted}")
    return float((logits.argmax(axis=1) == labels).mean())


def chance_accuracy(labels: np.ndarray) -> float:
    """Accuracy of always answering the most frequent label."""
    return float(np.unique_counts(labels).counts.max() / len(labels))


def mean_confidence(logits: np.ndarray) -> float:
    """Mean largest class probability of (N, K) logits."""
    return float(softmax(logits).max(axis=1).mean())


PROTOCOLS = [
    Protocol(
        name="refnet_acc",
        extractor="refnet",
        statistic=lambda real, fake, protocol: label_accuracy(fake.logits, fake.labels),
        context="real",
        needs_labels=True,
        asks_labels=True,
        uses_real=False,
        description="share of clips that refnet takes for the class asked for (GAN-test, Shmelkov et al. 2018)",
        title="Class accuracy",
        meaning="How often the reference network sees in a generated clip the class that was asked for.",
        ends=(0.0, 1.0),
    )
]
