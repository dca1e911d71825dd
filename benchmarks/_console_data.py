"""A large past for the console: model versions, runs, photos and classes that no one had to train."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

NAME = "large"
SPLITS = ("train", "valid", "test")
_SENDERS = 8


@dataclass(frozen=True)
class Size:
    """Sizes of the data that the pages show."""

    versions: int = 100
    runs: int = 1000
    photos: int = 100_000
    classes: int = 10_000
    tested: int = 2000  # photos with an answer, each with the probabilities of all classes

    @property
    def names(self) -> list[str]:
        """The classes."""
        return [f"class_{number:05d}" for number in range(self.classes)]

    def version(self, number: int) -> str:
        """Name of a version of the data set, from 1."""
        return f"{number:016x}"


def fill_s3(s3: Any, bucket: str, size: Size) -> None:
    """Write the data set with all of its versions, the check of the newest, and the evaluations."""
    with ThreadPoolExecutor(_SENDERS) as pool:

        def put(key: str, body: Any) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            pool.submit(s3.put_object, Bucket=bucket, Key=key, Body=data)

        for number in range(1, size.versions + 1):
            put(f"datasets/{NAME}/versions/{size.version(number)}/manifest.json", _manifest(size, number))
            put(f"jobs/evaluate-{number}/evaluation.json", _evaluation(size, number))
        newest = f"datasets/{NAME}/versions/{size.version(size.versions)}/"
        put(f"datasets/{NAME}/latest.json", {"version": size.version(size.versions)})
        put(f"{newest}photos.jsonl", "".join(_photo(size, number) for number in range(size.photos)).encode())
        found = [_finding(size, number) for number in range(0, size.photos, 20)]
        put(f"{newest}check/e/findings.jsonl", "".join(found).encode())
        put(f"{newest}check/e/check.json", {
            "suspects": {"count": len(found), "share": 0.05}, "cannot_be_told_apart": [],
            "near_duplicates": {"pairs": 0, "across_classes": 0, "across_splits": 0},
        })  # fmt: skip
        for half in (0, 1):
            put(f"jobs/predictions-{half}/predictions.jsonl", _predictions(size, half))
        for number in range(200):
            put(f"datasets/{NAME}/corrections/{number + 1:08d}.jsonl", _correction(size, number))


def register(sagemaker: Any, bucket: str, size: Size) -> None:
    """Register the model versions."""
    sagemaker.create_model_package_group(ModelPackageGroupName=NAME, ModelPackageGroupDescription="large")
    for number in range(1, size.versions + 1):
        sagemaker.create_model_package(
            ModelPackageGroupName=NAME,
            ModelApprovalStatus="Approved",
            InferenceSpecification={
                "Containers": [{"Image": "image", "ModelDataUrl": f"s3://{bucket}/jobs/train-{number}/model.tar.gz"}],
                "SupportedContentTypes": ["image/jpeg"],
                "SupportedResponseMIMETypes": ["application/json"],
                "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
            },
            CustomerMetadataProperties={
                "evaluation_uri": f"s3://{bucket}/jobs/evaluate-{number}/evaluation.json",
                "predictions_uri": f"s3://{bucket}/jobs/predictions-{number % 2}/predictions.jsonl",
                "dataset_name": NAME,
                "dataset_version": size.version(number),
                "run_id": run_id(size.runs - size.versions + number),
            },
        )  # fmt: skip


def run_id(number: int) -> str:
    """Name of a run, from 1."""
    return f"run-{number:05d}"


def fill_airflow(size: Size) -> None:
    """Write the runs, their tasks and results into the database of this process's Airflow."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunType
    from sqlalchemy import insert

    begin = datetime(2026, 1, 1, tzinfo=UTC)
    dag_id, tasks = (
        "train_and_deploy",
        ("plan", "upload", "embed", "tune", "train", "evaluate", "deploy", "report"),
    )
    with create_session() as session:
        for number in range(1, size.runs + 1):
            at = begin + timedelta(hours=number)
            run = DagRun(
                dag_id=dag_id, run_id=run_id(number), logical_date=at, run_after=at, state="success",
                run_type=DagRunType.MANUAL, conf={"architecture": "mobilenet_v2"}, start_date=at,
            )  # fmt: skip
            session.add(run)
        session.flush()
        ids = dict(session.query(DagRun.run_id, DagRun.id).all())
        rows, results = [], []
        for number in range(1, size.runs + 1):
            at = begin + timedelta(hours=number)
            for place, task in enumerate(tasks):
                key = {"dag_id": dag_id, "run_id": run_id(number), "task_id": task, "map_index": -1}
                start = at + timedelta(minutes=place)
                rows.append({
                    **key, "state": "success", "start_date": start, "end_date": start + timedelta(seconds=50),
                    "duration": 50.0, "try_number": 1, "max_tries": 0, "pool": "default_pool", "pool_slots": 1,
                    "queue": "default", "operator": "x", "priority_weight": 1, "hostname": "", "unixname": "",
                    "executor_config": {}, "custom_operator_name": "", "task_display_name": task,
                })  # fmt: skip
                results.append({
                    **key, "key": "return_value", "dag_run_id": ids[run_id(number)], "timestamp": start,
                    "value": json.dumps(_result(size, task, number)),
                })  # fmt: skip
        session.execute(insert(TaskInstance.__table__), rows)
        session.execute(insert(XComModel.__table__), results)


def _result(size: Size, task: str, number: int) -> Any:
    version = size.version((number - 1) % size.versions + 1)
    steps = [
        {"step": step, "job_name": step, "instance_type": "ml.m5.xlarge", "instance_count": 1,
         "billable_seconds": 60.0, "seconds": 60.0, "usd": 0.01}
        for step in ("embed", "tune", "train", "evaluate")
    ]  # fmt: skip
    return {
        "upload": {"name": NAME, "version": version},
        "evaluate": {"accuracy": 0.8, "photos": size.tested},
        "deploy": {"endpoint_name": NAME},
        "plan": {"estimate_usd": 0.5, "steps": steps},
        "report": {"usd": 0.4, "steps": steps},
    }.get(task)


def _manifest(size: Size, number: int) -> Any:
    names, each = size.names, size.photos // size.classes
    counts = {"train": each - 3, "valid": 1, "test": 2}
    return {
        "schema_version": 2, "name": NAME, "version": size.version(number),
        "parent": size.version(number - 1) if number > 1 else None, "classes": names, "rejected": [],
        "counts": {split: dict.fromkeys(names, counts[split]) for split in SPLITS},
    }  # fmt: skip


def _evaluation(size: Size, number: int) -> Any:
    accuracy = 0.7 + number / 1000
    classes = [
        {"name": name, "photos": 2, "recall": (place * 7 + number) % 10 / 10, "precision": 0.8}
        for place, name in enumerate(size.names)
    ]
    confusion = [[place, (place * 13 + 1) % size.classes, 1] for place in range(size.classes)]
    return {
        "accuracy": accuracy, "accuracy_interval": {"low": accuracy - 0.01, "high": accuracy + 0.01},
        "top5_accuracy": 0.9, "macro_f1": accuracy, "log_loss": 0.8, "photos": size.tested,
        "runtime": "onnx-int8", "photos_per_second": 100.0, "latency": {"p50": 9.0},
        "calibration": {"ece_after": 0.02}, "classes": classes, "confusion": confusion,
        "dataset": {"name": NAME, "version": size.version(number)}, "comparison": None,
    }  # fmt: skip


def _hash(number: int) -> str:
    return f"{number:08x}" * 8


def _photo(size: Size, number: int) -> str:
    split = "test" if number < size.tested else SPLITS[number % 2]
    row = {
        "key": _hash(number)[:20], "sha256": _hash(number), "class": f"class_{number % size.classes:05d}",
        "split": split, "shard": _hash(0), "phash": "0" * 16,
    }  # fmt: skip
    return json.dumps(row) + "\n"


def _finding(size: Size, number: int) -> str:
    found = [{"kind": "suspect", "suggestion": "class_00000", "odds": 3.0}]
    return json.dumps({"key": _hash(number)[:20], "findings": found}) + "\n"


def _predictions(size: Size, half: int) -> bytes:
    def line(number: int) -> str:
        row = {
            "key": _hash(number)[:20],
            "label": f"class_{number % size.classes:05d}",
            "prediction": f"class_{(number + (number % 5 == half)) % size.classes:05d}",
            "probabilities": probabilities,
        }
        return json.dumps(row, separators=(",", ":")) + "\n"

    probabilities = [0.9, *[0.0] * (size.classes - 1)]
    return "".join(map(line, range(size.tested))).encode()


def _correction(size: Size, number: int) -> Any:
    return {
        "schema_version": 1, "sha256": _hash(number), "action": "label", "label": "class_00001", "who": "ann",
        "when": "2026-01-01T00:00:00+00:00", "why": "",
    }  # fmt: skip
