"""The choice of a method: folds, the rule, what is told, and that no test or validation image decides."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.engine.made import config, write_images
from vlprompt import PromptClassifier
from vlprompt.data import Dataset, Sample, open_dataset
from vlprompt.engine.choose import CANDIDATES, Candidate, Choice, Tried, as_dict, choose, deal, pick, usual
from vlprompt.engine.images import Images, open_model
from vlprompt.engine.run import train_run
from vlprompt.errors import UserError


def samples(*labels: int) -> list[Sample]:
    return [Sample(id=str(n), label=label, source=bytes) for n, label in enumerate(labels)]


def test_every_class_is_dealt_evenly_and_single_images_are_kept_to_learn_from() -> None:
    some = samples(*[0] * 8, *[1] * 4, 2)
    folds = deal(some, seed=1)
    assert sorted(place for fold in folds for place in fold) == list(range(12))
    for fold in folds:
        assert [some[place].label for place in fold] == [0, 0, 1]
    assert deal(samples(0, 1, 2), seed=1) == []
    assert len(deal(samples(0, 0, 1, 1), seed=1)) == 2


def test_the_method_where_nobody_names_one() -> None:
    assert usual() == "auto"
    assert usual("maple-few-shot") == usual("maple-few-shot", of_one=True) == "maple"
    assert usual("pocket", of_one=True) == "coop"


def tried(label: str, right: int, total: int = 100) -> Tried:
    return Tried(label=label, right=np.arange(total) < right, seconds=1.0)


def test_the_first_that_is_not_clearly_worse_is_taken() -> None:
    assert pick([tried("a", 60), tried("b", 90)]) == 1
    assert pick([tried("a", 90), tried("b", 90)]) == 0
    assert pick([tried("a", 89), tried("b", 90)]) == 0  # one image: within a standard error of 1
    assert pick([Tried(label="a", right=None, seconds=0), tried("b", 50), tried("c", 90)]) == 2
    assert pick([Tried(label="a", right=None, seconds=0)]) == 0


def test_a_choice_reads_no_test_image_and_tells_all_numbers(clip_dir: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "folder")
    images = open_model(str(clip_dir), "float32", "cpu", tmp_path / "cache")
    dataset = open_dataset(folder)

    def unread() -> bytes:
        raise AssertionError("a test image was read")

    guarded = dataclasses.replace(
        dataset, test=tuple(dataclasses.replace(one, source=unread) for one in dataset.test), tested=None
    )
    candidates = (*CANDIDATES[1:], CANDIDATES[0])
    found = choose(
        images, guarded, model=str(clip_dir), shots=3, seed=1, candidates=candidates, max_seconds=0.0, recipe=""
    )
    assert [one.label for one in found.tried] == ["hand-written words", "lp-plus-plus", "linear-probe", "coop"]
    assert found.tried[3].right is None
    assert "coop not tried (it would take" in found.sentence
    assert all(f"{one.accuracy:.1f}" in found.sentence for one in found.tried[:3])
    assert found.images == 3 * len(dataset.class_names)
    told = as_dict(found)
    assert told["method"] == found.candidate.method
    one = choose(images, guarded, model=str(clip_dir), shots=1, seed=1)
    assert one.tried == ()
    assert "no class has two training images" in one.sentence


def test_a_run_keeps_its_choice(clip_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_images(tmp_path / "folder")
    calls: list[int] = []

    def fixed(images: Images, dataset: Dataset, **given: object) -> Choice:
        calls.append(len(dataset.test))
        return Choice(candidate=Candidate(method="lp-plus-plus"), tried=(), images=0, sentence="so", seconds=1.0)

    monkeypatch.setattr("vlprompt.engine.run.choose", fixed)
    asked = config(clip_dir, folder, tmp_path / "run", method="auto")
    asked = dataclasses.replace(asked, overrides={}, recipe="")
    first = train_run(asked)
    again = train_run(dataclasses.replace(asked, seeds=(1, 2)))
    assert [one.method for one in (*first, *again)] == ["lp-plus-plus"] * 3
    assert calls == [0]
    assert (tmp_path / "run" / "choice.json").is_file()
    with pytest.raises(UserError, match=r"another configuration: data: 'folder' -> 'other'"):
        train_run(dataclasses.replace(asked, data=str(write_images(tmp_path / "other")), seeds=(3,)))
    with pytest.raises(UserError, match="shots: "):
        train_run(dataclasses.replace(asked, shots=3, seeds=(3,)))


def test_the_classifier_chooses_where_nobody_names_a_method(
    clip_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "folder")

    def fixed(images: Images, dataset: Dataset, **given: object) -> Choice:
        assert not dataset.test
        candidate = Candidate(method="linear-probe", overrides={"C": 1})
        return Choice(candidate=candidate, tried=(), images=0, sentence="so", seconds=1.0)

    monkeypatch.setattr("vlprompt.classifier.choose", fixed)
    made = PromptClassifier(clip_dir, recipe="", shots=1, cache=tmp_path / "cache")
    assert "method='auto'" in repr(made)
    made.fit(folder)
    assert made.choice_ is not None
    assert made.learned.method.options["C"] == 1
    assert PromptClassifier(clip_dir, epochs=2).choice_ is None
    assert "method='coop'" in repr(PromptClassifier(clip_dir, epochs=2))
    with pytest.raises(UserError, match="belong to one method"):
        PromptClassifier(clip_dir, "auto", epochs=2)
