"""Let a model pass, or skip what would put it into service."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, SkipMixin

from ml_pipeline import gate


class GateOperator(BaseOperator, SkipMixin):
    """Decide with `ml_pipeline.gate`; on a refusal, skip every task downstream that needs all its parents.

    Returns `{"passed", "reason"}`; the reason is also in the log.

    :param dataset: what the upload task returned.
    :param evaluation: what the evaluate task returned.
    :param min_accuracy: bar on the test split; None: better than guessing.
    """

    inherits_from_skipmixin = True
    template_fields = ("dataset", "evaluation", "min_accuracy")

    def __init__(self, *, dataset: Any, evaluation: Any, min_accuracy: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.evaluation = evaluation
        self.min_accuracy = min_accuracy

    def execute(self, context: Any) -> dict[str, Any]:
        """Decide."""
        verdict = gate.decide(self.evaluation, int(self.dataset["classes"]), self.min_accuracy)
        self.log.info("gate %s: %s", "passed" if verdict.passed else "refused", verdict.reason)
        result = {"passed": verdict.passed, "reason": verdict.reason}
        if not verdict.passed:
            # Skipping raises, so the result is left behind first.
            context["ti"].xcom_push(key="return_value", value=result)
            self.skip(ti=context["ti"], tasks=context["task"].get_direct_relatives(upstream=False))
        return result
