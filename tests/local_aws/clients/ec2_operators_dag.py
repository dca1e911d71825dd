"""A DAG of the Amazon provider's own EC2 and SSM operators and sensors.

test_ec2_operators.py runs it in a process of its own; EC2_OPERATORS holds an image id and a suffix for names.
"""

from __future__ import annotations

import json
import os

from airflow.providers.amazon.aws.operators.ec2 import (
    EC2CreateInstanceOperator,
    EC2RebootInstanceOperator,
    EC2StartInstanceOperator,
    EC2StopInstanceOperator,
    EC2TerminateInstanceOperator,
)
from airflow.providers.amazon.aws.operators.ssm import SsmGetCommandInvocationOperator, SsmRunCommandOperator
from airflow.providers.amazon.aws.sensors.ec2 import EC2InstanceStateSensor
from airflow.providers.amazon.aws.sensors.ssm import SsmRunCommandCompletedSensor
from airflow.sdk import DAG

IMAGE, SUFFIX = json.loads(os.environ["EC2_OPERATORS"])
FIRST = "{{ ti.xcom_pull(task_ids='create')[0] }}"
SHELL = "AWS-RunShellScript"


def command(
    task: str, line: str, deferrable: bool, wait: bool = True, fail: bool = True
) -> SsmRunCommandOperator:
    return SsmRunCommandOperator(
        task_id=task,
        document_name=SHELL,
        run_command_kwargs={"InstanceIds": [FIRST], "Parameters": {"commands": [line]}},
        wait_for_completion=wait,
        deferrable=deferrable,
        waiter_delay=1,
        waiter_max_attempts=60,
        fail_on_nonzero_exit=fail,
    )


with DAG("ec2_operators", schedule=None) as dag:
    create = EC2CreateInstanceOperator(
        task_id="create",
        image_id=IMAGE,
        max_count=1,
        min_count=1,
        config={"InstanceType": "m5.large", "ClientToken": SUFFIX, "UserData": "#!/bin/sh\necho up\n"},
        wait_for_completion=True,
    )
    sync = command("command_sync", "echo sync", deferrable=False)
    deferred = command("command_deferred", "echo deferred", deferrable=True)
    tolerated = command("command_tolerated", "exit 7", deferrable=False, fail=False)
    started = command("command_started", "sleep 1; echo started", deferrable=False, wait=False)
    completed = SsmRunCommandCompletedSensor(
        task_id="completed", command_id=started.output, poke_interval=1, timeout=60, deferrable=False
    )
    completed_deferred = SsmRunCommandCompletedSensor(
        task_id="completed_deferred", command_id=started.output, poke_interval=1, deferrable=True
    )
    invocation = SsmGetCommandInvocationOperator(
        task_id="invocation", command_id=started.output, instance_id=FIRST
    )
    all_invocations = SsmGetCommandInvocationOperator(task_id="all_invocations", command_id=started.output)
    reboot = EC2RebootInstanceOperator(task_id="reboot", instance_ids=create.output, wait_for_completion=True)
    stop = EC2StopInstanceOperator(task_id="stop", instance_id=FIRST, check_interval=1)
    stopped = EC2InstanceStateSensor(
        task_id="stopped", instance_id=FIRST, target_state="stopped", poke_interval=1, timeout=60
    )
    start = EC2StartInstanceOperator(task_id="start", instance_id=FIRST, check_interval=1)
    running = EC2InstanceStateSensor(
        task_id="running", instance_id=FIRST, target_state="running", poke_interval=1, deferrable=True
    )
    terminate = EC2TerminateInstanceOperator(
        task_id="terminate", instance_ids=create.output, wait_for_completion=True
    )
    terminated = EC2InstanceStateSensor(
        task_id="terminated", instance_id=FIRST, target_state="terminated", poke_interval=1, timeout=60
    )
    create >> [sync, deferred, tolerated, started]
    started >> [completed, completed_deferred] >> invocation
    started >> [completed, completed_deferred] >> all_invocations
    [sync, deferred, tolerated, invocation, all_invocations] >> reboot
    reboot >> stop >> stopped >> start >> running >> terminate >> terminated

if __name__ == "__main__":
    run = dag.test()
    print("STATES", json.dumps({ti.task_id: str(ti.state) for ti in run.get_task_instances()}))
