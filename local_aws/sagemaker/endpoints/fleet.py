"""A fleet: the running variants of one endpoint configuration. A rollout moves traffic between two fleets."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from local_aws.context import NO_ROLE, Context
from local_aws.errors import AwsError
from local_aws.gateway.json_service import Document
from local_aws.sagemaker.endpoints.variant import Variant, VariantSpec, instance_type_of
from local_aws.sagemaker.models import ROLE
from local_aws.state.beneath import remove_tree

Plan = dict[str, Any]
"""The stored form of a fleet: {"id", "created", "config" (its document), "containers" {model name: its containers},
"weights" and "counts" {variant: changed value}}.
"""


def instances(plan: Plan | None) -> Counter[str]:
    """Count a fleet's instances by type; a serverless variant has none."""
    found: Counter[str] = Counter()
    if plan is None:
        return found
    for variant in plan["config"]["ProductionVariants"]:
        if name := instance_type_of(variant):
            count = plan.get("counts", {}).get(variant["VariantName"], variant.get("InitialInstanceCount", 1))
            found[name] += count
    return found


def folder_of(context: Context, region: str, endpoint: str) -> Path:
    """Return the folder of an endpoint's fleets; each has a subfolder named by its plan's id."""
    return context.settings.state / "endpoints" / region / endpoint


class Fleet:
    """The servers of one configuration behind one endpoint."""

    def __init__(self, context: Context, region: str, endpoint: str, plan: Plan) -> None:
        self.plan = plan
        self.config: Document = plan["config"]
        self.folder = folder_of(context, region, endpoint) / plan["id"]
        self.variants: dict[str, Variant] = {}
        for document in self.config["ProductionVariants"]:
            found = plan["containers"][document["ModelName"]]
            # Endpoints of 0.1.0 hold the one container.
            spec = VariantSpec.from_document(document, [found] if isinstance(found, dict) else found)
            variant = Variant(context, region, endpoint, spec, self.folder / spec.name)
            variant.weight = plan.get("weights", {}).get(spec.name, spec.weight)
            variant.desired = plan.get("counts", {}).get(spec.name, spec.count)
            self.variants[spec.name] = variant

    @property
    def role(self) -> str:
        """The role of its models, with whose rights their data are read and written."""
        variant = next(iter(self.variants.values()))
        return variant.spec.containers[0].get(ROLE) or NO_ROLE

    @property
    def config_name(self) -> str:
        """The name of its configuration."""
        return str(self.config["EndpointConfigName"])

    @property
    def count(self) -> int:
        """The number of its servers."""
        return sum(variant.count for variant in self.variants.values())

    def start(self, cancelled: Callable[[], bool], wait: bool = True) -> None:
        """Start every variant and, with `wait`, wait until all are healthy.

        Raises:
            DataError: Model data cannot be downloaded or unpacked.
            ServerFailed: A server did not become healthy.
        """
        with ThreadPoolExecutor(max(1, len(self.variants))) as pool:
            list(pool.map(lambda variant: variant.start(), self.variants.values()))
        if wait:
            for variant in self.variants.values():
                variant.wait_healthy(cancelled)

    def choose(self, target: str | None) -> Variant:
        """Choose a variant: `target`, or at random in proportion to the weights.

        Raises:
            AwsError: ValidationError for an unknown target or weights that are all 0.
        """
        if target is not None:
            if target not in self.variants:
                raise AwsError(
                    "ValidationError", f"Variant {target} not found for Request {self.config_name}"
                )
            return self.variants[target]
        variants = list(self.variants.values())
        if len(variants) == 1:
            return variants[0]
        weights = [variant.weight for variant in variants]
        if sum(weights) <= 0:
            raise AwsError("ValidationError", "All variants of the endpoint have weight 0.")
        return random.choices(variants, weights)[0]

    def stop(self) -> None:
        """Stop every server."""
        for variant in self.variants.values():
            variant.stop()

    def remove(self) -> None:
        """Stop every server and delete the unpacked models."""
        self.stop()
        remove_tree(self.folder)

    def summary(self) -> list[Document]:
        """Build ProductionVariants of DescribeEndpoint."""
        return [self._variant_summary(document) for document in self.config["ProductionVariants"]]

    def _variant_summary(self, document: Document) -> Document:
        variant = self.variants[document["VariantName"]]
        images = [container["Image"] for container in variant.spec.containers]
        summary: Document = {
            "VariantName": variant.spec.name,
            "DeployedImages": [
                {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": self.plan["created"]}
                for image in images
            ],
            "CurrentWeight": variant.weight,
            "DesiredWeight": variant.weight,
        }
        if "ServerlessConfig" in document:
            summary["CurrentServerlessConfig"] = document["ServerlessConfig"]
            summary["DesiredServerlessConfig"] = document["ServerlessConfig"]
            summary |= {"CurrentInstanceCount": 0, "DesiredInstanceCount": 0}
        else:
            summary |= {"CurrentInstanceCount": variant.count, "DesiredInstanceCount": variant.desired}
        if "InstancePools" in document:
            pool = {"InstanceType": variant.spec.instance_type, "CurrentInstanceCount": variant.count}
            summary["InstancePools"] = [pool]
        return summary
