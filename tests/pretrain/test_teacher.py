"""Pretraining with another model as the teacher, of another size and with images of its own size."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pretrain.conftest import DAMAGED
from tests.pretrain.test_run import equal, lines, small
from vlprompt import PromptClassifier
from vlprompt.artifact import loaded
from vlprompt.data.images import picture
from vlprompt.data.views import test_view as view_of
from vlprompt.errors import UserError
from vlprompt.pretrain.run import pretrain_run
from vlprompt.pretrain.source import open_corpus
from vlprompt.towers import load

ALL = {"epochs": 1, "batch": 30, "lr": 1e-30, "warmup_epochs": 0}


def still(root: Path, out: Path, **changes: Any) -> list[dict[str, Any]]:
    """One step that learns nothing: its losses are those of the prompt that it leaves behind."""
    pretrain_run(small(root, out, overrides=ALL, views="centre", copies=1, held_out=0, **changes))
    return lines(out)


@pytest.mark.parametrize("classes", [0, 3])
def test_the_distillation_is_from_the_teachers_answers(root: Path, tmp_path: Path, classes: int) -> None:
    """Written out, image by image, over the classes that the step sees; with fewer it is another sum."""
    large = root / "teacher"
    (line,) = still(root, tmp_path / "out", teacher=str(large), classes_per_step=classes)
    learned, clip = loaded(tmp_path / "out" / "last")
    teacher, names = load(large), learned.class_names
    with torch.no_grad():
        prompted = learned.prompt()
        text = clip.encode_text(clip.class_tokens(names, learned.prompt.layout), prompted).unit
        taught = teacher.encode_text(teacher.class_tokens(names, None, learned.template)).unit
        asked = small(root, tmp_path / "other")
        pool = open_corpus(asked.data, root / "cache", shots=asked.shots, seed=asked.seed).train
        terms = []
        for number in range(len(pool)):
            sample = pool.sample(number)
            if sample.id.endswith(DAMAGED.rpartition("/")[2]) and sample.label == int(DAMAGED.split("/")[1][-1]) - 1:
                continue
            image = picture(sample)
            student = clip.encode_images(view_of(image, clip.preprocess)[None], prompted).unit[0]
            wise = teacher.encode_images(view_of(image, teacher.preprocess)[None]).unit[0]
            p = (teacher.logit_scale * taught @ wise).softmax(0)
            q = (clip.logit_scale * text @ student).softmax(0)
            terms.append((p * (p / q).log()).sum())
    expected = float(torch.stack(terms).mean())
    if classes == 0:
        assert line["losses"]["distillation"] == pytest.approx(expected, rel=1e-3)
    else:
        assert line["losses"]["distillation"] != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("look", [{"views": "crops"}, {"views": 2}, {"views": "published", "copies": 2}])
def test_the_same_model_as_teacher_changes_nothing(root: Path, tmp_path: Path, look: dict[str, Any]) -> None:
    """With sampled classes, fresh and cached views: what one step sees of the other model is what it sees of its own."""
    twin = Path(shutil.copytree(root / "clip", tmp_path / "twin"))
    look = {"copies": 1, "overrides": {"epochs": 1}, "held_out": 0, **look}
    pretrain_run(small(root, tmp_path / "own", **look))
    pretrain_run(small(root, tmp_path / "twins", teacher=str(twin), **look))
    for a, b in zip(lines(tmp_path / "own"), lines(tmp_path / "twins"), strict=True):
        assert a["losses"] == pytest.approx(b["losses"], rel=1e-4)


def test_the_teacher_is_part_of_what_decides(root: Path, tmp_path: Path) -> None:
    options = {"copies": 1, "views": 2, "overrides": {"epochs": 1}, "held_out": 0}
    large = str(root / "teacher")
    pretrain_run(small(root, tmp_path / "a", teacher=large, **options))
    pretrain_run(small(root, tmp_path / "b", teacher=large, workers=1, **options))
    assert equal(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="teacher"):
        pretrain_run(small(root, tmp_path / "a", **options))
    with pytest.raises(UserError, match="compares no answers"):
        pretrain_run(small(root, tmp_path / "c", "coop", teacher=large))


def test_the_classifier_takes_a_teacher(root: Path, tmp_path: Path) -> None:
    data = root / "data" / "imagenet21k_train"
    folder = tmp_path / "photos"
    for place in sorted(data.iterdir())[:2]:
        shutil.copytree(place, folder / place.name)
    shared: dict[str, Any] = {"device": "cpu", "cache": tmp_path / "cache", "epochs": 1, "n_ctx": 2, "init": "normal"}
    made = [
        PromptClassifier(root / "clip", "rpp", teacher=teacher, **shared).fit(folder, shots=1)
        for teacher in (None, root / "teacher")
    ]
    own, other = (torch.cat([one.flatten() for one in found.learned.prompt.parameters()]) for found in made)
    assert not torch.equal(own, other)
    with pytest.raises(UserError, match="compares no answers"):
        PromptClassifier(root / "clip", "coop", teacher=root / "teacher", device="cpu").fit(folder, shots=1)
