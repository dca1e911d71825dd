"""Chooses what a run works on when it was not told: photos and weights, with and without a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.settings import Settings
from ml_pipeline.dataset.photos import dataset_name_of

Say = Callable[[str], None]
# Where torchvision's weights are; asked for with a short time-out, so that no network never means a hang.
WEIGHTS_HOST = "https://download.pytorch.org"
REACH_SECONDS = 5.0


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run.

    data: folder with a folder per class.
    dataset_name: its name in S3.
    weights: a state_dict file, "imagenet" or "none".
    notes: what the summary must repeat (a set that was drawn, a backbone that is untrained).
    """

    data: Path
    dataset_name: str
    weights: str
    notes: tuple[str, ...] = ()


def choose(settings: Settings, say: Say, progress: Callable[[int, int], None]) -> Inputs:
    """Settle photos and weights before anything long starts.

    Raises model_code.data.source.DatasetError when the photos cannot become a data set.
    """
    notes: list[str] = []
    data = settings.data or _default_photos(settings, say, progress, notes)
    weights = settings.weights or _default_weights(say, notes)
    if weights == "none" and settings.weights == "none":
        notes.append("WEIGHTS=none: the backbone is untrained, accuracy far below what ImageNet weights give")
    return Inputs(data, dataset_name_of(str(data)), weights, tuple(notes))


def _default_photos(
    settings: Settings, say: Say, progress: Callable[[int, int], None], notes: list[str]
) -> Path:
    from model_code.data import sample_data

    folder = settings.home / "data"
    fetched = folder / "imagewoof2-160"
    if fetched.is_dir():
        return fetched
    try:
        return sample_data.fetch_imagewoof(fetched, progress=progress)
    except sample_data.FetchError as error:
        drawn = folder / "drawn-shapes"
        say(f"no DATA given and imagewoof2 cannot be fetched ({error}): drawing a small set in {drawn}")
        notes.append("the photos are drawn shapes, made because no DATA was given and none could be fetched")
        sample_data.draw(drawn)
        return drawn


def _default_weights(say: Say, notes: list[str]) -> str:
    import requests

    try:
        requests.head(WEIGHTS_HOST, timeout=REACH_SECONDS)
    except requests.RequestException:
        note = (
            "torchvision's ImageNet weights cannot be reached: the backbone is untrained, and accuracy far "
            "below what weights give (WEIGHTS=<state_dict file> brings your own)"
        )
        say(note)
        notes.append(note)
        return "none"
    return "imagenet"
