"""The review queue with two reviewers, and what becomes of reviewed photos."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from ml_pipeline.dataset import corrections
from ml_pipeline.dataset.corrections import Action
from ml_pipeline.dataset.upload import upload
from ml_pipeline.watching import reviews, truth
from ml_pipeline.watching.reviews import ReviewError
from model_code.data.manifest import Manifest
from model_code.data.records import hidden
from model_code.data.shards import Split
from model_code.data.versions.columns import Photos, Splits
from model_code.data.versions.reviewed import for_training
from tests.ml_pipeline.watching.conftest import BUCKET
from tests.model_code.photo_files import folder_of_photos, photo

NAME = "dogs"


def queued(s3: Any, seed: int = 900) -> str:
    data = photo(seed)
    sha256 = hashlib.sha256(data).hexdigest()
    for suffix in ("", ".jpg"):
        s3.put_object(Bucket=BUCKET, Key=f"look/queue/{sha256}{suffix}", Body=data)
    entry = {"sha256": sha256, "prediction": "a", "probability": 0.4, "why": "uncertain"}
    reviews.enqueue(s3, BUCKET, NAME, f"s3://{BUCKET}/look/", [entry], "endpoint")
    return sha256


def test_a_photo_is_asked_about_once(s3) -> None:
    sha256 = queued(s3)
    queued(s3)
    assert [question.sha256 for question in reviews.questions(s3, BUCKET, NAME)] == [sha256]
    reviews.answer(s3, BUCKET, NAME, sha256, Action.LABEL, "b", "ann")
    queued(s3)
    assert not list(reviews.questions(s3, BUCKET, NAME))


def test_the_second_reviewer_is_told_what_the_first_said(s3) -> None:
    sha256 = queued(s3)
    reviews.answer(s3, BUCKET, NAME, sha256, Action.LABEL, "b", "ann")
    reviews.answer(s3, BUCKET, NAME, sha256, Action.LABEL, "b", "bob")
    with pytest.raises(ReviewError, match="ann has answered 'b' already"):
        reviews.answer(s3, BUCKET, NAME, sha256, Action.LABEL, "a", "bob")
    assert len(corrections.load(s3, BUCKET, NAME).entries) == 1


def test_a_reviewer_killed_after_the_answer_is_written_can_answer_again(s3) -> None:
    sha256 = queued(s3)
    document = {"sha256": sha256, "action": "label", "label": "b", "who": "ann", "when": "now"}
    reviews._write_once(s3, BUCKET, f"datasets/{NAME}/reviews/answers/{sha256}.json", document)
    reviews.answer(s3, BUCKET, NAME, sha256, Action.LABEL, "b", "ann")
    assert corrections.load(s3, BUCKET, NAME).newest()[sha256].label == "b"


def test_an_answer_without_a_question_is_refused(s3) -> None:
    with pytest.raises(ReviewError, match="no question"):
        reviews.answer(s3, BUCKET, NAME, "0" * 64, Action.REJECT, None, "ann")


def rows(s3: Any, result: Any) -> dict[str, tuple[str, Split]]:
    key = result["manifest_uri"].removeprefix(f"s3://{BUCKET}/").replace("manifest.json", "photos.jsonl")
    from model_code.data.manifest import PhotoRow

    lines = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode().splitlines()
    found = [PhotoRow.from_line(line) for line in lines]
    return {row.sha256: (row.label, row.split) for row in found}


def test_a_reviewed_photo_becomes_a_training_photo_and_stays_one(s3, tmp_path) -> None:
    folder = folder_of_photos(tmp_path / "photos", {"a": 8, "b": 8})
    before = rows(s3, upload(s3, BUCKET, NAME, str(folder)))
    sha256 = queued(s3)
    reviews.answer(s3, BUCKET, NAME, sha256, Action.LABEL, "b", "ann")
    for _ in range(2):
        result = upload(s3, BUCKET, NAME, str(folder))
        after = rows(s3, result)
        assert after[sha256] == ("b", Split.TRAIN)
        assert {key: value for key, value in after.items() if key != sha256} == before
    corrections.append(
        s3, BUCKET, NAME, [corrections.Correction(sha256, Action.LABEL, "a", "bob", corrections.now(), "")]
    )
    assert rows(s3, upload(s3, BUCKET, NAME, str(folder)))[sha256] == ("a", Split.TRAIN)


def test_a_photo_of_the_picture_of_a_test_photo_is_left_out() -> None:
    from model_code.data.records import Photo

    def of(path: str, sha256: str) -> Photo:
        return Photo(path, "a", sha256 * 64, None, 10, "jpg")

    photos = [of("a/1.jpg", "1"), of("reviewed/a/2", "2"), of("reviewed/a/3", "3"), of("reviewed/a/4", "4")]
    known = {"1" * 64: Split.TEST, "4" * 64: Split.VALID}
    joined = for_training(Photos.of(photos), np.array([(0, 1), (2, 3)]), Splits.of(known))
    assert {at: rejected.path for at, rejected in joined.rejected.items()} == {
        1: "reviewed/a/2",
        2: "reviewed/a/3",
    }
    assert joined.training == []
    alone = for_training(Photos.of(photos[2:3]), np.empty((0, 2), np.int64), Splits.of(known))
    assert (alone.training, alone.rejected) == ([0], {})


def test_suspects_of_the_data_report_are_asked_about_but_for_those_of_the_test_split(s3, tmp_path) -> None:
    folder = folder_of_photos(tmp_path / "photos", {"a": 8, "b": 8})
    made = upload(s3, BUCKET, NAME, str(folder))
    before = rows(s3, made)
    suspects = [
        {"key": sha256[:20], "class": label, "split": split.value, "suggestion": "b", "odds": 7.0}
        for sha256, (label, split) in before.items()
        if label == "a"
    ]
    asked = [suspect for suspect in suspects if suspect["split"] != "test"]
    assert len(asked) < len(suspects)
    for added in (len(asked), 0):
        assert reviews.enqueue_suspects(s3, BUCKET, NAME, made["version"], suspects) == added
    question = next(reviews.questions(s3, BUCKET, NAME))
    assert (question.why, question.prediction, round(question.probability, 3)) == ("suspect", "b", 0.999)
    for uri, names in (
        (question.photo_uri, f"{question.sha256[:20]}.jpg"),
        (question.thumbnail_uri, question.sha256),
    ):
        assert (
            names.encode()
            in s3.get_object(Bucket=BUCKET, Key=uri.removeprefix(f"s3://{BUCKET}/"))["Body"].read()
        )
    reviews.answer(s3, BUCKET, NAME, question.sha256, Action.LABEL, "b", "ann")
    after = rows(s3, upload(s3, BUCKET, NAME, str(folder)))
    assert after == {**before, question.sha256: ("b", before[question.sha256][1])}


def test_a_suspect_of_an_earlier_release_is_asked_about_if_it_can_be_shown(s3, tmp_path) -> None:
    made = upload(s3, BUCKET, NAME, str(folder_of_photos(tmp_path, {"a": 8, "b": 8})))
    for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"datasets/{NAME}/thumbnails/")["Contents"]:
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    shown, hidden_one = (sha256 for sha256, (_, split) in rows(s3, made).items() if split is Split.VALID)
    s3.put_object(Bucket=BUCKET, Key=f"datasets/{NAME}/thumbnails/{shown}.jpg", Body=b"jpeg")
    suspects = [
        {"key": sha256[:20], "class": "a", "split": "valid", "suggestion": "b", "odds": 7.0}
        for sha256 in (hidden_one, shown)
    ]
    assert reviews.enqueue_suspects(s3, BUCKET, NAME, made["version"], suspects) == 1
    assert [question.sha256 for question in reviews.questions(s3, BUCKET, NAME)] == [shown]


def test_a_forgotten_photo_does_not_come_back_from_its_source(s3, tmp_path) -> None:
    folder = folder_of_photos(tmp_path / "photos", {"a": 8, "b": 8})
    first = upload(s3, BUCKET, NAME, str(folder))
    sha256 = sorted(rows(s3, first))[0]
    s3.put_object(Bucket=BUCKET, Key=f"datasets/{NAME}/forgotten/{hidden(sha256)}", Body=b"")
    second = upload(s3, BUCKET, NAME, str(folder))
    assert sha256 not in rows(s3, second)
    manifest = Manifest.from_json(
        s3.get_object(Bucket=BUCKET, Key=second["manifest_uri"].removeprefix(f"s3://{BUCKET}/"))[
            "Body"
        ].read()
    )
    assert any("forgotten" in rejected.reason for rejected in manifest.rejected)


def test_labels_come_back_as_json_or_csv_and_the_last_one_holds(s3) -> None:
    truth.store(s3, BUCKET, NAME, truth.parse(["id,label", "client-1,beagle", 'x,"y",pug']))
    truth.store(s3, BUCKET, NAME, truth.parse(['{"id": "client-2", "label": "pug"}']))
    assert truth.load(s3, BUCKET, NAME) == {"client-1": "beagle", 'x,"y"': "pug", "client-2": "pug"}
    with pytest.raises(truth.LabelError, match="line 2"):
        list(truth.parse(["a,b", "no label"]))
    with pytest.raises(truth.LabelError, match="no label"):
        truth.store(s3, BUCKET, NAME, [])
