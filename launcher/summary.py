"""Summarize a finished run from the results that its tasks left in Airflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

FEW_PHOTOS = 20
TASKS = (
    "plan", "upload", "weights", "teacher", "embed", "embed_teacher", "check_data", "tune", "train", "evaluate",
    "gate", "register", "approve", "deploy", "smoke_test", "bill",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Success or failure of the command, and the reason."""

    succeeded: bool
    reason: str


def judge(run_state: str, results: Mapping[str, Any]) -> Outcome:
    """Decide whether a run succeeded: its endpoint has to answer all test photos as the evaluation did.

    Args:
        run_state: Final state of the run in Airflow.
        results: Results of its tasks, None for a task without one.
    """
    if run_state != "success":
        return Outcome(False, f"the run ended as {run_state}")
    smoke_test = results.get("smoke_test")
    if not smoke_test:
        return Outcome(False, _not_deployed(results))
    photos, agreed = int(smoke_test["photos"]), int(smoke_test["agreed"])
    if not photos or agreed < photos:
        return Outcome(
            False,
            f"the endpoint answered {agreed} of {photos} test photos as the evaluation did; all must agree",
        )
    return Outcome(True, f"the endpoint answered {agreed} of {photos} test photos as the evaluation did")


def _not_deployed(results: Mapping[str, Any]) -> str:
    """Explain why a successful run deployed nothing, and name the fix."""
    gate, approval = results.get("gate") or {}, results.get("approve") or {}
    if gate.get("passed") is False:
        return f"not deployed, because the gate refused the model: {gate['reason']}"
    if approval.get("approved") is False:
        return (
            f"not deployed, because {approval['by']} rejected the model; to deploy it, approve its package in the "
            "registry and run again"
        )
    return "not deployed: the deployment or its smoke test was skipped; see the grid of the run in Airflow"


def print_summary(console: Console, results: Mapping[str, Any], notes: tuple[str, ...]) -> None:
    """Print the sections whose tasks left a result."""
    for name, section in (
        ("upload", _dataset),
        ("tune", _trials),
        ("evaluate", _accuracy),
        ("gate", _gate),
        ("deploy", _endpoint),
        ("smoke_test", _predictions),
    ):
        if results.get(name):
            section(console, results[name])
    _money(console, results.get("plan"), results.get("bill"), bool(results.get("deploy")))
    for note in notes:
        console.print(f"[yellow]note[/]  {escape(note)}")


def _dataset(console: Console, upload: Mapping[str, Any]) -> None:
    counts = ", ".join(f"{split} {_total(count)}" for split, count in upload["counts"].items())
    console.print(
        f"\n[bold]Data set[/]  {escape(upload['name'])} version {upload['version']}: {upload['classes']} classes,"
        f" {counts} photos; {upload['rejected']} left out; {upload['uploaded_bytes'] / 1e6:.1f} MB of"
        f" {upload['total_bytes'] / 1e6:.1f} MB uploaded"
    )


def _total(count: Any) -> int:
    return sum(count.values()) if isinstance(count, Mapping) else int(count)


def _trials(console: Console, tune: Mapping[str, Any]) -> None:
    objective = tune["objective"]["name"]
    varied = sorted({name for trial in tune["trials"] for name in trial["hyperparameters"]})
    table = Table(title=f"Trials of {escape(tune['tuning_job_name'])}", title_justify="left", padding=(0, 0))
    table.add_column("trial")
    for name in (objective, "seconds", *varied):
        table.add_column(name.replace("_", " "), justify="right")
    numbered = list(enumerate(sorted(tune["trials"], key=lambda row: row["name"]), start=1))
    for number, trial in sorted(numbered, key=lambda pair: -(pair[1]["value"] or 0)):
        best = trial["name"] == tune["best_training_job"]
        shown = trial["value"] if trial["status"] == "Completed" else trial["status"]
        cells = [_number(shown), _number(trial["seconds"])]
        cells += [_number(trial["hyperparameters"].get(name)) for name in varied]
        table.add_row(f"{number}{' *' if best else ''}", *cells, style="bold green" if best else "")
    console.print(table)
    chosen = ", ".join(f"{name}={_number(value)}" for name, value in tune["best_hyperparameters"].items())
    console.print(f"[bold]Best hyperparameters[/]  {chosen}")


def _number(value: Any) -> str:
    if value is None:
        return "-"
    try:
        number = float(value)
    except (TypeError, ValueError):
        return escape(str(value).strip('"'))
    return str(int(number)) if number == int(number) and abs(number) < 1e6 else f"{number:.4g}"


def _accuracy(console: Console, evaluation: Mapping[str, Any]) -> None:
    # A link that is broken over lines cannot be opened.
    console.print(
        f"[bold]Test accuracy[/]  {evaluation['accuracy']:.4f} on {evaluation['photos']} photos, served by"
        f" {evaluation['runtime']}\n[bold]Report[/]  {escape(evaluation['report_url'])}",
        soft_wrap=True,
    )


def _gate(console: Console, gate: Mapping[str, Any]) -> None:
    console.print(f"[bold]Gate[/]  {'passed' if gate['passed'] else 'refused'}: {escape(gate['reason'])}")


def _endpoint(console: Console, deploy: Mapping[str, Any]) -> None:
    console.print(f"[bold]Endpoint[/]  {escape(deploy['endpoint_name'])}")


def _predictions(console: Console, smoke_test: Mapping[str, Any]) -> None:
    console.print(
        f"[bold]Smoke test[/]  {smoke_test['agreed']} of {smoke_test['photos']} photos answered as evaluated,"
        f" median {smoke_test['latency_ms_p50']:.1f} ms"
    )
    if smoke_test["photos"] < FEW_PHOTOS:
        console.print(
            f"[yellow]note[/]  only {smoke_test['photos']} test photos: the accuracy is a rough estimate; add "
            "photos per class to narrow it"
        )
    table = Table(title="A few predictions", title_justify="left")
    for name in ("photo", "is", "predicted"):
        table.add_column(name)
    for row in smoke_test["predictions"][:5]:
        ranked = ", ".join(f"{escape(name)} {probability:.0%}" for name, probability in row["top"][:3])
        right = row["top"][0][0] == row["label"]
        photo = row.get("photo") or row["key"]  # a run of an older release has only the key
        table.add_row(escape(photo), escape(row["label"]), ranked, style="" if right else "yellow")
    console.print(table)


def _money(
    console: Console, plan: Mapping[str, Any] | None, bill: Mapping[str, Any] | None, serves: bool
) -> None:
    parts = []
    if plan:
        parts.append(f"about ${plan['estimate_usd']:.2f} as planned, with the start-up of instances")
    if bill:
        parts.append(f"${bill['usd']:.2f} for the seconds that the jobs took on this machine")
    hourly = (plan or {}).get("endpoint_usd_per_hour")
    if serves and hourly is not None:
        parts.append(f"the endpoint ${hourly:.3f} per hour until it is taken down")
    if parts:
        console.print(f"[bold]On AWS[/]  {'; '.join(parts)} (estimates)")
