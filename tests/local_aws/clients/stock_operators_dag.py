"""A DAG of the Amazon provider's own SageMaker operators and sensors.

test_airflow_operators.py runs it in a process of its own; STOCK_OPERATORS holds its bucket, the URIs of code and model,
and a suffix for names.
"""

from __future__ import annotations

import json
import os
from itertools import pairwise
from typing import Any

from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerDeleteModelOperator,
    SageMakerEndpointConfigOperator,
    SageMakerEndpointOperator,
    SageMakerModelOperator,
    SageMakerProcessingOperator,
    SageMakerRegisterModelVersionOperator,
    SageMakerTrainingOperator,
    SageMakerTransformOperator,
    SageMakerTuningOperator,
)
from airflow.providers.amazon.aws.sensors.sagemaker import (
    SageMakerEndpointSensor,
    SageMakerProcessingSensor,
    SageMakerTrainingSensor,
    SageMakerTransformSensor,
    SageMakerTuningSensor,
)
from airflow.sdk import DAG

BUCKET, CODE, MODEL, SUFFIX = json.loads(os.environ["STOCK_OPERATORS"])
ROLE = "arn:aws:iam::123456789012:role/sagemaker"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.13-cpu-amzn2023-sagemaker"
RESOURCES = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
TRAIN = {
    "AlgorithmSpecification": {
        "TrainingImage": IMAGE,
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "score", "Regex": "score=([0-9.]+)"}],
    },
    "InputDataConfig": [
        {
            "ChannelName": "train",
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/train"}},
        }
    ],
    "RoleArn": ROLE,
    "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/output"},
    "ResourceConfig": RESOURCES,
    "StoppingCondition": {"MaxRuntimeInSeconds": 300},
}
PROGRAM = {"sagemaker_program": '"train.py"', "sagemaker_submit_directory": json.dumps(CODE)}
CONTAINER = {"Image": "x/serving:1", "ModelDataUrl": MODEL}


def name(task: str) -> str:
    return f"{task}-{SUFFIX}"


def training(task: str) -> dict[str, Any]:
    return {**TRAIN, "TrainingJobName": name(task), "HyperParameters": PROGRAM}


def tuning(task: str) -> dict[str, Any]:
    return {
        "HyperParameterTuningJobName": name(task),
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "score"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {
                "ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0.1", "MaxValue": "1"}]
            },
        },
        "TrainingJobDefinition": {**TRAIN, "StaticHyperParameters": PROGRAM},
    }


def processing(task: str) -> dict[str, Any]:
    return {
        "ProcessingJobName": name(task),
        "RoleArn": ROLE,
        "AppSpecification": {
            "ImageUri": IMAGE,
            "ContainerEntrypoint": ["python3", "-c", "print('processed')"],
        },
        "ProcessingResources": {"ClusterConfig": RESOURCES},
    }


def transform(task: str) -> dict[str, Any]:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/batch/"}}
    return {
        "TransformJobName": name(task),
        "ModelName": name("model"),
        "TransformInput": {"DataSource": source, "ContentType": "text/csv", "SplitType": "Line"},
        "TransformOutput": {"S3OutputPath": f"s3://{BUCKET}/batch-{task}", "AssembleWith": "Line"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }


def endpoint_config(task: str) -> dict[str, Any]:
    variant = {
        "VariantName": "main",
        "ModelName": name("model"),
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
        "InitialVariantWeight": 1.0,
    }
    return {"EndpointConfigName": name(task), "ProductionVariants": [variant]}


with DAG("stock_operators") as dag:
    WAIT: dict[str, Any] = {"wait_for_completion": True, "check_interval": 1}
    steps: list[Any] = []
    for mode in ({}, {"deferrable": True}):
        tag = "defer" if mode else "sync"
        steps += [
            SageMakerTrainingOperator(
                task_id=f"train-{tag}", config=training(f"train-{tag}"), print_log=False, **WAIT, **mode
            ),
            SageMakerTuningOperator(task_id=f"tune-{tag}", config=tuning(f"tune-{tag}"), **WAIT, **mode),
            SageMakerProcessingOperator(
                task_id=f"process-{tag}", config=processing(f"process-{tag}"), print_log=False, **WAIT, **mode
            ),
        ]
    steps += [
        SageMakerModelOperator(
            task_id="model",
            config={"ModelName": name("model"), "ExecutionRoleArn": ROLE, "PrimaryContainer": CONTAINER},
        ),
        SageMakerTransformOperator(task_id="transform-sync", config=transform("transform-sync"), **WAIT),
        SageMakerTransformOperator(
            task_id="transform-defer", config=transform("transform-defer"), deferrable=True, **WAIT
        ),
        SageMakerEndpointConfigOperator(task_id="config", config=endpoint_config("config")),
        SageMakerEndpointConfigOperator(task_id="config-2", config=endpoint_config("config-2")),
        SageMakerEndpointOperator(
            task_id="endpoint",
            config={"EndpointName": name("endpoint"), "EndpointConfigName": name("config")},
            **WAIT,
        ),
        # The second create finds the endpoint and updates it, by the text of AWS's error.
        SageMakerEndpointOperator(
            task_id="endpoint-again",
            config={"EndpointName": name("endpoint"), "EndpointConfigName": name("config-2")},
            deferrable=True,
            **WAIT,
        ),
        SageMakerRegisterModelVersionOperator(
            task_id="register", image_uri="x/serving:1", model_url=MODEL, package_group_name=name("group")
        ),
        SageMakerRegisterModelVersionOperator(
            task_id="register-again",
            image_uri="x/serving:1",
            model_url=MODEL,
            package_group_name=name("group"),
        ),
        SageMakerTrainingSensor(task_id="sense-training", job_name=name("train-sync"), print_log=False),
        SageMakerTuningSensor(task_id="sense-tuning", job_name=name("tune-sync")),
        SageMakerProcessingSensor(task_id="sense-processing", job_name=name("process-sync")),
        SageMakerTransformSensor(task_id="sense-transform", job_name=name("transform-sync")),
        SageMakerEndpointSensor(task_id="sense-endpoint", endpoint_name=name("endpoint")),
        SageMakerDeleteModelOperator(task_id="delete", config={"ModelName": name("model")}),
        # The same name again, made unique by a time stamp because the job exists.
        SageMakerTrainingOperator(
            task_id="train-once-more",
            config=training("train-sync"),
            action_if_job_exists="timestamp",
            print_log=True,
            **WAIT,
        ),
    ]
    for before, after in pairwise(steps):
        before >> after

if __name__ == "__main__":
    run = dag.test()
    states = {instance.task_id: str(instance.state) for instance in run.get_task_instances()}
    print("STATES", json.dumps(states))
