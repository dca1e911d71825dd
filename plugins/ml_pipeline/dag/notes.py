"""The note of a run says what it is: data set, accuracy, endpoint, cost.

Airflow lets no task write the note of its run. A task attaches the note to an event of one of its assets, and the
api-server, which receives the event, writes it. Where the plugin is not loaded there, runs have no notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from ml_pipeline.dag.console_link import console_url

if TYPE_CHECKING:
    from airflow.listeners.types import AssetEvent
    from airflow.sdk import Context

# Key in the extra of an asset event.
KEY = "note"
# Airflow's column; it is a person's note if it has another author.
LONGEST, AUTHOR = 1000, "ml-pipeline"

Results = Mapping[str, Any]


def attach(context: Context, result: object = None) -> None:
    """Attach the note to the task's asset event, from its result and those of the tasks before it (`post_execute`)."""
    task, ti = context["task"], context["ti"]
    if not task.outlets:
        return
    before = task.get_flat_relative_ids(upstream=True)
    results = {name: ti.xcom_pull(task_ids=name) for name in sorted(before & _READ)}
    note = text({**results, task.task_id: result}, console_url(ti.dag_id, ti.run_id))
    if note:
        context["outlet_events"][task.outlets[0]].extra[KEY] = note


def text(results: Results, page: str = "") -> str:
    """Write the note of a run as Markdown, from what its tasks have returned so far.

    Args:
        results: Result of each task by its id; None or absent where there is none yet.
        page: Address of the run's page in the console.
    """
    lines = [line for part in (_dataset, _accuracy, _endpoint, _cost, _other) if (line := part(results))]
    if not lines:
        return ""
    note = "\n\n".join(lines)[: LONGEST - len(page) - 20]
    return f"{note}\n\n[Console]({page})" if page else note


def _dataset(results: Results) -> str:
    made, chosen, planned = (results.get(name) or {} for name in ("upload", "choose_version", "plan"))
    if made:
        return f"**{made['name']}**, data set version `{made['version']}`"
    if chosen:
        return f"**{chosen['dataset_name']}**, model version {chosen['version']}"
    return f"**{planned['dataset_name']}**, {planned['photos']} photos" if planned else ""


def _accuracy(results: Results) -> str:
    judged = results.get("evaluate") or {}
    return accuracy(judged) if judged else ""


def accuracy(judged: Mapping[str, Any]) -> str:
    """Say an accuracy in words, with its interval where the evaluation has one."""
    interval = judged.get("accuracy_interval")
    between = f" (95 % interval {interval[0]:.1%} to {interval[1]:.1%})" if interval else ""
    return f"{judged['accuracy']:.1%} of {judged['photos']} test photos right{between}"


def _endpoint(results: Results) -> str:
    deployed, tested, gate, approval = (
        results.get(name) or {} for name in ("deploy", "smoke_test", "gate", "approve")
    )
    if deployed:
        answers = f"; {tested['agreed']} of {tested['photos']} answers as evaluated" if tested else ""
        return f"Serves at endpoint **{deployed['endpoint_name']}**{answers}"
    if gate.get("passed") is False:
        return f"Not deployed: {gate['reason']}"
    if approval.get("approved") is False:
        return f"Not deployed: rejected by {approval['by']}"
    return "Not deployed" if "bill" in results else ""


def _cost(results: Results) -> str:
    planned, billed = results.get("plan") or {}, results.get("bill") or {}
    parts = [f"${billed['usd']:.4f} billed" if billed else "", "" if not planned else _planned(planned)]
    return f"Cost (estimate): {', '.join(filter(None, parts))}" if any(parts) else ""


def _planned(planned: Mapping[str, Any]) -> str:
    hourly = planned.get("endpoint_usd_per_hour")
    endpoint = f"; the endpoint ${hourly:.3f} per hour" if hourly is not None else ""
    return f"about ${planned['estimate_usd']:.2f} planned{endpoint}"


def _other(results: Results) -> str:
    """Describe the runs of the small DAGs by their one result."""
    looks, tabled, swept, down = (results.get(name) for name in ("conclude", "table", "sweep", "take_down"))
    if looks:
        return f"**{looks['endpoint_name']}**, look {looks['number']}: {looks['verdict']}: {looks['reason']}"
    if tabled:
        return f"{tabled['photos']} photos predicted, {tabled['unreadable']} without: `{tabled['table_uri']}`"
    if swept:
        done = "dry run" if swept["dry_run"] else f"{swept['removed']} removed"
        return f"{len(swept['found'])} unused or broken things found; {done}"
    return f"Took endpoint **{down['endpoint_name']}** down" if down else ""


_READ = frozenset(
    {"plan", "upload", "choose_version", "evaluate", "gate", "approve", "deploy", "smoke_test", "bill"}
)


class NoteWriter:
    """Write the notes that tasks attach to asset events; Airflow calls it in the api-server, after the commit."""

    @hookimpl
    def on_asset_event_emitted(self, asset_event: AssetEvent) -> None:
        """Set the note of the run that the event came from, unless a person has written one."""
        note = asset_event.extra.get(KEY)
        if not isinstance(note, str) or not asset_event.source_run_id:
            return
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            run = session.scalar(
                select(DagRun).where(
                    DagRun.dag_id == asset_event.source_dag_id, DagRun.run_id == asset_event.source_run_id
                )
            )
            if run is None:
                return
            if run.dag_run_note is None:
                run.note = (note, AUTHOR)
            elif run.dag_run_note.user_id == AUTHOR:
                run.dag_run_note.content = note
