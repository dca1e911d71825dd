"""Report events of runs: in the log always, through SNS where a topic is set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow.sdk import BaseNotifier

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context
    from jinja2 import Environment

# PublishRequest takes 100 characters of subject.
_SUBJECT_CHARACTERS = 100


class PipelineNotifier(BaseNotifier):
    """Send one message. For another channel, add Airflow's notifier of that channel to the DAG.

    Args:
        event: The event in a word or two: "failed", "deployed", "late".
    """

    def __init__(self, event: str) -> None:
        super().__init__()
        self.event = event

    def render_template_fields(self, context: Context, jinja_env: Environment | None = None) -> None:
        """Do nothing: there are no templates, and the DAG of some callbacks is a serialized one, which has none."""

    def notify(self, context: Context) -> None:
        """Log, and publish where a topic is set. A message that cannot be sent fails nothing."""
        subject, message = text(self.event, context)
        self.log.warning("%s: %s", subject, message)
        settings = Settings.load()
        if settings.sns_topic_arn:
            try:
                AwsAccess(settings.aws_conn_id).client("sns").publish(
                    TopicArn=settings.sns_topic_arn, Subject=subject[:_SUBJECT_CHARACTERS], Message=message
                )
            except Exception:
                self.log.exception("the message could not be published to %s", settings.sns_topic_arn)

    async def async_notify(self, context: Context) -> None:
        """Send from the triggerer, which watches deadlines."""
        from asgiref.sync import sync_to_async

        await sync_to_async(self.notify)(context)


def text(event: str, context: Context) -> tuple[str, str]:
    """Return subject and message; a deadline's context holds less than a task's."""
    run, ti = context.get("dag_run"), context.get("ti")
    where = "/".join(
        str(part)
        for part in (_get(run, "dag_id"), _get(run, "run_id"), _get(ti, "task_id"))
        if part is not None
    )
    lines = [where or "a DAG run"]
    if reason := context.get("exception") or context.get("reason"):
        lines.append(str(reason))
    if url := _get(ti, "log_url"):
        lines.append(f"log: {url}")
    return f"ml-pipeline {event}: {_get(run, 'dag_id') or 'run'}", "\n".join(lines)


def _get(source: object, name: str) -> object:
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
