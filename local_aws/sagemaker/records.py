"""Named records of the store: create, get and delete with the errors that AWS answers for each kind."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from local_aws.context import Context
from local_aws.errors import AwsError
from local_aws.gateway.json_service import Call, Document
from local_aws.sagemaker.operations import list_query, operation, request_tags, summaries
from local_aws.state.resources import AlreadyExists, Missing, Resource

RUNNING = ("InProgress", "Stopping")
"""Statuses of a job that has not ended."""


@dataclass(frozen=True)
class Records:
    """The records of one kind of resource.

    Attributes:
        kind: The store's kind and the ARN's resource type, such as "training-job".
        label: The prefix of the members that name it: "TrainingJob" for TrainingJobName, TrainingJobArn and,
            where it has one, TrainingJobStatus.
        missing: AWS's message for an unknown name; {name} and {arn} are filled in.
        exists: AWS's message for a name in use; {name} and {arn} are filled in.
        missing_code: The error code that goes with `missing`.
        exists_code: The error code that goes with `exists`.
        dated: The records carry LastModifiedTime.
    """

    kind: str
    label: str
    missing: str
    exists: str
    missing_code: str = "ValidationException"
    exists_code: str = "ValidationException"
    dated: bool = True

    def describes_and_lists(self, member: str) -> None:
        """Register Describe and List, whose filters are those of all kinds; `member` holds List's summaries."""
        operation(f"Describe{self.label}")(lambda call: self.of(call).document)
        operation(f"List{self.label}s")(lambda call: summaries(call, list_query(call, self.kind), member))

    def deletes(self, check: Callable[[Call, Resource], None] = lambda *_: None) -> None:
        """Register Delete, which forgets the record once `check` let it."""

        def delete(call: Call) -> None:
            resource = self.of(call)
            check(call, resource)
            call.context.store.delete(self.kind, call.region, resource.name)

        operation(f"Delete{self.label}")(delete)

    @property
    def noun(self) -> str:
        """The kind in AWS's messages: "training job"."""
        return self.kind.replace("-", " ")

    @property
    def status(self) -> str:
        """The document member that holds the status."""
        return f"{self.label}Status"

    def arn(self, context: Context, region: str, name: str) -> str:
        """Return the ARN of a record."""
        return context.arn(region, f"{self.kind}/{name}")

    def answer(self, resource: Resource) -> Document:
        """Return the usual response of Create and Update: the ARN."""
        return {f"{self.label}Arn": resource.arn}

    def draft(
        self, context: Context, region: str, params: Document, members: Mapping[str, object], name: str = ""
    ) -> Document:
        """Build the document of a new record from a Create request.

        Args:
            context: The running local_aws.
            region: The region of the request.
            params: The request; Tags are left out of the document.
            members: Further members; they override the request's.
            name: The record's name where the request's own member does not hold it.
        """
        now = time.time()
        return {
            **{member: value for member, value in params.items() if member != "Tags"},
            f"{self.label}Arn": self.arn(context, region, name or params[f"{self.label}Name"]),
            "CreationTime": now,
            **({"LastModifiedTime": now} if self.dated else {}),
            **members,
        }

    def create(
        self,
        context: Context,
        region: str,
        document: Document,
        tags: Mapping[str, str],
        *,
        name: str = "",
        parent: str = "",
    ) -> Resource:
        """Store a new record.

        Raises:
            AwsError: The name is in use.
        """
        name = name or document[f"{self.label}Name"]
        resource = Resource(
            self.kind,
            region,
            name,
            document[f"{self.label}Arn"],
            document,
            created=document["CreationTime"],
            parent=parent,
        )
        try:
            return context.store.create(resource, tags)
        except AlreadyExists as error:
            text = self.exists.format(name=name, arn=error.args[0])
            raise AwsError(self.exists_code, text) from None

    def create_from(self, call: Call, **members: object) -> Resource:
        """Store the record that a Create request asks for, with its tags. Raises as `create`."""
        document = self.draft(call.context, call.region, call.params, members)
        return self.create(call.context, call.region, document, request_tags(call))

    def get(self, context: Context, region: str, name: str) -> Resource:
        """Read a record by its name or ARN; an ARN of another region, account or kind does not exist.

        Raises:
            AwsError: There is no such record.
        """
        name = name.removeprefix(self.arn(context, region, ""))
        try:
            return context.store.get(self.kind, region, name)
        except Missing:
            arn = name if name.startswith("arn:") else self.arn(context, region, name)
            raise AwsError(self.missing_code, self.missing.format(name=name, arn=arn)) from None

    def of(self, call: Call) -> Resource:
        """Read the record that a request names. Raises as `get`."""
        return self.get(call.context, call.region, call.params[f"{self.label}Name"])

    def require_ended(self, call: Call, resource: Resource) -> None:
        """Raise ValidationException for a job that has not ended."""
        if resource.status in RUNNING:
            raise self.refused(resource.status)

    def require_running(self, resource: Resource) -> None:
        """Raise ValidationException for a job that has ended."""
        if resource.status not in RUNNING:
            raise self.refused(resource.status)

    def refused(self, status: str) -> AwsError:
        """AWS's answer to an operation that a job's status rules out."""
        text = f"The request was rejected because the {self.noun} is in status {status}."
        return AwsError("ValidationException", text)
