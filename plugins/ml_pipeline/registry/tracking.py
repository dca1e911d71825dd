"""Record a run of train_and_deploy in MLflow: its trials, curves, figures, report, data set and model.

Nothing of a run depends on MLflow: a server that is down, slow or full costs a warning.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import tarfile
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_pipeline.aws.clients import Client

log = logging.getLogger(__name__)

# Trials are left out when recording a run takes longer. A server on loopback takes 1 s for 20 of them.
SECONDS = 30.0
_AT_ONCE = 8
RUN_TAG = "ml_pipeline.run"
CHAMPION = "champion"
_FIGURES = ("accuracy", "top5_accuracy", "macro_f1", "macro_precision", "macro_recall", "log_loss")
# A client that waits is a run that waits: the defaults retry for minutes, and report usage.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(frozen=True)
class Record:
    """A run as MLflow records it.

    Attributes:
        run: `<DAG>/<run id>`, by which a second try finds what the first one recorded.
        results: Results of the tasks by id; None or absent where there is none.
        trials: The rows of trials.json.
        evaluation: evaluation.json; None for a run that did not get there.
        report: report.html.
        model: model.json of the bundle.
        digest: SHA-256 of the data set version's photos.
    """

    run: str
    results: Mapping[str, Any]
    trials: list[dict[str, Any]]
    evaluation: dict[str, Any] | None
    report: str | None
    model: dict[str, Any] | None
    digest: str


def gather(s3: Client, run: str, results: Mapping[str, Any]) -> Record:
    """Read from S3 what a run left there: the same files that the console and the reports show."""
    from ml_pipeline.aws import s3 as objects

    judged, tuned = results.get("evaluate") or {}, results.get("tune") or {}
    model = None
    if judged:
        with tarfile.open(fileobj=io.BytesIO(objects.read(s3, judged["model_uri"]))) as tar:
            member = next(one for one in tar if one.name.removeprefix("./") == "model.json")
            model = json.load(tar.extractfile(member) or io.BytesIO(b"{}"))
    return Record(
        run=run,
        results=results,
        trials=objects.read_json(s3, tuned["trials_uri"]) if tuned else [],
        evaluation=objects.read_json(s3, judged["evaluation_uri"]) if judged else None,
        report=objects.read(s3, judged["report_uri"]).decode() if judged else None,
        model=model,
        digest=objects.read_json(s3, results["upload"]["manifest_uri"])["photos_sha256"],
    )


def figures(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of evaluation.json, unrounded."""
    found = {name: evaluation.get(name) for name in _FIGURES}
    found["accuracy_low"], found["accuracy_high"] = (
        evaluation["accuracy_interval"][end] for end in ("low", "high")
    )
    found["latency_ms_p50"] = evaluation["latency"]["p50"]
    return {name: float(value) for name, value in found.items() if value is not None}


def mlmodel(record: Record, model_id: str) -> str:
    """Return the file MLmodel, as JSON, which is YAML: the signature of the ONNX graph, and where the bundle is."""
    model = record.model or {}
    side = (model.get("transform") or {}).get("crop", -1)

    def tensor(name: str, shape: list[int]) -> str:
        spec = {"dtype": "float32", "shape": shape}
        return json.dumps([{"name": name, "type": "tensor", "tensor-spec": spec}])

    return json.dumps(
        {
            "model_id": model_id,
            "flavors": {"ml_pipeline": {"bundle": record.results["evaluate"]["model_uri"]}},
            "signature": {
                "inputs": tensor("input", [-1, 3, side, side]),
                "outputs": tensor("logits", [-1, len(model.get("classes") or []) or -1]),
                "params": None,
            },
        },
        indent=1,
    )


def begin_import() -> None:
    """Import MLflow in the background: it takes about as long as recording a run."""

    def load() -> None:
        with contextlib.suppress(ImportError):  # `send` says what is missing
            importlib.import_module("mlflow")

    _set_up()
    threading.Thread(target=load, name="import mlflow", daemon=True).start()


def _set_up() -> None:
    """Set what MLflow's client reads; the user's own settings stay."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def send(uri: str, s3: Client, run: str, results: Mapping[str, Any]) -> None:
    """Record a run at the MLflow server `uri`, an address or the ARN of a SageMaker MLflow app. Never raises.

    Args:
        uri: See `Settings.mlflow`.
        s3: boto3 client of S3.
        run: `<DAG>/<run id>`.
        results: Results of the run's tasks; nothing is recorded before upload has one.
    """
    if not results.get("upload"):
        return
    began = time.monotonic()
    _set_up()
    try:
        from mlflow import MlflowClient

        if not uri.startswith("arn:"):
            # The plug-in for ARNs warns about every other address, at each request.
            logging.getLogger("mlflow.tracking.request_header.registry").setLevel(logging.ERROR)
        record = gather(s3, run, results)
        _send(MlflowClient(tracking_uri=uri, registry_uri=uri), record, time.monotonic() + SECONDS)
    except ImportError as error:
        log.warning(
            "ML_PIPELINE_MLFLOW is set, but %s is missing: pip install ml-pipeline[mlflow]", error.name
        )
    except Exception as error:
        log.warning("recording the run in MLflow at %s failed: %s", uri, " ".join(str(error).split())[:300])
    else:
        log.info("recorded in MLflow at %s in %.1f s", uri, time.monotonic() - began)


def _send(client: Any, record: Record, deadline: float) -> None:
    experiment = _experiment(client, record.results["upload"]["name"])
    for earlier in client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{record.run}'", max_results=1000):
        client.delete_run(earlier.info.run_id)
    run = client.create_run(
        experiment, tags={RUN_TAG: record.run}, run_name=record.run.partition("/")[2]
    ).info.run_id
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # most of the time is the server's
        parts = [pool.submit(part, client, run, record) for part in (_numbers, _dataset, _texts)]
        if record.evaluation:
            parts.append(pool.submit(_model, client, run, record, experiment))
        trials = [
            pool.submit(_trial, client, run, record, experiment, row, deadline) for row in _best_first(record)
        ]
        try:
            for part in parts:
                part.result()
        except Exception as error:
            with contextlib.suppress(Exception):  # the first one says more
                client.set_terminated(run, "FAILED")
            raise RuntimeError(f"only a part of it is there: {error}") from error
        client.set_terminated(run, "FINISHED")  # whatever becomes of the trials
        done = sum(trial.result() for trial in trials)
    if done < len(trials):
        log.warning("MLflow is slow: %d of %d trials are recorded there", done, len(trials))


def _numbers(client: Any, run: str, record: Record) -> None:
    """Log figures, curves and hyperparameters."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    judged = figures(record.evaluation) if record.evaluation else {}
    metrics = [Metric(name, value, now, 0) for name, value in judged.items()]
    for epoch in ((record.model or {}).get("metrics") or {}).get("history") or []:
        metrics += [
            Metric(name, float(value), now, int(epoch["epoch"]))
            for name, value in epoch.items()
            if name != "epoch" and isinstance(value, int | float)
        ]
    tuned = record.results.get("tune") or {}
    chosen = (record.model or {}).get("hyperparameters") or tuned.get("best_hyperparameters") or {}
    client.log_batch(
        run,
        metrics=metrics[:1000],
        params=[Param(name, str(value)) for name, value in chosen.items()][:100],
        tags=[RunTag("dataset_version", record.results["upload"]["version"])],
    )


def _dataset(client: Any, run: str, record: Record) -> None:
    """Log the data set version as the run's input."""
    from mlflow.entities import Dataset, DatasetInput

    dataset = record.results["upload"]
    source = json.dumps({"uri": dataset["manifest_uri"]})
    client.log_inputs(run, [DatasetInput(Dataset(dataset["name"], record.digest[:36], "s3", source))])


def _texts(client: Any, run: str, record: Record) -> None:
    """Log evaluation.json and the report."""
    if record.evaluation:
        client.log_text(run, json.dumps(record.evaluation), "evaluation.json")
    if record.report:
        client.log_text(run, record.report, "report.html")


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _model(client: Any, run: str, record: Record, experiment: str) -> None:
    """Log the model, and give it the alias `champion` in MLflow's registry if it serves."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    name = record.results["upload"]["name"]
    package = (record.results.get("register") or {}).get("model_package_arn")
    model = client.create_logged_model(
        experiment, name=name, source_run_id=run, tags={"model_package_arn": package} if package else {}
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "MLmodel").write_text(mlmodel(record, model.model_id))
        client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run, [LoggedModelOutput(model.model_id, 0)])
    if not record.results.get("smoke_test"):
        return
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name, model.artifact_location, run_id=run, await_creation_for=0, model_id=model.model_id
    )
    client.set_registered_model_alias(name, CHAMPION, version.version)


def _best_first(record: Record) -> list[dict[str, Any]]:
    """Return the trials, those without a value last."""
    return sorted(record.trials, key=lambda row: -(row["value"] if row["value"] is not None else -1))


def _trial(
    client: Any, run: str, record: Record, experiment: str, row: Mapping[str, Any], deadline: float
) -> bool:
    """Record a trial as a nested run; return False when there is no time left or the server does not take it."""
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException

    if time.monotonic() > deadline:
        return False
    objective = ((record.results.get("tune") or {}).get("objective") or {}).get("name", "objective")
    values = {objective: row["value"], "seconds": row["seconds"]}
    now = int(time.time() * 1000)
    tags = {RUN_TAG: record.run, "mlflow.parentRunId": run}
    try:
        trial = client.create_run(experiment, tags=tags, run_name=row["name"]).info.run_id
        client.log_batch(
            trial,
            metrics=[
                Metric(name, float(value), now, 0) for name, value in values.items() if value is not None
            ],
            params=[Param(name, str(value)) for name, value in row["hyperparameters"].items()],
        )
        client.set_terminated(trial, "FINISHED" if row["status"] == "Completed" else "FAILED")
    except MlflowException:  # the run itself is recorded
        return False
    return True
