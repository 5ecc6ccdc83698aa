"""Line charts as SVG, without a script: attributes alone, since the page's policy lets no style be written inline."""

import math
from collections.abc import Mapping, Sequence

from vlax.evaluation.report.page import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 240, 56, 24, 14, 28
Points = Sequence[tuple[float, float]]


def chart(lines: Mapping[int, Points], names: Sequence[str], log: bool) -> str:
    """{number of the run: [(update, value), ...]} as an <svg>. log: of the values, where all are above 0."""
    values = [y for points in lines.values() for _, y in points if math.isfinite(y)]
    ends = [x for points in lines.values() for x, _ in points]
    log = log and min(values, default=1.0) > 0
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low = low if log else min(0.0, low)
    scale = math.log if log else float
    if scale(low) == scale(high):
        low, high = (low / 2, high * 2) if log else (low, high + (abs(high) or 1))
    right, (bottom, top) = max(ends, default=1.0) or 1.0, (scale(low), scale(high))

    def place(x: float, y: float) -> tuple[float, float]:
        return (LEFT + (WIDTH - LEFT - RIGHT) * x / right,
                HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (scale(y) - bottom) / (top - bottom))  # fmt: skip

    parts = []
    for y in _log_ticks(low, high) if log else _ticks(low, high):
        at = place(0, y)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>')
    parts += [f'<text x="{place(x, low)[0]:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{x:g}</text>' for x in _ticks(0, right)]
    for number, points in lines.items():
        shown = [place(x, y) for x, y in points if math.isfinite(y)]
        title = f"<title>{escape(names[number])}</title>"
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)
        parts.append(f'<g class="run c{number % 8}">{title}<polyline points="{path}"/>')
        dots = shown if len(shown) <= 12 else []
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in dots]
        parts.append("</g>")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _ticks(low: float, high: float) -> list[float]:
    """`(0, 1000) -> [0, 250, 500, 750, 1000]`, about five of them, on round numbers."""
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(n * power for n in (1, 2, 2.5, 5, 10) if n * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten in between; where these are fewer than two, ticks as of a linear scale."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [n * 10.0**power for power in powers for n in (1, 2, 5) if low <= n * 10.0**power <= high]
    return found if len(found) > 1 else _ticks(low, high)
