from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model_code.data.shards import Split
from model_code.embed.embeddings import EmbeddingsError, file_name, write_embeddings
from model_code.train import arguments, run
from model_code.train.distributed import World
from model_code.train.features import read_features
from model_code.train.head import teacher
from model_code.train.head.teacher import Teacher
from model_code.train.job import Job
from tests.model_code import toys

TEACHER = replace(toys.EMBEDDER, architecture="resnet18", views=1)


def job_of(folder: Path, per_class: int = 30, dim: int = 16, noise: float = 1.0, **values: object) -> Job:
    """A head that learns from embeddings of the same photos by another network."""
    channels = toys.head_channels(folder / "data", noise=2.0)
    for split in (Split.TRAIN, Split.VALID):
        batch = toys.embeddings(split, per_class, dim=dim, noise=noise, embedder=TEACHER)
        channels[f"teacher_{split}"] = folder / "teacher" / split
        channels[f"teacher_{split}"].mkdir(parents=True)
        write_embeddings(channels[f"teacher_{split}"] / file_name(batch.shard), batch)
    values = {"architecture": "squeezenet1_1", "model_dir": folder / "model", "epochs": 4, **values}
    return job(toys.arguments(channels, **values))


def job(argv: list[str]) -> Job:
    return arguments.job_from(arguments.parser({}).parse_args(argv), {}, World())


def teacher_of(job: Job) -> Teacher:
    found = Teacher.of(job)
    assert found is not None
    return found


def test_a_teacher_that_knows_nothing_is_not_sure_of_the_photos_it_was_fitted_on(tmp_path: Path) -> None:
    # More dimensions than photos: a head tells its own photos apart by heart.
    asked = teacher_of(job_of(tmp_path, dim=400, noise=100.0))
    keys = asked.train.keys
    right = (asked.answers(keys).argmax(1) == asked.train.labels).double().mean()
    assert float(right) < 0.6
    assert float((asked.answers(keys).softmax(1).max(1).values > 0.99).double().mean()) < 0.9


def test_answers_come_in_the_order_asked_also_about_validation_photos(tmp_path: Path) -> None:
    asked = teacher_of(job_of(tmp_path))
    keys = (*asked.valid.keys, *asked.train.keys)
    labels = torch.cat([asked.valid.labels, asked.train.labels])
    answers = asked.answers(keys, valid=True)
    assert float((answers.argmax(1) == labels).double().mean()) > 0.9
    assert torch.equal(asked.answers(keys[::-1], valid=True), answers.flip(0))


def test_a_photo_that_the_teacher_lacks_is_named(tmp_path: Path) -> None:
    few = job_of(tmp_path, per_class=20)
    with pytest.raises(EmbeddingsError, match="the teacher lacks 30 photos"):
        run.judge(few)


def test_answers_are_calibrated_on_the_photos_that_no_head_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = teacher_of(job_of(tmp_path))
    answers, found = [], []
    for temperature in (1.0, 2.0):

        def fitted(logits: Any, labels: Any, temperature: float = temperature) -> float:
            found.append((logits.argmax(1) == labels).mean())
            return temperature

        monkeypatch.setattr(teacher, "fit_temperature", fitted)
        teacher._crossed.cache_clear()
        answers.append(asked.answers(asked.train.keys))
    torch.testing.assert_close(answers[0], 2 * answers[1])
    assert min(found) > 0.8
    teacher._crossed.cache_clear()


def test_channels_of_different_teachers_are_refused(tmp_path: Path) -> None:
    mixed = job_of(tmp_path)
    other = replace(toys.embeddings(Split.VALID, embedder=TEACHER), embedder=replace(TEACHER, code=1))
    assert mixed.folders.teacher_valid is not None
    write_embeddings(mixed.folders.teacher_valid / file_name(other.shard), other)
    with pytest.raises(EmbeddingsError, match="do not belong together"):
        Teacher.of(mixed)
    with pytest.raises(EmbeddingsError, match="both"):
        Teacher.of(replace(mixed, folders=replace(mixed.folders, teacher_valid=None)))


@pytest.mark.parametrize(("values", "same"), [({}, False), ({"distillation": 0.0}, True)])
def test_a_teacher_changes_the_head_unless_its_share_is_zero(
    tmp_path: Path, values: dict[str, Any], same: bool
) -> None:
    taught = job_of(tmp_path, **values)
    folders = replace(taught.folders, teacher_train=None, teacher_valid=None)
    alone = replace(taught, folders=folders)
    assert torch.equal(run.judge(taught).logits, run.judge(alone).logits) == same
    assert run.data_identity(taught) != run.data_identity(alone)


def test_a_head_learns_what_its_teacher_answers_where_the_labels_say_otherwise(tmp_path: Path) -> None:
    # The teacher cannot tell blue from green. Taught by it alone, the head is as unsure between them.
    recipe: dict[str, Any] = {"epochs": 30, "batch_size": 8, "weight_decay": 0.1}
    taught = job_of(tmp_path, noise=0.2, distillation=1.0, **recipe)
    assert taught.folders.teacher_train is not None
    batch = toys.embeddings(Split.TRAIN, embedder=TEACHER, noise=0.2)
    batch.embeddings[batch.label == 0] = batch.embeddings[batch.label == 1]
    write_embeddings(taught.folders.teacher_train / file_name(batch.shard), batch)
    read_features.cache_clear()
    judged = run.judge(taught)
    sure = judged.logits.softmax(1)
    mean = torch.stack([sure[judged.labels == number].mean(0) for number in range(3)])
    assert abs(float(mean[0, 0] - mean[0, 1])) < 0.2
    assert float(mean[2, 2]) > 0.55
