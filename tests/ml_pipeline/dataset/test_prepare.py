"""A version that a job makes: the bytes of one that the worker makes, nothing lost when the job is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.dataset import corrections
from ml_pipeline.dataset.corrections import Action, Correction
from ml_pipeline.dataset.prepare import Incomplete, Preparation
from ml_pipeline.dataset.upload import upload
from ml_pipeline.settings import Settings
from model_code.data import shards
from model_code.data.photos import reads_heif
from model_code.data.records import hidden
from model_code.data.versions import journal, order, plan, prepare
from model_code.data.versions import make as versions
from model_code.data.versions.draft import Draft
from model_code.data.versions.make import Options
from model_code.data.versions.store import ConcurrentUpload
from tests.ml_pipeline.dataset.stores import BUCKET, Store, bucket, sha, shapes
from tests.model_code.photo_files import TWO_HALVES, photo

SETTINGS = Settings(BUCKET, "arn:aws:iam::123456789012:role/jobs", "us-east-1")
OF_THE_JOB = ("order", "photos", "journal", "parent", "reviewed")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with bucket() as s3:
        yield Store(s3)


def objects(s3: Any, prefix: str) -> dict[str, bytes]:
    """The objects below a prefix, by the rest of their keys."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return {key[len(prefix) :]: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


@dataclass(frozen=True)
class Job:
    """One try of a job in a folder, with its inputs brought and its outputs taken as SageMaker does."""

    preparation: Preparation
    name: str
    folder: Path

    def start(self) -> list[str]:
        """List the photos and bring the inputs; returns the arguments of the program."""
        preparation = self.preparation
        begun = preparation.begin(self.name)
        prefixes = {
            "order": f"jobs/{self.name}/order/",
            "photos": preparation.photos_uri.removeprefix(f"s3://{BUCKET}/"),
            "journal": preparation.journal_uri.removeprefix(f"s3://{BUCKET}/"),
        }
        for name, prefix in prefixes.items():
            self._bring(name, objects(preparation.s3, prefix))
        for name in ["parent"] * bool(begun.parent) + ["reviewed"] * bool(begun.reviewed):
            key = f"jobs/{self.name}/{name}.manifest"
            listed = json.loads(preparation.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
            prefix = listed[0]["prefix"].removeprefix(f"s3://{BUCKET}/")
            found = objects(preparation.s3, prefix)
            self._bring(name, {file: found[file] for file in listed[1:]})
        inputs = [part for name in OF_THE_JOB for part in (f"--{name}", str(self.folder / name))]
        return [*inputs, "--output", str(self.folder / "output")]

    def stored(self, *, ended: bool = True) -> None:
        """Store the outputs; of a job that was killed, only those that are stored as they appear."""
        targets = {
            "shards": f"datasets/{self.preparation.name}/shards/",
            "thumbnails": f"datasets/{self.preparation.name}/thumbnails/",
            "journal": self.preparation.journal_uri.removeprefix(f"s3://{BUCKET}/"),
            **({"version": f"jobs/{self.name}/version/"} if ended else {}),
        }
        for name, prefix in targets.items():
            for path in sorted((self.folder / "output" / name).rglob("*")):
                if not path.name.startswith("."):
                    self.preparation.s3.upload_file(str(path), BUCKET, prefix + path.name)

    def run(self) -> Any:
        """Start, run, store, publish."""
        assert prepare.main(self.start()) == 0
        self.stored()
        return self.preparation.publish(self.name)

    def _bring(self, name: str, files: dict[str, bytes]) -> None:
        for key, data in files.items():
            path = self.folder / name / key.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def preparing(store: Store, uri: str, **options: Any) -> Preparation:
    return Preparation(store.s3, SETTINGS, "pets", uri, Options(**options))


def decided(store: Store, files: dict[str, bytes]) -> None:
    """A correction of each kind, a forgotten photo and a reviewed one."""
    labels = {"circle/1.jpg": (Action.REJECT, None), "circle/2.jpg": (Action.LABEL, "square")}
    extra = photo(900)
    entries = [
        Correction(sha(files[path]), *decision, "ana", "", "seen") for path, decision in labels.items()
    ]
    entries.append(Correction(sha(extra), Action.LABEL, "circle", "bo", "", ""))
    corrections.append(store.s3, BUCKET, "pets", entries)
    keys = {
        f"forgotten/{hidden(sha(files['circle/3.jpg']))}": b"",
        f"reviews/answers/{sha(extra)}.json": b"{}",
        f"reviews/photos/{sha(extra)}": extra,
    }
    for key, body in keys.items():
        store.s3.put_object(Bucket=BUCKET, Key=f"datasets/pets/{key}", Body=body)


def both_versions(store: Store, make: Callable[[str, int], Any]) -> tuple[list[Any], dict[str, bytes]]:
    """Two versions with everything that a source may hold; their summaries and the objects of the data set."""
    files = shapes(20)
    files |= {"circle/copy.jpg": files["circle/5.jpg"], "circle/text.jpg": b"no photo", "stray.jpg": b"x"}
    files |= {"square/deep/er/é 1.jpg": photo(800), "circle/.hidden.jpg": b"x"}
    made = [make(store.source("pets", files), 1)]
    decided(store, files)
    files = {path: data for path, data in files.items() if not path.startswith("square/1")}
    made.append(make(store.source("pets", {**files, "oval/1.jpg": photo(801), "oval/2.jpg": photo(802)}), 2))
    return made, objects(store.s3, "datasets/pets/")


def test_a_job_makes_the_bytes_that_the_worker_makes(tmp_path: Path) -> None:
    with bucket() as s3:
        by_worker = both_versions(Store(s3), lambda uri, _: upload(s3, BUCKET, "pets", uri, seed=3))
    with bucket() as s3:
        store = Store(s3)

        def make(uri: str, number: int) -> Any:
            return Job(preparing(store, uri, seed=3), f"prepare-{number}", tmp_path / str(number)).run()

        by_job = both_versions(store, make)
        assert by_job[1].keys() == by_worker[1].keys()
        assert by_job[1] == by_worker[1]
        assert by_job[0] == by_worker[0]
        assert by_worker[0][1]["corrected"] == 2
        assert {"looks.jsonl.gz", "train.manifest"} <= {key.rpartition("/")[2] for key in by_job[1]}
        # The next look knows every photo by its stamp.
        again = upload(s3, BUCKET, "pets", f"s3://{BUCKET}/in/pets/", seed=3)
        assert (again["read"], again["changed"]) == (0, False)
        assert preparing(store, f"s3://{BUCKET}/in/pets/").unread() == 0


def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards and parts of the journal of a few photos."""
    monkeypatch.setattr(journal, "_MOST_FILES", 5)
    monkeypatch.setattr(plan, "pack", lambda sizes: shards.pack(sizes, 4 * max(sizes, default=1)))


def killed(arguments: list[str], place: str, number: int) -> None:
    """Run the program in a process that kills itself before it writes the `number`-th file of a kind."""

    def program() -> None:
        left = iter(range(number - 1))

        def dies(original: Any) -> Any:
            def write(self: Any, key: str, *rest: Any) -> Any:
                if place in key and next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(self, key, *rest)

            return write

        Draft.put_file = dies(Draft.put_file)  # type: ignore[method-assign]
        journal.Journal._write = dies(journal.Journal._write)  # type: ignore[method-assign]
        prepare.main(arguments)

    process = multiprocessing.get_context("fork").Process(target=program)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("place", "number", "read", "packed", "written"),
    # Of 40 files in parts of 5, and 10 shards. The journal lacks the shard before it is noted: it is packed again, to
    # the name that it has.
    [("looks-", 4, 25, 10, 10), ("shards/", 5, 0, 6, 6), ("shard-", 5, 0, 6, 5)],
)
def test_a_killed_job_costs_one_shard_of_work(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    number: int,
    read: int,
    packed: int,
    written: int,
) -> None:
    small_shards(monkeypatch)
    uri = store.source("pets", shapes(20))
    first = Job(preparing(store, uri), "prepare-1", tmp_path / "1")
    killed(first.start(), place, number)
    first.stored(ended=False)
    assert objects(store.s3, "datasets/pets/versions/") == {}
    before = set(objects(store.s3, "datasets/pets/shards/"))

    second = Job(preparing(store, uri), "prepare-2", tmp_path / "2")
    packs: list[str] = []
    write = shards.write_shard
    monkeypatch.setattr(versions, "write_shard", lambda *call: packs.append("") or write(*call))
    made = second.run()
    assert (made["read"], len(packs)) == (read, packed)
    written_now = {path.name for path in (tmp_path / "2/output/shards").iterdir()}
    assert len(written_now) == written
    assert written_now & before == set()
    whole = objects(store.s3, "datasets/pets/shards/")
    assert len(whole) == 10
    assert before <= set(whole) == {f"{shard.sha256}.tar" for shard in store.manifest(made).shards}


def test_a_shard_whose_thumbnails_were_not_stored_is_packed_again(store: Store, tmp_path: Path) -> None:
    uri = store.source("pets", shapes(20))
    first = Job(preparing(store, uri), "prepare-1", tmp_path / "1")
    assert prepare.main(first.start()) == 0
    lost = min((tmp_path / "1/output/thumbnails").iterdir())
    lost.rename(tmp_path / "lost")
    first.stored(ended=False)  # killed before the version was stored
    made = Job(preparing(store, uri), "prepare-2", tmp_path / "2").run()
    assert (made["read"], made["new_shards"]) == (0, 3)
    assert [path.name for path in (tmp_path / "2/output/thumbnails").iterdir()] == [lost.name]
    stored = objects(store.s3, "datasets/pets/thumbnails/")
    assert stored[lost.name] == (tmp_path / "lost").read_bytes()
    assert {f"{shard.sha256}.zip" for shard in store.manifest(made).shards} == set(stored)


def test_another_upload_that_was_faster_is_noticed_and_the_work_is_kept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = store.source("pets", shapes(20))
    slow = Job(preparing(store, uri), "prepare-1", tmp_path / "1")
    assert prepare.main(slow.start()) == 0
    slow.stored()
    fast = upload(store.s3, BUCKET, "pets", store.source("others", shapes(6)))
    with pytest.raises(ConcurrentUpload, match="clear this task"):
        slow.preparation.publish("prepare-1")
    newest = json.loads(objects(store.s3, "datasets/pets/")["latest.json"])
    assert newest == {"version": fast["version"]}
    assert not slow.preparation.is_current("prepare-1")
    made = Job(slow.preparation, "prepare-2", tmp_path / "2").run()
    assert (made["read"], made["parent"]) == (0, fast["version"])
    # Published: the same again changes nothing, and photos that are others need another job.
    assert slow.preparation.publish("prepare-2") == made
    assert slow.preparation.is_current("prepare-2")
    store.source("pets", shapes(21))
    assert not slow.preparation.is_current("prepare-2")


def test_a_version_whose_shard_is_not_stored_is_never_the_newest(store: Store, tmp_path: Path) -> None:
    job = Job(preparing(store, store.source("pets", shapes(20))), "prepare-1", tmp_path)
    arguments = job.start()
    with pytest.raises(Incomplete, match="completed without a version"):
        job.preparation.publish("prepare-1")
    assert prepare.main(arguments) == 0
    lost = min((tmp_path / "output/shards").iterdir())
    lost.unlink()
    job.stored()
    with pytest.raises(Incomplete, match=f"without storing 1 shards, first {lost.stem}"):
        job.preparation.publish("prepare-1")
    assert "latest.json" not in objects(store.s3, "datasets/pets/")
    # The journal names the shard, which does not count: it is written again.
    assert Job(job.preparation, "prepare-2", tmp_path / "2").run()["changed"]


def test_force_reads_again_what_earlier_runs_read_but_not_what_this_one_did(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch)
    uri = store.source("pets", shapes(20))
    upload(store.s3, BUCKET, "pets", uri)
    forced = Preparation(store.s3, SETTINGS, "pets", uri, Options(force=True), "run")
    assert forced.unread() == 40
    first = Job(forced, "prepare-1", tmp_path / "1")
    killed(first.start(), "looks-", 4)
    first.stored(ended=False)
    made = Job(forced, "prepare-2", tmp_path / "2").run()
    assert (made["read"], made["changed"]) == (25, False)
    other = Preparation(store.s3, SETTINGS, "pets", uri, Options(force=True), "another run")
    assert Job(other, "prepare-3", tmp_path / "3").run()["read"] == 40


def test_photos_of_one_class_are_refused_by_name(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = store.source("pets", {"cat/1.jpg": photo(1), "cat/2.jpg": photo(2)})
    assert prepare.main(Job(preparing(store, uri), "prepare-1", tmp_path).start()) == 1
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["circle/IMG_1.HEIC", None])
def test_a_job_that_reads_no_heic_refuses_only_heic(
    name: str | None,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    heic = {name: TWO_HALVES.read_bytes()} if name else {}
    job = Job(preparing(store, store.source("pets", shapes(4) | heic)), "prepare-1", tmp_path)
    arguments = job.start()
    monkeypatch.setattr(order, "reads_heif", lambda: not reads_heif())
    assert prepare.main(arguments) == (1 if name else 0)
    said = capsys.readouterr().err
    assert (f"{name} is a HEIC photo" in said and "install pi-heif in both or in neither" in said) == bool(
        name
    )
