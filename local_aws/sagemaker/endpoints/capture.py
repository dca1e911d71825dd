"""Data capture: an endpoint's requests and answers as JSON lines in S3, in SageMaker's format."""

from __future__ import annotations

import base64
import json
import logging
import random
import threading
import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.context import Context
from local_aws.sagemaker.endpoints.endpoint import Endpoint
from local_aws.sagemaker.s3_data import join, parse_uri

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0


@dataclass(frozen=True)
class Captured:
    """One exchange that may be captured."""

    region: str
    endpoint: str
    variant: str
    config: Mapping[str, Any]
    role: str
    request: bytes
    request_type: str
    answer: bytes
    answer_type: str


def captured(
    endpoint: Endpoint,
    variant: str,
    request: bytes,
    answer: bytes,
    params: Mapping[str, Any],
    answer_headers: Mapping[str, str],
) -> Captured | None:
    """Return the exchange when capture is on and sampling selects it, else None."""
    fleets = endpoint.fleets
    config = fleets[-1].config.get("DataCaptureConfig") if fleets else None
    if not config or not config.get("EnableCapture", False):
        return None
    if random.random() * 100 >= config["InitialSamplingPercentage"]:
        return None
    return Captured(
        endpoint.region,
        endpoint.name,
        variant,
        config,
        fleets[-1].role,
        request,
        params.get("ContentType", "application/octet-stream"),
        answer,
        answer_headers.get("Content-Type", "application/octet-stream"),
    )


class Capture:
    """Collects exchanges and writes them to S3 every few seconds."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lines: dict[tuple[str, str, str, str, str], list[str]] = defaultdict(list)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="data capture", daemon=True)

    def start(self) -> None:
        """Start the writer thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the writer thread and write the remaining lines."""
        if self._thread.is_alive():
            self._thread.join(FLUSH_SECONDS * 2)
        self.flush()

    def take(self, exchange: Captured | None, inference_id: str) -> None:
        """Queue one exchange for the next flush."""
        if exchange is None:
            return
        destination = exchange.config["DestinationS3Uri"]
        key = (exchange.region, exchange.role, destination, exchange.endpoint, exchange.variant)
        text = json.dumps(line(exchange, inference_id, datetime.now(UTC)))
        with self._lock:
            self._lines[key].append(text)

    def flush(self) -> None:
        """Write the collected lines: one object per endpoint and variant."""
        with self._lock:
            collected, self._lines = self._lines, defaultdict(list)
        for (region, role, destination, endpoint, variant), lines in collected.items():
            now = datetime.now(UTC)
            bucket, prefix = parse_uri(destination)
            name = f"{now:%M-%S}-{now.microsecond // 1000:03d}-{uuid.uuid4()}.jsonl"
            key = join(prefix, endpoint, variant, f"{now:%Y/%m/%d/%H}", name)
            body = "".join(f"{text}\n" for text in lines).encode()
            try:
                self._context.client("s3", region, role).put_object(Bucket=bucket, Key=key, Body=body)
            except (ClientError, BotoCoreError) as error:
                logger.warning("captured data of endpoint %s could not be written: %s", endpoint, error)

    def _run(self) -> None:
        while not self._context.stopping.wait(FLUSH_SECONDS):
            self.flush()


def line(exchange: Captured, inference_id: str, now: datetime) -> dict[str, Any]:
    """Build one line of a capture file."""
    modes = {option["CaptureMode"] for option in exchange.config.get("CaptureOptions", [])}
    header = exchange.config.get("CaptureContentTypeHeader", {})
    data: dict[str, Any] = {}
    if modes & {"Input", "InputAndOutput"}:
        data["endpointInput"] = _side("INPUT", exchange.request, exchange.request_type, header)
    if modes & {"Output", "InputAndOutput"}:
        data["endpointOutput"] = _side("OUTPUT", exchange.answer, exchange.answer_type, header)
    metadata = {"eventId": str(uuid.uuid4()), "inferenceTime": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
    if inference_id:
        metadata["inferenceId"] = inference_id
    return {"captureData": data, "eventMetadata": metadata, "eventVersion": "0"}


def _side(mode: str, body: bytes, content_type: str, header: Mapping[str, list[str]]) -> dict[str, Any]:
    kind = content_type.partition(";")[0].strip().lower()
    text: str | None = None
    encoding = "BASE64"
    for member, name in (("JsonContentTypes", "JSON"), ("CsvContentTypes", "CSV")):
        if kind in (wanted.lower() for wanted in header.get(member, [])):
            encoding = name
            text = body.decode("utf-8", "replace")
    if text is None:
        text = base64.b64encode(body).decode()
    return {"observedContentType": content_type, "mode": mode, "data": text, "encoding": encoding}
