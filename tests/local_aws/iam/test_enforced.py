"""`--iam enforce`: the roles of infra/ do their work and nothing else, told in AWS's words."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.infra.stacks import ACCOUNT, BUCKET, REGION
from tests.local_aws.cloud import channel, eventually, training_request, unique
from tests.local_aws.iam.enforced import Account, arn, create_roles
from tests.local_aws.processing import request as processing_request
from tests.local_aws.serving import Deployment, pack
from tests.local_aws.tuning import SCORE
from tests.local_aws.tuning import ended as tuning_ended
from tests.local_aws.tuning import request as tuning_request

OURS = [{"Key": "project", "Value": "ml-pipeline"}]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    running = Account(
        tmp_path_factory.mktemp("account"), ("--cores", "4", "--iam", "enforce", "--region", REGION)
    )
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def account(started: Account) -> Account:
    """With the project's bucket and the roles of infra/, and one that may do nothing."""
    create_roles(started)
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "sagemaker.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    started.client("iam").create_role(RoleName="outsider", AssumeRolePolicyDocument=document)
    return started


@pytest.fixture(scope="module")
def airflow(account: Account) -> Account:
    return account.of("ml-pipeline-airflow")


def test_the_simulator_knows_the_roles_that_there_are(account: Account) -> None:
    def simulate(role: str) -> Any:
        arn = f"arn:aws:iam::123456789012:role/{role}"
        return account.client("iam").simulate_principal_policy(
            PolicySourceArn=arn, ActionNames=["s3:ListAllMyBuckets"]
        )

    assert simulate("outsider")["EvaluationResults"][0]["EvalDecision"] == "implicitDeny"
    with pytest.raises(ClientError, match="NoSuchEntity"):
        simulate("absent")


def refused(call: Any, **params: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**params)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


def ours(request: dict[str, Any], role: str = "ml-pipeline-job") -> dict[str, Any]:
    """A request as the DAGs send it: with the project's role, tag and places."""
    text = json.dumps(request).replace(f"s3://{BUCKET}/output", f"s3://{BUCKET}/jobs")
    text = text.replace(f"s3://{BUCKET}/result", f"s3://{BUCKET}/jobs/result").replace("us-east-1", REGION)
    found = dict(json.loads(text)) | {"Tags": OURS}
    for part in (found, found.get("TrainingJobDefinition", {})):
        if "RoleArn" in part:
            part["RoleArn"] = arn(role)
    return found


JOB = """
import boto3, os
s3 = boto3.client("s3")
bucket = os.environ["BUCKET"]
print("who", boto3.client("sts").get_caller_identity()["Arn"])
s3.put_object(Bucket=bucket, Key="jobs/by-hand", Body=b"1")
for key in ("datasets/dogs/x", "code/x"):
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=b"1")
        print("wrote", key)
    except s3.exceptions.ClientError as error:
        print("refused", error.response["Error"]["Code"], error.response["Error"]["Message"])
"""


def test_a_job_has_its_roles_rights_and_no_others(account: Account, airflow: Account) -> None:
    name = f"{unique('train')}00-1"  # as the DAGs name it: Airflow reads no other logs
    airflow.s3.put_object(Bucket=BUCKET, Key="datasets/dogs/a", Body=b"a")
    request = ours(training_request(name, BUCKET, airflow.put_code(BUCKET, train=JOB)))
    request["InputDataConfig"] = [channel("train", f"s3://{BUCKET}/datasets/dogs")]
    airflow.sagemaker.create_training_job(**request, Environment={"BUCKET": BUCKET})
    job = airflow.training_ended(name)
    lines = airflow.log_of(name)
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines)
    who = f"arn:aws:sts::{ACCOUNT}:assumed-role/ml-pipeline-job/SageMaker"
    assert f"who {who}" in lines
    assert not [line for line in lines if line.startswith("wrote")]
    why = "because no identity-based policy allows the s3:PutObject action"
    assert (
        f"refused AccessDenied User: {who} is not authorized to perform: s3:PutObject on resource: "
        f"arn:aws:s3:::{BUCKET}/datasets/dogs/x {why}"
    ) in lines


def test_a_job_whose_role_may_read_nothing_is_refused(account: Account) -> None:
    account.s3.put_object(Bucket=BUCKET, Key="datasets/dogs/a", Body=b"a")
    code = account.put_code(BUCKET, train="print('never')")
    request = ours(training_request(unique("job"), BUCKET, code), role="outsider")
    request["InputDataConfig"] = [channel("train", f"s3://{BUCKET}/datasets/dogs")]
    with pytest.raises(ClientError) as refused:
        account.sagemaker.create_training_job(**request)
    message = refused.value.response["Error"]["Message"]
    assert message.startswith("No S3 objects found under S3 URL")
    assert "no identity-based policy allows the s3:ListBucket action" in message


def test_what_airflow_may_not_do_it_is_told_in_awss_words(account: Account, airflow: Account) -> None:
    code = account.put_code(BUCKET, train="pass")
    user = (
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/ml-pipeline-airflow/test is not authorized to perform: "
    )
    job = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/"
    create = airflow.sagemaker.create_training_job

    untagged = ours(training_request("untagged", BUCKET, code))
    del untagged["Tags"]
    assert refused(create, **untagged) == (
        "AccessDeniedException",
        f"{user}sagemaker:CreateTrainingJob on resource: {job}untagged because no identity-based policy allows the "
        "sagemaker:CreateTrainingJob action",
    )
    big = ours(training_request("big", BUCKET, code))
    big["ResourceConfig"]["InstanceType"] = "ml.p5.48xlarge"
    assert refused(create, **big) == (
        "AccessDeniedException",
        f"{user}sagemaker:CreateTrainingJob on resource: {job}big with an explicit deny in an identity-based policy",
    )
    stranger = ours(training_request("stranger", BUCKET, code), role="outsider")
    assert refused(create, **stranger) == (
        "AccessDeniedException",
        f"{user}iam:PassRole on resource: {arn('outsider')} because no identity-based policy allows the iam:PassRole "
        "action",
    )
    foreign = unique("foreign")
    account.sagemaker.create_training_job(
        **{**ours(training_request(foreign, BUCKET, code)), "Tags": [{"Key": "project", "Value": "other"}]}
    )
    assert refused(airflow.sagemaker.stop_training_job, TrainingJobName=foreign)[0] == "AccessDeniedException"
    code_, message = refused(airflow.s3.delete_object, Bucket=BUCKET, Key="datasets/dogs/a")
    assert code_ == "AccessDenied"
    assert message.startswith(f"{user}s3:DeleteObject on resource: arn:aws:s3:::{BUCKET}/datasets/dogs/a ")
    assert refused(airflow.client("iam").create_role, RoleName="mine", AssumeRolePolicyDocument="{}") == (
        "AccessDenied",
        f"{user}iam:CreateRole on resource: arn:aws:iam::{ACCOUNT}:role/mine because no identity-based policy allows "
        "the iam:CreateRole action",
    )
    ec2 = airflow.client("ec2")
    start = {"ImageId": "ami-12345678", "InstanceType": "p5.48xlarge", "MinCount": 1, "MaxCount": 1}
    denied = refused(ec2.run_instances, **start)
    assert denied[0] == "UnauthorizedOperation"
    assert denied[1].startswith(f"You are not authorized to perform this operation. {user}ec2:RunInstances")
    # AWS asks the role's own trust policy, too.
    distrusted = ours(training_request("distrusted", BUCKET, code), role="ml-pipeline-instance")
    assert refused(account.sagemaker.create_training_job, **distrusted)[0] == "ValidationException"


def test_outsiders_keys_open_nothing(account: Account) -> None:
    stranger = Account(account.state)
    stranger.keys = {"aws_access_key_id": "AKIASTRANGER", "aws_secret_access_key": "x"}
    assert refused(stranger.s3.list_buckets)[0] == "InvalidAccessKeyId"
    assert refused(stranger.sagemaker.list_training_jobs)[0] == "UnrecognizedClientException"
    assert refused(stranger.client("sts").get_caller_identity)[0] == "InvalidClientTokenId"
    assert refused(stranger.client("ec2").describe_instances)[0] == "AuthFailure"


def test_a_request_that_could_be_read_as_two_is_refused(account: Account) -> None:
    """Whichever operation the gate judged, the service might do the other."""
    body = "Action=GetCallerIdentity&Version=2011-06-15"
    for path, headers in (
        ("/?Action=CreateRole&RoleName=mine", {}),
        ("/", {"X-Amz-Target": "X.CreateRole"}),
    ):
        user = unique("user")
        account.client("iam").create_user(UserName=user)
        issued = account.client("iam").create_access_key(UserName=user)["AccessKey"]
        signed = AWSRequest("POST", account.url + path, data=body, headers=headers)
        keys = Credentials(issued["AccessKeyId"], issued["SecretAccessKey"])
        SigV4Auth(keys, "iam", REGION).add_auth(signed)
        request = urllib.request.Request(
            account.url + path, body.encode(), dict(signed.headers), method="POST"
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        assert b"InvalidAction" in caught.value.read()


def test_users_groups_boundaries_and_conditions(account: Account) -> None:
    iam, user = account.client("iam"), unique("user")
    iam.create_user(UserName=user)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    mine = Account(account.state)
    mine.keys = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    assert refused(mine.s3.list_objects_v2, Bucket=BUCKET)[0] == "AccessDenied"
    statement = {
        "Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*",
        "Condition": {"StringLike": {"s3:prefix": "home/*"}},
    }  # fmt: skip
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.create_group(GroupName=user)
    iam.put_group_policy(GroupName=user, PolicyName="p", PolicyDocument=document)
    iam.add_user_to_group(GroupName=user, UserName=user)
    assert mine.s3.list_objects_v2(Bucket=BUCKET, Prefix="home/x")["KeyCount"] == 0
    assert refused(mine.s3.list_objects_v2, Bucket=BUCKET, Prefix="away/")[0] == "AccessDenied"


def test_an_endpoint_reads_and_writes_with_its_models_role(account: Account) -> None:
    """A role that may invoke an endpoint does not thereby read what only the account may read."""
    account.s3.put_object(Bucket=BUCKET, Key="served/model.tar.gz", Body=pack("one"))
    for key in ("served/in", "secret"):
        account.s3.put_object(Bucket=BUCKET, Key=key, Body=b"photo")
    role = unique("server")
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "sagemaker.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    rights = [
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": f"arn:aws:s3:::{BUCKET}/served/*"},
    ]  # fmt: skip
    iam = account.client("iam")
    for name, statements in (("trust", [trust]), ("rights", rights)):
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        if name == "trust":
            iam.create_role(RoleName=role, AssumeRolePolicyDocument=document)
        else:
            iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=document)
    deployment = Deployment(account)
    model, config = unique("model"), unique("config")
    container = {
        "Image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/serving:1",
        "ModelDataUrl": f"s3://{BUCKET}/served/model.tar.gz",
    }
    account.sagemaker.create_model(ModelName=model, ExecutionRoleArn=arn(role), PrimaryContainer=container)
    variant = {
        "VariantName": "a",
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    output = {"S3OutputPath": f"s3://{BUCKET}/served/out", "S3FailurePath": f"s3://{BUCKET}/served/failed"}
    capture = {
        "EnableCapture": True, "InitialSamplingPercentage": 100, "CaptureOptions": [{"CaptureMode": "Output"}],
        "DestinationS3Uri": f"s3://{BUCKET}/served/captured",
    }  # fmt: skip
    account.sagemaker.create_endpoint_config(
        EndpointConfigName=config, ProductionVariants=[variant], DataCaptureConfig=capture,
        AsyncInferenceConfig={"OutputConfig": output},
    )  # fmt: skip
    account.sagemaker.create_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=config)
    assert deployment.settled()["EndpointStatus"] == "InService"

    def answer(key: str, member: str) -> str:
        place = f"s3://{BUCKET}/{key}"
        accepted = deployment.runtime.invoke_endpoint_async(
            EndpointName=deployment.endpoint, InputLocation=place
        )
        made = accepted[member].removeprefix(f"s3://{BUCKET}/")
        found = eventually(lambda: account.s3.list_objects_v2(Bucket=BUCKET, Prefix=made).get("Contents"))
        return str(account.s3.get_object(Bucket=BUCKET, Key=found[0]["Key"])["Body"].read())

    assert "photo" in answer("served/in", "OutputLocation")
    refusal = answer("secret", "FailureLocation")
    assert f"assumed-role/{role}/SageMaker is not authorized to perform: s3:GetObject" in refusal
    assert deployment.ask()["version"] == "one"
    eventually(lambda: account.s3.list_objects_v2(Bucket=BUCKET, Prefix="served/captured")["KeyCount"])
    deployment.delete()


@pytest.mark.slow
def test_airflows_role_is_enough_for_the_pipelines_work(account: Account, airflow: Account) -> None:
    """The work of the DAGs, one after the other, with the roles of infra/ alone."""
    tuning = ours(tuning_request(airflow, SCORE))
    airflow.sagemaker.create_hyper_parameter_tuning_job(**tuning)
    assert (
        tuning_ended(airflow, tuning["HyperParameterTuningJobName"])["HyperParameterTuningJobStatus"]
        == "Completed"
    )

    source = "open('/opt/ml/processing/output/result/made', 'w').write('1')"
    processing = ours(processing_request(airflow, BUCKET, source, ProcessingInputs=[]))
    name = processing["ProcessingJobName"]
    airflow.sagemaker.create_processing_job(**processing)

    def processed() -> Any:
        found = airflow.sagemaker.describe_processing_job(ProcessingJobName=name)
        return found if found["ProcessingJobStatus"] != "InProgress" else None

    assert eventually(processed)["ProcessingJobStatus"] == "Completed"
    assert airflow.s3.get_object(Bucket=BUCKET, Key="jobs/result/made")["Body"].read() == b"1"
    airflow.s3.put_object(Bucket=BUCKET, Key="locks/dogs.json", Body=b"{}", IfNoneMatch="*")
    airflow.s3.delete_object(Bucket=BUCKET, Key="locks/dogs.json")

    deployment = Deployment(airflow)
    airflow.s3.put_object(Bucket=BUCKET, Key="jobs/model/model.tar.gz", Body=pack("one"))
    model, config = unique("model"), unique("config")
    airflow.sagemaker.create_model(
        ModelName=model,
        ExecutionRoleArn=arn("ml-pipeline-job"),
        EnableNetworkIsolation=True,
        PrimaryContainer={
            "Image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/serving:1",
            "ModelDataUrl": f"s3://{BUCKET}/jobs/model/model.tar.gz",
        },
        Tags=OURS,
    )
    variant = {
        "VariantName": "main",
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    airflow.sagemaker.create_endpoint_config(
        EndpointConfigName=config, ProductionVariants=[variant], Tags=OURS
    )
    airflow.sagemaker.create_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=config, Tags=OURS)
    assert deployment.settled()["EndpointStatus"] == "InService"
    assert deployment.ask()["version"] == "one"
    deployment.delete()


@pytest.mark.slow
def test_the_ec2_branch_works_with_its_roles(account: Account, airflow: Account) -> None:
    ec2, ssm = airflow.client("ec2"), airflow.client("ssm")
    parameter = (
        "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-amazon-linux-2023/latest/ami-id"
    )
    image = ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
    started = ec2.run_instances(
        ImageId=image,
        InstanceType="m5.xlarge",
        MinCount=1,
        MaxCount=1,
        IamInstanceProfile={"Name": "ml-pipeline-instance"},
        MetadataOptions={"HttpTokens": "required"},
        TagSpecifications=[{"ResourceType": "instance", "Tags": OURS}],
    )["Instances"][0]["InstanceId"]
    script = f"""python3 - <<'END'
import boto3
s3 = boto3.client("s3")
s3.put_object(Bucket="{BUCKET}", Key="jobs/from-ec2", Body=b"1")
try:
    s3.put_object(Bucket="{BUCKET}", Key="embeddings/from-ec2", Body=b"1")
except s3.exceptions.ClientError as error:
    print("refused", error.response["Error"]["Code"])
END"""
    command = ssm.send_command(
        DocumentName="AWS-RunShellScript", InstanceIds=[started], Parameters={"commands": [script]}
    )["Command"]["CommandId"]

    def ended() -> Any:
        found = ssm.get_command_invocation(CommandId=command, InstanceId=started)
        return found if found["Status"] in ("Success", "Failed") else None

    result = eventually(ended)
    assert result["Status"] == "Success", result["StandardErrorContent"]
    assert result["StandardOutputContent"] == "refused AccessDenied\n"
    ec2.terminate_instances(InstanceIds=[started])
