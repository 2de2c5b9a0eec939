"""Display of a score: value and spread, direction, and the landmarks on its bar that give it a meaning."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from hrvgan import metrics
from hrvgan.metrics.protocols import lower_is_better

# Landmark -> (glyph on the page, words). Floor, ceiling and real: scores of real clips by the same protocol.
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
    """A score as text and as positions (percent) on its bar."""

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


def read_scores(scores: dict) -> list[Score]:
    """The scores ({"value": ...}) of a metrics JSON: first those with a title, in the order of the registry."""
    names = [name for name, entry in scores.items() if isinstance(entry, dict) and "value" in entry]
    order = [name for name, protocol in metrics.PROTOCOLS.items() if protocol.title]
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    return [read_score(name, scores[name]) for name in names]


def read_score(name: str, entry: dict) -> Score:
    value, sd = entry["value"], entry.get("sd")
    places = decimals(value, sd)
    numbers = {key: entry[key] for key in LANDMARKS if key in entry}
    low, high = value - (sd or 0), value + (sd or 0)
    protocol = metrics.PROTOCOLS.get(name)
    place = _bar(protocol.ends if protocol else (0.0, None), [low, high, *numbers.values()])
    return Score(
        name=name,
        title=title_of(name),
        meaning=protocol.meaning if protocol else "",
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


def title_of(name: str) -> str:
    protocol = metrics.PROTOCOLS.get(name)
    return protocol.title or name if protocol else name


def _bar(ends: tuple[float | None, float | None], numbers: list[float]) -> Callable[[float], float]:
    """Function number -> percent of a bar that holds all `numbers` and ends at the protocol's own `ends`."""
    margin = 0.08 * (max(numbers) - min(numbers))
    low = min(numbers) - margin if ends[0] is None else min(ends[0], *numbers)
    high = max(numbers) + margin if ends[1] is None else max(ends[1], *numbers)
    return lambda number: round(100 * (number - low) / ((high - low) or 1), 2)


def decimals(value: float, sd: float | None = None) -> int:
    """Number of decimals that shows three digits of the value and at least one of its spread."""
    wanted = [2 - _magnitude(value)] + ([-_magnitude(sd)] if sd else [])
    return min(max(0, *wanted), 6)


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 2


def fixed(value: float, places: int) -> str:
    """`value` with a typographic minus sign and thin spaces between thousands."""
    return f"{value:,.{places}f}".replace("-", "\N{MINUS SIGN}").replace(",", "\u202f")
