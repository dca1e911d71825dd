"""`mlflow-run`: seconds that recording a run adds to it, on a real `mlflow server` on loopback with SQLite.

A run of 20 trials, with its figures, curves, report and model. Each round is a fresh process, as a task of Airflow is,
so MLflow's import counts, as the extra `mlflow` installs it: mlflow-skinny. The peers send the same requests one after
the other, and import the whole of MLflow, which the SageMaker SDK brings.

    python -m benchmarks.mlflow_run [--rounds N] [--trials N]
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

TARGET_SECONDS = 2.0
_ENVIRONMENT = Path(__file__).resolve().parents[1] / ".run" / "bench" / "mlflow"
# What the extra adds to a worker of Airflow, and boto3.
_PACKAGES = ("mlflow-skinny", "sagemaker-mlflow", "boto3")
REPORT_BYTES = 500_000
RESULTS: dict[str, Any] = {
    "upload": {"name": "photos", "version": "1a2b", "manifest_uri": "s3://b/manifest.json"},
    "tune": {"trials_uri": "s3://b/trials.json", "objective": {"name": "valid_accuracy", "value": 0.8}},
    "evaluate": {
        "model_uri": "s3://b/model.tar.gz",
        "evaluation_uri": "s3://b/evaluation.json",
        "report_uri": "s3://b/report.html",
    },
    "register": {"model_package_arn": "arn:aws:sagemaker:us-east-1:123456789012:model-package/photos/1"},
    "smoke_test": {"photos": 3},
}


class Files:
    """The S3 client of a run's files, in memory: reading them is not what is measured."""

    def __init__(self, trials: int) -> None:
        searched = dict.fromkeys(("learning_rate", "dropout", "weight_decay", "label_smoothing"), "0.1")
        rows = [
            {
                "name": f"t{n}",
                "status": "Completed",
                "value": n / trials,
                "seconds": 2,
                "hyperparameters": searched,
            }
            for n in range(trials)
        ]
        history = [{"epoch": n, "train_loss": 1 / n, "valid_loss": 1 / n} for n in range(1, 31)]
        card = {"classes": ["a", "b"], "hyperparameters": searched, "metrics": {"history": history}}
        evaluation = {
            "accuracy": 0.9,
            "accuracy_interval": {"low": 0.8, "high": 1.0},
            "latency": {"p50": 3.0},
        }
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:gz") as tar:
            body = json.dumps(card).encode()
            member = tarfile.TarInfo("model.json")
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
        self._files = {
            "manifest.json": json.dumps({"photos_sha256": "d" * 64}).encode(),
            "trials.json": json.dumps(rows).encode(),
            "evaluation.json": json.dumps(evaluation).encode(),
            "report.html": b"x" * REPORT_BYTES,
            "model.tar.gz": raw.getvalue(),
        }

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        """Answer as boto3 does."""
        return {"Body": io.BytesIO(self._files[Key])}


def extra() -> Path:
    """Return the Python of an environment with the extra `mlflow` alone, made on the first call."""
    python = _ENVIRONMENT / "bin" / "python"
    wanted = [f"{name}=={version(name)}" for name in _PACKAGES]
    done = _ENVIRONMENT / "packages"
    if not done.exists() or done.read_text().split() != wanted:
        print(f"installing {' '.join(wanted)} (once)", file=sys.stderr, flush=True)
        venv.create(_ENVIRONMENT, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", *wanted], check=True)
        done.write_text("\n".join(wanted))
    return python


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run `mlflow server` with its defaults."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [
        *(str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        while True:
            if process.poll() is not None:
                sys.exit(f"mlflow server did not start: {(folder / 'log').read_text()[-400:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def send(url: str, trials: int, run: str, at_once: int) -> dict[str, float]:
    """Record a run in this process."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "plugins"))
    from ml_pipeline.registry import tracking

    logging.basicConfig(level=logging.WARNING)
    if at_once:
        tracking._AT_ONCE = at_once
    started = time.perf_counter()
    from mlflow import MlflowClient

    imported = time.perf_counter() - started
    tracking.send(url, Files(trials), run, RESULTS)  # type: ignore[arg-type]
    total = time.perf_counter() - started
    client = MlflowClient(tracking_uri=url)
    experiment = client.get_experiment_by_name("photos").experiment_id
    found = client.search_runs([experiment], f"tags.`{tracking.RUN_TAG}` = '{run}'", max_results=1000)
    return {"total": total, "import": imported, "trials": len(found) - 1}


def main() -> None:
    """Measure, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--to", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.to:
        url, run, at_once = chosen.to
        print(json.dumps(send(url, chosen.trials, run, int(at_once))))
        return
    skinny = extra()
    ways = {"ours": (skinny, 0), "in turn": (skinny, 1), "whole MLflow": (Path(sys.executable), 0)}
    made: dict[str, list[dict[str, float]]] = {how: [] for how in ways}
    print(f"{'round':<8}{'how':<14}{'import':>8}{'total':>8}{'trials':>8}   seconds")
    with tempfile.TemporaryDirectory(prefix="mlflow-run-") as folder, server(Path(folder)) as url:
        # The first round makes the server's tables and warms its workers.
        for number in range(-1, chosen.rounds):
            for how, (python, at_once) in ways.items():
                argv = [str(python), "-m", "benchmarks.mlflow_run", "--trials", str(chosen.trials)]
                run = f"train_and_deploy/{number}-{how}"
                done = subprocess.run(
                    [*argv, "--to", url, run, str(at_once)], check=True, stdout=subprocess.PIPE, text=True
                )
                row = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"{number:<8}{how:<14}{row['import']:8.2f}{row['total']:8.2f}{row['trials']:8.0f}",
                    flush=True,
                )
                if number >= 0:
                    made[how].append(row)
    median = {how: statistics.median(row["total"] for row in rows) for how, rows in made.items()}
    result = {
        "name": "mlflow-run",
        "figure": round(median["ours"], 2),
        "unit": "s that recording a run adds to it, MLflow's import included, median",
        "limit": TARGET_SECONDS,
        "peers": {
            "one request after the other": round(median["in turn"], 2),
            "the whole of MLflow": round(median["whole MLflow"], 2),
        },
        "ratio": round(median["ours"] / median["in turn"], 2),
        "conditions": {
            "trials": chosen.trials,
            "trials_recorded": [row["trials"] for row in made["ours"]],
            "import_s": [round(row["import"], 2) for row in made["ours"]],
            "rounds": chosen.rounds, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
        },
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
