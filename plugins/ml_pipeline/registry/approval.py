"""The approval of a model package: what an approver reads, and what is kept of the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

# Classes whose recall changed most; a data set may have thousands.
_LISTED = 5


class Approval(StrEnum):
    """The approver of a model that passed the gate."""

    AUTO = "auto"
    HUMAN = "human"


def question(
    planned: Mapping[str, Any],
    version: int,
    replaced: int | None,
    challenger: Mapping[str, Any],
    champion: Mapping[str, Any] | None,
    reason: str,
    report_url: str,
    requester: str | None,
) -> str:
    """Write what an approver decides on, as Markdown.

    Args:
        planned: Result of plan.
        version: Version of the new model in the registry.
        replaced: Version in service that it replaces; None for none of this data set.
        challenger: evaluation.json of the new model.
        champion: The champion's evaluation.json on the same photos; None without a champion.
        reason: The gate's, in one line.
        report_url: Address of the evaluation's report.
        requester: User who started the run; None where Airflow does not say.
    """
    hourly = planned.get("endpoint_usd_per_hour")
    lines = [
        f"Endpoint **{planned.get('endpoint_name') or 'of the data set'}**: version **{version}** "
        + (f"replaces version **{replaced}**." if replaced is not None else "would serve, replacing none."),
    ]
    if planned.get("replaces"):
        lines.append(f"**It replaces another model:** {planned['replaces']}.")
    lines.append(f"New model: {words(challenger)}, answered by `{challenger['runtime']}`.")
    lines.append(f"Champion: {words(champion)}." if champion else "There is no champion to compare with.")
    if champion:
        lines.append("Changed classes: " + ("; ".join(changes(challenger, champion)) or "none") + ".")
    lines += [
        f"Gate: {reason}.",
        f"Cost: {'price unknown' if hourly is None else f'about ${hourly:.3f} per hour'} until it is taken down.",
        f"Requested by {requester or 'a schedule or another DAG'}. [Report]({report_url})",
    ]
    return "\n\n".join(lines)


def words(evaluation: Mapping[str, Any]) -> str:
    """Say an accuracy in words, with its interval."""
    interval, photos = evaluation["accuracy_interval"], evaluation["photos"]
    return (
        f"{evaluation['accuracy']:.1%} of {photos} test photos right "
        f"({interval['level']:.0%} interval {interval['low']:.1%} to {interval['high']:.1%})"
    )


def changes(challenger: Mapping[str, Any], champion: Mapping[str, Any]) -> Iterator[str]:
    """Yield the classes that were added or removed, and those whose recall changed most."""
    new, old = (
        {row["name"]: row["recall"] for row in evaluation["classes"]} for evaluation in (challenger, champion)
    )
    for name in sorted(new.keys() - old.keys()):
        yield f"`{name}` is new"
    for name in sorted(old.keys() - new.keys()):
        yield f"`{name}` is gone"
    moved = sorted(new.keys() & old.keys(), key=lambda name: (-abs(new[name] - old[name]), name))
    for name in moved[:_LISTED]:
        if new[name] != old[name]:
            yield f"`{name}` finds {new[name]:.0%} of its photos instead of {old[name]:.0%}"


def description(approved: bool, user: str, comment: str) -> str:
    """Return the registry's note of a decision: 1,024 characters without line breaks, which is what AWS takes."""
    text = f"{'approved' if approved else 'rejected'} in Airflow by {user}"
    return " ".join((f"{text}: {comment}" if comment else text).split())[:1024]
