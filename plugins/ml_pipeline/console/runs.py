"""Run page: runs of train_and_deploy, their tasks in the order they happened, trials, plan and bill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_pipeline.aws import log_tail
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.console.access import MAIN_DAG
from ml_pipeline.console.store import Absent, Store
from ml_pipeline.requests.types import Document

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

PAGE = 50
_LINES = 200
# Results that a line of the list shows.
_LISTED = ("upload", "evaluate", "deploy")
_RESULT = "return_value"
_LINK = "job"


def listed(session: Session, offset: int = 0) -> Document:
    """Return a page of runs, newest first, with what came out of each."""
    from airflow.models import DagRun
    from sqlalchemy import func, select

    mine = DagRun.dag_id == MAIN_DAG
    total = session.scalar(select(func.count()).select_from(DagRun).where(mine))
    query = select(DagRun).where(mine).order_by(DagRun.run_after.desc(), DagRun.id.desc())
    runs = session.scalars(query.offset(offset).limit(PAGE)).all()
    results = _results(session, [run.run_id for run in runs], _LISTED)
    rows = [{**_run(run), **_outcome(results.get(run.run_id, {}))} for run in runs]
    return {"runs": rows, "total": total, "offset": offset, "page": PAGE}


def one(session: Session, run_id: str) -> Document:
    """Return a run with its tasks and their results.

    Raises:
        Absent: There is no such run.
    """
    from airflow.models import DagRun, TaskInstance
    from sqlalchemy import select

    run = session.scalar(select(DagRun).where(DagRun.dag_id == MAIN_DAG, DagRun.run_id == run_id))
    if run is None:
        raise Absent(f"there is no run {run_id}")
    tasks = session.scalars(
        select(TaskInstance).where(TaskInstance.dag_id == MAIN_DAG, TaskInstance.run_id == run_id)
    ).all()
    results = _results(session, [run_id]).get(run_id, {})
    jobs = _results(session, [run_id], key=_LINK).get(run_id, {})
    return {
        **_run(run),
        **_outcome(results),
        "conf": run.conf or {},
        "tasks": [
            {
                "id": task.task_id,
                "state": task.state,
                "start": _time(task.start_date),
                "end": _time(task.end_date),
                "seconds": task.duration,
                "job": jobs.get(task.task_id),
            }
            for task in sorted(
                tasks, key=lambda task: (task.start_date is None, task.start_date, task.task_id)
            )
        ],
        "results": {name: value for name, value in results.items() if name != "tune"},
        "search": _search(results.get("tune")),
    }


def trials(store: Store, session: Session, run_id: str) -> Document:
    """Return all trials of a run's search, in the order they were started.

    Raises:
        Absent: The search has not ended, or its table is gone.
    """
    tuned = _results(session, [run_id], ("tune",)).get(run_id, {}).get("tune") or {}
    uri = tuned.get("trials_uri")
    if not uri:
        raise Absent("this run has no finished search yet")
    rows = store.lasting(("trials", uri), lambda: store.json_at(uri))
    return {"trials": rows["trials"] if isinstance(rows, dict) else rows, "objective": tuned.get("objective")}


def log(store: Store, session: Session, run_id: str, task_id: str) -> list[str]:
    """Return the last lines of the job that a task started.

    Raises:
        Absent: The task started no job.
    """
    job = _results(session, [run_id], (task_id,), key=_LINK).get(run_id, {}).get(task_id)
    kinds = {kind.value: kind for kind in JobKind}
    if not isinstance(job, dict) or job.get("kind") not in kinds:
        raise Absent(f"{task_id} started no job")
    group = kinds[job["kind"]].calls.log_group
    if not group:
        raise Absent(f"{task_id}'s jobs have logs of their own: see its training jobs")
    return log_tail.last_lines(store.client("logs"), group, f"{job['name']}/", _LINES)


def _run(run: Any) -> Document:
    return {
        "run_id": run.run_id,
        "state": run.state,
        "start": _time(run.start_date),
        "end": _time(run.end_date),
        "by": run.triggering_user_name,
    }


def _outcome(results: Document) -> Document:
    """Return what a run is about; a run of an older release lacks some of it."""
    upload, evaluate, deploy = ((results.get(name) or {}) for name in _LISTED)
    return {
        "dataset": upload.get("name"),
        "version": upload.get("version"),
        "accuracy": evaluate.get("accuracy"),
        "photos": evaluate.get("photos"),
        "endpoint": deploy.get("endpoint_name"),
    }


def _search(tuned: Document | None) -> Document | None:
    if not tuned:
        return None
    names = ("objective", "best_hyperparameters", "trials", "tuning_job_name")
    return {name: tuned.get(name) for name in names}


def _results(
    session: Session, run_ids: Sequence[str], task_ids: Sequence[str] | None = None, key: str = _RESULT
) -> dict[str, Document]:
    """Return what tasks left in XCom: {run id: {task id: value}}."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    query = select(XComModel).where(
        XComModel.dag_id == MAIN_DAG, XComModel.run_id.in_(run_ids), XComModel.key == key
    )
    if task_ids is not None:
        query = query.where(XComModel.task_id.in_(task_ids))
    found: dict[str, Document] = {}
    for row in session.scalars(query):
        found.setdefault(row.run_id, {})[row.task_id] = XComModel.deserialize_value(row)
    return found


def _time(moment: Any) -> str | None:
    return moment.isoformat() if moment else None
