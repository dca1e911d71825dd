"""report.html: self-contained, well-formed, honest about what it shows, legible at any number of classes."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from model_code.bundle.archive import Bundle
from model_code.bundle.card import ModelCard
from model_code.evaluate import document as evaluation
from model_code.evaluate.judging import Judgment, Latency, Mistake
from model_code.evaluate.report import classes as report_classes
from model_code.evaluate.report.page import Report, comparison_verdict, render
from model_code.evaluate.report.photos import thumbnails
from model_code.evaluate.scores import Outcomes
from model_code.pages import charts
from model_code.pages.charts import Bin
from tests.model_code import toys
from tests.model_code.colours import Colours

VOID = {"meta", "img", "br", "line", "rect", "circle", "polyline"}


class Page(HTMLParser):
    """Checks nesting and collects what a page refers to."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.images_without_text = 0
        self.text = ""
        self.feed(markup)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.addresses += [values[name] or "" for name in ("src", "href", "srcset") if name in values]
        self.images_without_text += tag == "img" and not values.get("alt")
        self.images_without_text += tag == "svg" and not values.get("aria-label")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def document_of(card: ModelCard, photos: int, worst: list[Mistake] | None = None) -> dict[str, Any]:
    classes = len(card.classes)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, photos)
    logits = generator.normal(size=(photos, classes)).astype(np.float32)
    logits[np.arange(photos), labels] += 2
    logits[np.arange(photos), (labels + 1) % classes] += 1.5
    keys = [f"{number:020d}" for number in range(photos)]
    outcomes = Outcomes.of(logits, labels, 0.8)
    judgment = Judgment(keys, outcomes, [], {}, worst or [], Latency(3, 9, 99), 400.0)
    return evaluation.evaluate(evaluation.Subject(card, "onnx", "0" * 64, None), judgment)


@pytest.fixture
def card(colour_bundle: Colours) -> ModelCard:
    return Bundle.open(colour_bundle.folder).card


def with_classes(card: ModelCard, count: int) -> ModelCard:
    return dataclasses.replace(card, classes=tuple(f"class_{n}" for n in range(count)), golden=())


@pytest.mark.parametrize(("classes", "photos"), [(2, 50), (24, 300), (25, 300), (120, 1800), (1000, 4000)])
def test_page_is_whole_at_any_number_of_classes(card: ModelCard, classes: int, photos: int) -> None:
    many = with_classes(card, classes)
    markup = render(Report(document_of(many, photos), many, {}))
    page = Page(markup)
    assert page.images_without_text == 0
    assert page.addresses == []
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "url(" not in markup
    assert "http" not in markup
    assert "nan" not in re.sub(r"<style>.*?</style>", "", markup, flags=re.S).lower().replace("finance", "")
    assert len(markup) < 1_500_000
    for heading in (
        "Learning curves",
        "Calibration",
        "Class by class",
        "Confusion matrix",
    ):
        assert heading in page.text


def test_names_are_escaped(card: ModelCard) -> None:
    nasty = dataclasses.replace(card, classes=("<script>alert(1)</script>", 'a"b', "c&d"), golden=())
    markup = render(Report(document_of(nasty, 60), nasty, {}))
    assert "<script" not in markup
    assert "&lt;script&gt;" in markup
    Page(markup)


def test_all_right_is_not_called_certain(card: ModelCard) -> None:
    labels = np.arange(30) % 3
    outcomes = Outcomes.of(np.eye(3, dtype=np.float32)[labels] * 9, labels, 1.0)
    judgment = Judgment([f"{n:020d}" for n in range(30)], outcomes, [], {}, [], Latency(3, 9, 99), 400.0)
    document = evaluation.evaluate(evaluation.Subject(card, "onnx", None, None), judgment)
    text = Page(render(Report(document, card, {}))).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "95 % confidence interval 88.6 % to 100.0 %" in text
    assert "no interval; every class has equal weight" in text


def test_same_evaluation_gives_the_same_page(card: ModelCard) -> None:
    report = Report(document_of(card, 100), card, {})
    assert render(report) == render(report)


def test_page_can_be_made_from_the_files_alone(card: ModelCard) -> None:
    document = json.loads(json.dumps(document_of(card, 100)))
    assert render(Report(document, card, {})) == render(Report(document_of(card, 100), card, {}))


def test_thumbnails_are_embedded_and_unreadable_photos_left_out(card: ModelCard) -> None:
    good = Mistake(0.9, "a" * 20, "red", "blue", 0.05, toys.photo("red", 0), "red/IMG 1.jpg")
    bad = Mistake(0.8, "b" * 20, "red", "green", 0.05, b"no photo")
    photos = thumbnails([good, bad])
    assert set(photos) == {"a" * 20}
    page = Page(render(Report(document_of(card, 60, [good, bad]), card, photos)))
    assert page.tags.count("img") == 1
    assert page.addresses[0].startswith("data:image/jpeg;base64,")
    assert page.images_without_text == 0
    assert "red/IMG 1.jpg" in page.text


def test_without_thumbnails_no_photo_is_in_the_page(card: ModelCard) -> None:
    mistake = Mistake(0.9, "a" * 20, "red", "blue", 0.05, toys.photo("red", 0))
    markup = render(Report(document_of(card, 60, [mistake]), card, {}))
    assert "data:" not in markup
    assert "Worst mistakes" not in markup


def test_card_without_history_has_no_curves(card: ModelCard) -> None:
    bare = dataclasses.replace(card, metrics={"history": [{"epoch": 1, "train_loss": float("nan")}]})
    markup = render(Report(document_of(bare, 60), bare, {}))
    assert "Learning curves" not in markup
    Page(markup)


def test_unknown_classes_and_unreadable_photos_are_said(card: ModelCard) -> None:
    document = {
        **document_of(card, 60),
        "unknown_classes": {"violet": 3},
        "unreadable": [{"key": "k", "reason": "r"}],
    }
    text = Page(render(Report(document, card, {}))).text
    assert "unknown to the model (violet), counted as wrong: 3" in text
    assert "Unreadable photos, excluded from all figures: 1" in text


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.02, "Better"), (-0.02, -0.01, "Worse"), (-0.01, 0.01, "No significant difference")],
)
def test_verdict_on_the_champion(low: float, high: float, verdict: str) -> None:
    assert comparison_verdict(low, high).startswith(verdict)


def test_seriation_brings_confused_classes_together() -> None:
    generator = np.random.default_rng(0)
    places = generator.permutation(30)
    matrix = np.diag(np.full(30, 20))
    for group in range(10):
        members = places[3 * group : 3 * group + 3]
        for one in members:
            for other in members:
                matrix[one, other] += 4 * (one != other)
    order = report_classes.seriation(matrix)
    at = np.argsort(order)
    for group in range(10):
        spots = sorted(at[places[3 * group : 3 * group + 3]])
        assert spots[-1] - spots[0] == 2


def test_busiest_classes_are_those_with_most_mistakes() -> None:
    matrix = np.diag(np.full(5, 100))
    matrix[1, 3] = 9
    matrix[4, 1] = 2
    assert report_classes.busiest(matrix, 2).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (1, 30, [10, 20, 30]),
        (3, 3, [3]),
        (-0.02, 0.02, [-0.02, -0.01, 0, 0.01, 0.02]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_charts_survive_degenerate_input() -> None:
    assert charts.line_chart([], "t", "x") == ""
    flat = charts.line_chart([charts.Series("a", "first", [(1, 0.5), (2, 0.5)])], "t", "x")
    empty = charts.reliability_chart([], [Bin(0, 1, 0, 0, 0)], "t")
    for picture in (flat, empty, charts.interval_chart(0, 0, 0, "t"), charts.strip_chart([1.0], ["a"], "t")):
        Page(picture)
        assert "nan" not in picture
        assert "inf" not in picture
