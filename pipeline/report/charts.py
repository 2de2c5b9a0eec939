"""Curves as inline SVG: columns of numbers in, markup out; colours come from the page's style sheet."""

import csv
import math
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 42, 8, 8, 22
POINTS = 300  # More than a panel can show.


def read_history(path: str | Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """history.csv -> {column: (steps, values)}; empty and not finite cells are left out."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in (rows[0] if rows else {}) if name != "step"]
    return {name: _column(rows, name) for name in columns}


def _column(rows: list[dict[str, str]], name: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
    steps, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def curve(name: str, steps: np.ndarray, values: np.ndarray) -> Markup:
    """One panel: the recorded values as a thin line, their running mean as a thick one."""
    mean = running_mean(values)
    bottom, top = _robust_range(values)
    across = _axis(0, max(float(steps[-1]), 1), LEFT, WIDTH - RIGHT)
    up = _axis(bottom, top, HEIGHT - BOTTOM, TOP)
    raw, thick = (_points(across(_thin(steps)), up(_thin(column))) for column in (values, mean))
    label = (
        f"{name}: from {tidy(mean[0])} at step {steps[0]:,.0f} to {tidy(mean[-1])} at step {steps[-1]:,.0f}"
    )
    # The inner svg cuts off what is out of range.
    return Markup(
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{_grid(bottom, top, up)}"
        f'<svg x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" '
        f'viewBox="{LEFT} {TOP} {WIDTH - LEFT - RIGHT} {HEIGHT - TOP - BOTTOM}">'
        f'<polyline class="raw" points="{raw}"/><polyline class="mean" points="{thick}"/></svg>'
        f'<text x="{LEFT}" y="{HEIGHT - 5}">0</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">step {steps[-1]:,.0f}</text></svg>'
    )


def against(name: str, model: np.ndarray, copy: np.ndarray) -> Markup:
    """One panel of a score by the number of frames ahead: the model's line, and that of the copied last frame."""
    ahead = np.arange(1, len(model) + 1)
    bottom, top = _robust_range(np.r_[model, copy])
    across = _axis(1, max(len(model), 2), LEFT, WIDTH - RIGHT)
    up = _axis(bottom, top, HEIGHT - BOTTOM, TOP)
    label = (
        f"{name}: {tidy(model[0])} one frame ahead and {tidy(model[-1])} in the last; "
        f"the copied last frame {tidy(copy[0])} and {tidy(copy[-1])}"
    )
    lines = "".join(
        f'<polyline class="{kind}" points="{_points(across(ahead), up(np.asarray(values)))}"/>'
        for kind, values in (("copy", copy), ("mean", model))
    )
    return Markup(
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{_grid(bottom, top, up)}{lines}"
        f'<text x="{LEFT}" y="{HEIGHT - 5}">1 frame ahead</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">{len(model)} frames</text></svg>'
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
