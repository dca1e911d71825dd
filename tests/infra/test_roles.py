"""Evaluates the policies as created, request by request: what each role may do and must not."""

from __future__ import annotations

from typing import Any

import pytest

from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.registry import packages
from ml_pipeline.requests import endpoint, instance, names
from ml_pipeline.requests.network import Network
from ml_pipeline.settings import Settings
from tests.infra import stacks
from tests.infra.policy import Request, allowed
from tests.infra.roles import AIRFLOW, API_SERVER, INSTANCE_ROLE, JOB, POLICIES, TEMPLATES, granted
from tests.infra.template import EXPORTS, Template

ARN = f"arn:aws:{{}}:{stacks.REGION}:{stacks.ACCOUNT}:{{}}"
OURS = {"aws:RequestTag/project": "ml-pipeline", "aws:ResourceTag/project": "ml-pipeline"}
M5 = {"sagemaker:InstanceTypes": ["ml.m5.xlarge"]}
# "IAM and AWS STS quotas": all inline policies of a role together, white space not counted.
INLINE_POLICIES_LIMIT = 10_240
S3 = f"arn:aws:s3:::{stacks.BUCKET}"


def sagemaker(kind: str) -> str:
    return ARN.format("sagemaker", f"{kind}/x")


KEY = EXPORTS["ml-pipeline-key"]


@pytest.mark.parametrize(
    ("action", "kind", "context", "expected"),
    [
        ("CreateTrainingJob", "training-job", OURS | M5, True),
        ("CreateTrainingJob", "training-job", M5, False),  # untagged: its owner would be unknown
        ("CreateTrainingJob", "training-job", OURS | {"sagemaker:InstanceTypes": ["ml.p5.48xlarge"]}, False),
        ("CreateTrainingJob", "training-job", OURS | M5 | {"sagemaker:KeepAlivePeriod": "7200"}, False),
        ("CreateTrainingJob", "training-job", OURS | M5 | {"sagemaker:KeepAlivePeriod": "600"}, True),
        (
            "CreateHyperParameterTuningJob",
            "hyper-parameter-tuning-job",
            OURS | {"sagemaker:InstanceTypes": ["ml.m5.large", "ml.p4d.24xlarge"]},  # one of a list
            False,
        ),
        ("CreateModel", "model", OURS | {"sagemaker:NetworkIsolation": "true"}, True),
        ("CreateModel", "model", OURS | {"sagemaker:NetworkIsolation": "false"}, False),
        ("CreateModel", "model", OURS, False),
        ("StopTrainingJob", "training-job", OURS, True),
        ("StopTrainingJob", "training-job", {"aws:ResourceTag/project": "others"}, False),
        ("DeleteEndpoint", "endpoint", {}, False),
        ("UpdateEndpoint", "endpoint", OURS, True),
        ("InvokeEndpoint", "endpoint", {}, False),
        ("AddTags", "training-job", {"sagemaker:TaggingAction": "CreateTrainingJob"}, True),
        ("AddTags", "training-job", OURS, False),  # it would make someone else's job its own
        ("DeleteModelPackage", "model-package", OURS, False),
        ("CreateNotebookInstance", "notebook-instance", OURS, False),
    ],
)
def test_airflow_touches_only_its_own_work(
    action: str, kind: str, context: dict[str, Any], expected: bool
) -> None:
    assert allowed(AIRFLOW, Request(f"sagemaker:{action}", sagemaker(kind), context)) is expected


@pytest.mark.parametrize(
    ("role", "service", "expected"),
    [
        ("ml-pipeline-job", "sagemaker.amazonaws.com", True),
        ("ml-pipeline-job", "ec2.amazonaws.com", False),
        ("ml-pipeline-job", "lambda.amazonaws.com", False),
        ("ml-pipeline-instance", "ec2.amazonaws.com", True),
        ("ml-pipeline-instance", "sagemaker.amazonaws.com", False),
        ("administrator", "sagemaker.amazonaws.com", False),
        ("ml-pipeline-airflow", "sagemaker.amazonaws.com", False),
    ],
)
def test_airflow_hands_on_two_roles_each_to_one_service(role: str, service: str, expected: bool) -> None:
    arn = f"arn:aws:iam::{stacks.ACCOUNT}:role/{role}"
    assert allowed(AIRFLOW, Request("iam:PassRole", arn, {"iam:PassedToService": service})) is expected


INSTANCE = ARN.format("ec2", "instance/*")
START = OURS | {
    "ec2:MetadataHttpTokens": "required",
    "ec2:InstanceType": "m5.xlarge",
    "ec2:InstanceProfile": f"arn:aws:iam::{stacks.ACCOUNT}:instance-profile/ml-pipeline-instance",
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"ec2:MetadataHttpTokens": "optional"}, False),
        ({"ec2:InstanceType": "p5.48xlarge"}, False),
        ({"ec2:InstanceProfile": f"arn:aws:iam::{stacks.ACCOUNT}:instance-profile/admin"}, False),
        ({"aws:RequestTag/project": ""}, False),
    ],
)
def test_airflow_starts_only_instances_of_its_own_kind(change: dict[str, str], expected: bool) -> None:
    assert allowed(AIRFLOW, Request("ec2:RunInstances", INSTANCE, START | change)) is expected


def context_of(request: dict[str, Any]) -> dict[str, str]:
    """The condition keys of a RunInstances request."""
    tags = {tag["Key"]: tag["Value"] for tag in request["TagSpecifications"][0]["Tags"]}
    profile = request["IamInstanceProfile"]["Name"]
    return {
        "aws:RequestTag/project": tags["project"],
        "ec2:MetadataHttpTokens": request["MetadataOptions"]["HttpTokens"],
        "ec2:InstanceType": request["InstanceType"],
        "ec2:InstanceProfile": f"arn:aws:iam::{stacks.ACCOUNT}:instance-profile/{profile}",
    }


def test_airflow_may_start_the_instance_that_the_pipeline_asks_for() -> None:
    origin = names.Origin("dag", "run", "task")
    profile = Settings("b", "arn:x", "r").instance_profile
    machine = instance.Instance("ec2-1", "ami-1", "m5.xlarge", profile, "sg-1")
    request = instance.run_instances(machine, names.tags(origin))
    assert allowed(AIRFLOW, Request("ec2:RunInstances", INSTANCE, context_of(request)))
    assert START | context_of(request) == START


def test_airflow_may_make_the_model_that_the_pipeline_asks_for() -> None:
    serving = endpoint.Serving("dogs", "s3://b/m.tar.gz", "image", "arn:aws:iam::1:role/x", "ml.m5.large")
    request = endpoint.model(serving, names.tags(names.Origin("dag", "run", "task")))
    context = {
        "sagemaker:NetworkIsolation": str(request["EnableNetworkIsolation"]).lower(),
        **{f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in request["Tags"]},
    }
    assert allowed(AIRFLOW, Request("sagemaker:CreateModel", sagemaker("model"), context))


def test_instances_may_write_the_log_that_their_commands_name() -> None:
    group = ARN.format("logs", f"log-group:{instance.LOG_GROUP}:log-stream:x")
    assert allowed(INSTANCE_ROLE, Request("logs:PutLogEvents", group))
    assert allowed(AIRFLOW, Request("logs:GetLogEvents", group))


@pytest.mark.parametrize("policies", [AIRFLOW, API_SERVER], ids=["airflow", "api-server"])
def test_logs_of_jobs_are_read_by_the_names_that_the_dags_give(policies: list[dict[str, Any]]) -> None:
    origin = names.Origin("dag", "run", "task")
    group = ARN.format("logs", "log-group:/aws/sagemaker/TrainingJobs:log-stream:{}")
    for job, expected in (
        (names.job_name("train", origin, {}, 1), True),
        (names.job_name("tune", origin, {}, 2) + "-001-0a1b2c3d", True),
        ("of-another-team", False),
    ):
        assert (
            allowed(policies, Request("logs:GetLogEvents", group.format(f"{job}/algo-1-1700000000")))
            is expected
        )
    assert allowed(policies, Request("logs:DescribeLogStreams", group.format("")))


def test_airflow_registers_scales_and_watches_only_what_is_its_own() -> None:
    theirs = {"aws:ResourceTag/project": "theirs"}
    for kind in ("model-package-group", "model-package"):
        for action in ("CreateModelPackage", "UpdateModelPackage"):
            assert allowed(AIRFLOW, Request(f"sagemaker:{action}", sagemaker(kind), OURS))
            assert not allowed(AIRFLOW, Request(f"sagemaker:{action}", sagemaker(kind), theirs))
    group = packages.package_group("dogs", "")
    tags = {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in group["Tags"]}
    create = "sagemaker:CreateModelPackageGroup"
    assert allowed(AIRFLOW, Request(create, sagemaker("model-package-group"), tags))
    assert not allowed(AIRFLOW, Request(create, sagemaker("model-package-group")))
    for name, expected in ((names.alarm("dogs", "5xx"), True), ("dogs-5xx", False), ("billing", False)):
        for action in ("PutMetricAlarm", "DeleteAlarms"):
            alarm = ARN.format("cloudwatch", f"alarm:{name}")
            assert allowed(AIRFLOW, Request(f"cloudwatch:{action}", alarm)) is expected
    target = endpoint.scalable_target("dogs")
    keys = {
        "application-autoscaling:service-namespace": target["ServiceNamespace"],
        "application-autoscaling:scalable-dimension": target["ScalableDimension"],
    }
    register, arn = "application-autoscaling:RegisterScalableTarget", "scalable-target/0123"
    resource = ARN.format("application-autoscaling", arn)
    assert allowed(AIRFLOW, Request(register, resource, keys))
    other = keys | {
        "application-autoscaling:scalable-dimension": "sagemaker:inference-component:DesiredCopyCount"
    }
    assert not allowed(AIRFLOW, Request(register, resource, other))


@pytest.mark.parametrize("role", ["Airflow", "Job"])
def test_runs_are_recorded_in_the_mlflow_app_that_is_named(role: str) -> None:
    app, other = (ARN.format("sagemaker", f"mlflow-app/app-{name}") for name in ("OURS", "THEIRS"))
    policies = Template(TEMPLATES[role], {"MlflowApp": app}).role_policies(role)
    for action in ("sagemaker:CallMlflowAppApi", "sagemaker-mlflow:LogMetric"):
        assert allowed(policies, Request(action, app))
        assert not allowed(policies, Request(action, other))
        assert not allowed(POLICIES[role.lower()], Request(action, app))


def test_logs_of_others_are_neither_read_nor_written() -> None:
    kept = [kind.calls.log_group for kind in JobKind if kind.calls.log_group]
    for name in [
        *kept,
        "/aws/sagemaker/Endpoints/dogs",
        "/aws/sagemaker/NotebookInstances",
        "/ml-pipeline/other",
    ]:
        group = ARN.format("logs", f"log-group:{name}:log-stream:watch-0123456789ab-1/x")
        assert allowed(AIRFLOW, Request("logs:GetLogEvents", group)) is (name in kept)
        written = name in kept or name == "/aws/sagemaker/Endpoints/dogs"
        assert allowed(JOB, Request("logs:PutLogEvents", group)) is written
        assert not allowed(INSTANCE_ROLE, Request("logs:PutLogEvents", group))


def test_airflow_commands_only_its_own_instances() -> None:
    document = f"arn:aws:ssm:{stacks.REGION}::document/{{}}"
    assert allowed(AIRFLOW, Request("ssm:SendCommand", document.format("AWS-RunShellScript")))
    assert not allowed(AIRFLOW, Request("ssm:SendCommand", document.format("AWS-RunRemoteScript")))
    assert allowed(AIRFLOW, Request("ssm:SendCommand", INSTANCE, OURS))
    assert not allowed(AIRFLOW, Request("ssm:SendCommand", INSTANCE))
    assert not allowed(AIRFLOW, Request("ec2:TerminateInstances", INSTANCE))
    assert not allowed(
        AIRFLOW, Request("ec2:AuthorizeSecurityGroupIngress", ARN.format("ec2", "security-group/x"))
    )


@pytest.mark.parametrize(
    ("who", "action", "key", "expected"),
    [
        ("airflow", "s3:PutObject", "datasets/dogs/shards/x.tar", True),
        ("airflow", "s3:DeleteObject", "locks/dogs.json", True),
        ("airflow", "s3:DeleteObject", "datasets/dogs/shards/x.tar", False),
        ("airflow", "s3:PutBucketPolicy", "", False),
        ("job", "s3:GetObject", "datasets/dogs/shards/x.tar", True),
        ("job", "s3:PutObject", "jobs/train-1/output/model.tar.gz", True),
        ("job", "s3:PutObject", "embeddings/e/x.safetensors", True),
        ("job", "s3:PutObject", "batch/predict-1/answers/a.jpg.out", True),
        ("job", "s3:PutObject", "captures/7d/dogs/main/2026/01/01/00/a.jsonl", True),
        ("job", "s3:PutObject", "datasets/dogs/reviews/answers/x.json", False),
        ("job", "s3:DeleteObject", "captures/7d/dogs/main/2026/01/01/00/a.jsonl", False),
        ("job", "s3:PutObject", "batch/0123456789abcdef/photos/a.jpg", False),
        ("job", "s3:PutObject", "datasets/dogs/shards/x.tar", True),
        ("job", "s3:PutObject", "datasets/dogs/latest.json", False),
        ("job", "s3:PutObject", "datasets/dogs/versions/1/manifest.json", False),
        ("job", "s3:PutObject", "datasets/dogs/corrections/00000001.jsonl", False),
        ("job", "s3:PutObject", "code/x.tar.gz", False),
        ("job", "s3:DeleteObject", "jobs/train-1/output/model.tar.gz", False),
        ("instance", "s3:GetObject", "code/x.tar.gz", True),
        ("instance", "s3:PutObject", "jobs/train-1/output/model.tar.gz", True),
        ("instance", "s3:PutObject", "embeddings/e/x.safetensors", False),
        ("instance", "s3:DeleteObject", "jobs/train-1/output/model.tar.gz", False),
        ("airflow", "s3:DeleteObjectVersion", "datasets/dogs/shards/x.tar", False),
        ("forget", "s3:DeleteObjectVersion", "datasets/dogs/shards/x.tar", True),
        ("forget", "s3:DeleteObject", "datasets/dogs/shards/x.tar", False),  # a marker deletes nothing
        ("forget", "s3:DeleteBucket", "", False),
    ],
)
def test_each_role_writes_only_where_it_works(who: str, action: str, key: str, expected: bool) -> None:
    policies = POLICIES[who]
    assert allowed(policies, Request(action, f"{S3}/{key}" if key else S3)) is expected
    assert not allowed(policies, Request(action, f"arn:aws:s3:::another-bucket/{key}"))


@pytest.mark.parametrize(
    ("action", "key", "condition", "expected"),
    [
        ("s3:GetObject", "datasets/dogs/versions/1/photos.jsonl", {}, True),
        ("s3:PutObject", "datasets/dogs/reviews/answers/x.json", {"s3:if-none-match": "*"}, True),
        ("s3:PutObject", "datasets/dogs/corrections/00000001.jsonl", {"s3:if-none-match": "*"}, True),
        ("s3:PutObject", "datasets/dogs/corrections/00000001.jsonl", {}, False),
        ("s3:PutObject", "datasets/dogs/corrections/00000001.jsonl", {"s3:if-match": '"etag"'}, False),
        ("s3:PutObject", "datasets/dogs/latest.json", {"s3:if-none-match": "*"}, False),
        ("s3:PutObject", "locks/dogs.json", {"s3:if-none-match": "*"}, False),
        ("s3:DeleteObject", "datasets/dogs/reviews/answers/x.json", {}, False),
    ],
)
def test_the_api_server_reads_and_only_adds_answers_of_people(
    action: str, key: str, condition: dict[str, str], expected: bool
) -> None:
    assert allowed(API_SERVER, Request(action, f"{S3}/{key}", condition)) is expected


@pytest.mark.parametrize("kind", ["Create", "Update", "Delete", "Stop", "Put", "Register"])
def test_the_api_server_changes_nothing_but_answers(kind: str) -> None:
    actions = granted(API_SERVER) - {"s3:PutObject"}
    assert not [action for action in actions if action.partition(":")[2].startswith(kind)]
    assert allowed(API_SERVER, Request("sagemaker:InvokeEndpoint", sagemaker("endpoint"), OURS))
    assert not allowed(API_SERVER, Request("sagemaker:InvokeEndpoint", sagemaker("endpoint")))


@pytest.mark.parametrize("role", ["Airflow", "Job"])
def test_photos_are_read_from_the_buckets_that_are_named(role: str) -> None:
    named = {"PhotoBuckets": "arn:aws:s3:::team-photos,arn:aws:s3:::zoo"}
    policies = Template(TEMPLATES[role], named).role_policies(role)
    for bucket, expected in (("team-photos", True), ("zoo", True), ("zoo-secrets", False)):
        arn = f"arn:aws:s3:::{bucket}"
        assert allowed(policies, Request("s3:ListBucket", arn)) is expected
        assert allowed(policies, Request("s3:GetObject", f"{arn}/dogs/a.jpg")) is expected
        assert not allowed(policies, Request("s3:PutObject", f"{arn}/dogs/a.jpg"))
    # Nothing named, nothing allowed: an empty resource would be refused by IAM.
    statements = [statement for policy in POLICIES[role.lower()] for statement in policy["Statement"]]
    assert "SeePhotoBuckets" not in {statement["Sid"] for statement in statements}


@pytest.mark.parametrize("who", ["airflow", "job"])
def test_disks_get_the_key_by_a_grant_to_a_service(who: str) -> None:
    def grant(key: str = KEY, **context: str) -> bool:
        return allowed(POLICIES[who], Request("kms:CreateGrant", key, context))

    assert grant(**{"kms:GrantIsForAWSResource": "true"})
    assert not grant(**{"kms:GrantIsForAWSResource": "false"})
    assert not grant()
    assert not grant(f"{KEY}-of-others", **{"kms:GrantIsForAWSResource": "true"})
    assert allowed(POLICIES[who], Request("kms:DescribeKey", KEY))
    assert not allowed(INSTANCE_ROLE, Request("kms:CreateGrant", KEY, {"kms:GrantIsForAWSResource": "true"}))


def test_the_key_is_used_through_services_only() -> None:
    for policies, services in ((AIRFLOW, ("s3", "sqs", "sns")), (JOB, ("s3",)), (INSTANCE_ROLE, ("s3",))):
        for service in services:
            through = {"kms:ViaService": f"{service}.{stacks.REGION}.amazonaws.com"}
            assert allowed(policies, Request("kms:Decrypt", KEY, through))
            assert not allowed(policies, Request("kms:ScheduleKeyDeletion", KEY, through))
        assert not allowed(policies, Request("kms:Decrypt", KEY))
        assert not allowed(policies, Request("kms:Decrypt", KEY, {"kms:ViaService": "ebs.amazonaws.com"}))


@pytest.mark.parametrize("who", ["airflow", "api-server", "job", "instance", "forget"])
@pytest.mark.parametrize(
    "action",
    ["iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy", "sts:AssumeRole", "ssm:GetParameters",
     "secretsmanager:GetSecretValue", "s3:DeleteBucket", "ec2:CreateKeyPair", "lambda:InvokeFunction"],
)  # fmt: skip
def test_no_role_can_get_more_rights_or_secrets(
    request: pytest.FixtureRequest, who: str, action: str
) -> None:
    assert not allowed(POLICIES[who], Request(action, "*", OURS))


def test_asking_one_endpoint_is_all_that_the_callers_policy_gives() -> None:
    written = Template("endpoint", {"EndpointName": "dogs"}).properties("AWS::IAM::ManagedPolicy")
    policies = [written["Ask"]["PolicyDocument"]]
    dogs, cats = (ARN.format("sagemaker", f"endpoint/{name}") for name in ("dogs", "cats"))
    assert allowed(policies, Request("sagemaker:InvokeEndpoint", dogs))
    assert not allowed(policies, Request("sagemaker:InvokeEndpoint", cats))
    assert not allowed(policies, Request("sagemaker:DescribeEndpoint", dogs))


def test_roles_are_taken_by_their_services_alone() -> None:
    roles = {
        **Template("airflow").properties("AWS::IAM::Role"),
        **Template("jobs").properties("AWS::IAM::Role"),
        **Template("forget").properties("AWS::IAM::Role"),
    }
    trusted = {
        name: [statement["Principal"] for statement in role["AssumeRolePolicyDocument"]["Statement"]]
        for name, role in roles.items()
    }
    assert trusted == {
        "Airflow": [{"Service": "ec2.amazonaws.com"}],
        "ApiServer": [{"Service": "ec2.amazonaws.com"}],
        "Job": [{"Service": "sagemaker.amazonaws.com"}],
        "Instance": [{"Service": "ec2.amazonaws.com"}],
        "Forget": [{"AWS": f"arn:aws:iam::{stacks.ACCOUNT}:root"}],
    }
    (people,) = roles["Forget"]["AssumeRolePolicyDocument"]["Statement"]
    assert people["Condition"] == {"Bool": {"aws:MultiFactorAuthPresent": "true"}}


def test_a_role_that_airflow_has_already_takes_the_pipelines() -> None:
    roles = Template("airflow", {"AirflowRole": "arn:aws:iam::123456789012:role/mwaa"})
    for role in roles.properties("AWS::IAM::Role").values():
        (trusted,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert trusted["Principal"] == {"AWS": "arn:aws:iam::123456789012:role/mwaa"}


@pytest.mark.parametrize("private", ["false", "true"])
def test_policies_fit_into_iam(private: str) -> None:
    for role, file in TEMPLATES.items():
        policies = Template(file, {"Private": private}).role_policies(role)
        assert stacks.size(policies) <= INLINE_POLICIES_LIMIT


def test_private_refuses_what_is_outside_the_network_or_has_another_key() -> None:
    policies = Template("airflow", {"Private": "true"}).role_policies("Airflow")
    inside = {
        "sagemaker:VpcSubnets": ["subnet-a", "subnet-b"],
        "sagemaker:VpcSecurityGroupIds": ["sg-machines"],
        "sagemaker:VolumeKmsKey": KEY,
    }

    def train(**change: Any) -> bool:
        context = {**OURS, **M5, **inside, **{f"sagemaker:{key}": value for key, value in change.items()}}
        return allowed(policies, Request("sagemaker:CreateTrainingJob", sagemaker("training-job"), context))

    assert train()
    assert not train(VpcSubnets=[])
    assert not train(VpcSubnets=["subnet-a", "subnet-of-others"])
    assert not train(VpcSecurityGroupIds=["sg-of-others"])
    assert not train(VolumeKmsKey=[])
    assert not train(VolumeKmsKey="arn:aws:kms:eu-west-1:999999999999:key/x")
    network = Network(("subnet-a", "subnet-b"), ("sg-machines",), KEY)
    assert network.vpc
    asked = {"VpcSubnets": network.vpc["Subnets"], "VpcSecurityGroupIds": network.vpc["SecurityGroupIds"]}
    assert train(**asked, VolumeKmsKey=network.volume("ml.m5.xlarge")["VolumeKmsKeyId"])
    attach = Request("ec2:CreateNetworkInterface")
    assert allowed(Template("jobs", {"Private": "true"}).role_policies("Job"), attach)
    assert not allowed(JOB, attach)
