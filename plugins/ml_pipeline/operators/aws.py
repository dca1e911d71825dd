"""The base of every operator that talks to AWS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Required, TypedDict, Unpack

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import TaskDeferred

from ml_pipeline.aws.clients import AwsAccess, Client
from ml_pipeline.errors import HAS_POLICIES, RETRIES, PaidWorkRetryPolicy, WaitFailed
from ml_pipeline.requests import names
from ml_pipeline.settings import Settings
from ml_pipeline.triggers.base import DEFAULT_PATIENCE_SECONDS, FAILURE, PollingTrigger
from ml_pipeline.triggers.ownership import is_over

if TYPE_CHECKING:
    from airflow.sdk import DAG, Context, RetryPolicy, TaskGroup
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

# Param of the DAGs: the time that a wait continues without an answer from AWS.
OUTAGE_PARAM = "max_outage_hours"


class TaskOptions(TypedDict, total=False):
    """The arguments of `airflow.sdk.BaseOperator` that every operator passes on."""

    task_id: Required[str]
    task_display_name: str
    doc_md: str
    owner: str
    dag: DAG
    task_group: TaskGroup
    default_args: dict[str, object]
    params: Mapping[str, object]
    retries: int
    retry_delay: timedelta
    retry_policy: RetryPolicy
    execution_timeout: timedelta
    trigger_rule: str
    depends_on_past: bool
    inlets: Sequence[object]
    outlets: Sequence[object]
    pre_execute: Callable[[Context], None]
    on_execute_callback: object
    on_failure_callback: object
    on_success_callback: object
    on_retry_callback: object
    on_skipped_callback: object
    do_xcom_push: bool
    multiple_outputs: bool
    map_index_template: str
    max_active_tis_per_dag: int
    max_active_tis_per_dagrun: int
    pool: str
    pool_slots: int
    priority_weight: int
    weight_rule: str
    queue: str
    executor: str
    executor_config: dict[str, object]


class AwsOptions(TaskOptions, total=False):
    """The arguments of `AwsOperator`, for its subclasses."""

    aws_conn_id: str | None
    region_name: str | None
    verify: bool | str | None
    botocore_config: Mapping[str, object] | None


class AwsOperator(BaseOperator):
    """Reach AWS through one connection, retry what is worth it, and raise what ended a wait.

    Not the Amazon provider's AwsBaseOperator: its module imports boto3, 0.2 s of CPU whenever a DAG file is parsed.

    Args:
        aws_conn_id: Airflow connection; by default that of the settings (ML_PIPELINE_AWS_CONN_ID).
        region_name, verify, botocore_config: As in the Amazon provider's operators.
    """

    def __init__(
        self,
        *,
        aws_conn_id: str | None = None,
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: Mapping[str, object] | None = None,
        **kwargs: Unpack[TaskOptions],
    ) -> None:
        kwargs.setdefault("retries", RETRIES)
        policy = kwargs.pop("retry_policy", None) or PaidWorkRetryPolicy()
        if HAS_POLICIES:
            kwargs["retry_policy"] = policy
        super().__init__(**kwargs)
        if not HAS_POLICIES:
            self.policy = policy
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self._clients: dict[str, Client] = {}
        # Set by operators that start paid work: `on_kill` is given no context.
        self._task_instance: RuntimeTaskInstanceProtocol | None = None

    @property
    def access(self) -> AwsAccess:
        """Access to AWS, for clients and triggers."""
        config = dict(self.botocore_config) if self.botocore_config else None
        conn_id = self.aws_conn_id or Settings.load().aws_conn_id
        return AwsAccess(conn_id, self.region_name, self.verify, config)

    def client(self, service: str) -> Client:
        """Return the boto3 client of `service`; made once."""
        if service not in self._clients:
            self._clients[service] = self.access.client(service)
        return self._clients[service]

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, object] | None, context: Context
    ) -> object:
        """Raise the cause if the wait failed, else go on with what it waited for.

        Raises:
            WaitFailed: The trigger gave up.
        """
        event = (next_kwargs or {}).get("event")
        if isinstance(event, dict) and FAILURE in event:
            raise WaitFailed(event[FAILURE])
        return super().resume_execution(next_method, next_kwargs, context)

    def deferred(
        self, context: Context, trigger: type[PollingTrigger], then: str, timeout: timedelta, **subject: str
    ) -> TaskDeferred:
        """Return what to raise to wait, without a worker, until a `trigger` fires; the method `then` goes on."""
        settings = Settings.load()
        waiting = trigger(
            poll_seconds=settings.poll_seconds,
            access=self.access.to_dict(),
            patience_seconds=patience_of(context),
            **subject,
        )
        return TaskDeferred(trigger=waiting, method_name=then, timeout=timeout)

    def will_run_again(self) -> bool:
        """Ask Airflow whether this task instance will run again, as after a clear or before a retry.

        Without an answer the result is False: no task is known to come back for the paid work, so it is stopped.
        """
        ti = self._task_instance
        if ti is None:
            return False
        with suppress(Exception):
            states = ti.get_task_states(
                dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
            )
            return not is_over(states, ti.run_id)
        return False


def origin_of(context: Context) -> names.Origin:
    """Return the identity under which a task instance starts paid work."""
    ti = context["ti"]
    return names.Origin(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)


def patience_of(context: Context) -> float:
    """Return the seconds that a wait continues without an answer from AWS, from the run's params."""
    hours = (context.get("params") or {}).get(OUTAGE_PARAM)
    return DEFAULT_PATIENCE_SECONDS if hours is None else float(hours) * 3600
