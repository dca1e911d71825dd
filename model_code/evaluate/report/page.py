"""report.html: a self-contained page, generated from evaluation.json and the model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite
from typing import Any

from model_code.bundle.card import ModelCard
from model_code.evaluate.report.classes import class_by_class, confusion_matrix, mix_ups, worst_mistakes
from model_code.pages import charts
from model_code.pages.charts import Bin, Series, percent
from model_code.pages.markup import (
    Html,
    figure,
    legend,
    meter,
    note,
    page,
    section,
    side_by_side,
    table,
    tiles,
)


@dataclass(frozen=True)
class Report:
    """The inputs of the page.

    Args:
        document: evaluation.json.
        card: the model's.
        photos: `data:` URIs of the worst mistakes, by key.
    """

    document: Mapping[str, Any]
    card: ModelCard
    photos: Mapping[str, str]


def render(report: Report) -> str:
    """Return the page. The same evaluation gives the same bytes."""
    document, card = report.document, report.card
    parts = [
        _header(document, card),
        _tiles(document),
        _against_champion(document["comparison"]) if document["comparison"] else "",
        _learning(card.metrics),
        _calibration(document),
        class_by_class(document),
        confusion_matrix(document),
        mix_ups(document),
        worst_mistakes(document, report.photos),
        _making(document, card),
    ]
    return page(f"{card.name}: {percent(document['accuracy'], 1)} right", parts)


def _header(document: Mapping[str, Any], card: ModelCard) -> str:
    dataset = document["dataset"] or card.dataset
    interval = document["accuracy_interval"]
    facts = (
        f"{card.architecture} · {len(card.classes)} classes · data set {dataset['name']}, "
        f"version {dataset['version']} · served by {document['runtime']}"
    )
    lead = (
        f"Correct on <strong>{percent(document['accuracy'], 1)}</strong> of {document['photos']:,} test photos that "
        f"training never used (95 % confidence interval {percent(interval['low'], 1)} to "
        f"{percent(interval['high'], 1)})."
    )
    notes = []
    if document["unknown_classes"]:
        photos = sum(document["unknown_classes"].values())
        names = ", ".join(sorted(document["unknown_classes"]))
        notes.append(f"Photos of classes unknown to the model ({names}), counted as wrong: {photos}.")
    if document["unreadable"]:
        notes.append(f"Unreadable photos, excluded from all figures: {len(document['unreadable'])}.")
    remarks = "".join(note(remark).markup for remark in notes)
    return (
        f'<header>\n<h1>{escape(card.name)}</h1>\n<p class="soft">{escape(facts)}</p>\n'
        f'<p class="lead">{lead}</p>{remarks}\n</header>'
    )


def _tiles(document: Mapping[str, Any]) -> str:
    calibration, abstain, latency = document["calibration"], document["abstain"], document["latency"]
    low, high = document["macro_f1_interval"]["low"], document["macro_f1_interval"]["high"]
    loss = document["log_loss"]
    before = percent(calibration["ece_before"], 1)
    entries = [
        ("Accuracy", percent(document["accuracy"], 1), "the most likely class is correct"),
        ("Top 5", percent(document["top5_accuracy"], 1), "the true class is among the five most likely"),
        ("Macro F1", f"{document['macro_f1']:.3f}", f"{_range(low, high)}; every class has equal weight"),
        ("Log loss", "none" if loss is None else f"{loss:.3f}", "lower is better, 0 is perfect"),
        ("Calibration error", percent(calibration["ece_after"], 1), f"{before} before temperature scaling"),
        ("Abstained", percent(abstain["rate"], 1), _unsure(abstain)),
        (
            "Latency",
            f"{latency['p50']:.1f} ms",
            f"99th percentile {latency['p99']:.1f} ms, one photo, one core, no network",
        ),
        (
            "Throughput",
            f"{document['photos_per_second']:,.0f}/s",
            "photos on all cores of this job, decoding included",
        ),
    ]
    return tiles(entries)


def _range(low: float, high: float) -> str:
    # Resampling answers that are all right, or all wrong, always gives the same value: no interval can be estimated.
    return f"{low:.3f} to {high:.3f}" if low < high else "no interval"


def _unsure(abstain: Mapping[str, Any]) -> str:
    if abstain["accuracy_answered"] is None:
        return f"confidence below {percent(abstain['threshold'])} on every photo"
    answered = percent(abstain["accuracy_answered"], 1)
    return f"confidence below {percent(abstain['threshold'])}; accuracy of the rest {answered}"


def _against_champion(comparison: Mapping[str, Any]) -> str:
    low, high, mean = comparison["ci_low"], comparison["ci_high"], comparison["difference"]
    points = f"{100 * mean:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
    figures = (
        f"{percent(comparison['challenger_accuracy'], 1)} against {percent(comparison['champion_accuracy'], 1)} on the "
        f"same {comparison['photos']:,} photos: {points}."
    )
    banner = (
        f'<div class="banner"><p><strong>{comparison_verdict(low, high)}</strong> {escape(figures)}</p></div>'
    )
    chart = charts.interval_chart(mean, low, high, f"Accuracy against the champion: {points}")
    caption = (
        "Difference in accuracy, in points, with its paired 95 % interval. Only this model is "
        f"correct on {comparison['only_challenger_right']:,} photos, only the champion on "
        f"{comparison['only_champion_right']:,}."
    )
    return section(
        "Against the champion",
        Html(banner),
        figure(Html(chart), caption=caption),
        *(note(remark) for remark in _class_changes(comparison)),
    )


def comparison_verdict(low: float, high: float) -> str:
    """Return the verdict that the interval of a difference supports."""
    if low > 0:
        return "Better than the champion."
    if high < 0:
        return "Worse than the champion."
    return "No significant difference from the champion."


def _class_changes(comparison: Mapping[str, Any]) -> list[str]:
    labels = {"classes_added": "New classes", "classes_removed": "Removed classes"}
    changes = [f"{label}: {', '.join(comparison[key])}." for key, label in labels.items() if comparison[key]]
    common = comparison["common"]
    if changes and common["photos"]:
        changes.append(
            f"On the {common['photos']:,} photos of classes known to both: "
            f"{percent(common['challenger_accuracy'], 1)} against {percent(common['champion_accuracy'], 1)}."
        )
    return changes


def _learning(metrics: Mapping[str, Any]) -> str:
    history = [row for row in metrics.get("history", []) if _is_number(row.get("epoch"))]
    if len(history) < 2:
        return ""
    kept = float(metrics["epoch"]) if _is_number(metrics.get("epoch")) else None
    loss = {"train_loss": Series("training", "second", ()), "valid_loss": Series("validation", "first", ())}
    accuracy = {"valid_accuracy": Series("validation", "first", ())}
    figures = [
        _curves("Loss", loss, history, kept, lambda value: f"{value:g}"),
        _curves("Accuracy", accuracy, history, kept, percent),
    ]
    drawn = [part for part in figures if part is not None]
    if not drawn:
        return ""
    return section(
        "Learning curves",
        "Fitted on the training photos, judged on the validation photos after every epoch. The dashed line marks the "
        "epoch kept.",
        side_by_side(*drawn),
    )


def _curves(
    title: str,
    wanted: Mapping[str, Series],
    history: Sequence[Mapping[str, Any]],
    kept: float | None,
    y_format: Callable[[float], str],
) -> Html | None:
    lines = []
    for key, line in wanted.items():
        points = [(float(row["epoch"]), float(row[key])) for row in history if _is_number(row.get(key))]
        if points:
            lines.append(Series(line.name, line.style, points))
    if not lines:
        return None
    chart = charts.line_chart(lines, f"{title} by epoch", "epoch", y_format, kept)
    return figure(Html(f"<h3>{escape(title)}</h3>"), legend(*lines), Html(chart))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)


def _calibration(document: Mapping[str, Any]) -> str:
    calibration = document["calibration"]
    after = [Bin(**row) for row in calibration["bins"]]
    before = [Bin(**row) for row in calibration["bins_before"]]
    chart = charts.reliability_chart(before, after, "Reliability diagram")
    intro = (
        "Of the answers given with 80 % confidence, 80 % should be correct. The expected calibration error is "
        f"{percent(calibration['ece_after'], 1)} as served, and was {percent(calibration['ece_before'], 1)} before "
        f"temperature scaling (temperature {calibration['temperature']:.2f})."
    )
    caption = (
        "Height: accuracy of the answers in a bin. Darker bars hold more photos. On the dashed line, confidence equals "
        "accuracy."
    )
    key = legend(Series("as served", "first", ()), Series("before temperature scaling", "second", ()))
    return section(
        "Calibration",
        intro,
        side_by_side(figure(key, Html(chart), caption=caption), _confidence(after)),
    )


def _confidence(bins: Sequence[Bin]) -> Html:
    total = sum(part.photos for part in bins) or 1
    rows = [
        (
            f"{percent(part.low)} to {percent(part.high)}",
            meter(part.photos / total),
            f"{part.photos:,}",
            percent(part.accuracy),
        )
        for part in reversed(bins)
        if part.photos
    ]
    return table(["confidence", "", "#photos", "#accuracy"], rows, "Answers by confidence")


def _making(document: Mapping[str, Any], card: ModelCard) -> str:
    int8 = card.metrics.get("int8") or {}
    rows = [("architecture", card.architecture)]
    rows += sorted(
        (name, str(value)) for name, value in card.hyperparameters.items() if name != "architecture"
    )
    if int8:
        rows.append(
            ("int8", f"{int8['reason']} ({int8['method']})" if int8.get("method") else str(int8["reason"]))
        )
    rows += [
        ("trained on", f"{card.dataset['name']}, version {card.dataset['version']}"),
        ("starting weights", card.weights_sha256 or "none: untrained backbone"),
        ("code version", card.code_version),
        ("SHA-256 of model.tar.gz", document["model"]["sha256"] or "none: evaluated from a folder"),
    ]
    cells = [(name, Html(f"<code>{escape(value)}</code>")) for name, value in rows]
    return section(
        "Model details",
        table(["", ""], cells),
        note(
            "Intervals are 95 %: Wilson's for the accuracy, Bonett and Price's for the difference of two models on the "
            "same photos, the percentile bootstrap for macro F1. Latency and throughput were measured on the machine "
            "of this evaluation."
        ),
    )
