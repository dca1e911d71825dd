"""The bill of a run: billable seconds of its jobs, as SageMaker reports them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ml_pipeline.aws import jobs, log_tail
from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.costs import rates
from ml_pipeline.costs.prices import Prices
from ml_pipeline.costs.rates import Rate
from ml_pipeline.requests import preferences
from ml_pipeline.requests.types import Bill, BillLine, Document, Params, Planned
from ml_pipeline.settings import Settings

# Tasks whose line has another name; lines for training, and the tasks whose metrics hold its rate.
_NAMES = {"upload": "prepare"}
_TRAINING = {"train": "train", "ec2": "ec2.train"}
# Tasks with a job of their own: its kind, and the key of its name in their results.
_JOBS = {
    "upload": (JobKind.PROCESSING, "job_name"),
    "embed": (JobKind.PROCESSING, "job_name"),
    "embed_teacher": (JobKind.PROCESSING, "job_name"),
    "check_data": (JobKind.PROCESSING, "job_name"),
    "train": (JobKind.TRAINING, "training_job_name"),
    "evaluate": (JobKind.PROCESSING, "job_name"),
}
BILLED = (*_JOBS, "tune", "ec2.train", "ec2.terminate")
"""Tasks whose results a bill is made of."""

# Results of the tasks of a run by task id; None for a task that did not run.
Results: TypeAlias = Mapping[str, Mapping[str, Any] | None]


def make(client: Client, prices: Prices, results: Results) -> Bill:
    """Make the bill of a run from the results of its tasks."""
    lines: list[BillLine] = []
    for step, (kind, key) in _JOBS.items():
        name = (results.get(step) or {}).get(key)
        description = jobs.describe(client, kind, name) if name else None
        if description:
            lines.append(job_line(_NAMES.get(step, step), kind, description, prices))
    for machine in (results.get("ec2.terminate") or {}).get("machines", []):
        kind, seconds = machine["instance_type"], machine["seconds"]
        lines.append(_line("ec2", machine["instance_id"], kind, 1, seconds, prices))
    tune = results.get("tune") or {}
    if tune.get("tuning_job_name"):
        lines.append(tuning_line(client, tune, prices))
    return {
        "usd": round(sum(line["usd"] or 0.0 for line in lines), 4),
        "steps": lines,
        "note": f"estimate: billable seconds x price of {prices.as_of} in {prices.region}",
    }


def table(planned: Planned | None, bill: Bill) -> list[str]:
    """Return a text table of the plan against the bill: a line per step, then the totals."""
    plan = {row["step"]: row for row in planned["steps"]} if planned else {}
    paid = {row["step"]: row for row in bill["steps"]}
    lines = [f"{'step':<11} {'machines':<19} {'planned':>9} {'billed':>9} {'planned':>10} {'billed':>10}"]
    for step in [*plan, *(name for name in paid if name not in plan)]:
        expected, found = plan.get(step), paid.get(step)
        machine = found or expected
        assert machine is not None
        lines.append(
            f"{step:<11} {machine['instance_count']} x {machine['instance_type']:<15} "
            f"{_cell(expected and expected['seconds'], '{:,.0f} s'):>9} "
            f"{_cell(found and found['billable_seconds'], '{:,.0f} s'):>9} "
            f"{_cell(expected and expected['usd'], '${:.4f}'):>10} {_cell(found and found['usd'], '${:.4f}'):>10}"
        )
    total = _cell(planned and planned["estimate_usd"], "${:.4f}")
    return [*lines, f"{'total':<51} {total:>10} {_cell(bill['usd'], '${:.4f}'):>10}"]


def _cell(value: float | None, shape: str) -> str:
    return "-" if value is None else shape.format(value)


def measured(
    logs: Client,
    settings: Settings,
    steps: Sequence[BillLine],
    results: Results,
    params: Params,
) -> Iterator[Rate]:
    """Yield the rates that the run's jobs measured, from their metrics or their logs."""
    for line in steps:
        step, name = line["step"], line["job_name"]
        if step in _TRAINING:
            speed = (results.get(_TRAINING[step]) or {}).get("metrics", {}).get("photos_per_second")
        elif step in ("prepare", "embed", "evaluate"):
            speed = rates.in_log(
                log_tail.last_lines(logs, str(JobKind.PROCESSING.calls.log_group), f"{name}/")
            )
        else:
            continue
        if speed:
            work = params["strategy"] if step in _TRAINING else step
            yield Rate(
                work, params["architecture"], line["instance_type"], speed, rates.place(settings), name
            )


def job_line(step: str, kind: JobKind, description: Document, prices: Prices) -> BillLine:
    """Make the line of one training or processing job."""
    if kind is JobKind.TRAINING:
        resources = description["ResourceConfig"]
        # Instances that were kept warm after the job are billed as well.
        kept = description.get("WarmPoolStatus", {}).get("ResourceRetainedBillableTimeInSeconds") or 0
        seconds = float(description.get("BillableTimeInSeconds") or 0) + kept
    else:
        resources = description["ProcessingResources"]["ClusterConfig"]
        start, end = description.get("ProcessingStartTime"), description.get("ProcessingEndTime")
        seconds = (end - start).total_seconds() if start and end else 0.0
    return _line(
        step,
        description[kind.calls.name],
        *preferences.used(resources),
        seconds,
        prices,
    )


def tuning_line(client: Client, tune: Mapping[str, Any], prices: Prices) -> BillLine:
    """Make the line of a tuning job: the sum of its trials."""
    name = tune["tuning_job_name"]
    packed = jobs.describe(client, JobKind.TRAINING, name)
    if packed:
        return job_line("tune", JobKind.TRAINING, packed, prices)
    description = jobs.describe(client, JobKind.TUNING, name) or {}
    resources = description["TrainingJobDefinition"]["ResourceConfig"]
    return _line("tune", name, *preferences.used(resources), tune["trial_seconds"], prices)


def _line(
    step: str, name: str, instance_type: str, instance_count: int, seconds: float, prices: Prices
) -> BillLine:
    usd = prices.usd(instance_type, seconds, instance_count)
    known = None if usd is None else round(usd, 6)
    return {
        "step": step,
        "job_name": name,
        "instance_type": instance_type,
        "instance_count": instance_count,
        "billable_seconds": round(seconds, 1),
        "usd": known,
    }
