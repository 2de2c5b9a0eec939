"""ST-RRED and MS-SSIM of predicted clips against the true ones: of the luminance, by scikit-video."""

import functools
import sys
import types
import warnings

import numpy as np

from hrvgan.metrics.psnr_ssim import luminance, of_prediction

# Pixels each way, from which on ST-RRED says something: it is of blocks of 3x3 pixels of a band an eighth of the frame,
# of which 32 px have one, and 64 px too few for their covariance.
LEAST = 96
# Names that numpy has dropped since scikit-video's last release.
DROPPED = {"bool": bool, "complex": complex, "float": float, "int": int, "product": np.prod}


@functools.cache
def measures() -> types.ModuleType:
    """scikit-video's measures. Inside its own modules, and nowhere else, numpy has the names that it has dropped."""
    with warnings.catch_warnings(action="ignore"):
        import skvideo.measure
    numpy = types.SimpleNamespace(**vars(np) | DROPPED)
    for name, module in list(sys.modules.items()):
        if name.startswith("skvideo") and hasattr(module, "np"):
            module.np = numpy
    return skvideo.measure


def strred(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """Difference of entropies, of frames times of frame differences, in a wavelet band (Soundararajan and Bovik 2013).

    uint8 (N, T, H, W, 3) or luminance (N, T, H, W) -> (N, 1), 0 for equal clips; at least two frames of 96x96 px.
    """
    with warnings.catch_warnings(action="ignore"):
        return np.array([measures().strred(*pair)[1:2] for pair in zip(*luminance(real, fake), strict=True)])


def msssim(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """Structural similarity of each frame at five scales (Wang et al. 2003), 1 for equal ones.

    0 where the two are so unlike that a factor is negative, whose power is no number.
    uint8 (N, T, H, W, 3) or luminance (N, T, H, W), at least 176x176 px -> (N, T).
    """
    with warnings.catch_warnings(action="ignore"):
        scores = [measures().msssim(*pair) for pair in zip(*luminance(real, fake), strict=True)]
        return np.nan_to_num(np.array(scores), nan=0.0)


PROTOCOLS = [
    of_prediction(
        strred,
        title="Prediction, ST-RRED",
        meaning="How much the predicted frames, and the differences between them, differ in detail from what came.",
        lower_is_better=True,
        least_size=LEAST,
        least_frames=2,
    ),
    of_prediction(
        msssim,
        title="Prediction, MS-SSIM",
        meaning="SSIM at five scales, for frames from 176 px on.",
        ends=(None, 1.0),
        least_size=176,
    ),
]
