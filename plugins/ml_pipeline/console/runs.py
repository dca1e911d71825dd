"""Run page: runs of train_and_deploy, their tasks in the order they happened, trials, curves, plan and bill."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ml_pipeline.aws import log_tail
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.console.access import MAIN_DAG
from ml_pipeline.console.store import Absent, Store
from ml_pipeline.requests.tuning import trial_row
from ml_pipeline.requests.types import Document

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

PAGE = 50
_LINES = 200
# An epoch has one line in the log of a training job, and so has a trial in that of a packed search.
_MOST_EPOCHS = 5000
_METRIC = re.compile(r"\b([a-z][a-z0-9_]*)=(\S+)")
# The bill's task, and its name in earlier releases.
BILLS = ("bill", "report")
# Results that a line of the list shows.
_LISTED = ("upload", "evaluate", "deploy")
_RESULT = "return_value"
# Params that a comparison of two versions shows next to the hyperparameters.
_FIXED = ("architecture", "strategy", "weights", "seed", "train_on")
_LINK = "job"


def listed(session: Session, offset: int = 0) -> Document:
    """Return a page of runs, newest first, with what came out of each."""
    from airflow.models import DagRun
    from sqlalchemy import func, select

    mine = DagRun.dag_id == MAIN_DAG
    total = session.scalar(select(func.count()).select_from(DagRun).where(mine))
    query = select(DagRun).where(mine).order_by(DagRun.run_after.desc(), DagRun.id.desc())
    runs = session.scalars(query.offset(offset).limit(PAGE)).all()
    run_ids = [run.run_id for run in runs]
    results, usd = _results(session, run_ids, _LISTED), costs(session, run_ids)
    rows = [
        {**_run(run), **_outcome(results.get(run.run_id, {})), "usd": usd.get(run.run_id)} for run in runs
    ]
    return {"runs": rows, "total": total, "offset": offset, "page": PAGE}


def one(store: Store, session: Session, run_id: str) -> Document:
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
        "results": {name: _with_report(store, value) for name, value in results.items() if name != "tune"},
        "search": _search(results.get("tune")),
    }


def trials(store: Store, session: Session, run_id: str) -> Document:
    """Return all trials of a run's search, in the order they were started; those so far while it runs.

    Raises:
        Absent: The search has not begun, or its table is gone.
    """
    tuned = _results(session, [run_id], ("tune",)).get(run_id, {}).get("tune") or {}
    uri = tuned.get("trials_uri")
    if uri:
        rows = store.lasting(("trials", uri), lambda: store.json_at(uri))
        return {
            "trials": rows["trials"] if isinstance(rows, dict) else rows,
            "objective": tuned.get("objective"),
        }
    name, kind = _job(session, run_id, "tune")
    live = _tuning if kind is JobKind.TUNING else _packed
    return {"trials": store.brief(("trials", name), lambda: live(store, name)), "objective": None}


def _tuning(store: Store, name: str) -> list[Document]:
    pages = (
        store.client("sagemaker")
        .get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
        .paginate(HyperParameterTuningJobName=name)
    )
    return [dict(trial_row(row)) for page in pages for row in page["TrainingJobSummaries"]]


def _packed(store: Store, name: str) -> list[Document]:
    """Return the trials that a packed search has printed so far."""
    rows = []
    for found in _metrics(_log(store, JobKind.TRAINING, name, _MOST_EPOCHS)):
        if "trial" in found and "seconds" in found:
            value, seconds = found.pop("valid_accuracy", None), float(found.pop("seconds"))
            number = found.pop("trial")
            rows.append(
                {
                    "name": f"trial {number}",
                    "status": "Failed" if value is None else "Completed",
                    "value": None if value is None else float(value),
                    "seconds": seconds,
                    "hyperparameters": found,
                }
            )
    return rows


def curves(store: Store, session: Session, run_id: str) -> list[Document]:
    """Return the metrics of each epoch of a run's final training, read from its job's log.

    Raises:
        Absent: No training job was started, or its log is gone.
    """
    name, kind = _job(session, run_id, "train")
    epochs: dict[float, Document] = {}
    for found in _metrics(_log(store, kind, name, _MOST_EPOCHS)):
        if "epoch" in found and ("valid_accuracy" in found or "train_loss" in found):
            row = {metric: float(value) for metric, value in found.items() if _is_number(value)}
            # The epoch that was kept is printed once more at the end.
            epochs.setdefault(row["epoch"], row)
    if not epochs:
        raise Absent(f"the log of {name} tells of no epoch: it is not there yet, or was deleted")
    return [epochs[epoch] for epoch in sorted(epochs)]


def costs(session: Session, run_ids: Sequence[str]) -> dict[str, float]:
    """Return what runs cost in US dollars, by run id."""
    found = _results(session, run_ids, BILLS)
    bills = ((run_id, bill) for run_id, results in found.items() for bill in results.values())
    return {run_id: bill["usd"] for run_id, bill in bills if isinstance(bill, dict) and "usd" in bill}


def recipe(session: Session, run_id: str) -> Document:
    """Return the hyperparameters that a run chose, with what its params fixed; {} for a run that is gone."""
    from airflow.models import DagRun
    from sqlalchemy import select

    tuned = _results(session, [run_id], ("tune",)).get(run_id, {}).get("tune") or {}
    run = session.scalar(select(DagRun).where(DagRun.dag_id == MAIN_DAG, DagRun.run_id == run_id))
    fixed = {name: value for name in _FIXED if (value := ((run.conf if run else None) or {}).get(name))}
    return {**fixed, **(tuned.get("best_hyperparameters") or {})}


def _metrics(lines: Iterable[str]) -> list[dict[str, str]]:
    return [found for line in lines if (found := dict(_METRIC.findall(line)))]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", text) is not None


def log(store: Store, session: Session, run_id: str, task_id: str) -> list[str]:
    """Return the last lines of the job that a task started.

    Raises:
        Absent: The task started no job.
    """
    name, kind = _job(session, run_id, task_id)
    return _log(store, kind, name, _LINES)


def _job(session: Session, run_id: str, task_id: str) -> tuple[str, JobKind]:
    job = _results(session, [run_id], (task_id,), key=_LINK).get(run_id, {}).get(task_id)
    kinds = {kind.value: kind for kind in JobKind}
    if not isinstance(job, dict) or job.get("kind") not in kinds:
        raise Absent(f"{task_id} started no job")
    return job["name"], kinds[job["kind"]]


def _log(store: Store, kind: JobKind, name: str, count: int) -> list[str]:
    group = kind.calls.log_group
    if not group:
        raise Absent("a tuning job has no log of its own: see its training jobs")
    key = ("log", name, count)
    return store.brief(key, lambda: log_tail.last_lines(store.client("logs"), group, f"{name}/", count))


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


def _with_report(store: Store, value: Any) -> Any:
    """Return a result with a fresh address of its report: the task's has an end."""
    if not isinstance(value, dict) or "report_uri" not in value:
        return value
    return {**value, "report_url": store.address(value["report_uri"])}


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
