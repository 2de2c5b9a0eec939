"""PSNR and SSIM of predicted frames against the true ones: of the luminance, frame by frame, in float64."""

from collections.abc import Callable

import numpy as np

from hrvgan.errors import InputError
from hrvgan.metrics.arrays import finite
from hrvgan.metrics.protocols import Protocol

LUMA = np.array([0.299, 0.587, 0.114])  # BT.601
PEAK = 255.0
WINDOW = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)  # 11 taps, sd 1.5 (Wang et al. 2004, section III.C)
WINDOW /= WINDOW.sum()
MOST_PSNR = 60.0  # dB, of predicted frames: a mean over clips with an infinite value says nothing
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def psnr(real: np.ndarray, fake: np.ndarray) -> float:
    """Mean over frames of `frame_psnr`, in dB; infinite where a frame is the same."""
    return float(frame_psnr(real, fake).mean())


def ssim(real: np.ndarray, fake: np.ndarray) -> float:
    """Mean over frames of `frame_ssim`, at most 1, for equal clips."""
    return float(frame_ssim(real, fake).mean())


def frame_psnr(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each frame, in dB: uint8 (..., H, W, 3) or luminance (..., H, W) -> (...)."""
    real, fake = luminance(real, fake)
    squares = ((real - fake) ** 2).mean(axis=(-2, -1))
    with np.errstate(divide="ignore"):  # Equal frames: infinite, as it is defined.
        return 10 * np.log10(PEAK**2 / squares)


def frame_ssim(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """Structural similarity of each frame (Wang et al. 2004, eq. 13): shapes as `frame_psnr`, at least 11x11 px.

    Gaussian window where it fits entirely; frames whose shorter side is 384 px or more are averaged down to about
    256 first, as the authors' code and scikit-video do.
    """
    real, fake = luminance(real, fake)
    factor = max(1, round(min(real.shape[-2:]) / 256))
    real, fake = _shrink(real, factor), _shrink(fake, factor)
    if min(real.shape[-2:]) < len(WINDOW):
        raise InputError(f"frames of {real.shape[-2:]} px, SSIM needs at least {len(WINDOW)} each way")
    mean_real, mean_fake = _smooth(real), _smooth(fake)
    var_real = _smooth(real * real) - mean_real**2
    var_fake = _smooth(fake * fake) - mean_fake**2
    covariance = _smooth(real * fake) - mean_real * mean_fake
    brightness = (2 * mean_real * mean_fake + C1) / (mean_real**2 + mean_fake**2 + C1)
    structure = (2 * covariance + C2) / (var_real + var_fake + C2)
    return (brightness * structure).mean(axis=(-2, -1))


def luminance(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (..., H, W, 3), or luminance as it is -> luminance (..., H, W), of both in float64."""
    real, fake = finite(real, "real frames"), finite(fake, "predicted frames")
    if real.shape != fake.shape or real.ndim < 2 or not real.size:
        raise InputError(f"frames of shapes {real.shape} and {fake.shape}; need the same, (..., H, W, 3)")
    return tuple(x @ LUMA if x.shape[-1] == 3 and x.ndim > 2 else x for x in (real, fake))


def _smooth(frames: np.ndarray) -> np.ndarray:
    """`frames` (..., H, W) under the window, (..., H - 10, W - 10): the window is separable."""
    for axis in (-2, -1):
        windows = np.lib.stride_tricks.sliding_window_view(frames, len(WINDOW), axis=axis)
        frames = windows @ WINDOW
    return frames


def _shrink(frames: np.ndarray, factor: int) -> np.ndarray:
    """Every `factor`-th mean of factor x factor pixels around it, edges mirrored."""
    if factor == 1:
        return frames
    after = factor // 2
    pad = [(0, 0)] * (frames.ndim - 2) + [((factor - 1) // 2, after)] * 2
    padded = np.pad(frames, pad, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (factor, factor), axis=(-2, -1))
    return windows[..., ::factor, ::factor, :, :].mean(axis=(-2, -1))


def of_prediction(function: Callable, *, most: float = np.inf, **fields: object) -> Protocol:
    """The protocol that scores predicted frames by `function(real, fake)`, with `most` in place of larger values."""
    return Protocol(
        name=f"predict_{function.__name__.removeprefix('frame_')}",
        extractor="pixels",
        statistic=lambda real, fake, protocol: np.minimum(function(real, fake), most),
        context="copy",
        description=function.__doc__.partition("\n")[0],
        **fields,
    )


PROTOCOLS = [
    of_prediction(
        frame_psnr,
        title="Prediction, PSNR",
        meaning="How near the predicted frames of held-out clips are to what came, pixel by pixel, in dB.",
        ends=(None, None),
        most=MOST_PSNR,
    ),
    of_prediction(
        frame_ssim,
        title="Prediction, SSIM",
        meaning="The same by structural similarity: 1 is equal. Where a camera stands still, the copy is hard to beat.",
        ends=(None, 1.0),
        least_size=len(WINDOW),
    ),
]
