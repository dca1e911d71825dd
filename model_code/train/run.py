"""Run a training job: fit, judge, calibrate, refit, export."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Final

from model_code.bundle.card import finite
from model_code.data.shards import Split, shards_in
from model_code.hyperparameters import Strategy
from model_code.predict.calibration import calibrate
from model_code.process.code_version import code_version
from model_code.train.job import Job, Judged, Refit, Refitted
from model_code.train.metrics import log_metrics

SCHEMA_VERSION: Final = 1


def run(job: Job) -> Judged:
    """Fit, report, and write the mode's output to `model_dir`."""
    started = time.monotonic()
    judged, refit = _strategy(job)(job)
    seconds = time.monotonic() - started
    if job.final:
        _export(job, judged, refit())
    if job.world.is_main:
        if not job.final:
            _write_trial(job, judged)
        # SageMaker keeps the last value of a metric, so the epoch kept is printed last.
        log_metrics(**judged.fit.metrics)
        if judged.fit.ran > 0:  # a fit resumed after its last epoch has no rate
            log_metrics(photos_per_second=judged.photos * judged.fit.ran / max(seconds, 1e-9))
    return judged


def judge(job: Job) -> Judged:
    """Fit the job's recipe on the training photos and judge it on the validation photos, without writing files."""
    judged, _ = _strategy(job)(job)
    return judged


def data_identity(job: Job) -> tuple[str, ...]:
    """Name the data and the weights of a job, so that results on other data are never reused for it.

    The data read for this stays cached, so that parallel trials do not all read it at once.
    """
    if job.values["strategy"] == Strategy.HEAD:
        from model_code.train.head.strategy import data_identity as of_head

        return of_head(job)
    from model_code.train.finetune.strategy import data_identity as of_finetune

    return of_finetune(job)


def _strategy(job: Job) -> Callable[[Job], tuple[Judged, Refit]]:
    if job.values["strategy"] == Strategy.HEAD:
        from model_code.train.head.strategy import prepare

        return prepare
    from model_code.train.finetune.strategy import prepare as prepare_finetune

    return prepare_finetune


def _write_trial(job: Job, judged: Judged) -> None:
    job.folders.model_dir.mkdir(parents=True, exist_ok=True)
    trial = {
        "schema_version": SCHEMA_VERSION,
        "hyperparameters": dict(job.values),
        "metrics": judged.fit.metrics,
        "history": finite(judged.fit.history),
        "dataset": {"name": job.manifest.name, "version": job.manifest.version},
        "code_version": code_version(),
    }
    (job.folders.model_dir / "trial.json").write_text(json.dumps(trial, indent=1, allow_nan=False) + "\n")


def _export(job: Job, judged: Judged, refitted: Refitted) -> None:
    if not job.world.is_main:
        return
    from model_code.export.assemble import export_bundle

    calibration = calibrate(judged.logits.numpy(), judged.labels.numpy())
    log_metrics(temperature=calibration.temperature, abstain_threshold=calibration.abstain_threshold)
    export_bundle(
        output=job.folders.model_dir,
        model=refitted.model,
        reference_model=refitted.reference,
        card={
            "name": job.manifest.name,
            "architecture": str(job.values["architecture"]),
            "classes": list(job.manifest.classes),
            "transform": refitted.transform,
            "temperature": calibration.temperature,
            "abstain_threshold": calibration.abstain_threshold,
            "metrics": {**judged.fit.metrics, "history": judged.fit.history},
            "hyperparameters": dict(job.values),
            "dataset": {"name": job.manifest.name, "version": job.manifest.version},
            "embedder_id": refitted.embedder_id,
            "weights_sha256": refitted.weights_sha256,
            "code_version": code_version(),
        },
        calibration_shards=shards_in(job.folders.calibration) if job.folders.calibration else [],
        valid_shards=job.shards(job.folders.valid_photos, Split.VALID),
        reference_shards=job.shards(job.folders.reference_photos, Split.TEST),
        held_out=(judged.logits.numpy(), judged.labels.numpy()),
    )
