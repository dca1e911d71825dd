"""CreateProcessingJob for the modules of `model_code` that do not train, such as embed and evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ml_pipeline.requests.job import Channel, Compute, disk_of
from ml_pipeline.requests.network import OPEN, Network
from ml_pipeline.requests.types import Document, Tags

INPUT = "/opt/ml/processing/input"
OUTPUT = "/opt/ml/processing/output"
# SageMaker ends a processing job after 9 days.
LONGEST_HOURS = 9 * 24


@dataclass(frozen=True)
class Output:
    """One named output, from /opt/ml/processing/output/<name> to a prefix.

    Attributes:
        continuous: Upload each file as it appears, so that a crash loses one file and not all of them.
    """

    name: str
    uri: str
    continuous: bool = False


@dataclass(frozen=True)
class Processing:
    """A processing job without its name.

    Attributes:
        module: The module of `model_code` to run, such as "embed".
        code_uri: s3:// URI of the code archive.
        arguments: Command line of the module.
        network: See `Network`.
    """

    image: str
    role_arn: str
    module: str
    code_uri: str
    channels: Sequence[Channel]
    outputs: Sequence[Output]
    compute: Compute
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    network: Network = OPEN

    def __post_init__(self) -> None:
        if self.compute.spot or self.compute.keep_alive_seconds:
            raise ValueError("processing jobs have neither spot nor keep_alive")


def processing_job(name: str, job: Processing, tags: Tags = ()) -> Document:
    """Build the request of CreateProcessingJob for `job` under `name`."""
    code = Channel("code", job.code_uri)
    request: Document = {
        "ProcessingJobName": name,
        "RoleArn": job.role_arn,
        "AppSpecification": {
            "ImageUri": job.image,
            "ContainerEntrypoint": ["python", "-c", _start(job.module), f"{INPUT}/code"],
        },
        "ProcessingInputs": [channel.processing_input() for channel in [*job.channels, code]],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": output.name,
                    "S3Output": {
                        "S3Uri": output.uri,
                        "LocalPath": f"{OUTPUT}/{output.name}",
                        "S3UploadMode": "Continuous" if output.continuous else "EndOfJob",
                    },
                }
                for output in job.outputs
            ]
        },
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceType": job.compute.instance_type,
                "InstanceCount": job.compute.instance_count,
                "VolumeSizeInGB": disk_of(job.compute, job.channels),
                **job.network.volume(job.compute.instance_type),
            }
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": job.compute.max_runtime_seconds},
        "Tags": list(tags),
        **job.network.processing(),
    }
    if job.arguments:
        request["AppSpecification"]["ContainerArguments"] = list(job.arguments)
    if job.environment:
        request["Environment"] = dict(job.environment)
    return request


def _start(module: str) -> str:
    # Unpack the code, then become `python -m`. An entry of ContainerEntrypoint holds 256 characters at most;
    # ContainerArguments follow in sys.argv.
    return (
        "import glob,os,sys,tarfile;"
        "os.chdir(sys.argv[1]);"
        "tarfile.open(glob.glob('*.tar.gz')[0]).extractall();"
        f"os.execv(sys.executable,[sys.executable,'-m','model_code.{module}',*sys.argv[2:]])"
    )
