"""`--iam enforce`: policies of buckets, queues, keys and roles, and requests judged as they are executed."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.infra.stacks import ACCOUNT, REGION
from tests.local_aws.cloud import eventually, unique
from tests.local_aws.iam.enforced import Account
from tests.local_aws.machines import IMAGE


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    running = Account(
        tmp_path_factory.mktemp("policies"), ("--cores", "2", "--iam", "enforce", "--region", REGION)
    )
    running.start()
    place = {"LocationConstraint": REGION}
    running.s3.create_bucket(Bucket="policies", CreateBucketConfiguration=place)
    yield running
    running.stop()


def user(account: Account, *statements: dict[str, Any]) -> tuple[Account, str]:
    """Create a user with a policy of these statements; return its client and ARN."""
    iam, name = account.client("iam"), unique("user")
    arn = iam.create_user(UserName=name)["User"]["Arn"]
    if statements:
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy(*statements))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    theirs = Account(account.state)
    theirs.keys = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    return theirs, arn


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: str | list[str], resource: str | list[str] = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def denied(call: Any, **params: Any) -> bool:
    with pytest.raises(ClientError) as caught:
        call(**params)
    return caught.value.response["Error"]["Code"] in (
        "AccessDenied",
        "AccessDeniedException",
        "AWS.SimpleQueueService.AccessDenied",
    )


def test_a_bucket_policy_allows_a_user_without_policies(account: Account) -> None:
    theirs, arn = user(account)
    account.s3.put_object(Bucket="policies", Key="shared/a", Body=b"1")
    assert denied(theirs.s3.get_object, Bucket="policies", Key="shared/a")
    grant = allow("s3:GetObject", "arn:aws:s3:::policies/shared/*", Principal={"AWS": arn})
    account.s3.put_bucket_policy(Bucket="policies", Policy=policy(grant))
    assert theirs.s3.get_object(Bucket="policies", Key="shared/a")["Body"].read() == b"1"
    assert denied(theirs.s3.put_object, Bucket="policies", Key="shared/a", Body=b"2")
    account.s3.delete_bucket_policy(Bucket="policies")
    assert denied(theirs.s3.get_object, Bucket="policies", Key="shared/a")


def test_a_bucket_policy_denies_everyone_but_the_root_can_mend_it(account: Account) -> None:
    theirs, _ = user(account, allow("s3:*"))
    account.s3.put_object(Bucket="policies", Key="kept", Body=b"1")
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::policies/kept"}
    account.s3.put_bucket_policy(Bucket="policies", Policy=policy(deny))
    assert denied(theirs.s3.get_object, Bucket="policies", Key="kept")
    assert denied(account.s3.delete_object, Bucket="policies", Key="kept")
    account.s3.delete_bucket_policy(Bucket="policies")
    assert theirs.s3.get_object(Bucket="policies", Key="kept")["Body"].read() == b"1"


def test_a_policy_that_asks_for_tls_does_not_lock_anyone_out(account: Account) -> None:
    condition = {"Bool": {"aws:SecureTransport": "false"}}
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*", "Condition": condition}
    account.s3.put_bucket_policy(Bucket="policies", Policy=policy(deny))
    account.s3.list_objects_v2(Bucket="policies")
    account.s3.delete_bucket_policy(Bucket="policies")


def test_a_queue_policy_allows_and_denies(account: Account) -> None:
    theirs, arn = user(account)
    sqs = account.client("sqs")
    url = sqs.create_queue(QueueName="policed")["QueueUrl"]
    assert denied(theirs.client("sqs").send_message, QueueUrl=url, MessageBody="1")
    place = f"arn:aws:sqs:{REGION}:{ACCOUNT}:policed"
    grant = allow("sqs:SendMessage", place, Principal={"AWS": arn})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy(grant)})
    theirs.client("sqs").send_message(QueueUrl=url, MessageBody="1")
    assert denied(theirs.client("sqs").receive_message, QueueUrl=url)


def test_a_key_policy_must_allow_what_identity_policies_allow(account: Account) -> None:
    theirs, arn = user(account, allow("kms:*"))
    kms = account.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    theirs.client("kms").describe_key(KeyId=key)  # the default policy leaves it to the account's own policies
    sealed = kms.encrypt(KeyId=key, Plaintext=b"1")["CiphertextBlob"]
    root = allow("kms:PutKeyPolicy", Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:root"})
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=policy(root))
    kms.create_alias(AliasName="alias/closed", TargetKeyId=key)
    for name in (key, key.rpartition("/")[2], "alias/closed", key.partition("key/")[0] + "alias/closed"):
        assert denied(theirs.client("kms").describe_key, KeyId=name)
    assert denied(theirs.client("kms").decrypt, CiphertextBlob=sealed)
    mine = allow("kms:DescribeKey", Principal={"AWS": arn})
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=policy(root, mine))
    theirs.client("kms").describe_key(KeyId=key)


def test_a_role_is_assumed_by_those_it_trusts(account: Account) -> None:
    iam = account.client("iam")
    theirs, arn = user(account)
    allowed, _ = user(account, allow("sts:AssumeRole"))
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "sagemaker.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    role = iam.create_role(RoleName=unique("role"), AssumeRolePolicyDocument=policy(trust))["Role"]
    request = {"RoleArn": role["Arn"], "RoleSessionName": "test"}
    for caller in (account, theirs, allowed):
        assert denied(caller.client("sts").assume_role, **request)
    named = {"Effect": "Allow", "Principal": {"AWS": arn}, "Action": "sts:AssumeRole"}
    iam.update_assume_role_policy(RoleName=role["RoleName"], PolicyDocument=policy(trust, named))
    theirs.client("sts").assume_role(**request)
    assert denied(allowed.client("sts").assume_role, **request)
    anyone = {
        **named,
        "Principal": {"AWS": ACCOUNT},
        "Condition": {"StringEquals": {"sts:ExternalId": "777"}},
    }
    iam.update_assume_role_policy(RoleName=role["RoleName"], PolicyDocument=policy(anyone))
    assert denied(allowed.client("sts").assume_role, **request)
    assert denied(theirs.client("sts").assume_role, **request, ExternalId="777")
    allowed.client("sts").assume_role(**request, ExternalId="777")
    assert denied(allowed.client("sts").assume_role, RoleArn=role["Arn"] + "x", RoleSessionName="test")


@pytest.mark.parametrize("body", [
    b"<Delete><Object><K\xc3\xa9y>mine/a</K\xc3\xa9y><Key>other</Key></Object></Delete>",
    b"<Delete><Object><Key><![CDATA[other]]></Key></Object></Delete>",
    b"<Delete><Object><Key>&#111;ther</Key></Object></Delete>",
    b"<Delete><Object><Key >other</Key ></Object></Delete>",
    b"<Delete><!-- <Key>mine/a</Key> --><Object><a:Key xmlns:a='x'>other</a:Key></Object></Delete>",
    "<Delete><Object><Key>other</Key></Object></Delete>".encode("utf-16"),
])  # fmt: skip
@pytest.mark.parametrize("framed", [False, True])
def test_xml_is_judged_by_the_parser_that_executes_it(account: Account, body: bytes, framed: bool) -> None:
    account.s3.put_object(Bucket="policies", Key="other", Body=b"1")
    theirs, _ = user(account, allow("s3:DeleteObject", "arn:aws:s3:::policies/mine/*"))
    assert theirs.keys
    headers = {}
    sent = body
    if framed:
        sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        headers = {"x-amz-decoded-content-length": str(len(body)), "content-encoding": "aws-chunked"}
    request = AWSRequest("POST", f"{account.url}/policies?delete", data=sent, params={}, headers=headers)
    signer = S3SigV4Auth(Credentials(*theirs.keys.values()), "s3", REGION)
    digest = "STREAMING-UNSIGNED-PAYLOAD-TRAILER" if framed else hashlib.sha256(sent).hexdigest()
    signer.payload = lambda request: digest  # type: ignore[method-assign]
    signer.add_auth(request)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(
            urllib.request.Request(request.url, sent, dict(request.headers), method="POST")
        )
    assert caught.value.code in (400, 403)
    account.s3.head_object(Bucket="policies", Key="other")


PROBE = """#!/usr/bin/env python3
import os, urllib.request
mine = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
root = mine.rsplit("/", 2)[0]
for path in ("/{other}/latest/api/token", "/latest/api/token"):
    request = urllib.request.Request(root + path, method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    try:
        print(path.count("/"), urllib.request.urlopen(request).status)
    except Exception as error:
        print("refused", error)
print("end")
"""


def test_metadata_are_for_their_own_instance(account: Account) -> None:
    ec2 = account.client("ec2")
    image = account.client("ssm").get_parameter(Name=IMAGE)["Parameter"]["Value"]

    def launch(script: str) -> str:
        made = ec2.run_instances(
            ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1, UserData=script
        )
        return str(made["Instances"][0]["InstanceId"])

    first = launch("#!/bin/sh\ntrue\n")
    second = launch(PROBE.replace("{other}", first))

    def output() -> str:
        return str(ec2.get_console_output(InstanceId=second).get("Output", ""))

    eventually(lambda: "end" in output())
    assert output().count("refused") == 2, output()
    ec2.terminate_instances(InstanceIds=[first, second])
