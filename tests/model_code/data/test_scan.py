"""Folders: what becomes a data set, what is left out with a reason, and what is refused with the fix."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from model_code.data import photos, source
from model_code.data import scan as dataset
from model_code.data.photos import PhotoError
from model_code.data.source import Candidate, DatasetError, Folder
from model_code.data.versions.columns import Findings
from model_code.process import parallel
from tests.model_code.photo_files import encoded, folder_of_photos, photo


def reasons(folder: Path) -> dict[str, str]:
    return {item.path: item.reason for item in dataset.scan(Folder(folder))[1]}


def test_a_good_folder(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path, {"cat": 3, "dog": 4})
    summary = dataset.preflight(folder)
    assert summary.counts == {"cat": 3, "dog": 4}
    assert summary.photos == 7
    assert summary.rejected == ()
    photos, rejected = dataset.scan(Folder(folder))
    assert [item.path for item in photos] == sorted(item.path for item in photos)
    assert {(item.label, len(item.key), item.suffix) for item in photos} == {
        ("cat", 20, "jpg"),
        ("dog", 20, "jpg"),
    }
    assert rejected == []


def test_unreadable_files_are_listed_and_left_out(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path, {"cat": 3, "dog": 3})
    (folder / "cat" / "empty.jpg").touch()
    (folder / "cat" / "note.jpg").write_text("not a photo at all")
    (folder / "dog" / "half.jpg").write_bytes(photo(99)[:800])
    (folder / "dog" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    found = reasons(folder)
    assert found["cat/empty.jpg"] == "empty file"
    assert found["cat/note.jpg"].startswith("not a photo")
    assert found["dog/half.jpg"].startswith("damaged")
    assert found["dog/gone.jpg"] == "cannot be read"
    early = {item.path for item in dataset.preflight(folder).rejected}
    assert early == {"cat/empty.jpg", "cat/note.jpg", "dog/gone.jpg"}


def test_hidden_files_litter_and_strays(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path, {"cat": 2, "dog": 2})
    (folder / "cat" / ".DS_Store").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / "__MACOSX" / "cat").mkdir(parents=True)
    (folder / "__MACOSX" / "cat" / "1.jpg").write_bytes(photo(50))
    (folder / "README.md").write_text("about")
    (folder / "loose.jpg").write_bytes(photo(51))
    assert dataset.preflight(folder).counts == {"cat": 2, "dog": 2}
    assert reasons(folder) == {"loose.jpg": "outside the class folders"}


def test_photos_in_subfolders_belong_to_the_class_above(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path, {"cat": 2, "dog": 2})
    (folder / "cat" / "2024" / "may").mkdir(parents=True)
    (folder / "cat" / "2024" / "may" / "1.jpg").write_bytes(photo(60))
    photos, _ = dataset.scan(Folder(folder))
    assert {item.path: item.label for item in photos}["cat/2024/may/1.jpg"] == "cat"


def test_copies_are_kept_once_and_a_photo_in_two_classes_not_at_all(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path, {"cat": 3, "dog": 3})
    (folder / "cat" / "copy.jpg").write_bytes((folder / "cat" / "00000.jpg").read_bytes())
    (folder / "dog" / "cat.jpg").write_bytes((folder / "cat" / "00001.jpg").read_bytes())
    found = reasons(folder)
    assert found["cat/copy.jpg"] == "copy of cat/00000.jpg"
    assert "2 classes (cat, dog)" in found["cat/00001.jpg"]
    assert found["dog/cat.jpg"] == found["cat/00001.jpg"]


def make(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


BAD_FOLDERS = {
    "empty": ({}, "holds no photo"),
    "flat": ({"1.jpg": photo(1), "2.jpg": photo(2)}, "flat.*one folder per class"),
    "one class": ({"cat/1.jpg": photo(1), "cat/2.jpg": photo(2)}, "only the class 'cat'"),
    "class of one": (
        {"cat/1.jpg": photo(1), "cat/2.jpg": photo(2), "dog/1.jpg": photo(3)},
        r"'dog' \(1\).*remove",
    ),
    "class of none": ({"cat/1.jpg": photo(1), "cat/2.jpg": photo(2), "dog/.keep": b""}, r"'dog' \(0\)"),
    "class of unreadable": (
        {"cat/1.jpg": photo(1), "cat/2.jpg": photo(2), "dog/1.jpg": photo(3), "dog/2.jpg": b""},
        r"'dog' \(1\)",
    ),
    "split already": (
        {
            f"{split}/{label}/{n}.jpg": photo(n)
            for split in ("train", "test")
            for label in "ab"
            for n in range(2)
        },
        "split already",
    ),
}


def classes_in(*splits: str) -> dict[str, bytes]:
    """Two classes in each of some folders, every photo a different one."""
    places = [
        f"{split}/{label}/{n}.jpg" for split in splits for label in ("circle", "square") for n in range(2)
    ]
    return {place: photo(number) for number, place in enumerate(places)}


@pytest.mark.parametrize(
    "splits",
    [
        ("training_set", "test_set"),
        ("Train", "Valid", "Test"),
        ("seg_train", "seg_test"),
        ("train2017", "val2017"),
        ("TrainImages", "TestImages"),
        ("01-training", "02-validation"),
        ("train", "test", "extra"),
    ],
)
def test_split_layouts_are_recognized_by_their_names_and_sub_folders(
    tmp_path: Path, splits: tuple[str, ...]
) -> None:
    make(tmp_path, classes_in(*splits))
    for look in (dataset.preflight, lambda folder: dataset.scan(Folder(folder))):
        with pytest.raises(DatasetError, match=r"is split already .*the pipeline splits it itself"):
            look(tmp_path)


@pytest.mark.parametrize(
    "classes", [("train", "bus"), ("training", "resting"), ("test_tube", "flask"), ("indoor", "outdoor")]
)
def test_classes_that_only_sound_like_splits_are_classes(tmp_path: Path, classes: tuple[str, ...]) -> None:
    make(tmp_path, classes_in(*classes))
    assert dataset.preflight(tmp_path).counts == dict.fromkeys(classes, 4)


def test_a_folder_around_the_classes_names_the_one_inside(tmp_path: Path) -> None:
    make(tmp_path, classes_in("shapes"))
    with pytest.raises(DatasetError, match=f"point DATA at {tmp_path}/shapes"):
        dataset.preflight(tmp_path)


@pytest.mark.parametrize(
    "litter", ["lost+found", "$RECYCLE.BIN", "System Volume Information", "#recycle", "@Recycle", "__MACOSX"]
)
def test_folders_that_systems_leave_are_passed_over(tmp_path: Path, litter: str) -> None:
    folder = folder_of_photos(tmp_path, {"disc": 3, "square": 3})
    (folder / litter).mkdir()
    (folder / "disc" / "Thumbs.db").write_bytes(b"x")
    assert dataset.preflight(folder).counts == {"disc": 3, "square": 3}
    assert {item.label for item in dataset.scan(Folder(folder))[0]} == {"disc", "square"}


@pytest.mark.parametrize("ending", ["avif", "jfif", "jpe", "JPG", "none"])
def test_photos_count_whatever_their_names(tmp_path: Path, ending: str) -> None:
    for label, seed in (("disc", 0), ("square", 50)):
        for number in range(3):
            data = encoded(
                Image.effect_noise((64, 48), 90).convert("RGB"), "AVIF" if ending == "avif" else "JPEG"
            )
            name = f"{label}/{seed + number}" + ("" if ending == "none" else f".{ending}")
            make(tmp_path, {name: data})
    assert dataset.preflight(tmp_path).photos == 6
    assert len(dataset.scan(Folder(tmp_path))[0]) == 6


def test_a_folder_of_a_foreign_format_names_it_and_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "reads_heif", lambda: False)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    make(
        tmp_path, {f"{label}/IMG_{n}.HEIC": heic + bytes([n]) for label in ("cup", "plate") for n in range(5)}
    )
    for look in (dataset.preflight, lambda folder: dataset.scan(Folder(folder))):
        with pytest.raises(DatasetError, match=r"10 files were left out: .*HEIC: convert it to JPEG first"):
            look(tmp_path)


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path, {"disc": 5, "square": 5})
    make(folder, {"disc/note.jpg": b"no photo"})
    first = dataset.look(Folder(folder), Findings())
    assert (first.read, len(first.rows)) == (11, 11)
    again = dataset.look(Folder(folder), first.found)
    assert (again.read, again.photos, again.rejected) == (0, first.photos, first.rejected)
    make(folder, {"disc/new.jpg": photo(900), "square/00000.jpg": photo(901)})
    (folder / "disc" / "00001.jpg").rename(folder / "square" / "moved.jpg")
    third = dataset.look(Folder(folder), again.found)
    assert third.read == 3  # the new one, the one written anew, and the one in another class
    assert {item.path: item.label for item in third.photos}["square/moved.jpg"] == "square"


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_what_no_classifier_can_be_made_of_is_refused_early(tmp_path: Path, name: str) -> None:
    files, message = BAD_FOLDERS[name]
    make(tmp_path, files)
    with pytest.raises(DatasetError, match=message) as caught:
        dataset.preflight(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        dataset.preflight(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatasetError, match="is a file"):
        dataset.preflight(tmp_path / "file")


def test_scan_refuses_a_class_that_only_looked_readable(tmp_path: Path) -> None:
    make(
        tmp_path,
        {"cat/1.jpg": photo(1), "cat/2.jpg": photo(2), "dog/1.jpg": photo(3), "dog/2.jpg": photo(4)[:700]},
    )
    assert dataset.preflight(tmp_path).counts == {"cat": 2, "dog": 2}
    with pytest.raises(DatasetError, match=r"'dog' \(1\)"):
        dataset.scan(Folder(tmp_path))


@pytest.mark.parametrize(("lost", "after"), [("dog", "cat"), ("dog/2024", "dog")])
def test_a_folder_that_cannot_be_listed_is_refused_by_name(tmp_path: Path, lost: str, after: str) -> None:
    folder = folder_of_photos(tmp_path, {"cat": 2, "dog": 2, "dog/2024": 2})
    candidates = Folder(folder).candidates()
    next(candidate for candidate in candidates if candidate.label == after)
    shutil.rmtree(folder / lost)  # as if unreadable: tests may run as root, who can list everything
    with pytest.raises(DatasetError, match=f"{lost}' cannot be listed .* make it readable, or remove it"):
        list(candidates)


def test_scan_refuses_an_empty_class_folder_as_preflight_does(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path, {"cat": 2, "dog": 2, "owl": 0})
    for look in (dataset.preflight, lambda folder: dataset.scan(Folder(folder))):
        with pytest.raises(DatasetError, match=r"'owl' \(0\).*remove its folder"):
            look(folder)


def test_a_linked_subfolder_is_rejected_by_name_and_a_linked_class_is_read(tmp_path: Path) -> None:
    elsewhere = folder_of_photos(tmp_path / "elsewhere", {"more": 2, "dog": 2}, first_seed=70)
    folder = folder_of_photos(tmp_path / "photos", {"cat": 2})
    (folder / "cat" / "more").symlink_to(elsewhere / "more")
    (folder / "dog").symlink_to(elsewhere / "dog")
    summary = dataset.preflight(folder)
    assert summary.counts == {"cat": 2, "dog": 2}
    for found in ({item.path: item.reason for item in summary.rejected}, reasons(folder)):
        assert found.keys() == {"cat/more"}
        assert found["cat/more"].startswith("a link to a folder")


def test_rejected_files_of_any_name_can_be_written_down(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path, {"cat": 2, "dog": 2})
    (folder / "cat" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(photo(90))
    (folder / "cat" / os.fsdecode(b"caf\xe9 2.jpg")).write_bytes(photo(90))
    (folder / "cat" / os.fsdecode(b"note\xff.jpg")).write_text("no photo")
    found = reasons(folder)
    assert found["cat/caf\\udce9.jpg"] == "copy of cat/caf\\udce9 2.jpg"
    assert found["cat/note\\udcff.jpg"].startswith("not a photo")
    assert str(found).encode()


def test_class_names_are_the_same_from_every_system() -> None:
    assert source.class_name("Affenpinscher\u0308") == source.class_name(
        "Affenpinscher\u0308".encode().decode()
    )
    assert source.class_name("u\u0308") == "\u00fc"
    with pytest.raises(DatasetError, match="rename it"):
        source.class_name("two\nlines")


def test_the_suffix_is_that_of_the_real_format() -> None:
    png = encoded(Image.linear_gradient("L"), "PNG")
    assert dataset.examine(Candidate("cat/photo.jpg", "cat", len(png)), png).suffix == "png"


def test_huge_files_are_not_read(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path, {"cat": 2, "dog": 2})
    with (folder / "cat" / "huge.jpg").open("wb") as file:
        file.truncate(dataset.MAX_FILE_BYTES + 1)
    assert reasons(folder)["cat/huge.jpg"].startswith("too large: ")
    with pytest.raises(PhotoError):
        dataset.examine(Candidate("x", "cat", 0), bytes(dataset.MAX_FILE_BYTES + 1))


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    dataset.scan(
        Folder(folder_of_photos(tmp_path, {"a": 3, "b": 2})),
        2,
        lambda done, total: said.append((done, total)),
    )
    assert said[-1] == (5, 5)


def test_ordered_map_keeps_order_and_few_items_under_way() -> None:
    taken = 0

    def numbers() -> object:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    results = parallel.ordered_map(lambda n: n * n, numbers(), workers=2)  # type: ignore[arg-type]
    assert next(results) == 0
    assert taken <= 8
    assert list(results) == [n * n for n in range(1, 100)]
