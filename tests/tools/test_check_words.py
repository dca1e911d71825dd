"""The words check finds refused words in prose, names and comments that continue on the next line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_words
from tools.check_words import Found, refused_words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nothing here\n", []),
        ("Nobody reads it\n", [Found(1, "nobody")]),
        ("\ndef test_somebody_else(): ...\n", [Found(2, "somebody")]),
        ("# up to so\n# many of them\n", [Found(1, "so many")]),
        ("in vain\n\nfor  ever\n", [Found(1, "in vain"), Found(3, "for ever")]),
        ("user: nobody  # words: ok\n", []),
        ("replies, applies, besides\n", []),
    ],
)
def test_it_finds(text: str, found: list[Found]) -> None:
    assert list(refused_words(text)) == found


def test_it_prints_the_place_and_the_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_words, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("The dearest step\n")
    assert check_words.main([str(page)]) == 1
    assert capsys.readouterr().out == "page.md:1: 'dearest': write most expensive\n"
    page.write_text("The most expensive step\n")
    assert check_words.main([str(page)]) == 0


def test_ten_words_are_refused() -> None:
    assert len(check_words.REFUSED) == 10
