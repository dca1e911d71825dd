"""Let a model pass, or skip the tasks that would put it into service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from airflow.sdk import SkipMixin

from ml_pipeline.aws import s3 as objects
from ml_pipeline.operators.aws import AwsOperator, AwsOptions
from ml_pipeline.registry import gate
from ml_pipeline.registry.gate import Burden, Difference
from ml_pipeline.requests.types import Gated, Templated

if TYPE_CHECKING:
    from airflow.sdk import Context


class GateOperator(AwsOperator, SkipMixin):
    """Decide with `ml_pipeline.registry.gate`; on a refusal, skip the tasks downstream.

    The reason is in the result and in the log.

    Args:
        dataset: Result of upload.
        evaluation: Result of evaluate.
        min_accuracy: Minimum accuracy on the test split; None: better than the best constant answer.
        margin: Accuracy that the challenger may lose against the champion.
        burden: A value of `Burden`.
    """

    inherits_from_skipmixin = True
    template_fields = ("dataset", "evaluation", "min_accuracy", "margin", "burden")

    def __init__(
        self,
        *,
        dataset: Templated,
        evaluation: Templated,
        min_accuracy: Templated = None,
        margin: Templated = 0.0,
        burden: Templated = Burden.CHAMPION.value,
        **kwargs: Unpack[AwsOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.evaluation = evaluation
        self.min_accuracy = min_accuracy
        self.margin = margin
        self.burden = burden

    def execute(self, context: Context) -> Gated:
        """Decide."""
        challenger = objects.read(self.client("s3"), self.evaluation["predictions_uri"])
        verdict = gate.decide(
            self.evaluation,
            gate.constant_accuracy(challenger),
            self.min_accuracy,
            self._difference(challenger),
            float(self.margin),
            Burden(self.burden),
        )
        self.log.info("gate %s: %s", "passed" if verdict.passed else "refused", verdict.reason)
        result: Gated = {"passed": verdict.passed, "reason": verdict.reason}
        if not verdict.passed:
            # Skipping raises, so the result is pushed first.
            context["ti"].xcom_push(key="return_value", value=result)
            self.skip(ti=context["ti"], tasks=context["task"].get_direct_relatives(upstream=False))
        return result

    def _difference(self, challenger: bytes) -> Difference | None:
        champion = self.evaluation["champion"]
        if champion is None:
            return None
        predictions = objects.read(self.client("s3"), champion["predictions_uri"])
        return gate.paired_difference(gate.correct(challenger), gate.correct(predictions))
