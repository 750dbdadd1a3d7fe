"""Few-shot samples, halves, the 50/20/30 rule, and split.json."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.make import dataset, encoded, folder, noise, put, sample
from vlprompt.data import (
    Dataset,
    Sample,
    Split,
    few_shot,
    halves,
    open_dataset,
    read_split,
    restrict,
    split_by_rule,
    split_hash,
    write_split,
)
from vlprompt.data.splits import _parts_of, fewer_tests, said_of_uneven
from vlprompt.engine.sampling import said_of_short, said_of_skipped
from vlprompt.errors import DATA, UserError


def published(data: Dataset, shots: int, seed: int) -> tuple[list[Sample], list[Sample]]:
    """The published sampling restated with Python's global generator."""
    state = random.getstate()
    random.seed(seed)
    output = []
    for source, number in ((data.train, shots), (data.val, min(shots, 4))):
        groups = defaultdict(list)
        for item in source:
            groups[item.label].append(item)
        chosen = []
        for items in groups.values():
            chosen.extend(random.sample(items, number) if len(items) >= number else items)
        output.append(chosen)
    random.setstate(state)
    return output[0], output[1]


@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_few_shot_is_the_published_sampling(shots: int, seed: int) -> None:
    data = dataset({"a": 20, "b": 5, "c": 40, "d": 8, "e": 16}, val={"c": 9, "a": 3, "b": 6, "d": 4, "e": 2})
    few = few_shot(data, shots, seed)
    assert (list(few.train), list(few.val)) == published(data, shots, seed)


def test_few_shot_against_numbers_written_down() -> None:
    """Made once with ``random.seed(1)`` and ``random.sample`` on the global generator: train first, then val."""
    data = dataset({"a": 30, "b": 30}, val={"a": 10, "b": 10})
    few = few_shot(data, 3, 1)
    assert [s.id for s in few.train] == [
        *("train/a/4", "train/a/18", "train/a/27"),
        *("train/b/25", "train/b/24", "train/b/2"),
    ]
    assert [s.id for s in few.val] == [*("val/a/4", "val/a/1", "val/a/7"), *("val/b/7", "val/b/9", "val/b/6")]


def test_groups_go_by_first_appearance_not_by_label() -> None:
    forward = dataset({"a": 9, "b": 9})
    backward = Dataset(name="x", class_names=("a", "b"), train=forward.train[::-1])
    assert [s.label for s in few_shot(backward, 2, 1).train] == [1, 1, 0, 0]


def test_few_shot_does_not_touch_the_global_generator() -> None:
    state = random.getstate()
    few_shot(dataset({"a": 20, "b": 20}), 4, 1)
    assert random.getstate() == state


def test_fewer_images_than_shots_are_all_taken_and_reported() -> None:
    few = few_shot(dataset({"a": 20, "b": 5, "c": 16, "d": 0}), 16, 1)
    assert few.short == {"b": 5, "d": 0}
    assert [s.id for s in few.train if s.label == 1] == [f"train/b/{i}" for i in range(5)]
    assert len({s.id for s in few.train}) == len(few.train) == 37


def test_no_validation_set_is_normal() -> None:
    assert few_shot(dataset({"a": 4, "b": 4}), 2, 1).val == ()


def test_validation_images_are_held_out_only_where_there_are_none() -> None:
    without, own = dataset({"a": 4, "b": 4}), dataset({"a": 4, "b": 4}, val={"a": 3, "b": 3})
    held = few_shot(without, 2, 1, hold_out=True)
    assert held.held_out
    assert len(held.val) == 4
    assert not {one.id for one in held.train} & {one.id for one in held.val}
    assert {one.id for one in held.val} <= {one.id for one in without.train}
    kept = few_shot(own, 2, 1, hold_out=True)
    assert not kept.held_out
    assert {one.id for one in kept.val} <= {one.id for one in own.val}
    assert kept == few_shot(own, 2, 1)
    assert not few_shot(dataset({"a": 2, "b": 2}), 2, 1, hold_out=True).held_out, "no image is left for them"


@pytest.mark.parametrize(
    ("least", "most", "said"), [(1, 5, True), (2, 10, True), (2, 9, False), (3, 3, False), (0, 50, False)]
)
def test_classes_of_very_different_sizes_are_said(least: int, most: int, said: bool) -> None:
    """Five times as many or more; a class without images is another complaint."""
    found = said_of_uneven({"cat": most, "owl": least, "dog": most})
    assert bool(found) is said
    if said:
        assert f"{least} training images of owl, {most} of cat" in found


def test_shots_none_is_everything() -> None:
    data = dataset({"a": 3, "b": 2}, val={"a": 9})
    few = few_shot(data, None, 1)
    assert (few.train, few.val, few.short) == (data.train, data.val, {})


@pytest.mark.parametrize("shots", [0, -1])
def test_shots_below_one_are_refused(shots: int) -> None:
    with pytest.raises(UserError, match=f"shots is {shots}; it must be at least 1"):
        few_shot(dataset({"a": 3, "b": 2}), shots, 1)


@given(st.integers(1, 400))
def test_halves(number: int) -> None:
    base, novel = halves(number)
    assert [*base, *novel] == list(range(number))
    assert len(base) == math.ceil(number / 2)


def test_restrict_counts_labels_from_zero_again() -> None:
    data = dataset({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, test={"a": 2, "e": 1})
    base, novel = restrict(data, "base"), restrict(data, "novel")
    assert (base.class_names, novel.class_names) == (("a", "b", "c"), ("d", "e"))
    assert [s.label for s in base.train] == [0, 1, 1, 2, 2, 2]
    assert [s.label for s in novel.train] == [0] * 4 + [1] * 5
    assert [(s.id, s.label) for s in novel.test] == [("test/e/0", 1)]
    assert restrict(data, "all") is data


def test_restrict_after_few_shot_keeps_the_images_of_the_sample() -> None:
    data = dataset({"a": 9, "b": 9, "c": 9, "d": 3}, val={"a": 5, "d": 5})
    few = few_shot(data, 4, 2)
    novel = restrict(few, "novel")
    assert [s.id for s in novel.train] == [s.id for s in few.train if s.label >= 2]
    assert {s.label for s in novel.train} == {0, 1}
    assert [s.label for s in novel.val] == [1] * 4
    assert (novel.class_names, novel.short) == (("c", "d"), {"d": 3})
    late = few_shot(restrict(data, "novel"), 4, 2)
    assert [s.id for s in late.train] != [s.id for s in novel.train]


def test_relabelled_samples_share_what_was_read(tmp_path: Path) -> None:
    data = open_dataset(folder(tmp_path, {"a": 1, "b": 1}))
    first = data.train[1].content_hash
    (tmp_path / "b/00.png").unlink()
    assert restrict(data, "novel").train[0].content_hash == first


def test_the_rule_by_hand(tmp_path: Path) -> None:
    """Ten images: 5 / 2 / 3 in the order of the SHA-256 of 'cat/00.png' ... 'cat/09.png', found with sha256sum."""
    data = split_by_rule(open_dataset(folder(tmp_path, {"cat": 10, "dog": 1})))
    numbers = [[s.id[4:6] for s in part if s.label == 0] for part in (data.train, data.val, data.test)]
    assert numbers == [["01", "06", "07", "08", "09"], ["00", "05"], ["02", "03", "04"]]
    assert data.divided


@pytest.mark.parametrize(
    ("number", "sizes"),
    [
        (1, (1, 0, 0)),
        (2, (1, 0, 1)),
        (3, (2, 0, 1)),
        (4, (2, 1, 1)),
        (5, (2, 1, 2)),
        (10, (5, 2, 3)),
        (60, (30, 12, 18)),
    ],
)
def test_sizes_of_the_rule(number: int, sizes: tuple[int, int, int]) -> None:
    parts = _parts_of(number)
    assert (parts.count("train"), parts.count("val"), parts.count("test")) == sizes


@given(st.integers(2, 5000))
def test_the_rule_leaves_no_part_without_images_that_can_have_some(number: int) -> None:
    parts = _parts_of(number)
    assert len(parts) == number
    assert "train" in parts
    assert "test" in parts


def test_the_rule_does_not_depend_on_where_the_folder_is_or_on_other_classes(tmp_path: Path) -> None:
    one = split_by_rule(open_dataset(folder(tmp_path / "one", {"cat": 9, "dog": 9})))
    two = split_by_rule(open_dataset(folder(tmp_path / "two", {"ant": 3, "cat": 9, "dog": 9})))
    assert {s.id for s in one.test if s.label == 0} == {s.id for s in two.test if s.label == 1}


def test_divided_data_stay_as_they_are(tmp_path: Path) -> None:
    data = open_dataset(folder(tmp_path, {"train/cat": 4, "train/dog": 4, "test/cat": 1, "test/dog": 1}))
    assert split_by_rule(data) is data


def test_training_images_alone_are_divided_and_it_is_said(tmp_path: Path) -> None:
    data = open_dataset(folder(tmp_path, {"train/cat": 4, "train/dog": 4}))
    assert not data.divided
    assert any("divided by the rule" in note for note in data.notes)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=6, max_size=40))
def test_no_test_image_is_learned_from_even_under_another_name_or_label(rows: list[tuple[int, int]]) -> None:
    contents = [encoded(noise(seed)) for seed in range(6)]
    train = tuple(sample(f"{label}/{n}", label, contents[seed]) for n, (label, seed) in enumerate(rows))
    data = split_by_rule(Dataset(name="x", class_names=("a", "b", "c"), train=train, divided=False))
    parts = [{s.content_hash for s in part} for part in (data.train, data.val, data.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert sorted(s.id for part in (data.train, data.val, data.test) for s in part) == sorted(s.id for s in train)


def test_only_files_of_equal_size_are_read_by_the_rule() -> None:
    def refuse() -> bytes:
        raise AssertionError("read")

    train = tuple(Sample(id=f"a/{n}", label=n % 2, source=refuse, size=100 + n) for n in range(8))
    data = split_by_rule(Dataset(name="x", class_names=("a", "b"), train=train, divided=False))
    assert len(data.train) == 4


def test_the_rule_lists_what_it_cannot_read(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 4, "dog": 4})
    (root / "dog/copy.png").write_bytes((root / "dog/00.png").read_bytes())
    data = open_dataset(root)
    (root / "dog/copy.png").unlink()
    divided = split_by_rule(data)
    assert [skip.id for skip in divided.skipped] == ["dog/copy.png"]
    assert "No such file" in divided.skipped[0].reason


def test_split_hash_by_hand() -> None:
    """``printf '{"train":[["a",0],["b",1]],"val":[],"test":[["c",1]]}' | sha256sum``"""
    train, test = (sample("a", 0), sample("b", 1)), (sample("c", 1),)
    expected = "ee17ea7c9d95422bf7672a4843fe502c451f25fc92306f9c9a6b235c12ba474c"
    assert split_hash(train, (), test) == expected
    assert split_hash(train[::-1], (), test) != expected
    assert split_hash((sample("a", 1), train[1]), (), test) != expected
    assert split_hash(train, test, ()) != expected


def test_a_split_comes_back(tmp_path: Path) -> None:
    data = dataset({"a": 6, "b": 6}, val={"a": 2}, test={"b": 3})
    few = few_shot(data, 2, 1)
    split = Split(train=few.train, val=few.val, test=data.test)
    write_split(tmp_path / "split.json", split, dataset=data.name)
    stored = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))
    assert stored["hash"] == split.hash
    assert stored["train"][0] == [few.train[0].id, 0]
    back = read_split(tmp_path / "split.json", data)
    assert back == split
    assert back.train[0].read() == few.train[0].read()


def test_a_split_that_was_edited_or_whose_images_are_gone(tmp_path: Path) -> None:
    data = dataset({"a": 6, "b": 6}, test={"b": 3})
    path = tmp_path / "split.json"
    write_split(path, Split(train=data.train, val=(), test=data.test), dataset="x")

    with pytest.raises(UserError, match=r"3 of its images are not in made .* the first: test/b/0") as caught:
        read_split(path, dataset({"a": 6, "b": 6}))
    assert caught.value.exit_code == DATA

    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["test"] = stored["test"][1:]
    path.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(UserError, match="was changed after it was written"):
        read_split(path, data)

    for text in ("", "[]", '{"train": 3}', '{"train": [["a"]]}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="not a split that vlprompt wrote"):
            read_split(path, data)


def test_ids_with_letters_of_any_language_can_be_written(tmp_path: Path) -> None:
    put(tmp_path / "d/\u732b/\u00e9.png")
    put(tmp_path / "d/dog/b.png")
    data = open_dataset(tmp_path / "d")
    write_split(tmp_path / "split.json", Split(train=data.train, val=(), test=()), dataset=data.name)
    assert read_split(tmp_path / "split.json", data).train == data.train


def test_fewer_test_images_are_drawn_evenly_and_always_alike() -> None:
    samples = tuple(
        sample(f"{label}/{number}", label) for label, many in enumerate((50, 3, 20)) for number in range(many)
    )
    whole = Dataset(name="d", class_names=("a", "b", "c"), train=(), test=samples)
    few = fewer_tests(whole, 12)
    counts = Counter(one.label for one in few.test)
    assert (sum(counts.values()), counts[1], few.test_of) == (12, 3, 73)
    assert abs(counts[0] - counts[2]) <= 1
    assert [one.id for one in few.test] == [one.id for one in samples if one in few.test]
    backwards = dataclasses.replace(whole, test=samples[::-1])
    assert {one.id for one in fewer_tests(backwards, 12).test} == {one.id for one in few.test}
    assert fewer_tests(whole, 73) is whole
    assert fewer_tests(whole, None) is whole
    assert len(fewer_tests(whole, 1).test) == 1


def test_a_message_names_five_and_counts_the_others() -> None:
    reasons = said_of_skipped({f"{number}.png": f"reason {number}" for number in range(7)})
    assert "reason 4" in reasons
    assert "reason 5" not in reasons
    assert reasons.endswith("; and 2 more reasons.")
    short = said_of_short(SimpleNamespace(short={f"class {number}": 1 for number in range(7)}), 16)  # type: ignore[arg-type]
    assert "class 4 (1) and 2 more;" in short
    assert "class 5" not in short
