"""The params of the DAGs: one table for the form, its bounds and the checks of the REST API."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from airflow.sdk import Param

from ml_pipeline.dag import sections
from ml_pipeline.dag.fields import field, integer, machine, number, switch, text
from ml_pipeline.dag.form import ESSENTIALS, presented
from ml_pipeline.requests.types import Params
from ml_pipeline.settings import param_defaults


def train_and_deploy() -> dict[str, Param]:
    """Return the params of `train_and_deploy`, by name, in the order of the form."""
    made = (
        sections.photos,
        sections.model,
        sections.search,
        sections.instances,
        sections.service,
        sections.run,
    )
    params = {name: param for section in made for name, param in section().items()}
    _check_defaults(params)
    return _with_defaults(params, ESSENTIALS, sections=True)


def batch_predict() -> dict[str, Param]:
    """Return the params of `batch_predict`."""
    return _with_defaults(
        {
            "photos": text(
                "", "Photos", "A folder on this machine, or `s3://bucket/prefix`; any supported format."
            ),
            "dataset_name": sections.dataset(
                "Its champion predicts; empty: the only data set with an approved model."
            ),
            "instance_type": machine("ml.m5.large", "Instance type", "Runs the transform job."),
            "instance_count": integer(1, (1, 20), "Instances", "They share the photos."),
            "max_outage_hours": sections.outage(),
        },
        ("photos", "dataset_name"),
    )


def janitor() -> dict[str, Param]:
    """Return the params of `janitor`."""
    return _with_defaults(
        {
            "dry_run": switch(True, "Dry run", "Off: remove what is found."),
            "days": number(
                7,
                (0, None),
                "Unused for (days)",
                "Minimum age of endpoints without calls, and of unused configs and models.",
            ),
            # More than the lifetime of an instance with the longest job, so that none at work is taken.
            "instance_hours": number(
                50,
                (0, None),
                "Instances older than (hours)",
                "EC2 instances of the project above this age are orphans.",
            ),
        }
    )


def teardown() -> dict[str, Param]:
    """Return the params of `teardown`."""
    use = "Name of the endpoint to take down; it has no default."
    return _with_defaults({"endpoint_name": sections.endpoint(use)})


def deploy() -> dict[str, Param]:
    """Return the params of `deploy`."""
    service = sections.service()
    kept = {"description_md": "Empty: as the endpoint has it."}
    optional = {
        name: Param(None, **{**schema, "type": [schema["type"], "null"], **kept})
        for name in (
            "endpoint_instance_type",
            "endpoint_instance_count",
            "endpoint_max_count",
            "capture_percent",
        )
        for schema in (service[name].schema,)
    }
    days = service["capture_days"].schema
    kept = {"description_md": "Empty: as the endpoint has it; 0: nothing is kept from now on."}
    optional["capture_days"] = Param(None, **{**days, "enum": [*days["enum"], 0], **kept})
    return _with_defaults(
        {
            "dataset_name": sections.dataset("Empty: the only data set with a model."),
            "version": Param(
                "",
                type=["string", "integer"],
                title="Version",
                description_md=(
                    "Number of the model version in the registry, `previous` to roll back, or empty for the newest "
                    "approved one."
                ),
            ),
            "endpoint_name": service["endpoint_name"],
            "replace_endpoint": switch(
                False, "Replace the endpoint", "Take over an endpoint that serves another data set."
            ),
            **optional,
            "canary_percent": service["canary_percent"],
            "bake_seconds": service["bake_seconds"],
            "max_outage_hours": sections.outage(),
        },
        ("dataset_name", "version", "endpoint_name"),
    )


def scheduled_retraining() -> dict[str, Param]:
    """Return the params of `scheduled_retraining`."""
    return _with_defaults(
        {
            **{name: param for name, param in sections.photos().items() if name != "weights"},
            "seed": sections.model()["seed"],
            "prepare_instance_type": sections.instances()["prepare_instance_type"],
            "force": sections.run()["force"],
            "conf": field(
                {},
                "object",
                "Params of the training run",
                'Params of `train_and_deploy` by name: `{"trials": 20, "endpoint_name": "dogs"}`.',
            ),
        },
        ("data", "dataset_name", "conf"),
    )


def forms() -> dict[str, Callable[[], dict[str, Param]]]:
    """Return the function that makes the params of each DAG, by its id."""
    from ml_pipeline.dag import watch_params

    return {
        "train_and_deploy": train_and_deploy,
        "batch_predict": batch_predict,
        "janitor": janitor,
        "teardown": teardown,
        "deploy": deploy,
        "scheduled_retraining": scheduled_retraining,
        "watch": watch_params.watch,
        "retraining_proposal": watch_params.retraining_proposal,
    }


def check_names(dag_id: str, params: Params) -> None:
    """Refuse params that the DAG does not have. Airflow passes them on, so a misspelt name would run with the default.

    Raises:
        ValueError: A name is unknown; the message names the nearest ones.
    """
    from ml_pipeline.costs.checks import refuse_unknown

    form = forms().get(dag_id)
    if form is None:  # a DAG of the team's own that uses our tasks
        return
    known = form()
    refuse_unknown(params, known, dag_id)
    if "conf" in known:  # of a training run that the DAG starts
        refuse_unknown(params.get("conf") or {}, train_and_deploy(), "conf: train_and_deploy")


def _check_defaults(params: dict[str, Param]) -> None:
    """Refuse a misspelt name in ML_PIPELINE_DEFAULTS, where it would be ignored."""
    from ml_pipeline.costs.checks import refuse_unknown

    if chosen := param_defaults():
        others = (form() for form in forms().values() if form is not train_and_deploy)
        known = {*params, *(name for form in others for name in form)}
        refuse_unknown(chosen, known, "ML_PIPELINE_DEFAULTS: the project")


def _with_defaults(
    params: dict[str, Param], first: Sequence[str] = (), *, sections: bool = False
) -> dict[str, Param]:
    """Return the params with the team's own defaults; a value that its schema refuses is an error at parse time."""
    chosen = param_defaults()
    for name in params.keys() & chosen.keys():
        params[name] = Param(chosen[name], **params[name].schema)
        params[name].resolve()
    return presented(params, first, sections=sections)
