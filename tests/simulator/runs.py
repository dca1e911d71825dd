"""The DAG runs of a schedule: the real operators of training, batch prediction and watch, on small inputs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.operators.aws import AwsOperator
from ml_pipeline.operators.deploy import DeployEndpointOperator
from ml_pipeline.operators.ec2 import CreateInstanceOperator, Ec2TrainingOperator, TerminateInstanceOperator
from ml_pipeline.operators.job import Request, SageMakerJobOperator
from ml_pipeline.operators.leftovers import StopLeftoversOperator
from ml_pipeline.operators.training import TrainingOperator
from ml_pipeline.operators.transform import TransformOperator
from ml_pipeline.operators.tuning import HyperparameterTuningOperator
from ml_pipeline.operators.watch import WatchOperator
from ml_pipeline.registry.packages import Package
from ml_pipeline.requests.types import Document, Tags
from ml_pipeline.settings import Settings
from ml_pipeline.watching import looks
from ml_pipeline.watching.decisions import Policy
from ml_pipeline.watching.endpoints import Watched
from tests.ml_pipeline.manifests import manifest
from tests.simulator.airflow import Run, Task
from tests.simulator.errors import START
from tests.simulator.world import World

ENDPOINT = "dogs"
CAPTURES = f"captures/{ENDPOINT}/main/"
PHOTOS_A_FILE = 10
_MANIFEST = manifest("dogs", [("1" * 64, "train", 4), ("2" * 64, "valid", 4), ("3" * 64, "test", 4)])
_MANIFEST_KEY = "datasets/dogs/versions/abc/manifest.json"
_FIT: dict[str, Any] = {
    "dataset": {"name": "dogs", "manifest_uri": f"s3://bucket/{_MANIFEST_KEY}"},
    "weights": {"uri": None},
    "embeddings": {"embeddings_uri": "s3://bucket/embeddings/e/"},
    "recipe": {"strategy": "head", "architecture": "squeezenet1_1"},
}


class Work(SageMakerJobOperator[dict[str, str]]):
    """The operator of every paid job, around a job without content."""

    kind = JobKind.PROCESSING
    slug = "work"

    def request(self, settings: Settings) -> Request:
        def build(name: str, tags: Tags) -> Document:
            return {"ProcessingJobName": name, "Tags": list(tags)}

        return build

    def result(self, settings: Settings, description: Document) -> dict[str, str]:
        return {"job": description["ProcessingJobName"]}


class Step(AwsOperator):
    """A task function of a DAG: it is given the operator, for its clients."""

    def __init__(self, *, function: Callable[[AwsOperator], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def execute(self, context: Any) -> Any:
        return self.function(self)


def prepare(world: World) -> None:
    """Put there what the runs read."""
    world.objects[_MANIFEST_KEY] = _MANIFEST.to_json().encode()
    world.objects["batch/p/photos/a.jpg"] = b"a photo"
    for number in range(world.random.randint(0, 3)):
        capture(world, number)


def capture(world: World, number: int) -> None:
    """Let the endpoint capture another file of requests."""
    world.objects[f"{CAPTURES}{START + timedelta(seconds=world.now):%Y/%m/%d/%H}/{number:03d}.jsonl"] = b""


def package(arn: str, number: int) -> dict[str, Any]:
    container = {"ModelDataUrl": f"s3://bucket/jobs/{number}/output/model.tar.gz", "Image": "image"}
    return {
        "ModelPackageArn": arn,
        "ModelApprovalStatus": "Approved",
        "InferenceSpecification": {"Containers": [container]},
        "CustomerMetadataProperties": {"dataset_name": "dogs", "dataset_version": "abc"},
    }


def training(run_id: str, arn: str, on_ec2: bool) -> Run:
    """A run of train_and_deploy."""
    tasks = [
        Task("embed", lambda _: Work(task_id="embed")),
        Task("tune", lambda _: HyperparameterTuningOperator(task_id="tune", trials=2, **_FIT)),
    ]
    if on_ec2:
        tasks += [
            Task("create", lambda _: CreateInstanceOperator(task_id="create", instance_type="m5.large")),
            Task(
                "ec2_train",
                lambda run: Ec2TrainingOperator(
                    task_id="ec2_train", machine=_result(run, "create"), tuning=_result(run, "tune"), **_FIT
                ),
            ),
        ]
    else:
        tasks.append(
            Task("train", lambda run: TrainingOperator(task_id="train", tuning=_result(run, "tune"), **_FIT))
        )
    deploy: dict[str, Any] = {"endpoint_name": ENDPOINT, "package": {"model_package_arn": arn}}
    tasks += [
        Task("deploy", lambda _: DeployEndpointOperator(task_id="deploy", **deploy)),
        Task("terminate", lambda _: TerminateInstanceOperator(task_id="terminate"), teardown=True),
        _leftovers(ENDPOINT),
    ]
    return Run(run_id, tasks)


def batch(run_id: str) -> Run:
    """A run of batch_predict."""
    staged = {"photos_uri": "s3://bucket/batch/p/photos/", "photos": 1}
    predict = Task("predict", lambda _: TransformOperator(task_id="predict", group="dogs", staged=staged))
    return Run(run_id, [predict, _leftovers(None)])


def empty(run_id: str) -> Run:
    """A run that only ends what others left."""
    return Run(run_id, [_leftovers(None)])


def watch(run_id: str, world: World) -> Run:
    """A run of watch: two of them may overlap, after a clear or by hand."""

    def begin(operator: AwsOperator) -> Any:
        arn = "arn:package/1"
        found = Package(
            arn, "Approved", "s3://bucket/jobs/1/output/model.tar.gz", "image", _metadata(world, arn)
        )
        watched = Watched(
            ENDPOINT, "InService", found.model_uri, found, "dogs", f"s3://bucket/{CAPTURES}", None, START
        )
        now = START + timedelta(seconds=world.now)
        return looks.begin(operator.client("s3"), "bucket", watched, Policy(), now)

    def conclude(run: Run) -> Callable[[AwsOperator], Any]:
        def function(operator: AwsOperator) -> Any:
            looked = _result(run, "look")
            job = world.jobs[looked["look_uri"].split("/")[4]]
            document = {
                "photos": PHOTOS_A_FILE * len(job.read),
                "p": 0.5,
                "model": "m",
                "accuracy": None,
                "reference": {"accuracy": 0.9},
                "unknown": None,
                "truth": None,
            }
            s3 = operator.client("s3")
            return looks.conclude(s3, "bucket", looked["begun"], looked["look_uri"], document, Policy())

        return function

    return Run(
        run_id,
        [
            Task("begin", lambda _: Step(task_id="begin", function=begin)),
            Task(
                "look",
                lambda run: WatchOperator(task_id="look", begun=_result(run, "begin")),
                skip=lambda run: _result(run, "begin") is None,
            ),
            Task(
                "conclude",
                lambda run: Step(task_id="conclude", function=conclude(run)),
                skip=lambda run: _result(run, "begin") is None,
            ),
            _leftovers(None),
        ],
    )


def _metadata(world: World, arn: str) -> dict[str, str]:
    return world.packages[arn]["CustomerMetadataProperties"]


def _leftovers(endpoint: str | None) -> Task:
    return Task(
        "stop_leftovers",
        lambda _: StopLeftoversOperator(task_id="stop_leftovers", endpoint_name=endpoint),
        teardown=True,
    )


def _result(run: Run, task_id: str) -> Any:
    return run.task(task_id).xcoms.get("return_value")
