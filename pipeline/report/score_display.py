"""Scores as text and as positions on a bar, with the landmarks that give them a meaning."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from hrvgan.metrics.protocols import lower_is_better


@dataclass(frozen=True)
class Scale:
    title: str
    meaning: str
    ends: tuple[float | None, float | None] = (0.0, None)  # None: as far as the numbers go


SCALES = {
    "refnet_fd": Scale(
        "Fréchet distance",
        "How far the generated clips as a crowd lie from held-out real ones, in the features of the "
        "reference network. It compares mean and spread, so it sees both poor pictures and poor variety.",
    ),
    "refnet_kid": Scale(
        "Kernel distance",
        "The same question without the Fréchet distance's assumption of a Gaussian and without its bias from "
        "few clips. Around zero, and even below it, means that no difference was found.",
        (None, None),
    ),
    "refnet_fd_inf": Scale(
        "Fréchet distance, unbiased",
        "The Fréchet distance as a line through smaller and smaller sets predicts it for infinitely many clips.",
        (None, None),
    ),
    "refnet_is": Scale(
        "Inception score",
        "Whether single clips look plainly like one class while all of them together cover every class: "
        "1 is mush, the number of classes is perfect.",
        (1.0, None),
    ),
    "refnet_acc": Scale(
        "Class accuracy",
        "How often the reference network sees in a generated clip the class that was asked for.",
        (0.0, 1.0),
    ),
    "refnet_intra_kid": Scale(
        "Kernel distance within classes",
        "The kernel distance between generated clips and the real ones of the class asked for, class by class. It "
        "sees wrong labels, which the distances of whole crowds do not.",
        (None, None),
    ),
    "refnet_precision": Scale(
        "Precision",
        "The share of generated clips that lie among real ones: low where clips look wrong.",
        (0.0, 1.0),
    ),
    "refnet_recall": Scale(
        "Recall",
        "The share of real clips that lie among generated ones: low where variety is missing.",
        (0.0, 1.0),
    ),
    "refnet_density": Scale(
        "Density", "In how many real neighbourhoods a generated clip lies; precision that outliers sway less."
    ),
    "refnet_coverage": Scale(
        "Coverage", "The share of real neighbourhoods that hold a generated clip.", (0.0, 1.0)
    ),
    "predict_psnr": Scale(
        "Prediction, PSNR",
        "How near the predicted frames of held-out clips are to what came, pixel by pixel, in dB.",
        (None, None),
    ),
    "predict_ssim": Scale(
        "Prediction, SSIM",
        "The same by structural similarity: 1 is equal. Where a camera stands still, the copy is hard to beat.",
        (None, 1.0),
    ),
}

# Landmark -> (glyph on the page, words). Floor, ceiling and real: what real clips get by the same protocol.
LANDMARKS = {
    "floor": ("stroke", "real against real (floor)"),
    "ceiling": ("stroke", "real clips (ceiling)"),
    "real": ("stroke", "real clips"),
    "trivial_best": ("dash", "without skill"),
    "copy": ("dash", "copy of the last frame"),
    "chance": ("dash", "chance"),
    "train": ("ring", "against the training clips"),
}


@dataclass(frozen=True)
class Mark:
    glyph: str
    words: str
    text: str
    at: float  # percent of the bar


@dataclass(frozen=True)
class Score:
    """A score in words and as places (percent) on its bar."""

    name: str
    title: str
    meaning: str
    better: str  # "lower" or "higher"
    text: str
    spread: str | None
    at: float
    band: tuple[float, float]
    marks: list[Mark]

    @property
    def with_spread(self) -> str:
        return f"{self.text} ± {self.spread}" if self.spread else self.text


def read_scores(metrics: dict) -> list[Score]:
    """The scores ({"value": ...}) of a metrics JSON in the order of SCALES, protocols unknown here last."""
    names = [name for name, entry in metrics.items() if isinstance(entry, dict) and "value" in entry]
    order = list(SCALES)
    names.sort(key=lambda name: order.index(name) if name in SCALES else len(order))
    return [read_score(name, metrics[name]) for name in names]


def read_score(name: str, entry: dict) -> Score:
    scale = SCALES.get(name) or Scale(name, "")
    value, sd = entry["value"], entry.get("sd")
    places = decimals(value, sd)
    numbers = {key: entry[key] for key in LANDMARKS if key in entry}
    low, high = value - (sd or 0), value + (sd or 0)
    place = _bar(scale.ends, [low, high, *numbers.values()])
    return Score(
        name=name,
        title=scale.title,
        meaning=scale.meaning,
        better="lower" if lower_is_better(name) else "higher",
        text=fixed(value, places),
        spread=None if sd is None else fixed(sd, places),
        at=place(value),
        band=(place(low), place(high)),
        marks=[
            Mark(*LANDMARKS[key], fixed(number, decimals(number)), place(number))
            for key, number in numbers.items()
        ],
    )


def _bar(ends: tuple[float | None, float | None], numbers: list[float]) -> Callable[[float], float]:
    """number -> percent of a bar that holds all `numbers`, between the scale's own ends where it has them."""
    margin = 0.08 * (max(numbers) - min(numbers))
    low = min(numbers) - margin if ends[0] is None else min(ends[0], *numbers)
    high = max(numbers) + margin if ends[1] is None else max(ends[1], *numbers)
    return lambda number: round(100 * (number - low) / ((high - low) or 1), 2)


def decimals(value: float, sd: float | None = None) -> int:
    """So many places that the value shows three digits and its spread at least one."""
    wanted = [2 - _magnitude(value)] + ([-_magnitude(sd)] if sd else [])
    return min(max(0, *wanted), 6)


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 2


def fixed(value: float, places: int) -> str:
    """With a real minus sign and thin spaces between thousands, as in print."""
    return f"{value:,.{places}f}".replace("-", "\N{MINUS SIGN}").replace(",", "\u202f")
