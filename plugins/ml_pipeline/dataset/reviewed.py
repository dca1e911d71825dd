"""Reviewed photos of an endpoint's traffic join the photos of the source, and forgotten ones never do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.dataset import corrections
from ml_pipeline.dataset.corrections import Action

if TYPE_CHECKING:
    from model_code.data.source import Candidate, Source

_FOLDER = "reviewed/"  # as `model_code.data.versions.reviewed` knows them


def reviewed(s3: Client, bucket: str, name: str) -> dict[str, str]:
    """Class by SHA-256 of reviewed photos that belong to the data set."""
    folder = _reviews(bucket, name)
    answers = {key.removesuffix(".json") for key in objects.keys(s3, f"{folder}answers/")}
    if not answers:
        return {}
    # A suspect of the data report is in the source already.
    answers &= set(objects.keys(s3, f"{folder}photos/"))
    newest = corrections.load(s3, bucket, name).newest()
    entries = [newest[sha256] for sha256 in sorted(answers) if sha256 in newest]
    return {entry.sha256: entry.label for entry in entries if entry.action is Action.LABEL and entry.label}


def denied(s3: Client, bucket: str, name: str) -> frozenset[str]:
    """Return the list of forgotten photos, which must not come back: see `model_code.data.versions.corrections`."""
    return frozenset(objects.keys(s3, f"s3://{bucket}/datasets/{name}/forgotten/"))


def with_reviewed(s3: Client, bucket: str, name: str, source: Source) -> Source:
    """Return a source with the reviewed photos added."""
    labels = reviewed(s3, bucket, name)
    return _WithReviewed(s3, _reviews(bucket, name), source, labels) if labels else source


def photos_uri(bucket: str, name: str) -> str:
    """Return the s3:// prefix of the reviewed photos, named by their SHA-256."""
    return f"{_reviews(bucket, name)}photos/"


class _WithReviewed:
    """See `with_reviewed`."""

    def __init__(self, s3: Client, folder: str, source: Source, labels: Mapping[str, str]) -> None:
        self._s3 = s3
        self._folder = folder
        self._source = source
        self._labels = labels

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def candidates(self) -> Iterable[Candidate]:
        """Yield files of the source, then reviewed photos."""
        yield from self._source.candidates()
        yield from self._reviewed()

    def read(self, path: str) -> bytes:
        """Return the bytes of one file."""
        sha256 = path.rpartition("/")[2]
        if path.startswith(_FOLDER) and sha256 in self._labels:
            return objects.read(self._s3, f"{self._folder}photos/{sha256}")
        return self._source.read(path)

    def _reviewed(self) -> Iterator[Candidate]:
        from model_code.data.source import Candidate

        for sha256, label in sorted(self._labels.items()):
            yield Candidate(f"{_FOLDER}{label}/{sha256}", label, 0, sha256)


def _reviews(bucket: str, name: str) -> str:
    return f"s3://{bucket}/datasets/{name}/reviews/"
