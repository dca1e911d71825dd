"""A run in MLflow: the same numbers as in its files, on a real server; without one, a warning."""

from __future__ import annotations

import io
import json
import logging
import math
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from ml_pipeline.registry import tracking

BUCKET = "tracking"
EVALUATION = {
    "accuracy": 0.9123456789,
    "accuracy_interval": {"low": 0.85, "high": 0.95, "level": 0.95},
    "top5_accuracy": 1.0,
    "macro_f1": 0.9,
    "macro_precision": 0.91,
    "macro_recall": 0.92,
    "log_loss": None,
    "latency": {"p50": 3.25},
}
TRIALS = [
    {"name": f"trial-{n}", "status": "Completed", "value": 0.5 + n / 7, "seconds": 1.5,
     "hyperparameters": {"dropout": "0.1"}}
    for n in range(3)
]  # fmt: skip
MODEL = {
    "classes": ["beagle", "collie"],
    "transform": {"crop": 224},
    "hyperparameters": {"epochs": 2},
    "metrics": {"history": [{"epoch": 1, "train_loss": 1.25}, {"epoch": 2, "train_loss": 0.5}]},
}
RESULTS: dict[str, Any] = {
    "upload": {"name": "dogs", "version": "1a2b", "manifest_uri": f"s3://{BUCKET}/manifest.json"},
    "tune": {
        "trials_uri": f"s3://{BUCKET}/trials.json",
        "objective": {"name": "valid_accuracy", "value": 0.8},
    },
    "evaluate": {
        "model_uri": f"s3://{BUCKET}/model.tar.gz",
        "evaluation_uri": f"s3://{BUCKET}/evaluation.json",
        "report_uri": f"s3://{BUCKET}/report.html",
    },
    "register": {"model_package_arn": "arn:aws:sagemaker:us-east-1:123456789012:model-package/dogs/1"},
    "smoke_test": {"photos": 3},
}


def bundle() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        body = json.dumps(MODEL).encode()
        info = tarfile.TarInfo("model.json")
        info.size = len(body)
        tar.addfile(info, io.BytesIO(body))
    return raw.getvalue()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.local_aws.cloud import Cloud

    cloud = Cloud(tmp_path_factory.mktemp("cloud")).start()
    client = cloud.client("s3")
    client.create_bucket(Bucket=BUCKET)
    for key, body in {
        "manifest.json": json.dumps({"photos_sha256": "d" * 64}).encode(),
        "trials.json": json.dumps(TRIALS).encode(),
        "evaluation.json": json.dumps(EVALUATION).encode(),
        "report.html": b"<html>the report</html>",
        "model.tar.gz": bundle(),
    }.items():
        client.put_object(Bucket=BUCKET, Key=key, Body=body)
    yield client
    cloud.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("mlflow.server", reason="needs mlflow, which the SageMaker SDK brings on Python 3.11")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [
        *(str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")),
        *("--workers", "1"),
    ]  # fmt: skip
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
    try:
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
        yield url
    finally:
        import os
        import signal

        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mlflow_has_the_numbers_of_the_run_and_a_second_try_replaces_them(
    server: str, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setattr(tracking, "SECONDS", 120.0)
    for _ in range(2):
        tracking.send(server, s3, "train_and_deploy/manual__1", RESULTS)
    client = MlflowClient(tracking_uri=server, registry_uri=server)
    experiment = client.get_experiment_by_name("dogs").experiment_id
    runs = client.search_runs([experiment])
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    trials = {run.info.run_name: run for run in runs if run is not parent}
    assert {name: run.data.metrics["valid_accuracy"] for name, run in trials.items()} == {
        row["name"]: row["value"] for row in TRIALS
    }
    assert {run.data.tags["mlflow.parentRunId"] for run in trials.values()} == {parent.info.run_id}
    assert parent.data.metrics["accuracy"] == EVALUATION["accuracy"]
    assert (parent.data.metrics["accuracy_low"], parent.data.metrics["latency_ms_p50"]) == (0.85, 3.25)
    assert parent.data.params["epochs"] == "2"
    history = client.get_metric_history(parent.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.25), (2, 0.5)]
    (dataset,) = (one.dataset for one in parent.inputs.dataset_inputs)
    assert (dataset.name, dataset.digest) == ("dogs", "d" * 36)
    assert {one.path for one in client.list_artifacts(parent.info.run_id)} == {
        "evaluation.json",
        "report.html",
    }
    version = client.get_model_version_by_alias("dogs", tracking.CHAMPION)
    assert version.run_id == parent.info.run_id
    model = client.get_logged_model(parent.outputs.model_outputs[0].model_id)
    assert model.status == "READY"


@pytest.mark.slow
def test_the_model_file_has_a_signature_that_mlflow_reads(tmp_path: Path) -> None:
    models = pytest.importorskip("mlflow.models")
    record = tracking.Record("a/b", RESULTS, [], EVALUATION, None, MODEL, "d")
    (tmp_path / "MLmodel").write_text(tracking.mlmodel(record, "m-1"))
    found = models.Model.load(str(tmp_path))
    assert found.signature.inputs.inputs[0].shape == (-1, 3, 224, 224)
    assert found.signature.outputs.inputs[0].shape == (-1, 2)
    assert set(found.flavors) == {"ml_pipeline"}


def test_a_part_that_fails_ends_the_run(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("mlflow")
    client = MagicMock()
    client.search_runs.return_value = []
    client.log_inputs.side_effect = ValueError("MLflow 2 has no inputs")
    with pytest.raises(RuntimeError, match="only a part of it is there: MLflow 2 has no inputs"):
        tracking._send(client, tracking.Record("a/b", RESULTS, [], None, None, None, "d"), math.inf)
    run = client.create_run.return_value.info.run_id
    client.set_terminated.assert_called_once_with(run, "FAILED")


@pytest.mark.slow
def test_a_server_that_is_down_is_a_warning(s3: Any, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("mlflow")
    with caplog.at_level(logging.WARNING):
        tracking.send("http://127.0.0.1:1", s3, "train_and_deploy/manual__1", RESULTS)
    assert "recording the run in MLflow at http://127.0.0.1:1 failed" in caplog.text


def test_a_run_without_a_data_set_is_not_recorded(s3: Any) -> None:
    tracking.send("http://127.0.0.1:1", s3, "train_and_deploy/manual__1", {"upload": None})
