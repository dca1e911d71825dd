"""The console as the api-server mounts it, on a real S3 and SageMaker of moto, with Airflow's simple auth manager."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from moto import mock_aws

from model_code.data.photos import thumbnail
from model_code.data.records import Photo, Rejected
from model_code.data.versions import thumbnails
from tests.model_code.data import looks_files
from tests.model_code.photo_files import photo

BUCKET = "ml-pipeline"
EVIL = "<img src=x onerror=alert(1)>"
SCRIPT = b"<script>alert(1)</script>"
VERSION = "0123456789abcdef"
SHARD = "5" * 64
DAG_FILE = Path(__file__).parents[3] / "dags" / "deploy.py"


@dataclass
class Console:
    """The mounted application, its store, and headers of a viewer and an administrator."""

    app: FastAPI
    client: TestClient
    store: Any
    viewer: dict[str, str]
    admin: dict[str, str]
    manager: Any

    def as_user(self, name: str) -> dict[str, str]:
        """Headers of one more person with the rights of an administrator."""
        return token(self.manager, name, "admin")

    def get(self, path: str, **query: Any) -> Any:
        """Ask as a viewer."""
        return self.client.get(f"/ml-pipeline/api/{path}", params=query, headers=self.viewer)


def token(manager: Any, name: str, role: str) -> dict[str, str]:
    """Headers of a person."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    user = SimpleAuthManagerUser(username=name, role=role)
    return {"Authorization": f"Bearer {manager.generate_jwt(user)}"}


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An Airflow database with its auth manager; no server, no scheduler."""
    home = tmp_path_factory.mktemp("airflow")
    patch = pytest.MonkeyPatch()
    patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "admin:admin,viewer:viewer")
    patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(home / "passwords.json"))
    patch.setenv(
        "AIRFLOW__API_AUTH__JWT_SECRET", "a-secret-for-tests-that-is-long-enough-for-hs512-signatures-here!"
    )
    from airflow.api_fastapi.app import create_auth_manager, purge_cached_app
    from airflow.utils.db import initdb

    purge_cached_app()
    initdb()
    manager = create_auth_manager()
    manager.init()
    yield manager
    purge_cached_app()
    patch.undo()


def album(pictures: dict[int, bytes]) -> bytes:
    """A ZIP of thumbnails."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as written:
        for number, data in pictures.items():
            thumbnails.add(written, f"{number:064x}", data)
    return body.getvalue()


def put(s3: Any, key: str, body: Any) -> None:
    """Write an object; what is not bytes is written as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    s3.put_object(Bucket=BUCKET, Key=key, Body=data)


def evaluation(accuracy: float) -> dict[str, Any]:
    """An evaluation.json as small as the pages need it."""
    return {
        "accuracy": accuracy,
        "accuracy_interval": {"low": accuracy - 0.1, "high": accuracy + 0.05},
        "top5_accuracy": 1.0,
        "macro_f1": accuracy,
        "log_loss": 0.4,
        "photos": 4,
        "runtime": "onnx-int8",
        "photos_per_second": 100.0,
        "latency": {"p50": 3.2, "p99": 5.0},
        "calibration": {"ece_after": 0.02},
        "classes": [
            {"name": EVIL, "photos": 2, "recall": accuracy, "precision": 1.0},
            {"name": "cat", "photos": 2, "recall": 1.0, "precision": 0.5},
        ],
        "confusion": [[0, 0, 1], [0, 1, 1], [1, 1, 2]],
        "dataset": {"name": "dogs", "version": VERSION},
        "comparison": None,
    }


def fill(s3: Any, sagemaker: Any) -> None:
    """A data set version with findings, and two model versions of it."""
    folder = f"datasets/dogs/versions/{VERSION}/"
    put(
        s3,
        f"{folder}manifest.json",
        {
            "schema_version": 1,
            "name": "dogs",
            "version": VERSION,
            "parent": None,
            "classes": [EVIL, "cat"],
            "counts": {"train": {EVIL: 1, "cat": 1}, "valid": {}, "test": {EVIL: 2, "cat": 0}},
            "rejected": [{"path": EVIL, "reason": "empty file"}],
        },
    )
    put(s3, "datasets/dogs/latest.json", {"version": VERSION})
    rows = [
        {
            "key": f"{n:020x}",
            "sha256": f"{n:064x}",
            "class": EVIL if n % 2 else "cat",
            "split": "test" if n > 1 else "train",
            "shard": SHARD,
            "phash": None,
        }
        for n in range(4)
    ]
    looked: dict[str, tuple[str, Photo | Rejected]] = {
        f"{EVIL}/{n}.jpg": ("1:2:3", Photo(f"{EVIL}/{n}.jpg", "cat", f"{n:064x}", None, 9, "jpg"))
        for n in range(4)
    }
    looked[EVIL] = ("0:2:3", Rejected(EVIL, "empty file"))
    put(s3, f"{folder}looks.jsonl.gz", looks_files.to_bytes(looked))
    put(s3, f"{folder}photos.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    check = {
        "suspects": {"count": 1, "share": 0.25},
        "near_duplicates": {"pairs": 0, "across_classes": 0, "across_splits": 0},
        "cannot_be_told_apart": [],
    }
    put(s3, f"{folder}check/e1/check.json", check)
    found = {"key": rows[1]["key"], "findings": [{"kind": "suspect", "suggestion": "cat", "odds": 9.0}]}
    put(s3, f"{folder}check/e1/findings.jsonl", (json.dumps(found) + "\n").encode())
    put(s3, f"datasets/dogs/thumbnails/{SHARD}.zip", album({1: thumbnail(photo(1), 192), 2: SCRIPT}))
    sagemaker.create_model_package_group(ModelPackageGroupName="dogs", ModelPackageGroupDescription="d")
    for number, accuracy in ((1, 0.5), (2, 0.75)):
        put(s3, f"jobs/e{number}/evaluation.json", evaluation(accuracy))
        answers = [
            {
                "key": rows[n]["key"],
                "label": rows[n]["class"],
                "prediction": "cat" if number == 1 else rows[n]["class"],
                "probabilities": [0.5, 0.5],
            }
            for n in (2, 3)
        ]
        put(
            s3,
            f"jobs/e{number}/predictions.jsonl",
            "".join(json.dumps(row) + "\n" for row in answers).encode(),
        )
        sagemaker.create_model_package(
            ModelPackageGroupName="dogs",
            ModelApprovalStatus="Approved",
            InferenceSpecification={
                "Containers": [{"Image": "i", "ModelDataUrl": f"s3://{BUCKET}/m{number}.tar.gz"}],
                "SupportedContentTypes": ["image/jpeg"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
            CustomerMetadataProperties={
                "evaluation_uri": f"s3://{BUCKET}/jobs/e{number}/evaluation.json",
                "dataset_version": VERSION,
                "predictions_uri": f"s3://{BUCKET}/jobs/e{number}/predictions.jsonl",
                "dataset_name": "dogs",
                "run_id": "r1",
            },
        )


@pytest.fixture
def console(airflow: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    """The console on filled AWS services."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    from ml_pipeline.console.app import create
    from ml_pipeline.console.store import Store, store
    from ml_pipeline.settings import Settings

    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        fill(s3, boto3.client("sagemaker"))
        settings = Settings(BUCKET, "arn:aws:iam::123456789012:role/job", "us-east-1", aws_conn_id="")
        found = Store(settings)
        inner = create()
        inner.dependency_overrides[store] = lambda: found
        app = FastAPI()
        app.mount("/ml-pipeline", inner)
        viewer, admin = (token(airflow, role, role) for role in ("viewer", "admin"))
        yield Console(inner, TestClient(app), found, viewer, admin, airflow)


@pytest.fixture(scope="session")
def dag(airflow: Any) -> None:
    """The DAG in Airflow's database, as the DAG processor puts it there."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.session import create_session

    with create_session() as session:
        session.merge(DagBundleModel(name="dags"))
    bag = DagBag(str(DAG_FILE), bundle_path=DAG_FILE.parent, bundle_name="dags")
    assert not bag.import_errors
    sync_bag_to_db(bag, "dags", None)


@pytest.fixture
def site(airflow: Any, console: Console, dag: None) -> Iterator[FastAPI]:
    """Airflow's public API and the console on one origin."""
    from airflow.api_fastapi.core_api.routes.public import public_router
    from airflow.models.dagbag import DBDagBag
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    app = FastAPI()
    app.state.dag_bag, app.state.auth_manager = DBDagBag(), airflow
    app.include_router(public_router)
    app.mount("/ml-pipeline", console.app)
    yield app
    with create_session() as session:
        session.query(DagRun).delete()


def serve(console: Console, number: int, endpoint: str = "photos") -> None:
    """Bring a model version into service."""
    sagemaker = console.store.client("sagemaker")
    uri = f"s3://{BUCKET}/m{number}.tar.gz"
    sagemaker.create_model(
        ModelName=endpoint, PrimaryContainer={"Image": "i", "ModelDataUrl": uri},
        ExecutionRoleArn="arn:aws:iam::123456789012:role/job",
    )  # fmt: skip
    variant = {
        "VariantName": "v", "ModelName": endpoint, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large",
        "InitialVariantWeight": 1.0,
    }  # fmt: skip
    sagemaker.create_endpoint_config(EndpointConfigName=endpoint, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
