"""CreateProcessingJob for embed and evaluate, against the service model of botocore."""

from __future__ import annotations

import pytest

from ml_pipeline.operators.embed import embed_request
from ml_pipeline.operators.evaluate import evaluate_request
from ml_pipeline.requests.job import Compute
from tests.ml_pipeline.requests.examples import CODE, SETTINGS, TAGS, VERSION
from tests.ml_pipeline.service_model import problems


@pytest.mark.parametrize("weights", ["s3://bucket/weights/1", None])
def test_embed(weights: str | None) -> None:
    request = embed_request(
        "embed-0123456789ab-1",
        TAGS,
        settings=SETTINGS,
        code_uri=CODE,
        embeddings_uri="s3://bucket/embeddings/1/",
        architecture="mobilenet_v2",
        weights_uri=weights,
        views=2,
        compute=Compute("ml.g4dn.xlarge", 2),
    )
    assert problems("sagemaker", "CreateProcessingJob", request) == []


@pytest.mark.parametrize("champion", ["s3://bucket/old/model.tar.gz", None])
def test_evaluate(champion: str | None) -> None:
    request = evaluate_request(
        "evaluate-0123456789ab-1",
        TAGS,
        settings=SETTINGS,
        code_uri=CODE,
        version=VERSION,
        model_uri="s3://bucket/new/model.tar.gz",
        champion_uri=champion,
        compute=Compute("ml.m5.xlarge"),
    )
    assert problems("sagemaker", "CreateProcessingJob", request) == []
