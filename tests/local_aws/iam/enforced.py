"""An account in which IAM is enforced, with the roles of infra/."""

from __future__ import annotations

import json
from typing import Any

import boto3
from botocore.config import Config

from local_aws.iam.credentials import root_key
from tests.infra.stacks import ACCOUNT, BUCKET, REGION
from tests.infra.template import Template
from tests.local_aws.cloud import Cloud


class Account(Cloud):
    """A local_aws that enforces IAM, used by its root; `of` gives one used by another principal."""

    keys: dict[str, str] | None = None

    def client(self, service: str, region: str = REGION) -> Any:
        keys = self.keys
        if keys is None:
            key = root_key(self.state)
            keys = {"aws_access_key_id": key.id, "aws_secret_access_key": key.secret}
        if (service, region) not in self._clients:
            self._clients[(service, region)] = boto3.client(
                service,
                endpoint_url=self.url,
                region_name=region,
                config=Config(retries={"max_attempts": 1}),
                **keys,
            )
        return self._clients[(service, region)]

    def bucket(self) -> str:
        """The project's one bucket."""
        return BUCKET

    def of(self, role: str) -> Account:
        """The same, used by a role, whose trust policy then also names the account."""
        iam = self.client("iam")
        trust = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
        account = {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Action": "sts:AssumeRole",
        }
        if account not in trust["Statement"]:
            trust["Statement"].append(account)
            iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(trust))
        issued = self.client("sts").assume_role(RoleArn=arn(role), RoleSessionName="test")["Credentials"]
        other = Account(self.state)
        other.keys = {
            "aws_access_key_id": issued["AccessKeyId"],
            "aws_secret_access_key": issued["SecretAccessKey"],
            "aws_session_token": issued["SessionToken"],
        }
        return other


def arn(role: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{role}"


def create_roles(account: Account) -> None:
    """The project's bucket, and the roles and the instance profile of infra/."""
    iam = account.client("iam")
    account.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for file in ("jobs", "airflow", "forget"):
        for role in Template(file).properties("AWS::IAM::Role").values():
            trust = json.dumps(role["AssumeRolePolicyDocument"])
            iam.create_role(RoleName=role["RoleName"], AssumeRolePolicyDocument=trust)
            for policy in role["Policies"]:
                document = json.dumps(policy["PolicyDocument"])
                iam.put_role_policy(
                    RoleName=role["RoleName"], PolicyName=policy["PolicyName"], PolicyDocument=document
                )
    profile = "ml-pipeline-instance"
    iam.create_instance_profile(InstanceProfileName=profile)
    iam.add_role_to_instance_profile(InstanceProfileName=profile, RoleName=profile)
