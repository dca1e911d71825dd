"""The sections of report.html about classes: scores per class, confusion matrix, worst mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from model_code.evaluate.scores import Integers
from model_code.pages import charts
from model_code.pages.charts import Series, percent
from model_code.pages.markup import Html, figure, legend, meter, readable, section, side_by_side, table

NUMBERED = 24
"""Up to this number of classes, the confusion matrix has numbers in its cells and every class its own bar."""
MAPPED = 150
"""Up to this number of classes, the confusion matrix shows all; beyond it, those with the most mistakes."""
_SHOWN_OF_MANY = 60
_EXTREMES = 12


def class_by_class(document: Mapping[str, Any]) -> str:
    """Recall and precision: of every class where they are few, else their spread and the extremes."""
    rows = sorted(
        (row for row in document["classes"] if row["photos"]), key=lambda row: (-row["recall"], row["name"])
    )
    intro = (
        "Recall: share of the photos of a class that are recognized. Precision: share of the answers naming the class "
        "that are correct."
    )
    if len(rows) <= NUMBERED:
        return section("Class by class", intro, _class_table(rows, "All classes, best recall first"))
    chart = charts.strip_chart(
        [row["recall"] for row in rows],
        [readable(row["name"]) for row in rows],
        "Recall of every class, best first",
    )
    everything = _class_table(rows, "Best recall first").markup
    return section(
        "Class by class",
        intro,
        figure(Html(chart), caption="Recall of every class. Hover over a bar for its name."),
        side_by_side(
            _class_table(rows[::-1][:_EXTREMES], "Hardest classes"),
            _class_table(rows[:_EXTREMES], "Easiest classes"),
        ),
        Html(f"<details><summary>All {len(rows)} classes</summary>{everything}</details>"),
    )


def _class_table(rows: Sequence[Mapping[str, Any]], caption: str) -> Html:
    cells = [
        (
            readable(row["name"]),
            meter(row["recall"]),
            percent(row["recall"]),
            percent(row["precision"]),
            f"{row['photos']:,}",
        )
        for row in rows
    ]
    return table(["class", "", "#recall", "#precision", "#photos"], cells, caption)


def confusion_matrix(document: Mapping[str, Any]) -> str:
    """Return a heat map of true classes against predictions, ordered so that mix-ups form blocks."""
    names = [readable(row["name"]) for row in document["classes"]]
    matrix = dense(document["confusion"], len(names))
    chosen = np.arange(len(names))
    remarks = ["Rows are the true classes, columns the predictions."]
    if len(names) > MAPPED:
        chosen = busiest(matrix, _SHOWN_OF_MANY)
        remarks.append(f"The {len(chosen)} classes of {len(names)} with the most mistakes.")
    if len(chosen) > NUMBERED:
        chosen = chosen[seriation(matrix[np.ix_(chosen, chosen)])]
        remarks.append("Classes that are confused with each other are placed side by side.")
    remarks.append("Hover over a cell for its numbers.")
    shown = matrix[np.ix_(chosen, chosen)].tolist()
    cell = 40.0 if len(chosen) <= 10 else max(10.0, 760 / len(chosen))
    chart = charts.heat_map(
        shown, [names[at] for at in chosen], "Confusion matrix", len(chosen) <= NUMBERED, cell
    )
    key = legend(Series("correct", "first", ()), Series("wrong", "second", ()))
    return section(
        "Confusion matrix",
        figure(
            key,
            Html(f'<div class="scroll">{chart}</div>'),
            caption=" ".join(remarks),
            style="wide" if len(chosen) > NUMBERED else "",
        ),
    )


def dense(cells: Sequence[Sequence[int]], classes: int) -> Integers:
    """Return the sparse `confusion` of evaluation.json as [classes, classes], without photos of unknown classes."""
    matrix = np.zeros((classes + 1, classes), np.int64)
    for row, column, count in cells:
        matrix[row, column] = count
    return matrix[:-1]


def busiest(matrix: Integers, count: int) -> Integers:
    """Return the classes with the most mistakes, in their original order."""
    wrong = matrix - np.diag(np.diagonal(matrix))
    return np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:count])


def seriation(matrix: Integers) -> Integers:
    """Return an order of classes that puts those confused with each other side by side.

    By the eigenvector of the second smallest eigenvalue of the mistakes' graph Laplacian (Atkins et al. 1998).
    """
    wrong = (matrix + matrix.T).astype(np.float64)
    np.fill_diagonal(wrong, 0)
    wrong += 1e-3  # connects classes that are never confused
    laplacian = np.diag(wrong.sum(axis=1)) - wrong
    vector = np.linalg.eigh(laplacian)[1][:, 1]
    # The sign of an eigenvector is arbitrary; fix it, so that the page is reproducible.
    return np.argsort(vector * np.sign(vector[np.argmax(np.abs(vector))]), kind="stable")


def mix_ups(document: Mapping[str, Any]) -> str:
    """Return the most common mistakes, as a table."""
    support = {row["name"]: row["photos"] for row in document["classes"]}
    rows = [
        (
            readable(pair["label"]),
            readable(pair["prediction"]),
            meter(pair["photos"] / support[pair["label"]], "second"),
            f"{pair['photos']} of {support[pair['label']]}",
        )
        for pair in document["confused"]
    ]
    return (
        section("Most common confusions", table(["class", "predicted as", "", "#photos"], rows))
        if rows
        else ""
    )


def worst_mistakes(document: Mapping[str, Any], photos: Mapping[str, str]) -> str:
    """Return the most confident wrong answers that have a thumbnail."""
    cards = "".join(
        _mistake(mistake, photos[mistake["key"]]) for mistake in document["worst"] if mistake["key"] in photos
    )
    if not cards:
        return ""
    return section(
        "Worst mistakes",
        "The most confident wrong answers. Often the label is wrong, or the photo shows several objects: check them "
        "before the next training.",
        Html(f'<ul class="photos">{cards}</ul>'),
    )


def _mistake(mistake: Mapping[str, Any], image: str) -> str:
    label, prediction = readable(mistake["label"]), readable(mistake["prediction"])
    hint = escape(f"a photo labeled {label}", quote=True)
    place = escape(mistake.get("path") or mistake["key"])
    return (
        f'<li><img src="{image}" alt="{hint}"><div><b>{escape(prediction)}</b> '
        f"{percent(mistake['confidence'], 1)}<br>labeled {escape(label)} "
        f'{percent(mistake["likelihood"], 1)}<br><code class="key">{place}</code></div></li>'
    )
