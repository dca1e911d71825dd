"""Let a model pass, or skip what would put it into service."""

from __future__ import annotations

from typing import Any

from airflow.sdk import SkipMixin

from ml_pipeline.aws import s3 as objects
from ml_pipeline.operators.aws import AwsOperator
from ml_pipeline.registry import gate
from ml_pipeline.registry.gate import Burden, Difference


class GateOperator(AwsOperator, SkipMixin):
    """Decide with `ml_pipeline.registry.gate`; on a refusal, skip what is downstream.

    Returns `{"passed", "reason"}`; the reason is also in the log.

    :param dataset: what the upload task returned.
    :param evaluation: what the evaluate task returned.
    :param min_accuracy: bar on the test split; None: better than guessing.
    :param margin: accuracy that the challenger may lose against the champion.
    :param burden: a value of `Burden`.
    """

    inherits_from_skipmixin = True
    template_fields = ("dataset", "evaluation", "min_accuracy", "margin", "burden")

    def __init__(
        self,
        *,
        dataset: Any,
        evaluation: Any,
        min_accuracy: Any = None,
        margin: Any = 0.0,
        burden: Any = Burden.CHAMPION.value,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.evaluation = evaluation
        self.min_accuracy = min_accuracy
        self.margin = margin
        self.burden = burden

    def execute(self, context: Any) -> dict[str, Any]:
        """Decide."""
        verdict = gate.decide(
            self.evaluation,
            int(self.dataset["classes"]),
            self.min_accuracy,
            self._difference(),
            float(self.margin),
            Burden(self.burden),
        )
        self.log.info("gate %s: %s", "passed" if verdict.passed else "refused", verdict.reason)
        result = {"passed": verdict.passed, "reason": verdict.reason}
        if not verdict.passed:
            # Skipping raises, so the result is left behind first.
            context["ti"].xcom_push(key="return_value", value=result)
            self.skip(ti=context["ti"], tasks=context["task"].get_direct_relatives(upstream=False))
        return result

    def _difference(self) -> Difference | None:
        champion = self.evaluation["champion"]
        if champion is None:
            return None
        s3 = self.client("s3")
        return gate.paired_difference(
            gate.correct(objects.read(s3, self.evaluation["predictions_uri"])),
            gate.correct(objects.read(s3, champion["predictions_uri"])),
        )
