"""Charts as inline SVG; colours come from the page's style sheet."""

import math
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape
from pyarrow.csv import read_csv

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 42, 8, 8, 22
POINTS = 300  # More than a panel can show.


def read_history(path: str | Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """history.csv -> {column: (steps, values)}; empty and not finite cells are left out."""
    columns = read_csv(path).to_pydict()
    steps, history = np.array(columns.pop("step"), dtype=np.float64), {}
    for name, cells in columns.items():
        values = np.array(cells, dtype=np.float64)  # None, of an empty cell, becomes NaN
        finite = np.isfinite(values)
        history[name] = steps[finite], values[finite]
    return history


def curve(name: str, steps: np.ndarray, values: np.ndarray) -> Markup:
    """A chart of the recorded values as a thin line and of their running mean as a thick one."""
    mean = running_mean(values)
    across = _axis(0, max(float(steps[-1]), 1), LEFT, WIDTH - RIGHT)(_thin(steps))
    label = f"{name}: from {tidy(mean[0])} at step {steps[0]:,.0f} to {tidy(mean[-1])} at step {steps[-1]:,.0f}"
    lines = {"raw": _thin(values), "mean": _thin(mean)}
    return _panel(label, across, lines, _robust_range(values), ("0", f"step {steps[-1]:,.0f}"))


def against(name: str, model: np.ndarray, copy: np.ndarray) -> Markup:
    """A chart of a score by the number of frames ahead: of the model, and of a copy of the last frame."""
    across = _axis(1, max(len(model), 2), LEFT, WIDTH - RIGHT)(np.arange(1, len(model) + 1))
    label = (
        f"{name}: {tidy(model[0])} one frame ahead and {tidy(model[-1])} in the last; "
        f"the copied last frame {tidy(copy[0])} and {tidy(copy[-1])}"
    )
    lines = {"copy": copy, "mean": model}
    return _panel(label, across, lines, _robust_range(np.r_[model, copy]), ("1 frame ahead", f"{len(model)} frames"))


def _panel(label: str, across: np.ndarray, lines: dict, limits: tuple[float, float], ends: tuple[str, str]) -> Markup:
    """Lines ({class: values} over the positions `across`) on a grid, with the words `ends` below the x axis."""
    up = _axis(*limits, HEIGHT - BOTTOM, TOP)
    polylines = "".join(
        f'<polyline class="{kind}" points="{_points(across, up(values))}"/>' for kind, values in lines.items()
    )
    box = f"{WIDTH - LEFT - RIGHT} {HEIGHT - TOP - BOTTOM}"
    # The inner svg cuts off values out of range.
    return Markup(
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{_grid(*limits, up)}"
        f'<svg x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" '
        f'viewBox="{LEFT} {TOP} {box}">{polylines}</svg>'
        f'<text x="{LEFT}" y="{HEIGHT - 5}">{ends[0]}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">{ends[1]}</text></svg>'
    )


def running_mean(values: np.ndarray) -> np.ndarray:
    """(N,) -> (N,): the mean of a twentieth of the values, centred; shorter at both ends."""
    reach = len(values) // 40
    sums = np.r_[0.0, values.cumsum()]
    places = np.arange(len(values))
    first, last = (places - reach).clip(0), (places + reach + 1).clip(max=len(values))
    return (sums[last] - sums[first]) / (last - first)


def _thin(column: np.ndarray) -> np.ndarray:
    return column[np.linspace(0, len(column) - 1, min(POINTS, len(column))).round().astype(int)]


def _robust_range(values: np.ndarray) -> tuple[float, float]:
    """Without single wild steps, which would flatten everything else."""
    bottom, top = np.percentile(values, [1, 99]).tolist()
    margin = 0.08 * (top - bottom) or 0.5 * abs(top) or 0.5
    return bottom - margin, top + margin


def _axis(start: float, end: float, first: float, last: float):
    return lambda value: first + (np.asarray(value) - start) / (end - start) * (last - first)


def _grid(bottom: float, top: float, up) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{up(tick) + 3.5:.1f}" text-anchor="end">{tidy(tick, 6)}</text>'
        for tick in ticks(bottom, top)
    )


def ticks(bottom: float, top: float) -> list[float]:
    """Three to seven round numbers (1, 2 or 5 times a power of ten apart) inside [bottom, top]."""
    rough = (top - bottom) / 3
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(factor * power for factor in (1, 2, 5) if factor * power <= rough)
    return [i * step for i in range(math.ceil(bottom / step), math.floor(top / step) + 1)]


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def tidy(value: float, digits: int = 3) -> str:
    """At most so many significant digits, no exponent for everyday sizes, a real minus sign."""
    return f"{value:.{digits}g}".replace("-", "\N{MINUS SIGN}")
