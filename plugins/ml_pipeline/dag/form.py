"""Layout of params in the trigger form: the section that people need, pick lists, fields that may stay empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow.sdk import Param

# The first section of train_and_deploy; every other param has a default that suits most runs.
ESSENTIALS = (
    "data",
    "dataset_name",
    "weights",
    "strategy",
    "architecture",
    "trials",
    "approval",
    "endpoint_name",
)
# Suggestions for free text.
EXAMPLES: Mapping[str, list[str]] = {
    "architecture": ["mobilenet_v2", "mobilenet_v3_large", "resnet50", "efficientnet_b0", "convnext_tiny"],
    "weights": ["imagenet", "none"],
}
# What a choice is called in a pick list.
CHOICES: Mapping[str, Mapping[str, str]] = {
    "strategy": {"head": "head: train a classifier, seconds", "finetune": "finetune: train the backbone too"},
    "approval": {"auto": "auto: the gate decides", "human": "human: a person approves"},
    "tune_mode": {"job": "job: a job per trial", "packed": "packed: all trials in one job"},
    "train_on": {"sagemaker": "SageMaker", "ec2": "EC2 instance"},
    "burden": {"champion": "the champion must be better", "challenger": "the new model must be no worse"},
    "capture_days": {
        "null": "keep nothing",
        "0": "keep nothing",
        "7": "7 days",
        "30": "30 days",
        "90": "90 days",
    },
    "retrain": {"ask": "ask a person", "auto": "train by itself"},
}

DESCRIPTIONS: Mapping[str, str] = {
    "alarms_a_year": "Alarms by chance alone, while nothing has changed.",
    "proposals_a_year": "Proposals to train by chance alone.",
    "cooldown_days": "After a proposal, no other for this long.",
    "sample_photos": "A look at more traffic takes this many photos of it.",
    "queue_photos": "The least certain photos go to the review queue.",
    "watch_instance_type": "Runs the look.",
    "look": "Number of the look that proposes it.",
    "reason": "What the look found.",
    "page_uri": "Page of the look.",
}


def presented(
    params: dict[str, Param], first: Sequence[str] = (), *, sections: bool = False
) -> dict[str, Param]:
    """Return the params as the form shows them: `first` first, pick lists, and no empty field that is an error.

    The others keep their `sections` in a form that has all of each.

    Airflow's form calls an empty text invalid before anyone has typed, unless its type allows null; the value null
    that it then sends means the same as an empty text.
    """
    for name, param in params.items():
        schema = param.schema
        types = schema.get("type", "string")
        if param.value == "" and "null" not in types:
            schema["type"] = [*([types] if isinstance(types, str) else types), "null"]
        schema.setdefault("description_md", DESCRIPTIONS.get(name))
        if name in EXAMPLES and "enum" not in schema:
            schema["examples"] = list(EXAMPLES[name])
        if name in CHOICES and "enum" in schema:
            schema["values_display"] = dict(CHOICES[name])
    rest = [name for name in params if name not in first]
    for name in first:
        params[name].schema["section"] = "Start here"
    if not sections:
        for name in rest:
            params[name].schema.pop("section", None)
            if first:
                params[name].schema["section"] = "Everything else"
    return {name: params[name] for name in (*first, *rest)}
