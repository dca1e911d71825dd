"""Documentation of the DAGs in the UI, and templates that several tasks share."""

from __future__ import annotations

DOC = """\
**Photos in, a served classifier out.** Set `data` to a folder (or an `s3://` prefix) with one folder of photos per
class; everything else has a default.

`upload` -> `embed` -> `check_data` -> `tune` -> `train` -> `evaluate` -> `gate` -> `register` -> `approve` ->
`deploy` -> `smoke_test`. `plan` estimates the cost, `bill` holds it against what was billed. A task that is cleared
or retried finds its job again; a task that is killed stops it.
"""

BATCH_DOC = """\
Predicts every photo of a folder (or an `s3://` prefix) with the champion of a data set, and writes one table,
`batch/<job>/predictions.csv`. A photo that cannot be read becomes a row with its reason.
"""

JANITOR_DOC = """\
Looks for endpoints that are broken or get no calls, unused endpoint configs and models, and instances that should be
gone, all with the tag `project=ml-pipeline`. It removes them only with `dry_run` off.
"""

TEARDOWN_DOC = """\
Deletes an endpoint with its config, models, alarms and scaling. Data sets, embeddings, model packages and
artifacts stay, so `train_and_deploy` or a deployment of the newest package brings it back.
"""

DEPLOY_DOC = """\
Deploys a model version from the registry, or rolls back to the one before (`version`: `previous`), with the same lock,
canary and smoke test as `train_and_deploy`. The version that serves becomes the champion.
"""

RETRAINING_DOC = """\
Compares the photos at `data` with the version that the champion was trained on. If they are the same it skips and says
so, else it starts `train_and_deploy` with `conf` and waits for it.

Set `ML_PIPELINE_DEFAULTS` for scheduled runs, and `ML_PIPELINE_QUEUE_URL` to start on new objects in S3.
"""

# `plan` settles the endpoint of a run that names none. A run that began before an upgrade has no name from it.
ENDPOINT = "{{ params.endpoint_name or (ti.xcom_pull(task_ids='plan') or {}).get('endpoint_name') or '' }}"


def machine(param: str) -> str:
    """Return the template of the instance type that `plan` chose for a param; a run of an older release has its own."""
    return f"{{{{ (ti.xcom_pull(task_ids='plan') or {{}}).get('machines', params)['{param}'] }}}}"


# A person has to approve what replaces another data set's model.
APPROVAL = "{{ 'human' if (ti.xcom_pull(task_ids='plan') or {}).get('replaces') else params.approval }}"
