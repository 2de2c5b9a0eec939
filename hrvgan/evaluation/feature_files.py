"""Features that somebody has computed already: .npy (N, D), or .npz with `features`, and `logits` or `probs`,
`labels`, `extractor` where they are known."""

import zipfile
from pathlib import Path

import numpy as np

from hrvgan.errors import InputError
from hrvgan.metrics.arrays import class_labels, clip_rows
from hrvgan.metrics.features import Features
from hrvgan.metrics.inception import class_probabilities


def holds_features(path: str | Path) -> bool:
    """Whether `path` is a numpy file of features rather than of frames: told by its names and shape, nothing else."""
    path = Path(path)
    if path.suffix not in (".npz", ".npy") or not path.is_file():
        return False
    arrays = _open(path)
    names = getattr(arrays, "files", None)
    return "features" in names if names is not None else arrays.ndim == 2


def read_given(path: str | Path) -> tuple[Features, str, bool]:
    """(float64 features and logits, extractor or "", whether there are labels).

    Raises InputError for a file that is no such thing, and names the array that is wrong.
    """
    path = Path(path)
    arrays = _open(path)
    try:
        stored = {"features": arrays} if isinstance(arrays, np.ndarray) else dict(arrays)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path}: no readable numpy file ({error}); write it again") from None
    features = clip_rows(stored["features"], f"{path}: features")
    n = len(features)
    logits = _logits(path, stored, n)
    labels = class_labels(stored.get("labels", np.zeros(n, dtype=np.int64)), n, f"{path}: labels")
    if not logits.shape[1]:
        labels = np.unique(labels, return_inverse=True)[1]  # They only say which clips are of one class.
    elif labels.max() >= logits.shape[1]:
        raise InputError(f"{path}: labels up to {labels.max()}, but there are {logits.shape[1]} classes")
    found = Features(features, logits, labels, np.arange(n).astype(str))
    return found, str(stored.get("extractor", "")), "labels" in stored


def _logits(path: Path, stored: dict[str, np.ndarray], n: int) -> np.ndarray:
    """Logits (N, K) of the file, or the logarithm of its probabilities; K = 0 where it has neither."""
    if "probs" in stored:
        probs = class_probabilities(stored["probs"], f"{path}: probs")
        logits = np.log(np.maximum(probs, 1e-300))
    elif "logits" in stored:
        logits = clip_rows(stored["logits"], f"{path}: logits")
    else:
        logits = np.empty((n, 0))
    if len(logits) != n:
        raise InputError(f"{path}: {n} features, {len(logits)} rows of classes; need one each a clip")
    return logits


def _open(path: Path):
    try:
        arrays = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no readable numpy file ({error}); write it again") from None
    if not getattr(arrays, "files", True):
        raise InputError(f"{path}: an .npz without any array; write `features` or `frames` into it")
    return arrays
