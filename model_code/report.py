"""report.html: one page that needs nothing else, written from evaluation.json and the model card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from model_code import charts
from model_code.card import ModelCard
from model_code.charts import Series, percent
from model_code.report_style import STYLE
from model_code.scores import Bin, Integers

NUMBERED = 24
"""Up to so many classes, the confusion has numbers in its cells and every class its own row of bars."""
MAPPED = 150
"""Up to so many classes, the confusion shows all; beyond, those that most mistakes are between."""
_SHOWN_OF_MANY = 60
_EXTREMES = 12


@dataclass(frozen=True)
class Report:
    """What the page is made of.

    Args:
        document: evaluation.json.
        card: the model's.
        photos: `data:` URIs of the worst mistakes, by key.
    """

    document: Mapping[str, Any]
    card: ModelCard
    photos: Mapping[str, str]


def render(report: Report) -> str:
    """The page. Deterministic: the same evaluation gives the same bytes."""
    sections: list[Callable[[Report], str]] = [
        _header, _tiles, _comparison, _training, _calibration, _classes, _confusion, _confused, _worst, _making,
    ]  # fmt: skip
    title = escape(f"{report.card.name}: {percent(report.document['accuracy'], 1)} right")
    body = "\n".join(part for part in (section(report) for section in sections) if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(report: Report) -> str:
    document, card = report.document, report.card
    dataset = document["dataset"] or card.dataset
    interval = document["accuracy_interval"]
    facts = [
        card.architecture,
        f"{len(card.classes)} classes",
        f"data set {dataset['name']}, version {dataset['version']}",
        f"served by {document['runtime']}",
    ]
    notes = []
    if document["unknown_classes"]:
        photos = sum(document["unknown_classes"].values())
        names = ", ".join(sorted(document["unknown_classes"]))
        notes.append(
            f"{photos} photos are of classes this model was never taught ({names}); they count as wrong."
        )
    if document["unreadable"]:
        notes.append(f"{len(document['unreadable'])} photos could not be read and count nowhere.")
    remarks = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return (
        f'<header>\n<h1>{escape(card.name)}</h1>\n<p class="soft">{escape(" · ".join(facts))}</p>\n'
        f'<p class="lead">Right on <strong>{percent(document["accuracy"], 1)}</strong> of {document["photos"]:,} test photos '
        f"it never saw. Drawing other photos of the same kind, that would be between {percent(interval['low'], 1)} and "
        f"{percent(interval['high'], 1)} in 95 of 100 cases.</p>{remarks}\n</header>"
    )


def _tiles(report: Report) -> str:
    document = report.document
    calibration, abstain, latency = document["calibration"], document["abstain"], document["latency"]
    interval = document["macro_f1_interval"]
    tiles = [
        ("Accuracy", percent(document["accuracy"], 1), "the likeliest class is the true one"),
        ("Top 5", percent(document["top5_accuracy"], 1), "the true class is among the five likeliest"),
        (
            "Macro F1",
            f"{document['macro_f1']:.3f}",
            f"{interval['low']:.3f} to {interval['high']:.3f}; classes count alike",
        ),
        (
            "Calibration error",
            percent(calibration["ece_after"], 1),
            f"{percent(calibration['ece_before'], 1)} before scaling",
        ),
        ("Unsure", percent(abstain["rate"], 1), _abstain_note(abstain)),
        (
            "One photo",
            f"{latency['p50']:.1f} ms",
            f"99 of 100 within {latency['p99']:.1f} ms, one core, no network",
        ),
        (
            "Throughput",
            f"{document['photos_per_second']:,.0f}/s",
            "photos, on this job's cores, decoding included",
        ),
    ]
    if document["log_loss"] is not None:
        tiles.insert(3, ("Log loss", f"{document['log_loss']:.3f}", "lower is better; 0 is perfect"))
    cells = "".join(
        f'<div class="tile"><dt>{escape(name)}</dt><dd>{escape(value)}<span class="small">{escape(note)}</span></dd></div>'
        for name, value, note in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _abstain_note(abstain: Mapping[str, Any]) -> str:
    if abstain["accuracy_answered"] is None:
        return f"below {percent(abstain['threshold'])} sure every time"
    return (
        f"below {percent(abstain['threshold'])} sure; else {percent(abstain['accuracy_answered'], 1)} right"
    )


def _comparison(report: Report) -> str:
    comparison = report.document["comparison"]
    if comparison is None:
        return ""
    low, high, mean = comparison["ci_low"], comparison["ci_high"], comparison["difference"]
    if low > 0:
        verdict = "Better than the champion."
    elif high < 0:
        verdict = "Worse than the champion."
    else:
        verdict = "No difference from the champion that these photos could show."
    points = f"{100 * mean:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
    title = f"Accuracy against the champion: {points}"
    changes = [
        f"{label}: {escape(', '.join(comparison[key]))}."
        for label, key in (("New classes", "classes_added"), ("Classes gone", "classes_removed"))
        if comparison[key]
    ]
    common = comparison["common"]
    if changes and common["photos"]:
        changes.append(
            f"On the {common['photos']:,} photos of classes that both know: {percent(common['challenger_accuracy'], 1)} "
            f"against {percent(common['champion_accuracy'], 1)}."
        )
    extra = f'<p class="note">{" ".join(changes)}</p>' if changes else ""
    return (
        "<section>\n<h2>Against the champion</h2>\n"
        f'<div class="banner"><p><strong>{verdict}</strong> {percent(comparison["challenger_accuracy"], 1)} against '
        f"{percent(comparison['champion_accuracy'], 1)} on the same {comparison['photos']:,} photos: {points}.</p></div>\n"
        f"<figure>{charts.interval_chart(mean, low, high, title)}<figcaption>Difference in accuracy, in points, with its "
        f"paired bootstrap interval. Only this model is right on {comparison['only_challenger_right']:,} photos, only the "
        f"champion on {comparison['only_champion_right']:,}.</figcaption></figure>{extra}\n</section>"
    )


def _training(report: Report) -> str:
    history = [row for row in report.card.metrics.get("history", []) if "epoch" in row]
    figures = [
        _curves(
            history,
            {"train_loss": "training", "valid_loss": "validation"},
            "Loss",
            lambda v: f"{v:g}",
            report,
        ),
        _curves(history, {"valid_accuracy": "validation"}, "Accuracy", lambda v: percent(v, 1), report),
    ]
    if len(history) < 2 or not any(figures):
        return ""
    return (
        "<section>\n<h2>How it learned</h2>\n<p>Fitted on the training photos, judged after every epoch on the validation "
        "photos. The dashed line is the epoch that was kept.</p>\n"
        f'<div class="pair">{"".join(figures)}</div>\n</section>'
    )


def _curves(
    history: Sequence[Mapping[str, Any]],
    wanted: Mapping[str, str],
    title: str,
    y_format: Callable[[float], str],
    report: Report,
) -> str:
    styles = {"training": "second", "validation": "first"}
    series = []
    for key, name in wanted.items():
        points = [(float(row["epoch"]), float(row[key])) for row in history if _is_number(row.get(key))]
        if points:
            series.append(Series(name, styles[name], points))
    kept = report.card.metrics.get("epoch")
    chart = charts.line_chart(
        series, f"{title} by epoch", "epoch", y_format, float(kept) if _is_number(kept) else None
    )
    return f"<figure><h3>{title}</h3>{_legend(series)}{chart}</figure>" if chart else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _legend(series: Iterable[Series]) -> str:
    return f'<div class="legend">{"".join(f"<span class={line.style!r}>{escape(line.name)}</span>" for line in series)}</div>'


def _calibration(report: Report) -> str:
    calibration = report.document["calibration"]
    after = [Bin(**row) for row in calibration["bins"]]
    before = [Bin(**row) for row in calibration["bins_before"]]
    chart = charts.reliability_chart(before, after, "Reliability diagram")
    sure = report.document["abstain"]
    answered = (
        ""
        if sure["accuracy_answered"] is None
        else f" Answers at least {percent(sure['threshold'])} sure are right {percent(sure['accuracy_answered'], 1)} of the "
        f"time; {percent(sure['rate'], 1)} of the photos get a less certain one, and are flagged."
    )
    legend = _legend([Series("as served", "first", ()), Series("before temperature scaling", "second", ())])
    return (
        "<section>\n<h2>Does it know what it knows?</h2>\n<p>Of the answers given with 80 % confidence, 80 % should be right. "
        f"As served, confidence and truth differ by {percent(calibration['ece_after'], 1)} on average "
        f"({percent(calibration['ece_before'], 1)} before dividing the logits by {calibration['temperature']:.2f}).{answered}</p>\n"
        f'<div class="pair"><figure>{legend}{chart}<figcaption>Height: how often such answers are right. Bars are stronger '
        "where there are more photos. On the dashed line, confidence means what it says.</figcaption></figure>"
        f"{_confidence_table(after)}</div>\n</section>"
    )


def _confidence_table(bins: Sequence[Bin]) -> str:
    total = sum(part.photos for part in bins) or 1
    rows = "".join(
        f"<tr><td>{percent(part.low)} to {percent(part.high)}</td>{_meter(part.photos / total)}"
        f'<td class="number">{part.photos:,}</td><td class="number">{percent(part.accuracy)}</td></tr>'
        for part in reversed(bins)
        if part.photos
    )
    return (
        '<figure class="scroll"><table><caption>How sure, how often, how right</caption><thead><tr><th scope="col">confidence</th>'
        '<th scope="col"></th><th scope="col" class="number">photos</th><th scope="col" class="number">right</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></figure>"
    )


def _meter(share: float, style: str = "first") -> str:
    return f'<td class="meter {style}"><i style="--share:{100 * share:.1f}%"></i></td>'


def _classes(report: Report) -> str:
    rows = [row for row in report.document["classes"] if row["photos"]]
    rows.sort(key=lambda row: (-row["recall"], row["name"]))
    intro = "<p>Recall: of the photos of a class, the share that was recognised. Precision: of the answers that name it, the share that was right.</p>"
    if len(rows) <= NUMBERED:
        return f"<section>\n<h2>Class by class</h2>\n{intro}\n{_class_table(rows, 'All classes, best recall first')}\n</section>"
    names, recalls = [row["name"] for row in rows], [row["recall"] for row in rows]
    chart = charts.strip_chart(recalls, names, "Recall of every class, best first")
    return (
        f"<section>\n<h2>Class by class</h2>\n{intro}\n<figure>{chart}</figure>\n"
        f'<div class="pair" style="margin-top:1rem">{_class_table(rows[:_EXTREMES], "Easiest classes")}'
        f"{_class_table(rows[::-1][:_EXTREMES], 'Hardest classes')}</div>\n"
        f"<details><summary>All {len(rows)} classes</summary>{_class_table(rows, 'Best recall first')}</details>\n</section>"
    )


def _class_table(rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(_readable(row["name"]))}</th>{_meter(row["recall"])}'
        f'<td class="number">{percent(row["recall"])}</td><td class="number">{percent(row["precision"])}</td>'
        f'<td class="number">{row["photos"]:,}</td></tr>'
        for row in rows
    )
    return (
        f'<figure class="scroll"><table><caption>{escape(caption)}</caption><thead><tr><th scope="col">class</th>'
        '<th scope="col"></th><th scope="col" class="number">recall</th><th scope="col" class="number">precision</th>'
        f'<th scope="col" class="number">photos</th></tr></thead><tbody>{body}</tbody></table></figure>'
    )


def _readable(name: str) -> str:
    return name.replace("_", " ")


def _confusion(report: Report) -> str:
    names = [_readable(row["name"]) for row in report.document["classes"]]
    matrix = dense(report.document["confusion"], len(names))
    chosen = np.arange(len(names))
    note = "Rows are the true classes, columns the answers. "
    if len(names) > MAPPED:
        chosen = busiest(matrix, _SHOWN_OF_MANY)
        note += f"Of {len(names)} classes, the {len(chosen)} that most mistakes are between. "
    if len(chosen) > NUMBERED:
        chosen = chosen[seriation(matrix[np.ix_(chosen, chosen)])]
        note += "Classes that are taken for one another lie side by side. "
    shown = matrix[np.ix_(chosen, chosen)]
    cell = 40.0 if len(chosen) <= 10 else max(9.0, 700 / len(chosen))
    chart = charts.heat_map(
        shown.tolist(), [names[at] for at in chosen], "Confusion matrix", len(chosen) <= NUMBERED, cell
    )
    legend = _legend([Series("right", "first", ()), Series("mistaken", "second", ())])
    return (
        "<section>\n<h2>What it takes for what</h2>\n"
        f'<figure>{legend}<div class="scroll">{chart}</div><figcaption>{note}Point at a cell for its numbers.</figcaption></figure>\n'
        "</section>"
    )


def dense(cells: Sequence[Sequence[int]], classes: int) -> Integers:
    """The sparse `confusion` of evaluation.json as [classes, classes]; photos of unknown classes are left out."""
    matrix = np.zeros((classes + 1, classes), np.int64)
    for row, column, count in cells:
        matrix[row, column] = count
    return matrix[:-1]


def busiest(matrix: Integers, count: int) -> Integers:
    """The classes that take part in most mistakes, in their own order."""
    wrong = matrix - np.diag(np.diagonal(matrix))
    return np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:count])


def seriation(matrix: Integers) -> Integers:
    """An order of classes that puts those confused with each other side by side.

    The eigenvector of the second smallest eigenvalue of the graph Laplacian of the mistakes (Atkins et al. 1998).
    """
    wrong = (matrix + matrix.T).astype(np.float64)
    np.fill_diagonal(wrong, 0)
    wrong += 1e-3  # holds together classes that are never confused
    laplacian = np.diag(wrong.sum(axis=1)) - wrong
    vector = np.linalg.eigh(laplacian)[1][:, 1]
    # The sign of an eigenvector is arbitrary; fix it, so that the page is the same on every machine.
    return np.argsort(vector * np.sign(vector[np.argmax(np.abs(vector))]), kind="stable")


def _confused(report: Report) -> str:
    pairs = report.document["confused"]
    if not pairs:
        return ""
    support = {row["name"]: row["photos"] for row in report.document["classes"]}
    rows = "".join(
        f'<tr><th scope="row">{escape(_readable(pair["label"]))}</th><td>{escape(_readable(pair["prediction"]))}</td>'
        f"{_meter(pair['photos'] / max(1, support[pair['label']]), 'second')}"
        f'<td class="number">{pair["photos"]} of {support[pair["label"]]}</td></tr>'
        for pair in pairs
    )
    return (
        '<section>\n<h2>Commonest mix-ups</h2>\n<figure class="scroll"><table><thead><tr><th scope="col">this</th>'
        '<th scope="col">was taken for</th><th scope="col"></th><th scope="col" class="number">photos</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></figure>\n</section>"
    )


def _worst(report: Report) -> str:
    cards = []
    for mistake in report.document["worst"]:
        image = report.photos.get(mistake["key"])
        if image is None:
            continue
        label, prediction = _readable(mistake["label"]), _readable(mistake["prediction"])
        cards.append(
            f'<li><img src="{image}" alt="{escape(f"a photo labelled {label}", quote=True)}" loading="lazy"><div>'
            f"{percent(mistake['confidence'])} sure: <b>{escape(prediction)}</b><br>labelled {escape(label)} "
            f'({percent(mistake["likelihood"], 1)})<br><code class="soft">{escape(mistake["key"])}</code></div></li>'
        )
    if not cards:
        return ""
    return (
        "<section>\n<h2>Worst mistakes</h2>\n<p>The surest wrong answers. Often the label is wrong, or there is more than one "
        f'thing in the photo: worth a look before the next training.</p>\n<ul class="photos">{"".join(cards)}</ul>\n</section>'
    )


def _making(report: Report) -> str:
    card = report.card
    int8 = card.metrics.get("int8") or {}
    rows = [
        ("architecture", card.architecture),
        *sorted((name, str(value)) for name, value in card.hyperparameters.items()),
    ]
    rows += (
        [("int8", f"{int8['reason']} ({int8['method']})" if int8.get("method") else str(int8["reason"]))]
        if int8
        else []
    )
    rows += [
        ("trained on", f"{card.dataset['name']}, version {card.dataset['version']}"),
        ("starting weights", card.weights_sha256 or "none: the backbone began untrained"),
        ("code version", card.code_version),
        ("model.tar.gz SHA-256", report.document["model"]["sha256"] or "judged from a folder"),
    ]
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td><code>{escape(value)}</code></td></tr>'
        for name, value in rows
    )
    return (
        "<section>\n<h2>How it was made</h2>\n"
        f'<figure class="scroll"><table><tbody>{body}</tbody></table></figure>\n'
        '<p class="note">Intervals are 95 % percentile bootstrap intervals. Latency and throughput are of the machine '
        "this evaluation ran on.</p>\n</section>"
    )
