"""Charts as inline SVG: pure functions from numbers to markup. Colors come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 560
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 22, 14, 38


@dataclass(frozen=True)
class Series:
    """A line of a chart: its name, its style class, its points (x, y)."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]


def percent(value: float, digits: int = 0) -> str:
    """`0.814` as `81.4 %`, with a space that no line breaks at."""
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers between `low` and `high`, about `wanted` of them (Heckbert, Graphics Gems, 1990)."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def svg(width: float, height: float, title: str, body: str, style: str = "") -> str:
    """Return a picture with a name for those who do not see it."""
    name = f' class="{style}"' if style else ""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title, quote=True)}"{name}>'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def text(x: float, y: float, content: str, style: str = "", anchor: str = "middle", extra: str = "") -> str:
    """Return a label."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="label {style}"{extra}>{escape(content)}</text>'


class _Plane:
    """A plotting area with axes: from data to the picture's coordinates."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], height: float, width: float = _WIDTH
    ) -> None:
        self.x, self.y, self.height, self.width = x, y, height, width

    def place(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self.x, self.y
        across = (x - x0) / ((x1 - x0) or 1)
        up = (y - y0) / ((y1 - y0) or 1)
        inner = self.height - _TOP - _BOTTOM
        return _LEFT + across * (self.width - _LEFT - _RIGHT), _TOP + (1 - up) * inner

    def axes(
        self,
        x_ticks: Sequence[float],
        y_ticks: Sequence[float],
        x_format: Callable[[float], str],
        y_format: Callable[[float], str],
        x_label: str,
    ) -> str:
        parts = []
        for value in y_ticks:
            left, y = self.place(self.x[0], value)
            right, _ = self.place(self.x[1], value)
            parts.append(f'<line x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}" class="grid"/>')
            parts.append(text(left - 8, y + 4, y_format(value), anchor="end"))
        for value in x_ticks:
            x, y = self.place(value, self.y[0])
            parts.append(text(x, y + 17, x_format(value)))
        middle, _ = self.place(sum(self.x) / 2, self.y[0])
        parts.append(text(middle, self.height - 3, x_label, "faint"))
        return "".join(parts)


def line_chart(
    series: Sequence[Series],
    title: str,
    x_label: str,
    y_format: Callable[[float], str] = lambda value: f"{value:g}",
    mark: float | None = None,
    height: float = 250,
) -> str:
    """Return lines over a common x axis; `mark` draws an upright at an x (the epoch kept)."""
    points = [point for line in series for point in line.points]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    margin = (max(ys) - min(ys)) * 0.06 or 0.5
    low = max(0.0, min(ys) - margin) if min(ys) >= 0 else min(ys) - margin
    plane = _Plane((min(xs), max(max(xs), min(xs) + 1)), (low, max(ys) + margin), height)
    parts = [
        plane.axes(
            [tick for tick in ticks(*plane.x, wanted=7) if tick == round(tick)],
            ticks(*plane.y),
            lambda value: f"{value:g}",
            y_format,
            x_label,
        )
    ]
    if mark is not None:
        x, bottom = plane.place(mark, plane.y[0])
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom:.1f}" class="mark"/>')
    for line in series:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (plane.place(*point) for point in line.points))
        parts.append(f'<polyline points="{path}" class="line {line.style}"/>')
        for point in line.points if len(line.points) < 40 else line.points[-1:]:
            x, y = plane.place(*point)
            hint = escape(f"{line.name}, {x_label} {point[0]:g}: {y_format(point[1])}")
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" class="dot {line.style}"><title>{hint}</title></circle>'
            )
    return svg(_WIDTH, height, title, "".join(parts))


def scatter_chart(points: Series, frontier: Series, names: Sequence[str], title: str, x_label: str) -> str:
    """Return named points in a plane of a number (x) and a share (y), and the line through the best of them."""
    xs, ys = [x for x, _ in points.points], [y for _, y in points.points]
    margin = (max(ys) - min(ys)) * 0.15 or 0.01
    low, high = max(0.0, min(ys) - margin), min(1.0, max(ys) + margin)
    plane = _Plane((0, max(xs) * 1.25), (low, high), 280)
    digits = 0 if high - low > 0.05 else 1
    parts = [
        plane.axes(ticks(*plane.x), ticks(low, high), "{:g}".format, lambda y: percent(y, digits), x_label)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (plane.place(*point) for point in frontier.points))
    parts.append(f'<polyline points="{path}" class="line {frontier.style}"/>')
    for point, name in zip(points.points, names, strict=True):
        x, y = plane.place(*point)
        style = frontier.style if point in frontier.points else points.style
        hint = escape(f"{name}: {percent(point[1], 1)} at {point[0]:.1f}")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="dot {style}"><title>{hint}</title></circle>'
        )
        parts.append(text(x, y - 9, name))
    return svg(_WIDTH, 280, title, "".join(parts))


@dataclass(frozen=True)
class Bin:
    """Answers with a confidence in [low, high]: their number, mean confidence and accuracy."""

    low: float
    high: float
    photos: int
    confidence: float
    accuracy: float


def reliability_chart(before: Sequence[Bin], after: Sequence[Bin], title: str) -> str:
    """Draw a reliability diagram: accuracy by confidence; a calibrated model is on the diagonal."""
    height = 330.0
    plane = _Plane((0, 1), (0, 1), height)
    quarter = [0, 0.25, 0.5, 0.75, 1]
    parts = [plane.axes(quarter, quarter, percent, percent, "how sure it was")]
    (x0, y0), (x1, y1) = plane.place(0, 0), plane.place(1, 1)
    most = max((part.photos for part in after), default=0) or 1
    for part in after:
        if not part.photos:
            continue
        left, top = plane.place(part.low, part.accuracy)
        right, _ = plane.place(part.high, 0)
        share = 0.25 + 0.75 * math.sqrt(part.photos / most)
        hint = escape(
            f"{part.photos} photos answered with {percent(part.confidence)} confidence: {percent(part.accuracy)} right"
        )
        parts.append(
            f'<rect x="{left + 1:.1f}" y="{top:.1f}" width="{right - left - 2:.1f}" height="{y0 - top:.1f}" '
            f'class="bar" opacity="{share:.2f}"><title>{hint}</title></rect>'
        )
    parts.append(f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" class="diagonal"/>')
    path = " ".join(
        f"{x:.1f},{y:.1f}"
        for x, y in (plane.place(part.confidence, part.accuracy) for part in before if part.photos)
    )
    parts.append(f'<polyline points="{path}" class="line second"/>')
    for part in after:
        if part.photos:
            x, y = plane.place(part.confidence, part.accuracy)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" class="dot first"/>')
    return svg(_WIDTH, height, title, "".join(parts))


def interval_chart(mean: float, low: float, high: float, title: str) -> str:
    """Return a difference with its interval, against zero."""
    height = 96.0
    reach = max(abs(low), abs(high), 0.01) * 1.25
    left, right = 24, _WIDTH - 24

    def place(value: float) -> float:
        return left + (value + reach) / (2 * reach) * (right - left)

    marks = [value for value in ticks(-reach, reach, 7) if abs(place(value) - place(0)) > 1]
    parts = [f'<line x1="{left}" y1="52" x2="{right}" y2="52" class="grid"/>']
    parts += [text(place(value), 76, f"{100 * value:+g}") for value in marks]
    parts.append(f'<line x1="{place(0):.1f}" y1="18" x2="{place(0):.1f}" y2="60" class="mark"/>')
    parts.append(text(place(0), 76, "0"))
    parts.append(
        text(left, 92, "champion better", "faint", "start")
        + text(right, 92, "challenger better", "faint", "end")
    )
    parts.append(f'<line x1="{place(low):.1f}" y1="36" x2="{place(high):.1f}" y2="36" class="whisker"/>')
    parts.append(f'<circle cx="{place(mean):.1f}" cy="36" r="6" class="dot first"/>')
    return svg(_WIDTH, height, title, "".join(parts), "narrow")


def heat_map(
    counts: Sequence[Sequence[int]], names: Sequence[str], title: str, numbers: bool, cell: float
) -> str:
    """True classes downwards, predictions across; right answers in one color, mistakes in another.

    A cell's strength is its share of the row. `numbers` writes the counts into the cells.
    """
    size = len(names)
    font = min(12.0, cell * 0.82)
    gutter = min(190.0, 10 + 0.58 * font * max(len(name) for name in names))
    width, height = gutter + cell * size + 6, gutter + cell * size + 6
    parts = [
        f'<rect x="{gutter:.1f}" y="{gutter:.1f}" width="{cell * size:.1f}" height="{cell * size:.1f}" class="sheet"/>'
    ]
    for at, name in enumerate(names):
        middle = gutter + cell * (at + 0.5)
        label = (
            name
            if len(name) * 0.58 * font < gutter - 6
            else name[: int((gutter - 6) / (0.58 * font)) - 1] + "…"
        )
        turn = f' style="font-size:{font:.1f}px"'
        parts.append(text(gutter - 4, middle + font * 0.35, label, anchor="end", extra=turn))
        upright = f'{turn} transform="rotate(-90 {middle + font * 0.35:.1f} {gutter - 4:.1f})"'
        parts.append(text(middle + font * 0.35, gutter - 4, label, anchor="start", extra=upright))
    for row, values in enumerate(counts):
        total = sum(values) or 1
        for column, count in enumerate(values):
            if count:
                parts.append(_cell(row, column, count, count / total, names, gutter, cell, numbers))
    return svg(width, height, title, "".join(parts), "heat")


def _cell(
    row: int,
    column: int,
    count: int,
    share: float,
    names: Sequence[str],
    gutter: float,
    cell: float,
    numbers: bool,
) -> str:
    x, y = gutter + column * cell, gutter + row * cell
    right = row == column
    verb = "recognized" if right else f"taken for {names[column]}"
    hint = escape(f"{names[row]}: {count} {verb} ({percent(share)})")
    # The square root keeps a single mistake among many right answers visible.
    markup = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}" class="{"right" if right else "wrong"}" '
        f'opacity="{max(0.16, math.sqrt(share)):.2f}"><title>{hint}</title></rect>'
    )
    if numbers:
        style = "strong" if share > 0.45 else ""
        size = f' style="font-size:{min(12.0, cell * 0.42):.1f}px" pointer-events="none"'
        markup += text(x + cell / 2, y + cell / 2 + 4, str(count), f"count {style}", extra=size)
    return markup


def strip_chart(values: Sequence[float], names: Sequence[str], title: str) -> str:
    """Return one bar per class, best first: the shape of the whole, when there are too many classes to name each."""
    height = 200.0
    plane = _Plane((0, len(values)), (0, 1), height, width=2 * _WIDTH)
    parts = [plane.axes([], [0, 0.25, 0.5, 0.75, 1], str, percent, f"{len(values)} classes, best first")]
    order = sorted(range(len(values)), key=lambda at: -values[at])
    for place, at in enumerate(order):
        left, top = plane.place(place, values[at])
        right, bottom = plane.place(place + 1, 0)
        gap = 0.8 if right - left > 3 else 0.1
        hint = escape(f"{names[at]}: {percent(values[at])}")
        tall = max(0.5, bottom - top)
        parts.append(
            f'<rect x="{left:.2f}" y="{top:.1f}" width="{right - left - gap:.2f}" height="{tall:.1f}" class="bar">'
            f"<title>{hint}</title></rect>"
        )
    return svg(2 * _WIDTH, height, title, "".join(parts))
