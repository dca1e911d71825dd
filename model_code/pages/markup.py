"""Pieces of HTML for report.html. Whatever comes in as text is escaped here and nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from model_code.pages.charts import Series
from model_code.pages.style import STYLE


@dataclass(frozen=True)
class Html:
    """Markup that is already escaped."""

    markup: str


Content = Html | str


def html(content: Content) -> str:
    """Markup of a piece: text is escaped."""
    return content.markup if isinstance(content, Html) else escape(content)


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """Return a whole page of parts in order; empty ones are left out."""
    body = "\n".join(filter(None, parts))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return figures in large type: (name, value, remark) each."""
    cells = "".join(
        f'<div class="tile"><dt>{escape(name)}</dt><dd>{escape(value)}'
        f'<span class="small">{escape(remark)}</span></dd></div>'
        for name, value, remark in entries
    )
    return f'<dl class="tiles">{cells}</dl>'


def readable(name: str) -> str:
    """Return a class's folder name as people write it."""
    return name.replace("_", " ")


def jpeg_uri(data: bytes) -> str:
    """Return the address that holds a JPEG itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def section(title: str, *parts: Content) -> str:
    """Return a part of the page under its heading; text becomes a paragraph."""
    body = "\n".join(part.markup if isinstance(part, Html) else f"<p>{escape(part)}</p>" for part in parts)
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def figure(*parts: Content, caption: str = "", style: str = "") -> Html:
    """Return a card with a picture or a table."""
    note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    name = f' class="{style}"' if style else ""
    return Html(f"<figure{name}>{''.join(html(part) for part in parts)}{note}</figure>")


def side_by_side(*parts: Html) -> Html:
    """Cards in a row, or below each other where there is no room."""
    return Html(f'<div class="pair">{"".join(part.markup for part in parts)}</div>')


def note(content: str) -> Html:
    """Return a remark in small type."""
    return Html(f'<p class="note">{escape(content)}</p>')


def meter(share: float, style: str = "first") -> Html:
    """Return a bar of `share` (0..1) of its cell's width."""
    return Html(f'<span class="meter {style}"><i style="--share:{100 * share:.1f}%"></i></span>')


def legend(*entries: Series) -> Html:
    """Return the legend of the colors."""
    spans = "".join(f'<span class="{entry.style}">{escape(entry.name)}</span>' for entry in entries)
    return Html(f'<div class="legend">{spans}</div>')


def table(columns: Sequence[str], rows: Iterable[Sequence[Content]], caption: str = "") -> Html:
    """Return a table in a card. A row begins with its heading; a column whose name begins with `#` holds numbers."""
    head = "".join(
        f'<th scope="col"{_number(column)}>{escape(column.removeprefix("#"))}</th>' for column in columns
    )
    body = "".join(f"<tr>{_row(columns, row)}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    top = f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
    return figure(Html(f"<table>{title}{top}<tbody>{body}</tbody></table>"), style="scroll")


def _row(columns: Sequence[str], row: Sequence[Content]) -> str:
    first = f'<th scope="row">{html(row[0])}</th>'
    rest = (
        f"<td{_number(column)}>{html(cell)}</td>" for column, cell in zip(columns[1:], row[1:], strict=True)
    )
    return first + "".join(rest)


def _number(column: str) -> str:
    return ' class="number"' if column.startswith("#") else ""
