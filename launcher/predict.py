"""`make predict IMAGE=photo.jpg`: ask the deployed endpoint, over the sagemaker-runtime API."""

from __future__ import annotations

import json
import mimetypes
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from launcher import last_run, supervisor
from launcher.run import RunError, in_force
from launcher.settings import Settings


def predict(settings: Settings, console: Console, image: Path, endpoint: str | None) -> int:
    """Print the endpoint's classes for a photo. Raises RunError with the fix."""
    if image == Path():  # no IMAGE given
        raise RunError("give a photo: make predict IMAGE=photo.jpg")
    if not image.is_file():
        raise RunError(f"IMAGE={image} is not a file: give the path of a photo, make predict IMAGE=photo.jpg")
    state = supervisor.read_state(settings.home)
    if state is None:
        raise RunError("nothing is up: make run starts it")
    settings = in_force(settings, state)
    name = endpoint or last_run.endpoint_name(settings.home) or _only_endpoint(settings)
    answer = _invoke(settings, name, image)
    table = Table(title=escape(f"{image.name} by {name}"), title_justify="left")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for row in answer["predictions"][0]["top"]:
        table.add_row(escape(row["class"]), f"{row['probability']:.1%}")
    console.print(table)
    return 0


def _only_endpoint(settings: Settings) -> str:
    """Return the endpoint of a run that was not watched to its end (started in Airflow, or left with Ctrl-C)."""
    from botocore.exceptions import BotoCoreError, ClientError

    pages = client("sagemaker", settings).get_paginator("list_endpoints").paginate(StatusEquals="InService")
    try:
        names = sorted(row["EndpointName"] for page in pages for row in page["Endpoints"])
    except (BotoCoreError, ClientError) as error:
        raise RunError(f"local_aws did not list its endpoints ({error}): see make status") from None
    if not names:
        raise RunError("no endpoint is in service: make run deploys one")
    if len(names) > 1:
        raise RunError(f"several endpoints are in service, name one with ENDPOINT=<name>: {', '.join(names)}")
    return str(names[0])


def client(service: Literal["sagemaker", "sagemaker-runtime", "s3"], settings: Settings) -> Any:
    """Return a client of the home's local_aws."""
    import boto3
    from botocore.config import Config

    from local_aws.iam.credentials import root_key

    key = root_key(settings.local_aws_state)

    return boto3.client(
        service, endpoint_url=settings.local_aws_url, region_name="us-east-1",
        aws_access_key_id=key.id, aws_secret_access_key=key.secret, config=Config(retries={"max_attempts": 1}),
    )  # fmt: skip


def _invoke(settings: Settings, endpoint: str, image: Path) -> dict[str, Any]:
    from botocore.exceptions import BotoCoreError, ClientError

    kind = mimetypes.guess_type(image.name)[0] or "application/x-image"
    try:
        answer = client("sagemaker-runtime", settings).invoke_endpoint(
            EndpointName=endpoint,
            ContentType=kind,
            Accept="application/json",
            # Not traffic: `watch` leaves it out.
            InferenceId="ml-pipeline-test/predict",
            Body=image.read_bytes(),
        )
    except ClientError as error:
        raise RunError(f"{endpoint} refused {image}: {error.response['Error']['Message']}") from None
    except BotoCoreError as error:
        raise RunError(f"{endpoint} could not be invoked ({error}): see make status") from None
    found: dict[str, Any] = json.loads(answer["Body"].read())
    return found
