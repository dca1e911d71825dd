"""Pure functions of batch transform: a file to request bodies, answers to an output file, filters and joins."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jsonpath_ng.exceptions import JsonPathLexerError, JsonPathParserError
from jsonpath_ng.ext.parser import parse

from local_aws.errors import validation_error
from local_aws.gateway.json_service import Document


class BatchError(Exception):
    """Records or answers that cannot be processed; the text fits a FailureReason."""


@dataclass(frozen=True)
class BatchPlan:
    """The splitting, filtering and joining of a transform job.

    Attributes:
        split: "None" or "Line".
        strategy: "SingleRecord" or "MultiRecord".
        max_bytes: MaxPayloadInMB in bytes.
        assemble: "None" or "Line".
        join: "None" or "Input".
        content_type: Format of the input records.
        accept: Format of the answers.
        input_filter: JSONPath.
        output_filter: JSONPath.
    """

    split: str
    strategy: str
    max_bytes: int
    assemble: str
    join: str
    content_type: str
    accept: str
    input_filter: str
    output_filter: str

    @classmethod
    def of(cls, request: Document) -> BatchPlan:
        """Read the plan of a CreateTransformJob request.

        Raises:
            AwsError: ValidationException for a filter that is not JSONPath or a combination that AWS refuses.
        """
        source, target = request["TransformInput"], request["TransformOutput"]
        processing = request.get("DataProcessing", {})
        split = source.get("SplitType", "None")
        content_type = source.get("ContentType", "")
        plan = cls(
            split=split,
            strategy=request.get("BatchStrategy", "MultiRecord" if split != "None" else "SingleRecord"),
            max_bytes=request.get("MaxPayloadInMB", 6) * 2**20,
            assemble=target.get("AssembleWith", "None"),
            join=processing.get("JoinSource", "None"),
            content_type=content_type,
            accept=target.get("Accept", "") or content_type,
            input_filter=processing.get("InputFilter", "$"),
            output_filter=processing.get("OutputFilter", "$"),
        )
        plan.check()
        return plan

    def check(self) -> None:
        """Raise ValidationException for combinations that AWS refuses."""
        for path in (self.input_filter, self.output_filter):
            try:
                parse(path)
            except (JsonPathLexerError, JsonPathParserError) as error:
                raise validation_error(f"{path} is not a JSONPath that can be used here: {error}") from error
        if self.split not in ("None", "Line"):
            raise validation_error(f"SplitType {self.split} is not supported by local_aws: use Line or None.")
        filtered = self.input_filter != "$" or self.output_filter != "$" or self.join != "None"
        if filtered and not (_is_csv(self.content_type) or _is_json(self.content_type)):
            raise validation_error(
                "DataProcessing needs records in text/csv, application/json or application/jsonlines: set ContentType."
            )
        if self.join == "Input" and self.split == "Line" and self.assemble != "Line":
            raise validation_error("JoinSource Input with SplitType Line needs AssembleWith Line.")


def records(plan: BatchPlan, content: bytes) -> list[bytes]:
    """Return the records of a file; without a split the whole file is one."""
    if plan.split == "None":
        return [content]
    return [line for line in content.replace(b"\r\n", b"\n").split(b"\n") if line]


def batches(plan: BatchPlan, found: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Records of one request each. Raises BatchError for a record larger than MaxPayloadInMB."""
    batch: list[bytes] = []
    size = 0
    for record in found:
        if len(record) > plan.max_bytes:
            raise BatchError(
                f"a record of {len(record)} bytes is larger than MaxPayloadInMB ({plan.max_bytes} bytes)"
            )
        if batch and (plan.strategy == "SingleRecord" or size + len(record) + 1 > plan.max_bytes):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record) + 1
    if batch:
        yield batch


def body(plan: BatchPlan, batch: Sequence[bytes]) -> bytes:
    """Build the body of a request, InputFilter applied."""
    if plan.input_filter == "$":
        return b"\n".join(batch)
    return b"\n".join(
        _write(_select(plan.input_filter, _read(r, plan.content_type)), plan.content_type) for r in batch
    )


def answer(plan: BatchPlan, batch: Sequence[bytes], response: bytes) -> bytes:
    """Build the output of a request: the response, joined with its input and filtered.

    Raises:
        BatchError: Records and answers cannot be joined or filtered.
    """
    if plan.join == "None" and plan.output_filter == "$":
        return response
    lines = [response] if plan.split == "None" else [line for line in response.split(b"\n") if line.strip()]
    if len(lines) != len(batch):
        raise BatchError(
            f"the container answered {len(lines)} lines to {len(batch)} records: they cannot be joined"
        )
    return b"\n".join(_joined(plan, record, line) for record, line in zip(batch, lines, strict=True))


def assemble(plan: BatchPlan, answers: Sequence[bytes]) -> bytes:
    """Assemble the output file."""
    if plan.assemble == "Line":
        return b"".join(part if part.endswith(b"\n") else part + b"\n" for part in answers)
    return b"".join(answers)


def _joined(plan: BatchPlan, record: bytes, line: bytes) -> bytes:
    output = _read(line, plan.accept)
    if plan.join == "Input":
        source = _read(record, plan.content_type)
        if isinstance(source, list):
            output = [*source, *(output if isinstance(output, list) else [output])]
        elif isinstance(source, dict):
            output = {**source, "SageMakerOutput": output}
        else:
            output = {"SageMakerInput": source, "SageMakerOutput": output}
    return _write(_select(plan.output_filter, output), plan.accept)


def _is_csv(content_type: str) -> bool:
    return content_type.startswith("text/csv")


def _is_json(content_type: str) -> bool:
    return content_type.startswith(("application/json", "application/jsonlines"))


def _read(record: bytes, content_type: str) -> Any:
    text = record.decode("utf-8", "replace")
    if _is_csv(content_type):
        return next(csv.reader([text]), [])
    try:
        return json.loads(text)
    except ValueError as error:
        raise BatchError(f"a record is not JSON: {error}") from error


def _write(value: Any, content_type: str) -> bytes:
    if _is_csv(content_type):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value if isinstance(value, list) else [value])
        return line.getvalue().encode()
    return json.dumps(value).encode()


def _select(path: str, value: Any) -> Any:
    """Apply JSONPath as SageMaker does: one match is that value; several (a slice, a union) are a list."""
    if path == "$":
        return value
    found = [match.value for match in parse(path).find(value)]
    if not found:
        raise BatchError(f"the filter {path} matches nothing in a record")
    return found[0] if len(found) == 1 and not isinstance(value, list) else found
