"""Opening folders and pocket sets, and every way in which a folder can be wrong."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest

from tests.data.make import encoded, folder, noise, put
from vlprompt import pocket
from vlprompt.data import open_dataset
from vlprompt.disk import locked
from vlprompt.errors import DATA, UserError


def fails(spec: str | Path, *words: str, strict: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        open_dataset(spec, strict=strict)
    assert caught.value.exit_code == DATA
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def reasons(root: Path) -> dict[str, str]:
    return dict(open_dataset(root).skipped)


def test_class_folders_without_parts(tmp_path: Path) -> None:
    data = open_dataset(folder(tmp_path / "pets", {"dog": 2, "black_cat": 3}))
    assert data.name == "pets"
    assert data.class_names == ("black cat", "dog")
    assert data.template == "a photo of a {}."
    assert [s.id for s in data.train] == [f"black_cat/0{i}.png" for i in range(3)] + ["dog/00.png", "dog/01.png"]
    assert [s.label for s in data.train] == [0, 0, 0, 1, 1]
    assert (data.val, data.test, data.skipped, data.divided) == ((), (), (), False)


def test_classes_are_sorted_as_published_by_code_point(tmp_path: Path) -> None:
    assert open_dataset(folder(tmp_path, {"b": 1, "Z": 1, "a10": 1, "a9": 1})).class_names == ("Z", "a10", "a9", "b")


@pytest.mark.parametrize("val", ["val", "valid", "validation", "VAL"])
def test_parts(tmp_path: Path, val: str) -> None:
    counts = {"train/cat": 2, "train/dog": 1, f"{val}/cat": 1, "test/dog": 2}
    data = open_dataset(folder(tmp_path, counts))
    assert data.divided
    assert [s.id for s in data.train] == ["train/cat/00.png", "train/cat/01.png", "train/dog/00.png"]
    assert [(s.id, s.label) for s in data.val] == [(f"{val}/cat/00.png", 0)]
    assert [s.label for s in data.test] == [1, 1]


def test_training_alone_and_testing_alone_are_data_sets(tmp_path: Path) -> None:
    only_train = open_dataset(folder(tmp_path / "a", {"train/cat": 1, "train/dog": 1}))
    only_test = open_dataset(folder(tmp_path / "b", {"test/cat": 1, "test/dog": 1}))
    assert (len(only_train.train), only_train.test, only_train.divided) == (2, (), False)  # the rule divides it
    assert "training images alone" in only_train.notes[0]
    assert (only_test.train, len(only_test.test)) == ((), 2)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    data = open_dataset(folder(tmp_path, {"bus": 1, "train": 2}))
    assert data.class_names == ("bus", "train")
    assert not data.divided


def test_images_in_deeper_folders_belong_to_the_class(tmp_path: Path) -> None:
    data = open_dataset(folder(tmp_path, {"cat/indoors/sofa": 1, "cat": 1, "dog": 1}))
    assert [s.id for s in data.train] == ["cat/00.png", "cat/indoors/sofa/00.png", "dog/00.png"]


def test_clutter_is_passed_over_in_silence(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 1, "dog": 1, ".git": 1, "__MACOSX": 1})
    for name in (".DS_Store", "cat/.hidden.png", "cat/Thumbs.db", "cat/._00.png"):
        (root / name).write_bytes(b"x")
    (root / "classes.txt").write_text("cat dog", encoding="utf-8")
    data = open_dataset(root)
    assert (data.class_names, data.skipped) == (("cat", "dog"), ())


def test_files_that_cannot_be_images_are_listed_with_the_reason(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 1, "dog": 1})
    (root / "cat/drawing.svg").write_text("<svg/>", encoding="utf-8")
    (root / "cat/notes.txt").write_text("notes", encoding="utf-8")
    (root / "cat/empty.jpg").write_bytes(b"")
    (root / "cat/photo.heic").write_bytes(b"x")
    (root / "dog/gone.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "dog/pipe.png")
    put(root / "stray.png")
    found = reasons(root)
    assert len(open_dataset(root).train) == 2
    assert "SVG" in found["cat/drawing.svg"]
    assert found["cat/notes.txt"] == "not an image file (.txt)"
    assert found["cat/empty.jpg"] == "an empty file (0 bytes)"
    assert "HEIC" in found["cat/photo.heic"]
    assert found["dog/gone.png"] == "a link to nothing"
    assert found["dog/pipe.png"] == "not a regular file"
    assert found["stray.png"] == "an image outside the class folders"
    message = fails(root, "7 files cannot be used", "cat/drawing.svg", "and 2 more", strict=True)
    assert "--strict" in message


def test_strict_is_content_with_a_sound_folder(tmp_path: Path) -> None:
    assert len(open_dataset(folder(tmp_path, {"a": 1, "b": 1}), strict=True).train) == 2


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    store = folder(tmp_path / "store", {"cat": 2})
    root = folder(tmp_path / "set", {"dog": 1})
    (root / "cat").symlink_to(store / "cat")
    (root / "dog/other.png").symlink_to(store / "cat/00.png")
    assert [s.id for s in open_dataset(root).train] == ["cat/00.png", "cat/01.png", "dog/00.png", "dog/other.png"]


def test_links_in_a_circle_end_and_are_listed(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", {"cat": 1, "dog": 1})
    (root / "cat/again").symlink_to(root / "cat")
    (root / "cat/up").symlink_to(root)
    (root / "dog/x.png").symlink_to(root / "dog/y.png")
    (root / "dog/y.png").symlink_to(root / "dog/x.png")
    (root / "loop").symlink_to(root)
    data = open_dataset(root)
    assert data.class_names == ("cat", "dog")
    assert len(data.train) == 2
    assert {id for id, reason in data.skipped if "circle" in reason} == {
        *("cat/again", "cat/up", "dog/x.png", "dog/y.png", "loop")
    }


def test_circles_through_two_classes_end(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 1, "dog": 1})
    (root / "cat/d").symlink_to(root / "dog")
    (root / "dog/c").symlink_to(root / "cat")
    data = open_dataset(root)
    assert [s.id for s in data.train] == ["cat/00.png", "cat/d/00.png", "dog/00.png", "dog/c/00.png"]
    assert {id for id, _ in data.skipped} == {"cat/d/c", "dog/c/d"}


@pytest.mark.parametrize("other", ["Cat", "cat_", "CAT"])
def test_two_classes_with_one_name(tmp_path: Path, other: str) -> None:
    fails(folder(tmp_path, {"cat": 1, other: 1, "dog": 1}), "'cat'", repr(other), "one class name")


def test_an_underscore_and_a_space_are_one_name(tmp_path: Path) -> None:
    fails(folder(tmp_path, {"tabby cat": 1, "tabby_cat": 1}), "one class name ('tabby cat')")


def test_a_class_without_a_name(tmp_path: Path) -> None:
    fails(folder(tmp_path, {"cat": 1, "__": 1}), "'__' has no name left")


def test_a_folder_without_a_picture_is_no_class_and_is_said(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 1, "dog": 1, "fox": 0, "docs": 0})
    (root / "docs/notes.txt").write_text("x", encoding="utf-8")
    found = open_dataset(root)
    assert found.class_names == ("cat", "dog")
    assert found.notes == ("no picture in docs/, fox/, which are not used.",)
    assert reasons(root) == dict.fromkeys(("docs", "fox"), "a folder without a picture")
    fails(root, "2 files cannot be used", strict=True)


@pytest.mark.parametrize("place", ["runs/coop-pets", "mine"])
def test_what_vlprompt_wrote_is_no_class(tmp_path: Path, place: str) -> None:
    root = folder(tmp_path, {"cat": 1, "dog": 1})
    with locked(root / place):
        put(root / place / "seed1/explained.png")
    found = open_dataset(root)
    assert found.class_names == ("cat", "dog")
    assert found.notes == (f"{place.split('/')[0]}/ holds what vlprompt wrote, and is not read.",)
    assert found.skipped == ()


def test_a_class_may_be_called_runs(tmp_path: Path) -> None:
    assert open_dataset(folder(tmp_path, {"runs": 1, "walks": 1})).class_names == ("runs", "walks")


def test_an_empty_class_says_what_was_skipped(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 1, "fox": 0})
    for number in range(3):
        (root / f"fox/{number}.svg").write_text("<svg/>", encoding="utf-8")
    fails(root, "No images for the class 'fox' (3 skipped: 3 x a vector drawing (SVG)")


def test_a_class_with_test_images_only(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train/cat": 1, "train/dog": 1, "test/cat": 1, "test/fox": 1})
    fails(root, "No training images for the class 'fox'")


def test_one_class_only(tmp_path: Path) -> None:
    fails(folder(tmp_path, {"cat": 3}), "one class only ('cat')", "at least two")


def test_images_directly_in_the_folder(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    fails(tmp_path, "2 images lie directly in it", "CLASS/image.jpg", "train/CLASS/image.jpg")


def test_images_directly_in_train_and_test(tmp_path: Path) -> None:
    fails(folder(tmp_path, {"train": 2, "test": 1}), "images lie directly in test/, train/", "train/CLASS/image.jpg")


def test_images_directly_in_test_beside_a_proper_train(tmp_path: Path) -> None:
    fails(folder(tmp_path, {"train/cat": 1, "train/dog": 1, "test": 1}), "images lie directly in test/")


def test_parts_beside_class_folders(tmp_path: Path) -> None:
    fails(
        folder(tmp_path, {"train/cat": 1, "dog": 1}), "train/ is divided into folders while dog next to it hold images"
    )


def test_a_misspelt_part(tmp_path: Path) -> None:
    fails(folder(tmp_path, {"train/cat": 1, "train/dog": 1, "tset/cat": 1}), "'tset'", "Did you mean 'test'?")


def test_other_folders_beside_the_parts_are_listed(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train/cat": 1, "train/dog": 1, "annotations/xml": 0})
    assert reasons(root) == {"annotations": "a folder that is neither train, val nor test"}


def test_two_folders_for_one_part(tmp_path: Path) -> None:
    fails(folder(tmp_path, {"train/a": 1, "train/b": 1, "val/a": 1, "valid/a": 1}), "'val' and 'valid' both mean val")


def test_an_empty_folder(tmp_path: Path) -> None:
    fails(tmp_path, "it holds no folders", "CLASS/image.jpg")


def test_folders_without_any_image(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 0, "dog": 0})
    (root / "cat/a.txt").write_text("x", encoding="utf-8")
    fails(root, "no usable image", "2 x a folder without a picture")


def test_names_that_are_not_utf8_are_read_as_latin1(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 1, "dog": 1})
    latin = Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))
    latin.mkdir()
    (latin / os.fsdecode(b"\xe9.png")).write_bytes(encoded(noise(1)))
    found = open_dataset(root)
    assert found.class_names == ("caf\u00e9", "cat", "dog")
    assert found.train[0].id == "caf\u00e9/\u00e9.png"
    assert found.train[0].read() == encoded(noise(1))
    assert found.notes == ("names that are not UTF-8 are read as Latin-1: caf\u00e9, \u00e9.png.",)
    folder(root, {"caf\u00e9": 1})
    reason = "a name that is not UTF-8, next to the same name in UTF-8: rename it"
    assert reasons(root) == {"caf\u00e9": reason}
    assert next(s.id for s in open_dataset(folder(root, {"b\u00e4r": 1})).train) == "b\u00e4r/00.png"


def test_nothing_there(tmp_path: Path) -> None:
    fails(tmp_path / "nowhere", "there is no folder, table or embedded set", "nowhere")
    fails("", "there is no folder")


def test_a_misspelt_pocket_set() -> None:
    name = pocket.names()[0]
    fails(name + "x", f"Did you mean {name!r}?")


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    fails(put(tmp_path / "a.png"), "is a file, but not a table", ".csv", ".jsonl")


def test_pocket_sets() -> None:
    for name in pocket.names():
        data, facts = open_dataset(name), pocket.info(name)
        assert (data.name, data.class_names, data.template) == (name, facts.class_names, facts.template)
        rows = pocket.rows(name)
        assert len(data.train) + len(data.val) + len(data.test) == len(rows)
        assert {(s.id, s.label) for s in data.test} == {(row.key, row.label) for row in rows if row.split == "test"}
        assert data.divided
        first = (*data.train, *data.test)[0]
        assert first.read() == pocket.read(first.id)


def test_a_pocket_name_goes_before_a_folder_unless_written_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = pocket.names()[0]
    folder(tmp_path / name, {"a": 1, "b": 1})
    monkeypatch.chdir(tmp_path)
    assert open_dataset(name).class_names == pocket.info(name).class_names
    assert open_dataset(f"./{name}").class_names == ("a", "b")
    assert open_dataset(Path(name)).class_names == ("a", "b")


def test_samples_read_hash_and_travel(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 1, "dog": 1})
    cat, dog = open_dataset(root).train
    assert cat.read() == (root / "cat/00.png").read_bytes()
    assert cat.content_hash == hashlib.sha256(cat.read()).hexdigest()
    assert pickle.loads(pickle.dumps(dog)).read() == dog.read()
    assert cat == open_dataset(root).train[0]
    assert cat != dog


def test_content_hashes_are_read_late_and_once(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 1, "dog": 1})
    cat, dog = open_dataset(root).train
    first = cat.content_hash
    (root / "cat/00.png").unlink()
    (root / "dog/00.png").unlink()
    assert cat.content_hash == first
    with pytest.raises(UserError, match=r"dog/00\.png: cannot be read \(No such file") as caught:
        _ = dog.content_hash
    assert caught.value.exit_code == DATA


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("words.csv", "folder,words,more\noak_tree,English oak,x\nd2,dog, the pet\n"),
        ("words.csv", 'oak_tree,English oak\nd2,"dog, the pet"\n'),
        ("words.tsv", "oak_tree\tEnglish oak\nd2\tdog, the pet\n"),
        ("words.json", '{"oak_tree": "English oak", "d2": "dog, the pet"}'),
        ("words.txt", "oak_tree: English oak\nd2 dog, the pet\n"),
        ("words.txt", "oak tree English oak\nd2\tdog, the pet\n"),
    ],
)
def test_a_file_says_what_the_classes_are_called(tmp_path: Path, name: str, text: str) -> None:
    root = folder(tmp_path / "data", {"oak_tree": 1, "d2": 1, "elm": 1})
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = open_dataset(f"{root}?names={tmp_path / name}")
    dog = "dog" if text.startswith("folder") else "dog, the pet"  # a CSV's third cell is another column
    assert found.class_names == (dog, "elm", "English oak")
    assert [found.class_names[one.label] for one in found.train if one.id.startswith("oak")] == ["English oak"]
    assert found.notes == (f"{name} has no words for elm: the folder's name is used.",)
    assert found.renamed


def test_class_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    root, file = folder(tmp_path / "data", {"a": 1, "b": 1}), tmp_path / "w.txt"
    fails(f"{root}?names={file}", "there is no such file")
    file.write_text("cat: a cat\n", encoding="utf-8")
    fails(f"{root}?names={file}", "names none of the classes (a, b)", "a: its words")
    file.write_text("a: cat\nb: Cat\n", encoding="utf-8")
    fails(f"{root}?names={file}", "two classes one name: 'Cat'")
    file.write_text("a: cat\nc: cow\n", encoding="utf-8")
    assert "words for classes that are not there: c." in open_dataset(f"{root}?names={file}").notes[1]
