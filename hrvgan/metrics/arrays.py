"""Checks that every metric makes of its arrays: two dimensions, finite, at least two clips; float64 from here on."""

from collections.abc import Sequence

import numpy as np

from hrvgan.errors import InputError

LARGEST = 1e40  # of features: the kernel distance takes their sixth power, which still fits into float64


def clip_rows(values: np.ndarray, name: str) -> np.ndarray:
    """`values` as float64 (N, D) with N >= 2; raises InputError with the array's `name` otherwise."""
    values = as_array(values, name)
    if values.ndim != 2 or values.shape[1] == 0:
        raise InputError(f"{name}: shape {values.shape}, need (N, D): one row of D numbers a clip")
    if len(values) < 2:
        raise InputError(f"{name}: {len(values)} clip(s), need at least 2; a spread needs two points")
    return finite(values, name)


def finite(values: np.ndarray, name: str) -> np.ndarray:
    """`values` as float64; raises InputError where they are not numbers or not finite."""
    values = as_array(values, name)
    if values.dtype.kind not in "fiub":
        raise InputError(f"{name}: holds {values.dtype}, need real numbers")
    values = values.astype(np.float64)
    if bad := values.size - np.count_nonzero(np.isfinite(values)):
        counts = f"{bad} of {values.size} values are NaN or infinite"
        raise InputError(f"{name}: {counts}; look at the clips behind them")
    return values


def as_array(values: np.ndarray | Sequence, name: str) -> np.ndarray:
    """`values` (array, tensor of any device and precision, list) as an array; raises InputError for ragged rows."""
    if hasattr(values, "detach"):  # A tensor, without importing torch.
        values = values.detach().cpu()
        return (values.double() if values.is_floating_point() else values).numpy()
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name}: no array ({error}); give rows of one length") from error


def whole_number(value: int, name: str, least: int) -> None:
    """Raises InputError unless `value` is a whole number, `least` or more."""
    if not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name}: {value!r}, need a whole number, {least} or more")


def bounded(values: np.ndarray, name: str, most: float = LARGEST) -> np.ndarray:
    """`values`; raises InputError where they are so large that products of them are infinite in float64."""
    if values.size and (largest := np.abs(values).max()) > most:
        remedy = f"scale both sides alike, to {most:.0g} at most"
        raise InputError(f"{name}: values up to {largest:.1g} overflow in float64; {remedy}")
    return values


def class_labels(values: np.ndarray, n: int, name: str, num_classes: int | None = None) -> np.ndarray:
    """`values` as int64 (n,); raises InputError unless they are whole numbers from 0 on, one a clip, and below
    `num_classes` where that is known."""
    labels = np.asarray(values)
    if labels.shape != (n,) or labels.dtype.kind not in "iu" or (n and labels.min() < 0):
        wrong = f"{labels.dtype} {labels.shape}" + (" with negative ones" if labels.dtype.kind == "i" else "")
        raise InputError(f"{name}: {wrong}, need {n} whole numbers from 0 on, one a clip")
    if num_classes is not None and labels.max() >= num_classes:
        raise InputError(f"{name} up to {labels.max()}, but there are {num_classes} classes")
    return labels.astype(np.int64)


def same_width(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both feature arrays checked, float64 (N, D) and (M, D)."""
    real, fake = clip_rows(real, "real features"), clip_rows(fake, "fake features")
    if real.shape[1] != fake.shape[1]:
        widths = f"real features have D = {real.shape[1]}, fake ones {fake.shape[1]}"
        raise InputError(f"{widths}; use one extractor for both")
    return bounded(real, "real features"), bounded(fake, "fake features")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities, float64, of (N, K) logits."""
    logits = clip_rows(logits, "logits")
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
