"""HDR frames (BT.2100: PQ or HLG) to SDR (BT.709), by tables of the transfer curves: PyAV's ffmpeg has no zscale.

Tables and products alone, no power of a pixel: the same bytes whatever SIMD the CPU has.
"""

import functools

import av
import numpy as np

PQ, HLG = 16, 18  # AVCOL_TRC_SMPTE2084, AVCOL_TRC_ARIB_STD_B67
BT2020 = 9  # AVCOL_PRI_BT2020
WHITE = 100.0  # nits of SDR's white (BT.1886)
HLG_PEAK = 1000.0  # nits of the display that HLG is graded on (BT.2100)
KNEE = 0.8  # signal up to which SDR is exact; above, highlights approach 1
BT2020_TO_BT709 = np.array(  # BT.2407
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def is_hdr(frame: av.VideoFrame) -> bool:
    return frame.color_trc in (PQ, HLG)


def to_sdr(rgb: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """RGB of an HDR `transfer`, uint16 (H, W, 3), as uint8 for a display of WHITE nits."""
    light = _light(transfer)[rgb]
    if primaries == BT2020:
        red, green, blue = np.moveaxis(light, -1, 0)
        rows = [red * r + green * g + blue * b for r, g, b in BT2020_TO_BT709]
        light = np.stack(rows, axis=-1)
    return np.searchsorted(_thresholds(), light).astype(np.uint8)


@functools.cache
def _light(transfer: int) -> np.ndarray:
    """Light of the display, in units of WHITE, for each of 65536 signals."""
    signal = np.linspace(0, 1, 65536)
    if transfer == PQ:  # BT.2100, table 4
        power = signal ** (32 / 2523)
        nits = 10_000 * (np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)) ** (8192 / 1305)
    else:  # BT.2100, table 5; the OOTF on each channel, as zimg does it
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        nits = HLG_PEAK * np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12) ** 1.2
    return (nits / WHITE).astype(np.float32)


@functools.cache
def _thresholds() -> np.ndarray:
    """Light at which SDR passes from level n to n + 1. Its signal is x = light ** (1 / 2.4) (BT.1886) up to KNEE, and
    1 - (1 - KNEE) * exp((KNEE - x) / (1 - KNEE)) above."""
    signal, room = (np.arange(255) + 0.5) / 255, 1 - KNEE
    x = np.where(signal <= KNEE, signal, KNEE - room * np.log(np.minimum((1 - signal) / room, 1)))
    return (x**2.4).astype(np.float32)
