"""Send test photos to the endpoint and compare its answers with the evaluation's."""

from __future__ import annotations

import io
import json
import statistics
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.dataset import version as dataset
from ml_pipeline.dataset.version import DatasetVersion
from ml_pipeline.errors import is_transient
from ml_pipeline.requests.types import Chosen, Deployed, Evaluated, SmokeTested, TopClass, Uploaded

# Same bytes, same transform, same runtime: only the arithmetic of the processor differs, most of all with int8.
TOLERANCE = 0.02
# Begins the InferenceId of what is no traffic; `model_code.watch.captures` leaves it out.
TEST_MARK = "ml-pipeline-test"
PHOTOS = 24
_TOP = 3


class SmokeTestFailed(RuntimeError):
    """The endpoint answers differently from the evaluation, or with an error."""


@dataclass(frozen=True)
class Expected:
    """A line of predictions.jsonl; `path` in the source, or empty where no one knows it."""

    key: str
    label: str
    probabilities: tuple[float, ...]
    path: str = ""

    @property
    def name(self) -> str:
        """Return the path, by which a person finds the photo, or else the key."""
        return self.path or self.key


@dataclass(frozen=True)
class Answer:
    """The endpoint's answer about one photo; `agreed` if it is the evaluation's."""

    expected: Expected
    probabilities: Mapping[str, float]
    seconds: float
    agreed: bool


def run(
    s3: Client, runtime: Client, upload: Uploaded | Chosen, evaluation: Evaluated | Chosen, endpoint_name: str
) -> SmokeTested:
    """Send PHOTOS test photos, or all if there are fewer.

    Args:
        s3: boto3 client of S3.
        runtime: boto3 client of sagemaker-runtime.
        upload: Result of upload: the test photos.
        evaluation: Result of evaluate: the expected answers.
        endpoint_name: Endpoint to test.

    Raises:
        SmokeTestFailed: An answer is an error, or differs by more than TOLERANCE from the evaluation's.
    """
    version = dataset.load(s3, upload["manifest_uri"])
    expected = read_predictions(objects.read(s3, evaluation["predictions_uri"]))
    chosen = spread(expected, PHOTOS)
    answers = [
        ask(runtime, endpoint_name, photo, chosen[key], version.classes)
        for key, photo in photos(s3, version, set(chosen))
    ]
    if not answers:
        raise SmokeTestFailed("none of the evaluated photos was found in the test shards")
    agreed = sum(answer.agreed for answer in answers)
    if agreed < len(answers):
        wrong = next(answer for answer in answers if not answer.agreed)
        raise SmokeTestFailed(
            f"endpoint {endpoint_name} agreed with the evaluation on {agreed} of {len(answers)} photos; "
            f"first difference: photo {wrong.expected.name}. Another model or runtime serves than the one that "
            "was evaluated"
        )
    return {
        "photos": len(answers),
        "agreed": agreed,
        "latency_ms_p50": round(1000 * statistics.median(answer.seconds for answer in answers), 2),
        "predictions": [_row(answer) for answer in answers],
    }


def check_in_service(sagemaker: Client, deployment: Deployed) -> None:
    """Raise SmokeTestFailed unless the endpoint serves the config that deploy brought into service.

    A task that is cleared after a rollback would otherwise test, and then remove, the model before.
    """
    name, wanted = deployment["endpoint_name"], deployment["endpoint_config_name"]
    live = sagemaker.describe_endpoint(EndpointName=name).get("EndpointConfigName")
    if live != wanted:
        raise SmokeTestFailed(f"endpoint {name} serves {live}, not {wanted}; clear the deploy task as well")


def read_predictions(body: bytes) -> list[Expected]:
    """Parse the lines of predictions.jsonl."""
    rows = [json.loads(line) for line in body.splitlines() if line.strip()]
    return [
        Expected(row["key"], row["label"], tuple(row["probabilities"]), row.get("path", "")) for row in rows
    ]


def spread(expected: list[Expected], count: int) -> dict[str, Expected]:
    """Pick up to `count` predictions spread evenly over all of them, by key."""
    step = max(1, len(expected) // count)
    return {row.key: row for row in expected[::step][:count]}


def photos(s3: Client, version: DatasetVersion, keys: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (key, bytes) of the test photos in `keys`, reading shard after shard until all are found."""
    left = set(keys)
    for shard in version.of("test"):
        if not left:
            return
        body = objects.read(s3, f"{version.shards_uri}{shard.sha256}.tar")
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                if key in left and suffix != "cls":
                    left.discard(key)
                    file = tar.extractfile(member)
                    assert file is not None
                    yield key, file.read()


def ask(
    runtime: Client, endpoint_name: str, photo: bytes, expected: Expected, classes: tuple[str, ...]
) -> Answer:
    """Invoke the endpoint on one photo. Seconds are those of a client.

    Raises:
        SmokeTestFailed: The answer is an error, or cannot be read. A transient error is raised as it is.
    """
    start = time.perf_counter()
    try:
        body = _invoke(runtime, endpoint_name, photo)
        seconds = time.perf_counter() - start
        top = json.loads(body)["predictions"][0]["top"]
        probabilities = {entry["class"]: float(entry["probability"]) for entry in top}
        wanted = dict(zip(classes, expected.probabilities, strict=True))
    except Exception as error:
        if is_transient(error):
            raise
        raise SmokeTestFailed(
            f"endpoint {endpoint_name} answered photo {expected.name} with {type(error).__name__}: {error}"
        ) from error
    agreed = all(abs(probabilities.get(name, 0.0) - wanted[name]) <= TOLERANCE for name in classes)
    return Answer(expected, probabilities, seconds, agreed)


def _invoke(runtime: Client, endpoint_name: str, photo: bytes) -> bytes:
    response = runtime.invoke_endpoint(
        EndpointName=endpoint_name,
        ContentType="application/x-image",
        Accept="application/json",
        CustomAttributes="top_k=all",
        InferenceId=f"{TEST_MARK}/smoke-test",
        Body=photo,
    )
    body: bytes = response["Body"].read()
    return body


def _row(answer: Answer) -> TopClass:
    best = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:_TOP]
    photo = answer.expected
    return {"photo": photo.name, "label": photo.label, "top": [[name, round(p, 6)] for name, p in best]}
