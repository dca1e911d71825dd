"""The trials of a tuning job: training jobs that it starts, watches, and finds again after a restart."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from local_aws.context import Context
from local_aws.sagemaker.jobs.job import Jobs
from local_aws.sagemaker.jobs.metrics import MetricScraper
from local_aws.sagemaker.training.job import TrainingJob, reported
from local_aws.sagemaker.tuning.definitions import Definition
from local_aws.state.resources import Resource

RETRY_OF = "_RetryOf"
"""The member of a trial's document that names the lost trial it replaces."""


@dataclass(frozen=True)
class Draw:
    """A point to try.

    Attributes:
        number: The searcher's number of the point.
        retry_of: Name of the lost trial that had the point, if any.
    """

    definition: Definition
    number: int
    point: Mapping[str, str]
    attempt: int = 1
    retry_of: str = ""

    def again(self, lost: str) -> Draw:
        """Return the same point for another attempt, after the trial `lost`."""
        return replace(self, attempt=self.attempt + 1, retry_of=lost)


@dataclass
class Trial:
    """A training job of a tuning job. `series` are the objective's values so far."""

    name: str
    draw: Draw
    finished: threading.Event
    scraper: MetricScraper
    series: list[float] = field(default_factory=list)
    rungs_passed: int = 0
    stopped_early: bool = False
    stop_asked: bool = False

    @property
    def definition(self) -> Definition:
        """Its training job definition."""
        return self.draw.definition

    def look(self) -> None:
        """Update `series`."""
        self.series = [value for _, value in self.scraper.series(self.definition.metric)]


def watch(context: Context, region: str, name: str, draw: Draw) -> Trial:
    """Return the trial of a training job; the log of an ended one holds its reports."""
    job = context.part(Jobs).get(TrainingJob.kind, region, name)
    if isinstance(job, TrainingJob):
        return Trial(name, draw, job.finished, job.scraper)
    document = context.store.get(TrainingJob.kind, region, name).document
    finished = threading.Event()
    finished.set()
    stopped = document["TrainingJobStatus"] == "Stopped"
    return Trial(name, draw, finished, reported(context, region, document), stopped_early=stopped)


def recall(
    context: Context, region: str, definitions: Sequence[Definition], known: Sequence[Resource]
) -> list[Trial]:
    """Rebuild the trials of a tuning job after a restart: ended ones in order of their end, then running ones.

    `known` are its training jobs in order of creation. The searchers repeat their draws. A lost trial is left out: its
    retry replaces it.
    """
    by_name = {definition.name: definition for definition in definitions}
    draws: dict[str, Draw] = {}
    for resource in known:
        lost = resource.document.get(RETRY_OF, "")
        if lost in draws:
            draws[resource.name] = draws[lost].again(lost)
            continue
        definition = by_name[resource.document.get("TrainingJobDefinitionName", "")]
        point = resource.document["TunedHyperParameters"]
        draws[resource.name] = Draw(definition, definition.searcher.replay(point), point)
    retried = {draw.retry_of for draw in draws.values()}
    left = [resource for resource in known if resource.name not in retried]
    left.sort(key=lambda resource: resource.document.get("TrainingEndTime", math.inf))
    return [watch(context, region, resource.name, draws[resource.name]) for resource in left]
