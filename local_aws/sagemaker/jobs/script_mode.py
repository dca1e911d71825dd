"""Script mode of sagemaker-training-toolkit: arguments, SM_* variables and the command.

Formulas and names follow aws/sagemaker-training-toolkit 5.1 (mapping.py, params.py, environment.py,
entry_point.py), so that a script written for the real containers runs unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

PROGRAM = "sagemaker_program"
SUBMIT_DIRECTORY = "sagemaker_submit_directory"
TORCH_DISTRIBUTED = "sagemaker_torch_distributed_enabled"
OBJECTIVE_METRIC = "_tuning_objective_metric"


@dataclass(frozen=True)
class HostPlace:
    """One host of a job.

    Attributes:
        root: Where it sees /opt/ml.
        cores: Its share of the machine.
    """

    root: str
    host: str
    hosts: tuple[str, ...]
    cores: int
    instance_type: str
    instance_group: str = "homogeneousCluster"
    instance_groups: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    """(group, instance type, hosts of the group)"""


def decode(hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Decode JSON values; keep others as text: `0.1` -> 0.1, `"a"` -> "a", `adam` -> "adam"."""
    decoded: dict[str, Any] = {}
    for name, value in hyperparameters.items():
        try:
            decoded[name] = json.loads(value)
        except ValueError:
            decoded[name] = value
    return decoded


def split(hyperparameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split into (the script's, the toolkit's): the latter begin with `sagemaker_`."""
    user = {
        name: value
        for name, value in hyperparameters.items()
        if not name.startswith("sagemaker_") and name != OBJECTIVE_METRIC
    }
    framework = {name: value for name, value in hyperparameters.items() if name.startswith("sagemaker_")}
    return user, framework


def arguments(user: Mapping[str, Any]) -> list[str]:
    """Build command-line arguments in order of name.

    `{"lr": 0.1, "n": 2}` -> `--lr 0.1 -n 2`; a mapping becomes `k=v,...`.
    """
    argv: list[str] = []
    for name in sorted(user):
        value = user[name]
        pairs = value.items() if isinstance(value, dict) else None
        text = str(value) if pairs is None else ",".join(f"{key}={entry}" for key, entry in sorted(pairs))
        argv += [f"--{name}" if len(name) > 1 else f"-{name}", text]
    return argv


def input_data_config(channels: Sequence[Mapping[str, Any]], default_mode: str) -> dict[str, Any]:
    """Build inputdataconfig.json of a job's channels."""
    config: dict[str, Any] = {}
    for channel in channels:
        source = channel["DataSource"].get("S3DataSource", {})
        entry = {
            "TrainingInputMode": channel.get("InputMode", default_mode),
            "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        }
        if "ContentType" in channel:
            entry["ContentType"] = channel["ContentType"]
        config[channel["ChannelName"]] = entry
    return config


def resource_config(place: HostPlace) -> dict[str, Any]:
    """Build resourceconfig.json of one host."""
    groups = place.instance_groups or ((place.instance_group, place.instance_type, place.hosts),)
    return {
        "current_host": place.host,
        "current_instance_type": place.instance_type,
        "current_group_name": place.instance_group,
        "hosts": list(place.hosts),
        "instance_groups": [
            {"instance_group_name": name, "instance_type": kind, "hosts": list(hosts)}
            for name, kind, hosts in groups
        ],
        "network_interface_name": "lo",
    }


def environment(
    place: HostPlace,
    job_name: str,
    hyperparameters: Mapping[str, str],
    channels: Mapping[str, Any],
    module_uri: str,
) -> dict[str, str]:
    """Build every SM_* variable of the toolkit for one host.

    Args:
        place: The host.
        job_name: The training job's name.
        hyperparameters: As in the request, JSON-encoded.
        channels: The content of inputdataconfig.json.
        module_uri: S3 URI of the code.
    """
    user, framework = split(decode(hyperparameters))
    root = place.root
    program = str(framework.get(PROGRAM, ""))
    config = resource_config(place)
    values: dict[str, Any] = {
        "hosts": list(place.hosts),
        "network_interface_name": "lo",
        "hps": user,
        "user_entry_point": program,
        "framework_params": framework,
        "resource_config": config,
        "input_data_config": dict(channels),
        "output_data_dir": f"{root}/output/data",
        "channels": sorted(channels),
        "current_host": place.host,
        "current_instance_type": place.instance_type,
        "current_instance_group": place.instance_group,
        "current_instance_group_hosts": _group_hosts(place),
        "instance_groups": [group["instance_group_name"] for group in config["instance_groups"]],
        "distribution_instance_groups": framework.get("sagemaker_distribution_instance_groups", []),
        "is_hetero": len(config["instance_groups"]) > 1,
        "module_name": PurePosixPath(program).stem,
        "log_level": framework.get("sagemaker_container_log_level", 20),
        "framework_module": "sagemaker_pytorch_container.training:main",
        "input_dir": f"{root}/input",
        "input_config_dir": f"{root}/input/config",
        "output_dir": f"{root}/output",
        "num_cpus": place.cores,
        "num_gpus": 0,
        "num_neurons": 0,
        "model_dir": f"{root}/model",
        "module_dir": module_uri,
        "output_intermediate_dir": f"{root}/output/intermediate",
        "user_args": arguments(user),
        "training_env": _training_env(place, job_name, user, channels, module_uri, program, config),
    }
    env = {f"SM_{name.upper()}": _text(value) for name, value in values.items()}
    env |= {f"SM_CHANNEL_{name.upper()}": f"{root}/input/data/{name}" for name in channels}
    env |= {f"SM_HP_{name.upper()}": _text(value) for name, value in user.items()}
    return env


def command(interpreter: str, program: str, has_setup: bool) -> list[str]:
    """Return the command of the entry point: a .py file, a package (setup.py, no suffix) or a shell command."""
    if program.endswith(".py"):
        return [interpreter, program]
    if has_setup and not program.endswith(".sh"):
        return [interpreter, "-m", PurePosixPath(program).stem]
    return ["/bin/sh", "-c", f'./{program} "$@"', program]


def runs_torchrun(framework: Mapping[str, Any], place: HostPlace) -> bool:
    """Return True when the toolkit starts the script with torchrun: enabled, and the host's group is listed."""
    groups = framework.get("sagemaker_distribution_instance_groups", [])
    return bool(framework.get(TORCH_DISTRIBUTED)) and place.instance_group in groups


def torchrun(interpreter: str, place: HostPlace, port: int, argv: Sequence[str]) -> list[str]:
    """Return the command of `torch_distributed`: one process per host, the first host as master."""
    return [
        interpreter,
        "-m",
        "torch.distributed.run",
        f"--nnodes={len(place.hosts)}",
        f"--nproc_per_node={1}",
        f"--master_addr={place.hosts[0]}",
        f"--master_port={port}",
        f"--node_rank={place.hosts.index(place.host)}",
        *argv,
    ]


def _group_hosts(place: HostPlace) -> list[str]:
    for name, _, hosts in place.instance_groups:
        if name == place.instance_group:
            return list(hosts)
    return list(place.hosts)


def _training_env(
    place: HostPlace,
    job_name: str,
    user: Mapping[str, Any],
    channels: Mapping[str, Any],
    module_uri: str,
    program: str,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    root = place.root
    return {
        "channel_input_dirs": {name: f"{root}/input/data/{name}" for name in channels},
        "current_host": place.host,
        "hosts": list(place.hosts),
        "hyperparameters": dict(user),
        "input_data_config": dict(channels),
        "input_dir": f"{root}/input",
        "is_master": place.host == place.hosts[0],
        "job_name": job_name,
        "master_hostname": place.hosts[0],
        "model_dir": f"{root}/model",
        "module_dir": module_uri,
        "module_name": PurePosixPath(program).stem,
        "num_cpus": place.cores,
        "num_gpus": 0,
        "output_data_dir": f"{root}/output/data",
        "output_dir": f"{root}/output",
        "resource_config": dict(config),
        "user_entry_point": program,
    }


def _text(value: Any) -> str:
    """Format as the toolkit does: scalars as Python prints them, anything else as JSON."""
    return str(value) if isinstance(value, str | int | float | bool) else json.dumps(value, sort_keys=True)
