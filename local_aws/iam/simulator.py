"""IAM: moto keeps users, roles and policies; the policy simulator, which moto lacks, is answered here.

Without enforcement a role is taken at its word: the simulator makes a role that it is asked about and does
not know, trusted by SageMaker, and a role without any policy may do everything, which is how local_aws itself
treats it. A role with policies is simulated by them. With `--iam enforce` an unknown role is an error, and a role
without a policy may do nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from botocore.exceptions import ClientError

from local_aws.context import Context
from local_aws.errors import AwsError
from local_aws.gateway.bodies import buffered
from local_aws.gateway.responses import Environ, StartResponse, WsgiApp, respond, respond_error
from local_aws.iam.policy import Access, Decision, decide

logger = logging.getLogger(__name__)

NAMESPACE = "https://iam.amazonaws.com/doc/2010-05-08/"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}


class PolicySimulator:
    """A WSGI app in front of moto's that answers SimulatePrincipalPolicy and passes on the rest."""

    def __init__(self, context: Context, moto: WsgiApp) -> None:
        self._context, self._moto = context, moto

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer SimulatePrincipalPolicy; hand every other operation on to moto."""
        try:
            form = parse_qs(buffered(environ).decode("utf-8", "replace"))
        except AwsError as error:
            return respond_error(start_response, error, "query")
        if form.get("Action") != ["SimulatePrincipalPolicy"]:
            return self._moto(environ, start_response)
        try:
            return respond(start_response, 200, self._simulate(form).encode(), "text/xml")
        except AwsError as error:
            return respond_error(start_response, error, "query")

    def _simulate(self, form: Mapping[str, list[str]]) -> str:
        arn = form.get("PolicySourceArn", [""])[0]
        if ":role/" not in arn:
            raise AwsError("InvalidInput", f"local_aws simulates the policies of roles only, not of {arn}.")
        policies = self._policies(arn.rpartition("/")[2], form)
        known = bool(policies) or self._context.settings.enforce_iam
        resources = _members(form, "ResourceArns") or ["*"]
        results = [
            (action, resource, decide(policies, Access(action, resource)) if known else Decision.ALLOWED)
            for action in _members(form, "ActionNames")
            for resource in resources
        ]
        return _answer(results)

    def _policies(self, role: str, form: Mapping[str, list[str]]) -> list[dict[str, Any]]:
        """Return the documents of a role's inline and attached policies and of those given with the request."""
        iam = self._context.client("iam")
        found = [json.loads(text) for text in _members(form, "PolicyInputList")]
        try:
            for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
                found.append(iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"])
            for attached in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
                policy = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]
                version = iam.get_policy_version(
                    PolicyArn=attached["PolicyArn"], VersionId=policy["DefaultVersionId"]
                )
                found.append(version["PolicyVersion"]["Document"])
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchEntity":
                raise
            if self._context.settings.enforce_iam:
                raise AwsError("NoSuchEntity", f"The role with name {role} cannot be found.") from error
            logger.info("role %s was simulated and is not known: it is made", role)
            iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(TRUST))
        return [
            json.loads(unquote(document)) if isinstance(document, str) else document for document in found
        ]


def _members(form: Mapping[str, list[str]], name: str) -> list[str]:
    """`ActionNames.member.1=a&ActionNames.member.2=b` -> ["a", "b"]."""
    numbered = {
        int(key.rpartition(".")[2]): values[0]
        for key, values in form.items()
        if key.startswith(f"{name}.member.")
    }
    return [numbered[index] for index in sorted(numbered)]


def _answer(results: list[tuple[str, str, Decision]]) -> str:
    members = "".join(
        f"<member><EvalActionName>{escape(action)}</EvalActionName><EvalResourceName>{escape(resource)}"
        f"</EvalResourceName><EvalDecision>{decision.value}</EvalDecision><MatchedStatements/><MissingContextValues/>"
        "</member>"
        for action, resource, decision in results
    )
    return (
        f'<SimulatePrincipalPolicyResponse xmlns="{NAMESPACE}"><SimulatePrincipalPolicyResult>'
        f"<IsTruncated>false</IsTruncated><EvaluationResults>{members}</EvaluationResults>"
        "</SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
    )
