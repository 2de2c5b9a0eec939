"""Features that somebody has computed already: .npy (N, D), or .npz with `features`, and `logits` or `probs`,
`labels`, `extractor` where they are known."""

import zipfile
from pathlib import Path

import numpy as np

from hrvgan.errors import InputError
from hrvgan.files import file_digest
from hrvgan.metrics.features import Features


def holds_features(path: str | Path) -> bool:
    """Whether `path` is a numpy file of features rather than of frames: told by its names and shape, nothing else."""
    path = Path(path)
    if path.suffix not in (".npz", ".npy") or not path.is_file():
        return False
    arrays = _open(path)
    names = getattr(arrays, "files", None)
    return "features" in names if names is not None else arrays.ndim == 2


def read_given(path: str | Path) -> tuple[Features, str, str]:
    """(features, extractor or "", sha256 of the file). Raises InputError for a file that is no such thing."""
    path = Path(path)
    arrays = _open(path)
    try:
        stored = {"features": arrays} if isinstance(arrays, np.ndarray) else dict(arrays)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path}: no readable numpy file ({error}); write it again") from None
    features = np.asarray(stored["features"])
    if features.ndim != 2:
        raise InputError(
            f"{path}: features of shape {features.shape}, need (N, D): one row of numbers a clip"
        )
    n = len(features)
    logits = stored.get("logits", np.empty((n, 0)))
    if "probs" in stored:
        with np.errstate(divide="ignore", invalid="ignore"):
            logits = np.maximum(np.log(stored["probs"].astype(np.float64)), -1e4)
    labels = stored.get("labels", np.zeros(n, dtype=np.int64))
    if len(logits) != n or len(labels) != n:
        raise InputError(
            f"{path}: {n} features, {len(logits)} logits, {len(labels)} labels; need one each a clip"
        )
    found = Features(features, logits, labels, np.arange(n).astype(str))
    return found, str(stored.get("extractor", "")), file_digest(path)


def _open(path: Path):
    try:
        return np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no readable numpy file ({error}); write it again") from None
