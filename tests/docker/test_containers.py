"""docker-compose.yaml as containers: images built, every service with its options, the DAG green, nothing lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests

from launcher.airflow_api import AirflowClient
from launcher.preflight import free_port
from launcher.run import DAG_ID
from model_code.data import sample_data
from tests.airflow_client import PatientClient
from tests.docker import base_images, compose, engine
from tests.docker.containers import Containers, UnknownOptionError, active, arguments
from tests.docker.stack import end_well, start_run, wait_until
from tests.model_code.serve import toy_bundle

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(2400)]
PROJECT = "ml-pipeline-test"
AIRFLOW_IMAGE = "localhost/ml-pipeline-airflow:test"
# Half of what the image weighed while it carried the SDK, CUDA's headers and test data (3.51 GB).
LARGEST_BYTES = 1.755e9
HEALTH_SECONDS = 240
_WITH_HEARTBEAT = ("scheduler", "triggerer", "dag_processor")


@pytest.fixture(scope="module")
def podman() -> engine.Engine:
    return engine.find()


@pytest.fixture(scope="module")
def images(podman: engine.Engine) -> dict[str, str]:
    """The images that the file names -> those that stand for them here."""
    built = base_images.build(
        podman, "airflow", AIRFLOW_IMAGE, "--target=airflow", TORCH_INDEX=base_images.INDEX
    )
    base_images.services(podman)
    return {**base_images.STAND_INS, "ml-pipeline-airflow": built}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    sample_data.draw(folder, photos=60, classes=4)
    # Tasks run as user 50000 and see the folder read-only: pytest's own folders are closed to others.
    for path in [*folder.parents[:3], folder]:
        path.chmod(path.stat().st_mode | 0o055)
    return folder


@pytest.fixture(scope="module")
def stack(
    podman: engine.Engine, images: dict[str, str], environ: dict[str, str], photos: Path
) -> Iterator[Containers]:
    made = Containers(podman, PROJECT, settings(environ, "local-aws", photos), images)
    made.down(volumes=True)
    try:
        made.up()
        yield made
    finally:
        made.down(volumes=True)


def settings(environ: dict[str, str], profiles: str, photos: Path) -> dict[str, str]:
    """The .env of a new installation on free ports."""
    ports = {name: str(free_port()) for name in ("AIRFLOW_PORT", "LOCAL_AWS_PORT")}
    return {**environ, **ports, "COMPOSE_PROFILES": profiles, "PHOTOS_DIR": str(photos)}


def client_of(stack: Containers) -> AirflowClient:
    url = f"http://127.0.0.1:{stack.environ['AIRFLOW_PORT']}"
    return PatientClient(url, "admin", stack.environ["AIRFLOW_ADMIN_PASSWORD"])


def aws(stack: Containers, service: str) -> Any:
    """A client on the host, which reaches local_aws through the published port."""
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{stack.environ['LOCAL_AWS_PORT']}",
        region_name="us-east-1",
        aws_access_key_id=stack.environ["LOCAL_AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=stack.environ["LOCAL_AWS_SECRET_ACCESS_KEY"],
    )


def answers(stack: Containers) -> None:
    """Ask the endpoint of the run for a photo, once it is in service."""
    sagemaker = aws(stack, "sagemaker")
    (endpoint,) = sagemaker.list_endpoints()["Endpoints"]
    name = endpoint["EndpointName"]

    def in_service() -> bool:
        return sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService"

    wait_until(in_service, HEALTH_SECONDS, name)
    answer = aws(stack, "sagemaker-runtime").invoke_endpoint(
        EndpointName=name, Body=toy_bundle.photo("red"), ContentType="image/jpeg"
    )
    assert json.loads(answer["Body"].read())["predictions"]


def everything_is_healthy(stack: Containers) -> None:
    for name in stack.services:
        if name != "airflow-init":
            stack.wait(name, "service_healthy")
    client = client_of(stack)
    before: dict[str, str] = {}

    def are_at_work() -> bool:
        """Each component has given a sign of life since the first look, not only shortly before it."""
        health = client.call("GET", "monitor/health")
        signs = {part: health[part][f"latest_{part}_heartbeat"] for part in _WITH_HEARTBEAT}
        old = {part: before.setdefault(part, sign) for part, sign in signs.items()}
        return all(signs[part] != old[part] for part in signs) and set(client.health().values()) == {
            "healthy"
        }

    wait_until(are_at_work, HEALTH_SECONDS, "Airflow")


def test_an_option_that_the_runner_does_not_know_is_an_error() -> None:
    with pytest.raises(UnknownOptionError, match="one: privileged"):
        arguments("one", {"image": "a", "privileged": True}, "p", "a")


def test_services_start_after_those_that_they_depend_on(environ: dict[str, str]) -> None:
    document = compose.load(environ)
    assert active(document, {"local-aws"})[:2] == ["postgres", "airflow-init"]
    ordered = active(document, {"local-aws", "celery"})
    for name in ordered:
        before = ordered[: ordered.index(name)]
        needed = set(document["services"][name].get("depends_on", {})) & set(ordered)
        assert needed <= set(before), name


def test_database_and_broker_come_back_and_keep_their_data(
    podman: engine.Engine, environ: dict[str, str], photos: Path
) -> None:
    image = base_images.services(podman)
    given = settings(environ, "celery", photos)
    made = Containers(podman, f"{PROJECT}-stores", given, {"postgres": image, "redis": image})
    for name in set(made.document["services"]) - {"postgres", "redis"}:
        del made.document["services"][name]
    made.down(volumes=True)
    try:
        made.up()
        hardening(made)
        made.execute("postgres", "psql", "--username=airflow", "--command=create table kept (a int)")
        for name in ("postgres", "redis"):
            made.kill(name)
            made.wait(name, "service_healthy")
        made.down()
        made.up()
        made.execute("postgres", "psql", "--username=airflow", "--command=select * from kept")
    finally:
        made.down(volumes=True)


def test_airflow_image_is_half_of_what_it_was(podman: engine.Engine, images: dict[str, str]) -> None:
    assert podman.inspect("image", images["ml-pipeline-airflow"])["Size"] <= LARGEST_BYTES


def hardening(stack: Containers) -> None:
    """Check that every container has the file's guards, inside too."""
    for name in stack.services:
        config = stack.engine.inspect("container", stack.container(name))
        host = config["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert config["EffectiveCaps"] in (None, []), name
        assert any("no-new-privileges" in option for option in host["SecurityOpt"]), name
        assert host["Memory"] > 0, name
        assert host["PidsLimit"] > 0, name
        assert host["RestartPolicy"]["Name"] == stack.document["services"][name]["restart"], name
        if name == "airflow-init":
            continue
        identity = stack.execute(name, "sh", "-c", "id -u; grep CapEff /proc/1/status").stdout.split()
        assert identity[0] != "0", name
        assert int(identity[-1], 16) == 0, name
        refused = stack.execute(name, "sh", "-c", "echo x > /etc/written", check=False)
        assert "Read-only file system" in refused.stderr, name


def test_containers_have_the_hardening_of_the_file(stack: Containers) -> None:
    hardening(stack)


def test_database_is_reached_from_airflow_alone(stack: Containers) -> None:
    asking = "import socket; socket.create_connection(('postgres', 5432), timeout=5)"
    assert stack.execute("airflow-scheduler", "python", "-c", asking).returncode == 0
    assert stack.execute("local-aws", "python", "-c", asking, check=False).returncode != 0


def test_a_wrong_password_is_refused(stack: Containers) -> None:
    answer = requests.post(
        f"http://127.0.0.1:{stack.environ['AIRFLOW_PORT']}/auth/token",
        json={"username": "admin", "password": "wrong"},
        timeout=30,
    )
    assert answer.status_code == 401


def test_dag_is_green(stack: Containers) -> None:
    everything_is_healthy(stack)
    client = client_of(stack)
    end_well(client, start_run(client, "/photos"))
    answers(stack)


@pytest.mark.parametrize("name", ["airflow-apiserver", "airflow-dag-processor", "local-aws", "postgres"])
def test_a_killed_service_comes_back(stack: Containers, name: str) -> None:
    before = client_of(stack).call("GET", f"dags/{DAG_ID}/dagRuns")["total_entries"]
    stack.kill(name)
    everything_is_healthy(stack)
    assert client_of(stack).call("GET", f"dags/{DAG_ID}/dagRuns")["total_entries"] == before
    answers(stack)


def test_a_run_survives_the_end_of_scheduler_and_triggerer(stack: Containers) -> None:
    client = client_of(stack)
    run_id = start_run(client, "/photos")

    def is_waiting() -> bool:
        return any(task["state"] == "deferred" for task in client.task_instances(DAG_ID, run_id))

    wait_until(is_waiting, HEALTH_SECONDS, "a task that waits for its job")
    stack.kill("airflow-scheduler")
    stack.kill("airflow-triggerer")
    end_well(client, run_id)


def test_down_and_up_lose_nothing(stack: Containers) -> None:
    client = client_of(stack)
    runs = client.call("GET", f"dags/{DAG_ID}/dagRuns")["dag_runs"]
    models = aws(stack, "sagemaker").list_model_packages(ModelPackageGroupName="drawn")[
        "ModelPackageSummaryList"
    ]
    assert runs
    assert models
    stack.down()
    stack.up()
    everything_is_healthy(stack)
    found = client_of(stack).call("GET", f"dags/{DAG_ID}/dagRuns")["dag_runs"]
    assert {(run["dag_run_id"], run["state"]) for run in found} == {
        (run["dag_run_id"], run["state"]) for run in runs
    }
    task = next(t for t in client.task_instances(DAG_ID, runs[0]["dag_run_id"]) if t["task_id"] == "plan")
    assert client_of(stack).log(DAG_ID, runs[0]["dag_run_id"], task)
    again = aws(stack, "sagemaker").list_model_packages(ModelPackageGroupName="drawn")[
        "ModelPackageSummaryList"
    ]
    assert {m["ModelPackageArn"] for m in again} == {m["ModelPackageArn"] for m in models}
    answers(stack)


def test_dag_is_green_on_celery_workers(
    stack: Containers, images: dict[str, str], environ: dict[str, str], photos: Path
) -> None:
    """The same volumes, with Celery: the last of the module, because it replaces the stack."""
    stack.down()
    celery = Containers(
        stack.engine, PROJECT, {**stack.environ, "COMPOSE_PROFILES": "local-aws,celery"}, images
    )
    try:
        celery.up()
        everything_is_healthy(celery)
        client = client_of(celery)
        tasks = end_well(client, start_run(client, "/photos"))
        succeeded = celery.log("airflow-worker").count("succeeded in")
        assert succeeded >= sum(task["state"] == "success" for task in tasks)
        celery.kill("redis")
        celery.kill("airflow-worker")
        everything_is_healthy(celery)
    finally:
        celery.down()
