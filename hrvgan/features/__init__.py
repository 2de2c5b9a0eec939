"""Networks that turn clips into features: refnet, C3D, I3D, Inception-v3; and `Features`, what metrics take."""

from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from hrvgan.errors import InputError
from hrvgan.files import atomic_path


@dataclass(frozen=True)
class Features:
    """Features of N clips by one extractor. Clips of one group (source video, person) resemble each other."""

    features: np.ndarray  # (N, D) float32
    logits: np.ndarray  # (N, K) float32, calibrated; of a pretext task where there are no labels
    labels: np.ndarray  # (N,) int64: the class of a real clip, the class asked for of a generated one
    groups: np.ndarray  # (N,) str

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: np.ndarray) -> "Features":
        return Features(*(array[rows] for array in vars(self).values()))


def save_features(path: str | Path, sets: dict[str, Features]) -> None:
    """One npz file with arrays `<set>/<array>`; the same features give the same bytes."""
    arrays = {f"{name}/{key}": array for name, rows in sets.items() for key, array in vars(rows).items()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def load_features(path: str | Path) -> dict[str, Features]:
    """The sets that `save_features` wrote. Never unpickles."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            names = dict.fromkeys(key.rpartition("/")[0] for key in stored)
            keys = [field.name for field in fields(Features)]
            return {name: Features(*(stored[f"{name}/{key}"] for key in keys)) for name in names}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        remedy = "run the stage `reference` again"
        raise InputError(f"{path}: no readable feature file ({error}); {remedy}") from None
