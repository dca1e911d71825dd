"""AddTags, ListTags and DeleteTags for every resource, by ARN."""

from __future__ import annotations

from local_aws.errors import AwsError, validation_error
from local_aws.gateway.json_service import Call, Document
from local_aws.sagemaker.operations import operation
from local_aws.state.resources import Missing

MOST_TAGS = 50


@operation("AddTags")
def add_tags(call: Call) -> Document:
    """Add or replace tags; a resource has at most 50."""
    arn = _check(call)
    tags = {tag["Key"]: tag["Value"] for tag in call.params["Tags"]}
    if any(key.lower().startswith("aws:") for key in tags):
        raise validation_error("Tag keys that begin with aws: are reserved for AWS.")
    if len(call.context.store.tags(arn) | tags) > MOST_TAGS:
        raise AwsError("ResourceLimitExceeded", f"A resource has at most {MOST_TAGS} tags.")
    call.context.store.tag(arn, tags)
    return {"Tags": _listed(call.context.store.tags(arn))}


@operation("ListTags")
def list_tags(call: Call) -> Document:
    """List tags in order of key, in pages."""
    tags = _listed(call.context.store.tags(_check(call)))
    token = call.params.get("NextToken", "0")
    begin = int(token) if token.isdigit() else 0
    end = begin + call.params.get("MaxResults", MOST_TAGS)
    answer: Document = {"Tags": tags[begin:end]}
    if end < len(tags):
        answer["NextToken"] = str(end)
    return answer


@operation("DeleteTags")
def delete_tags(call: Call) -> None:
    """Delete tags by key."""
    call.context.store.untag(_check(call), call.params["TagKeys"])


def _check(call: Call) -> str:
    arn: str = call.params["ResourceArn"]
    try:
        return call.context.store.get_arn(arn).arn
    except Missing:
        raise validation_error(f"Could not find resource with ARN {arn}.") from None


def _listed(tags: dict[str, str]) -> list[Document]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
