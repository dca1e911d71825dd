"""`make predict IMAGE=photo.jpg`: ask the deployed endpoint about photos, over the sagemaker-runtime API."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from launcher import last_run, supervisor
from launcher.run import RunError, in_force
from launcher.settings import Settings

# Folder of the home that heat maps are written to.
HEAT_MAPS = "heat-maps"


class Refused(RunError):
    """The endpoint does not answer about a file; the message is the endpoint's own."""


def predict(settings: Settings, console: Console, given: Sequence[str], endpoint: str | None) -> int:
    """Print the endpoint's answers about photos; return 1 if it refused one of several.

    Raises:
        RunError: There is nothing to ask or no endpoint to answer, or the only photo is refused.
    """
    photos = chosen(given)
    state = supervisor.read_state(settings.home)
    if state is None:
        raise RunError("nothing is up: make run starts it")
    settings = in_force(settings, state)
    name = endpoint or last_run.endpoint_name(settings.home) or _only_endpoint(settings)
    table = Table(title=escape(f"answers of {name}"), title_justify="left")
    for title in ("photo", "answer", "others"):
        table.add_column(title)
    refused = 0
    for photo in photos:
        try:
            answer = _invoke(settings, name, photo)["predictions"][0]
        except Refused as error:
            if len(photos) == 1:
                raise
            refused += 1
            table.add_row(escape(photo.name), "[red]refused[/]", escape(str(error)))
            continue
        table.add_row(escape(photo.name), *told(answer))
    console.print(table)
    _heat_maps(settings, console, name, photos)
    return 1 if refused else 0


def chosen(given: Sequence[str]) -> list[Path]:
    """Return the photos that IMAGE names: files, folders, or several of them with spaces between.

    Raises:
        RunError: It names none.
    """
    parts = [part for text in given for part in ([text] if text and Path(text).exists() else text.split())]
    if not parts:
        raise RunError("give a photo: make predict IMAGE=photo.jpg, or a folder of photos")
    photos: list[Path] = []
    for part in parts:
        path = Path(part).expanduser()
        if path.is_dir():
            photos += sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
        elif path.is_file():
            photos.append(path)
        else:
            raise RunError(
                f"IMAGE={part} is not a file: give the path of a photo, make predict IMAGE=photo.jpg"
            )
    if not photos:
        raise RunError(f"IMAGE={' '.join(parts)} holds no file: give a photo, or a folder of photos")
    return photos


def told(answer: dict[str, Any]) -> tuple[str, str]:
    """Return the answer to one photo in words, and the classes after the first."""
    ranked = [f"{escape(row['class'])} {row['probability']:.1%}" for row in answer["top"]]
    if answer.get("unknown"):
        return "[yellow]unknown[/]: like no photo it was trained on", f"nearest: {', '.join(ranked)}"
    unsure = " [yellow](not sure)[/]" if answer.get("abstain") else ""
    return f"{ranked[0]}{unsure}", ", ".join(ranked[1:])


def _heat_maps(settings: Settings, console: Console, name: str, photos: Sequence[Path]) -> None:
    """Write where the endpoint looked, for each photo; say why not where it does not tell."""
    written: list[Path] = []
    for photo in photos:
        try:
            png = _ask(settings, name, photo, "image/png", "explain=true")
        except Refused as error:
            reason = str(error)
            continue
        path = settings.home / HEAT_MAPS / f"{photo.stem}-{sha256(photo.read_bytes()).hexdigest()[:8]}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png)
        written.append(path)
    if written:
        console.print(f"heat maps  {escape(str(written[0].parent))} ({len(written)})", soft_wrap=True)
    else:
        console.print(f"no heat map: {escape(reason)}", soft_wrap=True, highlight=False)


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
    found: dict[str, Any] = json.loads(_ask(settings, endpoint, image, "application/json"))
    return found


def _ask(settings: Settings, endpoint: str, image: Path, accept: str, options: str = "") -> bytes:
    from botocore.exceptions import BotoCoreError, ClientError

    kind = mimetypes.guess_type(image.name)[0] or "application/x-image"
    try:
        answer = client("sagemaker-runtime", settings).invoke_endpoint(
            EndpointName=endpoint,
            ContentType=kind,
            Accept=accept,
            **({"CustomAttributes": options} if options else {}),
            # Not traffic: `watch` leaves it out.
            InferenceId="ml-pipeline-test/predict",
            Body=image.read_bytes(),
        )
    except ClientError as error:
        if error.response["Error"]["Code"] == "ModelError":
            raise Refused(f"{endpoint} refused {image}: {reason_of(error.response)}") from None
        raise RunError(f"{endpoint} refused {image}: {error.response['Error']['Message']}") from None
    except BotoCoreError as error:
        raise RunError(f"{endpoint} could not be invoked ({error}): see make status") from None
    body: bytes = answer["Body"].read()
    return body


def reason_of(response: Mapping[str, Any]) -> str:
    """Return the server's own words in the response of a ModelError; what is not its JSON, as it is."""
    text = str(response.get("OriginalMessage") or response["Error"]["Message"])
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text
