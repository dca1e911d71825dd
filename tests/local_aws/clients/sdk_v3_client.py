"""A user of the SageMaker SDK v3 who knows nothing of local_aws: train, tune, deploy, invoke.

test_sdk_v3.py runs it with the address in AWS_ENDPOINT_URL:
`python sdk_v3_client.py <bucket> <source folder> <model URI> <suffix>`.
"""

from __future__ import annotations

import json
import sys

from sagemaker.core.helper.session_helper import Session
from sagemaker.core.parameter import ContinuousParameter
from sagemaker.core.training.configs import Compute, InputData, SourceCode
from sagemaker.serve.model_builder import ModelBuilder
from sagemaker.train import ModelTrainer
from sagemaker.train.tuner import HyperparameterTuner

BUCKET, SOURCE, MODEL, SUFFIX = sys.argv[1:5]
ROLE = "arn:aws:iam::123456789012:role/never-created"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.13-cpu-amzn2023-sagemaker"

session = Session(default_bucket=BUCKET)
data = InputData(channel_name="train", data_source=f"s3://{BUCKET}/train/")
trainer = ModelTrainer(
    sagemaker_session=session,
    training_image=IMAGE,
    role=ROLE,
    source_code=SourceCode(source_dir=SOURCE, entry_script="train.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1),
    hyperparameters={"lr": 0.25},
    base_job_name="sdk",
)
trainer.train(input_data_config=[data], wait=True, logs=False)
found = {"trained": trainer._latest_training_job.model_artifacts.s3_model_artifacts}

tuner = HyperparameterTuner(
    model_trainer=trainer,
    objective_metric_name="score",
    hyperparameter_ranges={"lr": ContinuousParameter(0.01, 1, scaling_type="Logarithmic")},
    metric_definitions=[{"Name": "score", "Regex": "score=([0-9.]+)"}],
    max_jobs=2,
    max_parallel_jobs=2,
)
tuner.tune(inputs=[data], wait=True)
found["best"] = tuner.best_training_job()

builder = ModelBuilder(
    image_uri="x/serving:1",
    s3_model_data_url=MODEL,
    role_arn=ROLE,
    sagemaker_session=session,
    instance_type="ml.m5.large",
)
builder.build(model_name=f"sdk-{SUFFIX}")
endpoint = builder.deploy(
    endpoint_name=f"sdk-{SUFFIX}", instance_type="ml.m5.large", initial_instance_count=1
)
answer = endpoint.invoke(body=b"4", content_type="text/csv")
found["answer"] = answer.body.read().decode()
endpoint.delete()
# The SDK leaves its last line unfinished.
print("\nFOUND", json.dumps(found))
