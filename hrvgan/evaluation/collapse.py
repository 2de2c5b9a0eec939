"""What a reader should know of generated clips before any score: whether they have collapsed."""

import numpy as np

from hrvgan.metrics.features import Features

COLLAPSED = 1e-3  # Share of the real clips' variance below which generated ones are all alike.


def health(real: Features, fakes: list[Features]) -> list[str]:
    """Warnings in a sentence each; such clips are scored all the same, badly."""
    found = []
    variance, fake_variance = (float(x.astype(np.float64).var(axis=0).sum()) for x in
                               (real.features, fakes[0].features))  # fmt: skip
    if variance > 0 and fake_variance < COLLAPSED * variance:
        found.append(
            f"collapsed: the generated clips vary {fake_variance / variance:.1g} as much as real ones"
        )
    elif (copies := _copies(fakes[0].features)) > 0:
        found.append(f"collapsed: {copies:.0%} of the generated clips are copies of another one")
    if len(_seen(fakes[0].logits)) == 1 < len(_seen(real.logits)):
        found.append("collapsed: every generated clip is taken for the same class")
    return found


def _copies(features: np.ndarray) -> float:
    """Share of rows, in tenths or more, that equal another; 0 below a tenth."""
    share = 1 - len(np.unique(features, axis=0)) / len(features)
    return share if share >= 0.1 else 0.0


def _seen(logits: np.ndarray) -> np.ndarray:
    """The classes that clips are taken for; none where there are no logits."""
    return np.unique(logits.argmax(axis=1)) if logits.shape[1] > 1 else np.empty(0)
