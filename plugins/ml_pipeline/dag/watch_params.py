"""The params of `watch` and `retraining_proposal`."""

from __future__ import annotations

from airflow.sdk import Param

from ml_pipeline.dag import params, sections
from ml_pipeline.dag.fields import field, integer, machine, text
from ml_pipeline.dag.form import presented

WATCH_DOC = """\
**Looks at what endpoints were asked since the last look**, and compares it with photos that the model was not trained
on. One Processing job a look. A look is quiet, an alarm (the CloudWatch alarm `ml-pipeline-<endpoint>-drift`, once a
year by chance), or a proposal to train again (a run of `retraining_proposal`, once in a hundred years by chance): after
two alarms in a row with an estimated accuracy that has fallen.

Endpoints are watched where their photos are kept: deploy with `capture_days`.
"""

PROPOSAL_DOC = """\
Started by `watch` when an endpoint's photos have changed and its accuracy has fallen. Approve it, and
`train_and_deploy` runs with `conf`; its gate decides as always.
"""

PROPOSAL_BODY = """\
{{ params.reason }}

Look {{ params.look }}: `{{ params.page_uri }}`. Photos worth a review wait in the queue of {{ params.dataset_name }}.
"""


def watch() -> dict[str, Param]:
    """The params of `watch`."""
    return params._with_defaults(
        {
            "endpoint_name": text("", "Endpoint", "Empty: every endpoint of the project."),
            "data": sections.photos()["data"],
            "retrain": text(
                "ask",
                "Train again",
                "`ask`: a person decides about a proposal; `auto`: training starts by itself.",
                enum=["ask", "auto"],
            ),
            "conf": params.scheduled_retraining()["conf"],
            "alarms_a_year": field(1, "number", "False alarms a year, at most", exclusiveMinimum=0),
            "proposals_a_year": field(0.01, "number", "False proposals a year, at most", exclusiveMinimum=0),
            "cooldown_days": field(7, "number", "Days between proposals", exclusiveMinimum=0),
            "least_photos": integer(
                20,
                (2, None),
                "Least photos",
                "Fewer different photos are not tested, and wait for the next look.",
            ),
            "sample_photos": integer(1000, (20, 100_000), "Photos a look"),
            "queue_photos": integer(20, (0, 1000), "Photos to review a look"),
            "watch_instance_type": machine("ml.m5.large", "Look on"),
        },
        ("endpoint_name", "data", "retrain", "conf"),
    )


def retraining_proposal() -> dict[str, Param]:
    """The params of `retraining_proposal`."""
    chosen = watch()
    return presented(
        {
            "endpoint_name": sections.service()["endpoint_name"],
            "dataset_name": sections.photos()["dataset_name"],
            "look": field(0, "integer", "Look"),
            "reason": text("", "Reason"),
            "page_uri": text("", "Page"),
            **{name: chosen[name] for name in ("data", "retrain", "conf")},
        }
    )
