"""The page of a look: what changed, in numbers and in photos side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_code.data import photos
from model_code.data.photos import PhotoError
from model_code.pages.charts import percent
from model_code.pages.markup import Html, jpeg_uri, meter, note, page, section, table
from model_code.watch.look import Found

SIDE = 160
_SHOWN = 12
_MEANING = {
    "embedding": "what the photos show",
    "probabilities": "how the model answers",
    "classes": "the mix of classes",
    "confidence": "how sure the model is",
    "photo": "brightness, contrast, sharpness",
    "file": "size and format of the files (shown only)",
}


def thumbnail(photo: bytes) -> bytes | None:
    """Return a JPEG whose shorter side is `SIDE`, re-encoded, so that no metadata of the photo comes along."""
    try:
        return photos.thumbnail(photo, SIDE)
    except PhotoError:
        return None


def render(found: Found, classes: Sequence[str], title: str) -> str:
    """Return the page; the same look gives the same bytes."""
    document = found.document
    parts = [
        _header(document, title),
        _tests(document),
        _figures(document),
        _answers(document),
        _photos(found, classes),
    ]
    return page(title, parts)


def _header(document: Mapping[str, Any], title: str) -> str:
    if not document["tests"]:
        lead = f"Too few photos to compare: {document['photos']} different ones."
    elif document["p"] <= document["level"]:
        changed = [_MEANING[name] for name, test in document["tests"].items() if test["alarms"]]
        lead = f"The photos have changed: {', '.join(changed) or 'several things a little'}."
    else:
        lead = "No change beyond what chance gives."
    left_out = ", ".join(f"{count} {reason}" for reason, count in document["left_out"].items())
    facts = (
        f"{document['captured']} captured, {document['looked_at']} looked at, {document['photos']} counted "
        f"(a burst once), {document['unreadable']} unreadable; {document['first']} to {document['last']}"
    )
    remark = note(f"Left out: {left_out}.").markup if left_out else ""
    return (
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="soft">{escape(facts)}</p>\n'
        f'<p class="lead">{escape(lead)}</p>{remark}\n</header>'
    )


def _tests(document: Mapping[str, Any]) -> str:
    if not document["tests"]:
        return ""
    rows = [
        [_MEANING[name], f"{test['p']:.5f}", f"{test['distance']:.1f}", "alarm" if test["alarms"] else ""]
        for name, test in document["tests"].items()
    ]
    return section(
        "What changed",
        f"Share of quiet windows that look at least so different, of {document['reference']['photos']} reference "
        f"photos. All tests together ring falsely with a probability of {document['level']:.2g}.",
        table(["Compared", "#p", "#distance", ""], rows),
    )


def _figures(document: Mapping[str, Any]) -> str:
    rows: list[list[Html | str]] = []
    for name, key in (("estimated accuracy", "accuracy"), ("true accuracy, where labels came back", "truth")):
        if value := document[key]:
            span = f"{percent(value['low'], 1)} to {percent(value['high'], 1)}"
            rows.append([name, percent(value["value"], 1), span, meter(value["value"])])
    if unknown := document["unknown"]:
        span = f"{percent(unknown['low'], 1)} to {percent(unknown['high'], 1)}"
        rows.append(
            [
                "photos of no known class",
                percent(unknown["share"], 1),
                span,
                meter(unknown["share"], "second"),
            ]
        )
    if low := document["low_confidence"]:
        span = f"reference {percent(low['reference'], 1)}"
        rows.append(["answers that abstain", percent(low["window"], 1), span, meter(low["window"], "second")])
    if not rows:
        return ""
    reference = percent(document["reference"]["accuracy"], 1)
    return section(
        "What it costs",
        f"On its reference photos the model is right on {reference}. An estimate says nothing about photos of no known "
        "class.",
        table(["", "#value", "#interval", ""], rows),
    )


def _answers(document: Mapping[str, Any]) -> str:
    answers = document.get("answers") or {}
    rows = [[name, str(entry["photos"]), f"{entry['expected']:.1f}"] for name, entry in answers.items()]
    return section("Classes answered", table(["Class", "#photos", "#expected"], rows)) if rows else ""


def _photos(found: Found, classes: Sequence[str]) -> str:
    if not len(found.counted):
        return ""
    confidence = found.seen.photos.probabilities.max(axis=1)
    rows = found.counted[np.argsort(confidence[found.counted], kind="stable")]
    least, most = _gallery(found, rows[:_SHOWN], classes), _gallery(found, rows[::-1][:_SHOWN], classes)
    return section("Least certain", Html(least)) + section("Most certain", Html(most))


def _gallery(found: Found, rows: NDArray[np.integer], classes: Sequence[str]) -> str:
    items = []
    for row in rows.tolist():
        small = thumbnail(found.served[row].data)
        if small is None:
            continue
        answer = found.seen.photos.probabilities[row]
        best = int(answer.argmax())
        text = f"{escape(classes[best])} {percent(float(answer[best]))}"
        items.append(f'<li><img alt="" src="{jpeg_uri(small)}">{text}</li>')
    return f'<ul class="photos">{"".join(items)}</ul>'
