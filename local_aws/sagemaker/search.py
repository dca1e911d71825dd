"""Search: filters, nested filters and sub-expressions over the documents of jobs, packages, models and endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from local_aws.errors import validation_error
from local_aws.gateway.json_service import Call, Document
from local_aws.sagemaker.operations import operation
from local_aws.sagemaker.tuning.operations import standing
from local_aws.state.resources import Resource

_KINDS = {
    "TrainingJob": "training-job",
    "HyperParameterTuningJob": "hyper-parameter-tuning-job",
    "ModelPackage": "model-package",
    "ModelPackageGroup": "model-package-group",
    "Model": "model",
    "Endpoint": "endpoint",
}


@operation("Search")
def search(call: Call) -> Document:
    """Return the resources that satisfy the expression, sorted, in pages."""
    wanted = call.params["Resource"]
    kind = _KINDS.get(wanted)
    if kind is None:
        raise validation_error(
            f"Search of {wanted} is not supported by local_aws; it searches {', '.join(_KINDS)}."
        )
    expression = call.params.get("SearchExpression", {})
    found = [
        document
        for document in (_document(call, resource) for resource in call.context.store.all(kind, call.region))
        if matches(document, expression)
    ]
    sort_by = call.params.get("SortBy", "LastModifiedTime")
    descending = call.params.get("SortOrder", "Descending") == "Descending"
    found.sort(key=lambda document: _sort_key(_first(document, sort_by)), reverse=descending)
    token = call.params.get("NextToken", "0")
    if not token.isdigit():
        raise validation_error("The pagination token is invalid: use NextToken of the previous page.")
    begin, size = int(token), call.params.get("MaxResults", 10)
    answer: Document = {
        "Results": [{wanted: _record(wanted, document)} for document in found[begin : begin + size]],
        "TotalHits": {"Value": len(found), "Relation": "EqualTo"},
    }
    if begin + size < len(found):
        answer["NextToken"] = str(begin + size)
    return answer


def _document(call: Call, resource: Resource) -> Document:
    tags = call.context.store.tags(resource.arn)
    document = {"LastModifiedTime": resource.modified, "CreationTime": resource.created, **resource.document}
    document["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    if resource.kind == "hyper-parameter-tuning-job":
        document.update(standing(call, resource))
    return document


def _record(wanted: str, document: Document) -> Document:
    """Wrap the record as its kind requires: a model's record is a dashboard's."""
    return {"Model": document} if wanted == "Model" else document


def matches(document: Document, expression: Document) -> bool:
    """Return True when a document satisfies a SearchExpression; Operator (default And) joins its parts."""
    parts: list[bool] = [_filter(document, entry) for entry in expression.get("Filters", [])]
    parts += [_nested(document, entry) for entry in expression.get("NestedFilters", [])]
    parts += [matches(document, inner) for inner in expression.get("SubExpressions", [])]
    if not parts:
        return True
    return any(parts) if expression.get("Operator") == "Or" else all(parts)


def _nested(document: Document, entry: Document) -> bool:
    """Return True when one member of a list satisfies all filters, whose names repeat the list's path."""
    path = entry["NestedPropertyName"]
    members = [member for member in _values(document, path) if isinstance(member, dict)]
    inner = [{**f, "Name": f["Name"].removeprefix(path).lstrip(".")} for f in entry["Filters"]]
    return any(all(_filter(member, f) for f in inner) for member in members)


def _filter(document: Document, entry: Document) -> bool:
    name, operator, wanted = entry["Name"], entry.get("Operator", "Equals"), entry.get("Value", "")
    values = list(_values(document, name))
    if operator in ("Exists", "NotExists"):
        return bool(values) == (operator == "Exists")
    if operator == "NotEquals":
        return not any(_equal(value, wanted) for value in values)
    test = _TESTS[operator]
    return any(test(value, wanted) for value in values)


def _values(document: Any, path: str) -> Iterator[Any]:
    """Yield every value at a dotted path.

    Lists are searched member by member; `Tags.<key>` and `Metrics.<name>` are SageMaker's own paths.
    """
    if isinstance(document, dict) and path.startswith("Tags."):
        yield from (tag["Value"] for tag in document.get("Tags", []) if tag["Key"] == path[5:])
        return
    if isinstance(document, dict) and path.startswith("Metrics."):
        metrics = document.get("FinalMetricDataList", [])
        yield from (metric["Value"] for metric in metrics if metric["MetricName"] == path[8:])
        return
    if isinstance(document, list):
        for member in document:
            yield from _values(member, path)
        return
    if not isinstance(document, dict):
        return
    if path in document:
        value = document[path]
        yield from value if isinstance(value, list) else [value]
        return
    head, _, rest = path.partition(".")
    if rest and head in document:
        yield from _values(document[head], rest)


def _first(document: Document, path: str) -> Any:
    return next(_values(document, path), None)


def _number(value: Any) -> float | None:
    """Return a number, also of a numeric string or an ISO 8601 time; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return None


def _equal(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return str(value).lower() == wanted.lower()
    left, right = _number(value), _number(wanted)
    if left is not None and right is not None:
        return left == right
    return str(value) == wanted


def _compared(test: Callable[[float, float], bool]) -> Callable[[Any, str], bool]:
    def compare(value: Any, wanted: str) -> bool:
        left, right = _number(value), _number(wanted)
        return left is not None and right is not None and test(left, right)

    return compare


_TESTS: dict[str, Callable[[Any, str], bool]] = {
    "Equals": _equal,
    "Contains": lambda value, wanted: wanted in str(value),
    "In": lambda value, wanted: any(_equal(value, part.strip()) for part in wanted.split(",")),
    "GreaterThan": _compared(lambda left, right: left > right),
    "GreaterThanOrEqualTo": _compared(lambda left, right: left >= right),
    "LessThan": _compared(lambda left, right: left < right),
    "LessThanOrEqualTo": _compared(lambda left, right: left <= right),
}


def _sort_key(value: Any) -> tuple[int, float, str]:
    number = _number(value)
    return (1, number, "") if number is not None else (0, 0.0, str(value or ""))
