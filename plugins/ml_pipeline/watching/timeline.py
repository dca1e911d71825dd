"""The time line of an endpoint: a page with a row per look, rewritten after each."""

from __future__ import annotations

from html import escape

from ml_pipeline.aws.clients import Client
from ml_pipeline.watching import state as memory
from ml_pipeline.watching.state import State, Taken

_SHOWN = 200


def publish(s3: Client, bucket: str, endpoint: str) -> str:
    """Write `watch/<endpoint>/timeline.html`; returns its URI."""
    state, _ = memory.load(s3, bucket, endpoint)
    key = f"watch/{endpoint}/timeline.html"
    s3.put_object(
        Bucket=bucket, Key=key, Body=render(endpoint, state).encode(), ContentType="text/html; charset=utf-8"
    )
    return f"s3://{bucket}/{key}"


def render(endpoint: str, state: State) -> str:
    """The page, the newest look first."""
    from model_code.pages.markup import page, section, table

    rows = [_row(taken) for taken in reversed(state.looks[-_SHOWN:])]
    columns = ["Look", "Until (UTC)", "#photos", "#p", "#estimated", "#true", "#unknown", "Verdict", "Why"]
    title = f"{endpoint}: looks"
    body = section(
        "Looks",
        f"{len(state.looks)} looks, {len(state.proposals)} proposals. The page of a look is where its row says.",
        table(columns, rows),
    )
    return page(title, [f"<h1>{escape(title)}</h1>", body])


def _row(taken: Taken) -> list[str]:
    look, truth = taken.look, taken.truth or {}
    return [
        str(look.number),
        f"{look.ended:%Y-%m-%d %H:%M}",
        str(look.photos),
        f"{look.p:.4f}",
        _percent(look.accuracy),
        _percent(truth.get("value")),
        _percent(taken.unknown),
        taken.verdict,
        f"{taken.reason} ({taken.page_uri})",
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
