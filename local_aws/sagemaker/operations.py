"""The registry of SageMaker's operations.

    from local_aws.sagemaker.operations import operation, summaries

    @operation("CreateEndpoint")
    def create_endpoint(call: Call) -> Document: ...

`call.params` is valid by the service model; `call.context` has the store, the images, capacity and logs. Importing a
module in local_aws/sagemaker/service.py registers its operations.
"""

from __future__ import annotations

from typing import Any

from local_aws.gateway.json_service import Call, Document, Operations
from local_aws.state.resources import Query

operation = Operations("sagemaker")

STATUS_MEMBERS = {
    "training-job": "TrainingJobStatus",
    "hyper-parameter-tuning-job": "HyperParameterTuningJobStatus",
    "processing-job": "ProcessingJobStatus",
    "transform-job": "TransformJobStatus",
    "endpoint": "EndpointStatus",
    "model-package": "ModelPackageStatus",
    "model-package-group": "ModelPackageGroupStatus",
}
"""Kind of resource -> the document member that holds its status."""

_SORT_COLUMNS = {
    "Name": "name",
    "CreationTime": "created",
    "Status": "status",
    "LastModifiedTime": "modified",
}


_OLDEST_FIRST = frozenset(
    {"training-job", "hyper-parameter-tuning-job", "processing-job", "model-package", "model-package-group"}
)
"""Kinds whose List operations sort in ascending order by default; the others list the newest first."""
_BY_NAME = frozenset({"hyper-parameter-tuning-job"})
"""Kinds that are sorted by name by default; the others by creation time."""


def status_member(kind: str) -> str:
    """Return the document member that holds a kind's status; "" for kinds without one."""
    return STATUS_MEMBERS.get(kind, "")


def request_tags(call: Call) -> dict[str, str]:
    """Return the Tags of a Create request as a mapping."""
    return {tag["Key"]: tag["Value"] for tag in call.params.get("Tags", [])}


def list_query(call: Call, kind: str, **more: Any) -> Query:
    """Build the Query of a List request from the members that List operations share; `more` overrides.

    The default order is that of the kind, as the service model documents it.
    """
    params = call.params
    sort_by = params.get("SortBy", "Name" if kind in _BY_NAME else "CreationTime")
    order = params.get("SortOrder", "Ascending" if kind in _OLDEST_FIRST else "Descending")
    values: dict[str, Any] = {
        "name_contains": params.get("NameContains", ""),
        "status": params.get("StatusEquals", ""),
        "created_after": params.get("CreationTimeAfter"),
        "created_before": params.get("CreationTimeBefore"),
        "modified_after": params.get("LastModifiedTimeAfter"),
        "modified_before": params.get("LastModifiedTimeBefore"),
        "sort_by": _SORT_COLUMNS.get(sort_by, "created"),
        "descending": order == "Descending",
        "limit": params.get("MaxResults", 10),
        "token": params.get("NextToken", ""),
    }
    return Query(kind=kind, region=call.region, **{**values, **more})


def summaries(call: Call, query: Query, member: str) -> Document:
    """Return one page of documents under `member`, with NextToken where there are more.

    Shaping by the service model reduces them to summaries.
    """
    page = call.context.store.page(query)
    answer: Document = {member: [resource.document for resource in page.resources]}
    if page.next_token:
        answer["NextToken"] = page.next_token
    return answer
