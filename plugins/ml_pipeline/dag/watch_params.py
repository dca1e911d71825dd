"""The params of `watch` and `retraining_proposal`."""

from __future__ import annotations

from airflow.sdk import Param

from ml_pipeline.dag import params, sections
from ml_pipeline.dag.form import presented

WATCH_DOC = """\
**Looks at what endpoints were asked since the last look**, and compares it with photos that the model was not trained
on. One Processing job a look. A look is quiet, an alarm (the CloudWatch alarm `<endpoint>-drift`, once a year by
chance), or a proposal to train again (a run of `retraining_proposal`, once in a hundred years by chance): after two
alarms in a row with an estimated accuracy that has fallen.

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
    number = {"type": "number", "exclusiveMinimum": 0}
    return params._with_defaults(
        {
            "endpoint_name": Param(
                "", type="string", title="Endpoint", description_md="Empty: every endpoint of the project."
            ),
            "data": sections.photos()["data"],
            "retrain": Param(
                "ask",
                type="string",
                enum=["ask", "auto"],
                title="Train again",
                description_md="`ask`: a person decides about a proposal; `auto`: training starts by itself.",
            ),
            "conf": params.scheduled_retraining()["conf"],
            "alarms_a_year": Param(1, title="False alarms a year, at most", **number),
            "proposals_a_year": Param(0.01, title="False proposals a year, at most", **number),
            "cooldown_days": Param(7, title="Days between proposals", **number),
            "least_photos": Param(
                20,
                type="integer",
                minimum=2,
                title="Least photos",
                description_md="Fewer different photos are not tested, and wait for the next look.",
            ),
            "sample_photos": Param(1000, type="integer", minimum=20, maximum=100_000, title="Photos a look"),
            "queue_photos": Param(
                20, type="integer", minimum=0, maximum=1000, title="Photos to review a look"
            ),
            "watch_instance_type": Param("ml.m5.large", title="Look on", **sections.MACHINE),
        }
    )


def retraining_proposal() -> dict[str, Param]:
    """The params of `retraining_proposal`."""
    chosen = watch()
    return presented(
        {
            "endpoint_name": sections.service()["endpoint_name"],
            "dataset_name": sections.photos()["dataset_name"],
            "look": Param(0, type="integer", title="Look"),
            "reason": Param("", type="string", title="Reason"),
            "page_uri": Param("", type="string", title="Page"),
            **{name: chosen[name] for name in ("data", "retrain", "conf")},
        }
    )
