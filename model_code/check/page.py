"""data_report.html: one page that needs nothing else, written from check.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import exp
from typing import Any

from model_code.check.classes import FEW
from model_code.pages import charts
from model_code.pages.charts import percent
from model_code.pages.markup import (
    Html,
    figure,
    jpeg_uri,
    meter,
    note,
    page,
    readable,
    section,
    table,
    tiles,
)

_EXTRA = """
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: .9rem; padding: 0;
  margin: 0; list-style: none; }
.pairs li { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; overflow: hidden;
  font-size: .85rem; line-height: 1.4; display: grid; grid-template-columns: 1fr 1fr; }
.pairs img { width: 100%; aspect-ratio: 1; object-fit: cover; display: block; }
.pairs div { padding: .5rem .65rem .7rem; overflow-wrap: anywhere; }
.pairs p { grid-column: 1 / -1; margin: 0; padding: 0 .65rem .6rem; color: var(--soft); }
"""
_FAULTS = {
    "blurred": ("Blurred", "No sharp edge is left at the size that the network sees."),
    "dark": ("Dark", "Even the brightest parts are darker than a third of the scale."),
    "bright": ("Washed out", "Even the darkest parts are nearly half way to white."),
    "low_information": ("Little to see", "Few shades: a plain surface, a blank scan, a placeholder."),
    "odd_aspect": ("Odd shape", "More than three times as long as wide: the center crop drops most of it."),
    "odd_size": ("Odd size", "Below 64 pixels, or five times smaller or larger than the others."),
}


def render(document: Mapping[str, Any], photos: Mapping[str, bytes], limit: int) -> str:
    """Return the page. The same document gives the same bytes.

    Args:
        document: check.json.
        photos: JPEG thumbnails by key.
        limit: Photos shown per kind of finding.
    """
    images = {key: jpeg_uri(data) for key, data in photos.items()}
    parts = [
        _header(document),
        _tiles(document),
        _suspects(document, images, limit),
        _duplicates(document, images, limit),
        _told_apart(document),
        _unlike(document, images, limit),
        _hard_photos(document, images, limit),
        _balance(document),
        _method(document),
    ]
    dataset = document["dataset"]
    title = f"Data report: {dataset['name']} {dataset['version']}" if dataset else "Data report"
    return page(title, parts, _EXTRA)


def _header(document: Mapping[str, Any]) -> str:
    dataset, suspects = document["dataset"], document["suspects"]
    name = readable(dataset["name"]) if dataset else "Data set"
    facts = f"{document['photos']:,} photos · {len(document['classes'])} classes"
    if dataset:
        facts += f" · version {dataset['version']}"
    lead = (
        f"<strong>{suspects['count']:,}</strong> of {document['photos']:,} labels look wrong "
        f"({percent(suspects['share'], 1)}). Correct or remove what is wrong before training: on photos of dogs, one "
        "wrong label in twenty costs half a point of accuracy, and leaving the suspects out wins half of it back."
    )
    return (
        f'<header>\n<h1>{escape(name)}: data report</h1>\n<p class="soft">{escape(facts)}</p>\n'
        f'<p class="lead">{lead}</p>\n</header>'
    )


def _tiles(document: Mapping[str, Any]) -> str:
    duplicates, balance = document["near_duplicates"], document["balance"]
    hard = sum(found["count"] for found in document["photos_to_look_at"].values())
    entries = [
        ("Suspected labels", f"{document['suspects']['count']:,}", "another class is far likelier"),
        ("Near-duplicates", f"{duplicates['pairs']:,}", "pairs of the same picture"),
        ("In two classes", f"{duplicates['across_classes']:,}", "of these pairs: one label must be wrong"),
        (
            "In two splits",
            f"{duplicates['across_splits']:,}",
            "of these pairs: the test is easier than it looks",
        ),
        ("Hard to see", f"{hard:,}", "blurred, dark, washed out, empty, odd"),
        (
            "Unlike their class",
            f"{document['unlike_their_class']['count']:,}",
            "far from all others of the class",
        ),
        (
            "Largest to smallest",
            f"{balance['ratio']:.3g}",
            f"{balance['largest']:,} and {balance['smallest']:,} photos",
        ),
        (
            "Told apart",
            percent(document["out_of_fold_accuracy"], 1),
            "photos that a quick classifier gets right",
        ),
    ]
    return tiles(entries)


def _suspects(document: Mapping[str, Any], images: Mapping[str, str], limit: int) -> str:
    found = document["suspects"]
    if not found["count"]:
        return section("Suspected wrong labels", "None.")

    def card(photo: Mapping[str, Any]) -> str:
        odds = min(exp(min(photo["odds"], 14.0)), 1e6)
        return f"<b>{escape(readable(photo['suggestion']))}</b> {odds:,.0f} times as likely"

    return section(
        "Suspected wrong labels",
        "Each photo was judged by a classifier that had not seen it. Listed are those for which another class is at "
        "least 400 times as likely as the given label, the surest first. In tests with known errors, 8 of 10 were "
        "wrong; the others were hard photos.",
        _cards(found["listed"][:limit], images, card),
        *_rest(found["count"], limit),
    )


def _duplicates(document: Mapping[str, Any], images: Mapping[str, str], limit: int) -> str:
    found = document["near_duplicates"]
    if not found["pairs"]:
        return section("Near-duplicates", "None.")
    cards = "".join(_pair(pair, images) for pair in found["listed"][:limit])
    return section(
        "Near-duplicates",
        "The same picture twice: re-encoded, resized, cropped, mirrored or brightened. Pairs in two classes come "
        "first, then pairs in two splits.",
        Html(f'<ul class="pairs">{cards}</ul>'),
        *_rest(found["pairs"], limit),
    )


def _pair(pair: Mapping[str, Any], images: Mapping[str, str]) -> str:
    sides = "".join(
        f"<div>{_image(photo, images)}{_facts(photo)}</div>" for photo in (pair["left"], pair["right"])
    )
    remarks = [f"pixels agree to {percent(max(0.0, pair['match']))}"]
    if pair["mirrored"]:
        remarks.append("mirrored")
    if pair["left"]["class"] != pair["right"]["class"]:
        remarks.insert(0, "two classes")
    if pair["left"]["split"] != pair["right"]["split"]:
        remarks.insert(0, "two splits")
    return f"<li>{sides}<p>{escape(' · '.join(remarks))}</p></li>"


def _told_apart(document: Mapping[str, Any]) -> str:
    rows = [
        (
            " and ".join(readable(name) for name in pair["classes"]),
            meter(pair["accuracy"], "second"),
            percent(pair["accuracy"]),
            f"{pair['photos']:,}",
        )
        for pair in document["cannot_be_told_apart"]
    ]
    if not rows:
        return ""
    return section(
        "Classes that cannot be told apart",
        "With only these two to choose from, a photo of either is recognized little more often than by guessing "
        "(50 %). Merge them, or give photos that show the difference.",
        table(["classes", "", "#recognized", "#photos"], rows),
    )


def _unlike(document: Mapping[str, Any], images: Mapping[str, str], limit: int) -> str:
    found = document["unlike_their_class"]
    if not found["count"]:
        return ""
    return section(
        "Unlike the rest of their class",
        "Far from all other photos of the class: another thing, another style, or a view that the class has nowhere "
        "else.",
        _cards(found["listed"][:limit], images),
        *_rest(found["count"], limit),
    )


def _hard_photos(document: Mapping[str, Any], images: Mapping[str, str], limit: int) -> str:
    parts: list[Html | str] = []
    for fault, found in document["photos_to_look_at"].items():
        if found["count"]:
            name, meaning = _FAULTS[fault]
            parts.append(Html(f"<h3>{escape(name)}: {found['count']:,}</h3>"))
            parts += [meaning, _cards(found["listed"][:limit], images), *_rest(found["count"], limit)]
    if document["unreadable"]:
        parts.append(note(f"Photos that could not be read: {len(document['unreadable'])}."))
    return section("Photos that are hard to learn from", *parts) if parts else ""


def _balance(document: Mapping[str, Any]) -> str:
    classes, balance = document["classes"], document["balance"]
    most = max(1, balance["largest"])
    chart = charts.strip_chart(
        [row["photos"] / most for row in classes],
        [f"{readable(row['name'])}, {row['photos']:,} photos" for row in classes],
        "Photos of every class, as a share of the largest",
    )
    parts: list[Html | str] = [
        figure(
            Html(chart),
            caption="Photos of every class, as a share of the largest. Point at a bar for its name.",
        )
    ]
    if balance["too_small"]:
        names = ", ".join(readable(name) for name in balance["too_small"][:30])
        more = f" and {len(balance['too_small']) - 30} more" if len(balance["too_small"]) > 30 else ""
        parts.append(f"Too small to judge (fewer than {FEW} photos): {names}{more}.")
    return section("Balance", *parts)


def _method(document: Mapping[str, Any]) -> str:
    embedder = document["embedder"]
    return section(
        "How it was checked",
        note(
            f"Embeddings of {embedder['architecture']} (embedder {embedder['id']}). Labels: five folds, a linear "
            "discriminant with a shrunk covariance, calibrated by one temperature; ranked by the log-odds of the best "
            "other class. Near-duplicates: pairs with close embeddings whose gray pixels agree once they are aligned."
        ),
    )


def _cards(photos: Iterable[Mapping[str, Any]], images: Mapping[str, str], remark: Any = None) -> Html:
    cards = "".join(
        f"<li>{_image(photo, images)}<div>{remark(photo) + '<br>' if remark else ''}{_facts(photo)}</div></li>"
        for photo in photos
    )
    return Html(f'<ul class="photos">{cards}</ul>')


def _image(photo: Mapping[str, Any], images: Mapping[str, str]) -> str:
    source = images.get(photo["key"])
    hint = escape(f"a photo labeled {readable(photo['class'])}", quote=True)
    return f'<img src="{source}" alt="{hint}">' if source else ""


def _facts(photo: Mapping[str, Any]) -> str:
    name = photo.get("path") or photo["key"]
    return (
        f"labeled {escape(readable(photo['class']))}, {escape(photo['split'])}<br>"
        f'<code class="key">{escape(name)}</code>'
    )


def _rest(count: int, limit: int) -> Sequence[Html]:
    return [note(f"{count - limit:,} more: see findings.jsonl.")] if count > limit else []
