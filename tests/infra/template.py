"""Puts parameters, conditions and references into a template, as CloudFormation does, without creating anything.

moto creates our stacks (tests/infra/stacks.py) but leaves out some types and properties, and writes lists of
parameters as text; what a template says is therefore read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cfnlint.decode.cfn_yaml import load

from tests.infra.stacks import ACCOUNT, BUCKET, INFRA, REGION

EXPORTS = {
    "ml-pipeline-bucket": BUCKET,
    "ml-pipeline-key": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/ml-pipeline",
    "ml-pipeline-queue": f"arn:aws:sqs:{REGION}:{ACCOUNT}:ml-pipeline-new-photos",
    "ml-pipeline-topic": f"arn:aws:sns:{REGION}:{ACCOUNT}:ml-pipeline-notifications",
    "ml-pipeline-subnet-a": "subnet-a",
    "ml-pipeline-subnet-b": "subnet-b",
    "ml-pipeline-machines": "sg-machines",
    "ml-pipeline-job-role": f"arn:aws:iam::{ACCOUNT}:role/ml-pipeline-job",
    "ml-pipeline-instance-role": f"arn:aws:iam::{ACCOUNT}:role/ml-pipeline-instance",
    "ml-pipeline-instance-profile": f"arn:aws:iam::{ACCOUNT}:instance-profile/ml-pipeline-instance",
}
"""Values that the stacks pass to each other. tests/infra/test_templates.py creates them in moto."""

_PSEUDO = {
    "AWS::Partition": "aws",
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::URLSuffix": "amazonaws.com",
}
_NOTHING = object()


@dataclass
class Template:
    """A template of infra/ with its parameters put in."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def source(self) -> dict[str, Any]:
        return load(str(INFRA / f"{self.name}.yaml"))

    @cached_property
    def values(self) -> dict[str, Any]:
        """Parameter and pseudo parameter -> value; a CommaDelimitedList is a list."""
        given = {}
        for name, entry in self.source["Parameters"].items():
            value = str(self.parameters.get(name, entry.get("Default", "")))
            given[str(name)] = value.split(",") if entry["Type"] == "CommaDelimitedList" else value
        return given | _PSEUDO

    def properties(self, kind: str) -> dict[str, Any]:
        """Logical name -> properties, of the resources of one type."""
        return {
            str(name): self.resolve(entry["Properties"])
            for name, entry in self.source["Resources"].items()
            if entry["Type"] == kind
        }

    def role_policies(self, logical: str) -> list[dict[str, Any]]:
        """The inline policies of a role."""
        role = self.properties("AWS::IAM::Role")[logical]
        return [policy["PolicyDocument"] for policy in role["Policies"]]

    def resolve(self, node: Any) -> Any:
        """`node` with every function of the template language evaluated."""
        if isinstance(node, dict):
            if len(node) == 1 and (function := next(iter(node))) in self._functions:
                return self._functions[function](node[function])
            resolved = {str(key): self.resolve(item) for key, item in node.items()}
            return {key: item for key, item in resolved.items() if item is not _NOTHING}
        if isinstance(node, list):
            return [item for item in map(self.resolve, node) if item is not _NOTHING]
        return node

    @cached_property
    def _functions(self) -> dict[str, Any]:
        return {
            "Ref": self._ref,
            "Fn::GetAtt": lambda parts: self._attribute(
                ".".join(parts) if isinstance(parts, list) else parts
            ),
            "Fn::Sub": self._sub,
            "Fn::Join": lambda parts: parts[0].join(self.resolve(parts[1])),
            "Fn::Split": lambda parts: self.resolve(parts[1]).split(parts[0]),
            "Fn::ImportValue": lambda name: EXPORTS[self.resolve(name)],
            "Fn::If": lambda parts: self.resolve(parts[1] if self.holds(parts[0]) else parts[2]),
        }

    def _ref(self, name: str) -> Any:
        return _NOTHING if name == "AWS::NoValue" else self.values.get(name, name)

    def _attribute(self, text: str) -> str:
        """The ARN of a named IAM resource; of anything else "Bucket.Arn", which tells what it refers to."""
        logical, _, attribute = text.partition(".")
        entry = self.source["Resources"].get(logical, {"Type": ""})
        names = {"AWS::IAM::Role": ("role", "RoleName")}
        names["AWS::IAM::InstanceProfile"] = ("instance-profile", "InstanceProfileName")
        if attribute != "Arn" or entry["Type"] not in names:
            return text
        kind, key = names[entry["Type"]]
        return f"arn:aws:iam::{ACCOUNT}:{kind}/{self.resolve(entry['Properties'][key])}"

    def _sub(self, argument: Any) -> str:
        text, more = argument if isinstance(argument, list) else (argument, {})
        known = {**self.values, **{name: self.resolve(value) for name, value in more.items()}}
        return re.sub(
            r"\$\{([^}]+)\}", lambda match: str(known.get(match[1], self._attribute(match[1]))), text
        )

    def holds(self, name: str) -> bool:
        """Return true when the condition `name` does."""
        return self._holds(self.source["Conditions"][name])

    def _holds(self, condition: Any) -> bool:
        ((function, arguments),) = condition.items()
        if function == "Fn::Not":
            return not self._holds(arguments[0])
        assert function == "Fn::Equals"
        left, right = map(self.resolve, arguments)
        return bool(left == right)
