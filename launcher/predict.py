"""`make predict IMAGE=photo.jpg`: ask the deployed endpoint, over the sagemaker-runtime API."""

from __future__ import annotations

import json
import mimetypes
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from launcher import supervisor
from launcher.run import LAST_RUN_FILE, RunError, in_force
from launcher.settings import Settings


def predict(settings: Settings, console: Console, image: Path, endpoint: str | None) -> int:
    """Print the endpoint's classes for a photo. Raises RunError with the fix."""
    if not image.is_file():
        raise RunError(f"IMAGE={image} is no file: give the path of a photo, make predict IMAGE=photo.jpg")
    name = endpoint or _last_endpoint(settings)
    answer = _invoke(settings, name, image)
    table = Table(title=f"{image.name} by {name}", title_justify="left")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for row in answer["predictions"][0]["top"]:
        table.add_row(row["class"], f"{row['probability']:.1%}")
    console.print(table)
    return 0


def _last_endpoint(settings: Settings) -> str:
    path = settings.home / LAST_RUN_FILE
    name = json.loads(path.read_text())["endpoint_name"] if path.exists() else None
    if not name:
        raise RunError("no run has deployed an endpoint yet: make run, or name one with ENDPOINT=<name>")
    return str(name)


def _invoke(settings: Settings, endpoint: str, image: Path) -> dict[str, Any]:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    state = supervisor.read_state(settings.home)
    if state is None:
        raise RunError("nothing is up: make run starts it")
    runtime = boto3.client(
        "sagemaker-runtime", endpoint_url=in_force(settings, state).local_aws_url, region_name="us-east-1",
        aws_access_key_id="local", aws_secret_access_key="local", config=Config(retries={"max_attempts": 1}),
    )  # fmt: skip
    kind = mimetypes.guess_type(image.name)[0] or "application/x-image"
    try:
        answer = runtime.invoke_endpoint(
            EndpointName=endpoint, ContentType=kind, Accept="application/json", Body=image.read_bytes()
        )
    except ClientError as error:
        raise RunError(f"{endpoint} refused {image}: {error.response['Error']['Message']}") from None
    except BotoCoreError as error:
        raise RunError(f"{endpoint} could not be asked ({error}): see make status") from None
    found: dict[str, Any] = json.loads(answer["Body"].read())
    return found
