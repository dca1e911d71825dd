"""CreateProcessingJob for embed and evaluate, against the service model of botocore."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowFailException

from ml_pipeline.operators.check import check_request, refuse_over
from ml_pipeline.operators.embed import check_folder, embed_request
from ml_pipeline.operators.evaluate import evaluate_request
from ml_pipeline.requests.job import Compute
from ml_pipeline.requests.types import Checked
from tests.ml_pipeline.requests.examples import CODE, SETTINGS, TAGS, VERSION
from tests.ml_pipeline.service_model import problems


@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.parametrize("weights", ["s3://bucket/weights/1", None])
def test_embed(weights: str | None, instances: int) -> None:
    request = embed_request(
        "embed-0123456789ab-1",
        TAGS,
        settings=SETTINGS,
        code_uri=CODE,
        embeddings_uri="s3://bucket/embeddings/1/",
        architecture="mobilenet_v2",
        weights_uri=weights,
        views=2,
        version=VERSION,
        compute=Compute("ml.g4dn.xlarge", instances),
    )
    assert problems("sagemaker", "CreateProcessingJob", request) == []
    # A single instance has all photos at hand, so it checks the data as well.
    outputs = {output["OutputName"] for output in request["ProcessingOutputConfig"]["Outputs"]}
    assert outputs == ({"embeddings", "check"} if instances == 1 else {"embeddings"})


def test_check() -> None:
    request = check_request(
        "check-0123456789ab-1",
        TAGS,
        settings=SETTINGS,
        code_uri=CODE,
        version=VERSION,
        embedder_id="0123456789abcdef",
        compute=Compute("ml.m5.xlarge"),
    )
    assert problems("sagemaker", "CreateProcessingJob", request) == []
    (output,) = request["ProcessingOutputConfig"]["Outputs"]
    assert output["S3Output"]["S3Uri"] == check_folder(VERSION, "0123456789abcdef")


def test_too_many_suspects_stop_the_run_and_a_share_of_none_never_does() -> None:
    checked = Checked(suspect_share=0.12, report_url="http://report")
    refuse_over(checked, None)
    refuse_over(checked, 0.12)
    with pytest.raises(AirflowFailException, match=r"12.0 % of the labels look wrong.*http://report"):
        refuse_over(checked, 0.1)


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
