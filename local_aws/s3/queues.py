"""Sending S3's events to queues of this local_aws."""

from __future__ import annotations

from local_aws.context import Context
from local_aws.s3.notifications import Send


def queue_sender(context: Context) -> Send:
    """A function that sends a message to the queue with a given ARN. It raises when there is none."""

    def send(arn: str, body: str) -> None:
        region, name = arn.split(":")[3], arn.rpartition(":")[2]
        sqs = context.client("sqs", region)
        sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"], MessageBody=body)

    return send
