"""Perturbations of real clips: wrong order, no motion, wrong speed, noise. All uint8 (N, T, H, W, 3)."""

import numpy as np

NOISE = 0.2  # Standard deviation, as a share of the range.


def shuffled(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames of each clip in random order, never the right one (if there are two frames)."""
    length = clips.shape[1]
    orders = (
        np.stack([_wrong_order(length, rng) for _ in clips]) if len(clips) else np.empty((0, length), int)
    )
    return np.take_along_axis(clips, orders[:, :, None, None, None], axis=1)


def _wrong_order(length: int, rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(length)
    while length > 1 and (np.diff(order) == 1).all():
        order = rng.permutation(length)
    return order


def frozen(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One frame, drawn for each clip, repeated."""
    chosen = rng.integers(clips.shape[1], size=len(clips))
    return np.repeat(clips[np.arange(len(clips)), chosen][:, None], clips.shape[1], axis=1)


def half_speed(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each frame twice, from a start drawn for each clip."""
    length = clips.shape[1]
    starts = rng.integers((length + 1) // 2, size=(len(clips), 1))
    order = starts + np.arange(length) // 2
    return np.take_along_axis(clips, order[:, :, None, None, None], axis=1)


def noisy(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Independent Gaussian noise on every value, clipped to the range."""
    noise = rng.standard_normal(clips.shape, dtype=np.float32) * (255 * NOISE)
    return (clips + noise).round().clip(0, 255).astype(np.uint8)


PERTURBATIONS = {"shuffled": shuffled, "frozen": frozen, "noisy": noisy}
PRETEXT = {"forward": lambda clips, rng: clips, "shuffled": shuffled, "half speed": half_speed}
