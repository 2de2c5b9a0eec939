"""Metrics: functions from arrays to numbers, and the protocols that publish them.

A metric is one module that ends with `PROTOCOLS`, and one line of `METRICS`. Modules are imported on first use, so that
a program that needs one metric loads one file.
"""

import importlib

# Module -> its public functions.
METRICS = {
    "frechet": ("frechet_distance", "frechet_distance_from_features", "frechet_distance_infinity"),
    "kernel": ("kernel_distance", "kernel_distance_subsets", "kernel_distance_within_classes"),
    "inception": ("inception_score",),
    "accuracy": ("label_accuracy",),
    "neighbours": ("prdc",),  # the module has another name than its function, which it would hide
    "psnr_ssim": ("psnr", "ssim"),
    "scikit_video": ("strred", "msssim"),
}
_MODULES = {name: module for module, names in METRICS.items() for name in names} | {"Protocol": "protocols"}
__all__ = [*_MODULES, "PROTOCOLS"]


def __getattr__(name: str) -> object:
    if name == "PROTOCOLS":
        globals()[name] = _load_protocols()
        return globals()[name]
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _load_protocols() -> dict:
    """Name -> Protocol of every metric; those of refnet also as `features_*`, for precomputed features."""
    entries = [entry for name in METRICS for entry in importlib.import_module(f"{__name__}.{name}").PROTOCOLS]
    entries += [
        entry.of_precomputed_features() for entry in entries if entry.extractor == "refnet" and not entry.asks_labels
    ]
    return {entry.name: entry for entry in entries}
