"""Types that cross a boundary: AWS's documents, and the results that one task hands to the next through XCom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypeAlias, TypedDict

# A request or response of an AWS API; botocore's service model describes its keys.
Document: TypeAlias = dict[str, Any]
Tags: TypeAlias = Sequence[Mapping[str, str]]
# A template field of an operator: a template or XComArg while a DAG is parsed, its value when the task runs.
Templated: TypeAlias = Any
# The params of a run by name; docs/reference describes each.
Params: TypeAlias = Mapping[str, Any]


class RejectedPhoto(TypedDict):
    """A photo that upload left out."""

    path: str
    reason: str


class Checked(TypedDict, total=False):
    """Result of check_data; empty with strategy "finetune", for which nothing is embedded.

    Attributes:
        check_uri: s3:// prefix of check.json, findings.jsonl and data_report.html.
        suspects: Photos whose label is probably wrong; `suspect_share` of all, 0 to 1.
        near_duplicates: Pairs of the same picture; those with two labels, and those in two splits.
        too_small: Classes with too few photos to be judged.
        job_name: Job that ran; None where the embed job had checked the data.
    """

    check_uri: str
    report_uri: str
    report_url: str
    photos: int
    suspects: int
    suspect_share: float
    near_duplicates: int
    across_classes: int
    across_splits: int
    too_small: int
    job_name: str | None


class Uploaded(TypedDict):
    """Result of upload: `classes` is their number, `counts` are photos per split.

    `changes` are sentences about renamed and merged classes, `moved` photos that ever changed their split, `corrected`
    labels from the log, `read` files that were read, `job_name` the job that made it, None: the worker did.
    """

    name: str
    version: str
    parent: str | None
    manifest_uri: str
    classes: int
    counts: dict[str, int]
    rejected: int
    rejected_examples: list[RejectedPhoto]
    changes: list[str]
    moved: int
    corrected: int
    read: int
    new_shards: int
    uploaded_bytes: int
    total_bytes: int
    changed: bool
    job_name: str | None


class StoredWeights(TypedDict):
    """Result of weights; `uri` and `sha256` are None for an untrained backbone."""

    uri: str | None
    sha256: str | None
    bytes: int
    source: str
    uploaded: int


class Taught(StoredWeights):
    """Result of teacher: the weights of the network to learn from; without one, its architecture is empty."""

    architecture: str


class Embedded(TypedDict):
    """Result of embed and embed_teacher; None and 0 where there was nothing to embed."""

    embedder_id: str | None
    embeddings_uri: str | None
    weights_uri: str | None
    shards: int
    embedded: int
    job_name: str | None


class Trial(TypedDict):
    """A row of the trials table; `value` and `seconds` are None where unknown."""

    name: str
    status: str
    value: float | None
    seconds: float | None
    hyperparameters: dict[str, str]


class Objective(TypedDict):
    """The metric that a search maximizes, and its best value."""

    name: str
    value: float


class Search(TypedDict):
    """The outcome of a search, with all of its trials."""

    tuning_job_name: str
    best_training_job: str
    best_hyperparameters: dict[str, str]
    objective: Objective
    trials: list[Trial]


class Tuned(Search):
    """Result of tune: only the best trials are listed, all of them are at `trials_uri`."""

    trials_uri: str
    trial_seconds: float


class Trained(TypedDict, total=False):
    """Result of train and of ec2.train (without `billable_seconds`: the instance's bill is that of terminate)."""

    training_job_name: str
    model_uri: str
    billable_seconds: int
    metrics: dict[str, float]


class ChampionEvaluated(TypedDict):
    """The champion's part of an evaluation."""

    model_uri: str
    accuracy: float
    predictions_uri: str


class Evaluated(TypedDict):
    """Result of evaluate; accuracies are on the test split, through the served runtime."""

    job_name: str
    model_uri: str
    evaluation_uri: str
    predictions_uri: str
    report_uri: str
    report_url: str
    accuracy: float
    accuracy_interval: NotRequired[list[float]]
    top5_accuracy: float
    photos: int
    runtime: str
    champion: ChampionEvaluated | None


class Gated(TypedDict):
    """Result of gate."""

    passed: bool
    reason: str


class Registered(TypedDict):
    """Result of register."""

    model_package_arn: str
    status: str


class Chosen(Registered):
    """Result of the choose task of `deploy`: the version, its endpoint (capture_days 0: none), and its evaluation."""

    version: int
    dataset_name: str
    endpoint_name: str
    instance_type: str
    instance_count: int
    max_count: int
    capture_percent: int
    capture_days: int
    manifest_uri: str
    predictions_uri: str


class Approved(TypedDict):
    """Result of approve."""

    approved: bool
    by: str


class Deployed(TypedDict):
    """Result of deploy; `previous_config_name` is the endpoint config that this deployment replaced."""

    endpoint_name: str
    endpoint_config_name: str
    previous_config_name: str | None
    model_package_arn: str


class TopClass(TypedDict):
    """An answer of the endpoint about one test photo; `top` are (class, probability) pairs, best first.

    photo: its path in the source, or its key where no one knows it.
    """

    photo: str
    label: str
    top: list[list[str | float]]


class SmokeTested(TypedDict):
    """Result of smoke_test."""

    photos: int
    agreed: int
    latency_ms_p50: float
    predictions: list[TopClass]


class Machine(TypedDict):
    """Result of ec2.create."""

    instance_id: str
    instance_type: str


class EndedMachine(Machine):
    """An instance that was terminated, with the seconds that are billed."""

    seconds: float


class Terminated(TypedDict):
    """Result of ec2.terminate."""

    machines: list[EndedMachine]


class Stopped(TypedDict):
    """Result of stop_leftovers."""

    stopped: list[str]
    unlocked: bool


class Staged(TypedDict):
    """Result of batch_predict's stage."""

    photos_uri: str
    photos: int


class Transformed(TypedDict):
    """Result of batch_predict's predict."""

    transform_job_name: str
    output_uri: str
    model_name: str
    photos_uri: str


class Tabled(TypedDict):
    """Result of batch_predict's table: predicted photos by class, and the photos without a prediction."""

    table_uri: str
    photos: int
    unreadable: int
    classes: dict[str, int]


class PlannedStep(TypedDict):
    """A paid step of a plan; `usd` is None where no price list has the machine."""

    step: str
    instance_type: str
    instance_count: int
    seconds: float
    job_seconds: float
    usd: float | None


class BilledEndpoint(TypedDict):
    """An endpoint of this project that is being billed."""

    endpoint_name: str
    dataset_name: str | None
    instance_type: str | None
    instance_count: int
    usd_per_hour: float | None


class Planned(TypedDict):
    """Result of plan; `machines` are the instance types that jobs use, by the name of their param.

    `requests_usd` are S3's requests of upload, which `estimate_usd` leaves out: it estimates machines.
    """

    dataset_name: str
    endpoint_name: str
    replaces: str | None
    estimate_usd: float
    requests_usd: float
    steps: list[PlannedStep]
    machines: dict[str, str]
    photos: int
    endpoint_usd_per_hour: float | None
    endpoints: list[BilledEndpoint]
    out_of_use: list[str]
    note: str


class BillLine(TypedDict):
    """A step of the bill."""

    step: str
    job_name: str
    instance_type: str
    instance_count: int
    billable_seconds: float
    usd: float | None


class ComparedMachine(TypedDict):
    """A row of the comparison of machines; None where no job measured it."""

    instance_type: str
    work: str
    usd_per_hour: float
    photos_per_second: float | None
    usd_per_million_photos: float | None
    measured: str


class Bill(TypedDict):
    """The bill of a run."""

    usd: float
    steps: list[BillLine]
    note: str


class Billed(Bill):
    """Result of bill."""

    instances: list[ComparedMachine]
    formula: str


class OrphanRow(TypedDict):
    """A thing that the janitor found."""

    kind: str
    name: str
    reason: str
    age_days: float


class Swept(TypedDict):
    """Result of sweep."""

    dry_run: bool
    removed: int
    found: list[OrphanRow]


class TakenDown(TypedDict):
    """Result of take_down."""

    endpoint_name: str
    deleted: list[str]


class Link(TypedDict, total=False):
    """The XCom from which the links of an operator are built; without `console` on local_aws."""

    name: str
    kind: str
    region: str
    console: str
    log_group: str | None
