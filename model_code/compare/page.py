"""compare.html: the candidates side by side, as a table and as accuracy against time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from model_code.compare.outcome import Outcome, frontier
from model_code.pages.charts import Series, percent, scatter_chart
from model_code.pages.markup import Html, figure, legend, note, page, section, table

COLUMNS = (
    "architecture",
    "#accuracy",
    "#95 % interval",
    "runtime",
    "#ms",
    "#USD per million",
    "#MB",
    "frontier",
)
_MEANING = (
    "ms: the median time of one answer on one core of this machine. USD per million: photos per second of this "
    "machine, at the hourly price given. MB: the file that serves. No candidate is both faster and more accurate than "
    "one on the frontier. Photos of ImageNet's training set flatter weights that were trained on it."
)


def rows(outcomes: Sequence[Outcome], usd_per_hour: float) -> list[tuple[str, ...]]:
    """Return the cells of the table, most accurate first."""
    best = frontier(outcomes)
    return [
        (
            found.name,
            percent(found.accuracy, 1),
            f"{percent(found.interval[0], 1)} to {percent(found.interval[1], 1)}",
            found.runtime,
            f"{found.milliseconds:.1f}",
            f"{found.usd_per_million(usd_per_hour):.2f}",
            f"{found.megabytes:.1f}",
            "yes" if found in best else "",
        )
        for found in sorted(outcomes, key=lambda found: -found.accuracy)
    ]


def render(outcomes: Sequence[Outcome], usd_per_hour: float, dataset: str) -> str:
    """Return the page. The same outcomes give the same bytes."""
    points = Series("other candidates", "third", [(found.milliseconds, found.accuracy) for found in outcomes])
    best = Series("frontier", "first", [(found.milliseconds, found.accuracy) for found in frontier(outcomes)])
    chart = scatter_chart(
        points, best, [found.name for found in outcomes], "Accuracy against time", "milliseconds per photo"
    )
    title = f"Architectures on {dataset}"
    parts = [
        f"<header>\n<h1>{escape(title)}</h1>\n</header>",
        section("Accuracy against time", figure(legend(best, points), Html(chart))),
        section("Candidates", table(COLUMNS, rows(outcomes, usd_per_hour)), note(_MEANING)),
    ]
    return page(title, parts)
