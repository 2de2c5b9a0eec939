"""Metrics: arrays in, a number out. `PROTOCOLS` says what each published name means.

Names are imported when asked for, so that a program that needs one metric depends on one file.
"""

import importlib

_PUBLIC = {
    "frechet_distance": "frechet",
    "frechet_distance_from_features": "frechet",
    "frechet_distance_from_moments": "frechet",
    "frechet_distance_infinity": "frechet_infinity",
    "moments": "frechet",
    "Moments": "frechet",
    "inception_score": "inception",
    "kernel_distance": "kernel",
    "kernel_distance_subsets": "kernel",
    "kernel_distance_within_classes": "kernel",
    "prdc": "prdc",
    "psnr": "psnr_ssim",
    "ssim": "psnr_ssim",
    "label_accuracy": "accuracy",
    "PROTOCOLS": "protocols",
    "Protocol": "protocols",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
