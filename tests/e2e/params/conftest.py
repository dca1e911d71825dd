"""One Airflow and one local_aws for all the runs of this folder."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import make_laptop
from tests.e2e.params.stage import TOY, Stage, stage_on

ACCOUNT = "123456789012"
TOPIC = f"arn:aws:sns:us-east-1:{ACCOUNT}:people"
TEAM = "team"
QUEUE = "new-photos"
QUEUE_URL = f"{{}}/{ACCOUNT}/{QUEUE}"


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Everything up, with a topic for people and a watched queue; scheduled runs have the team's defaults."""
    laptop = make_laptop(tmp_path_factory.mktemp("params"))
    # One more than the others: it is added later.
    late = max(laptop.folder.glob("photos/*/*.jpg"))
    late.rename(laptop.folder / "late.jpg")
    defaults = {**TOY, "data": f"s3://{TEAM}/photos", "dataset_name": TEAM, "endpoint_name": TEAM}
    laptop.environ |= {
        "ML_PIPELINE_SNS_TOPIC_ARN": TOPIC,
        "ML_PIPELINE_QUEUE_URL": QUEUE_URL.format(laptop.local_aws_url),
        "ML_PIPELINE_DEFAULTS": json.dumps(defaults),
    }
    with stage_on(laptop) as made:
        made.client("sns").create_topic(Name=TOPIC.rsplit(":", 1)[1])
        made.client("sqs").create_queue(QueueName=QUEUE)
        yield made


@pytest.fixture(scope="package")
def told(stage: Stage) -> Told:
    """Messages that users receive."""
    return Told(stage)


@pytest.fixture(scope="package")
def first(stage: Stage, told: Told) -> str:
    """The first run: a teacher, two machines embed, two train, a job for each trial on machines kept warm."""
    return stage.run(
        dataset_name="dogs",
        endpoint_name="dogs",
        tune_mode="job",
        trials=2,
        parallel_trials=1,
        keep_alive=300,
        teacher="squeezenet1_0=none",
        embed_instance_count=2,
        train_instance_count=2,
        endpoint_max_count=3,
    )


class Told:
    """A subscriber of the topic."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.sqs = stage.client("sqs")
        self.queue = self.sqs.create_queue(QueueName="people")["QueueUrl"]
        arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:people"
        stage.client("sns").subscribe(TopicArn=TOPIC, Protocol="sqs", Endpoint=arn)
        self.messages: list[dict[str, str]] = []

    def of(self, run_id: str, event: str) -> str:
        """Wait for the message about `event` of the run."""

        def arrived() -> str | None:
            answer = self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10)
            for message in answer.get("Messages", []):
                self.messages.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
            fitting = (m for m in self.messages if event in m["Subject"] and run_id in m["Message"])
            return next((message["Message"] for message in fitting), None)

        return self.stage.wait(arrived, f"{event} of {run_id} to be told", 60)
