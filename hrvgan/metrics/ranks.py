"""Whether networks of other seeds rank models alike."""

from itertools import combinations

import numpy as np


def rank_stability(scores: dict[str, list[float]]) -> float | None:
    """Mean Kendall tau over the pairs of networks: 1, all rank the models alike, to -1; about 0 is chance.

    `scores` holds each model's value by each network. None where there are not two models and two networks.
    """
    values = np.array(list(scores.values()))  # (models, networks)
    if len(values) < 2 or values.shape[1] < 2:
        return None
    first, second = np.array(list(combinations(range(len(values)), 2))).T
    signs = np.sign(values[first] - values[second])  # (pairs of models, networks)
    return float(
        np.mean([(signs[:, a] * signs[:, b]).mean() for a, b in combinations(range(values.shape[1]), 2)])
    )
