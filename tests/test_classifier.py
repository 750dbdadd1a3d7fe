"""The five lines of Python."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny
from tests.engine.made import config, write_images
from vlprompt import classifier
from vlprompt.classifier import PromptClassifier
from vlprompt.data import views
from vlprompt.engine.run import train_run
from vlprompt.errors import UserError

OPTIONS = {"n_ctx": 4, "epochs": 4, "batch": 8, "lr": 0.005}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "colours")


@pytest.fixture(scope="module")
def fitted(clip_dir: Path, folder: Path) -> PromptClassifier:
    return made(clip_dir, folder).fit(folder, shots=4)


def made(clip_dir: Path, folder: Path, method: str = "coop", **changes: Any) -> PromptClassifier:
    return PromptClassifier(clip_dir, method, views=2, cache=folder.parent / "cache", **{**OPTIONS, **changes})


def in_memory(folder: Path) -> tuple[list[Image.Image], list[str]]:
    paths = sorted((folder / "train").rglob("*.png"))
    return [Image.open(path).convert("RGB") for path in paths], [path.parent.name for path in paths]


def test_it_learns_what_the_command_learns(
    fitted: PromptClassifier, clip_dir: Path, folder: Path, tmp_path: Path
) -> None:
    (record,) = train_run(config(clip_dir, folder, tmp_path / "run"))
    loaded = PromptClassifier.load(tmp_path / "run")
    ctx = [one.learned.prompt.get_parameter("ctx") for one in (fitted, loaded)]
    assert torch.equal(ctx[0], ctx[1])
    assert record.top1 == pytest.approx(100 * fitted.score(folder))
    assert fitted.classes_.tolist() == ["blue bird", "cat", "dog"]


def test_images_of_every_kind_get_one_answer(fitted: PromptClassifier, folder: Path) -> None:
    path = folder / "test" / "cat" / "0.png"
    array = np.asarray(Image.open(path))
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    kinds = [path, str(path), Image.open(path), array, array.astype(np.float32) / 255, tensor, tensor.float() / 255]
    answers = fitted.predict_proba(kinds)
    assert answers.shape == (7, 3)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(answers, answers[:1].repeat(7, 0), rtol=1e-4)
    for one in kinds:
        np.testing.assert_allclose(fitted.predict_proba(one), answers[:1], rtol=1e-4)
    np.testing.assert_allclose(fitted.predict_proba(np.stack([array, array])), answers[:2], rtol=1e-4)
    assert fitted.predict(kinds).tolist() == [fitted.classes_[answers[0].argmax()]] * 7
    assert fitted.predict_proba([]).shape == (0, 3)
    assert fitted.predict(np.array([str(path)] * 2)).tolist() == fitted.predict([path, path]).tolist()


def test_new_class_names(fitted: PromptClassifier, folder: Path) -> None:
    names = ["green house", "red truck", "cat", "tree"]
    path = folder / "test" / "cat" / "0.png"
    probability = fitted.predict_proba(path, class_names=names)
    assert probability.shape == (1, 4)
    assert fitted.predict(path, class_names=names).tolist() == [names[probability[0].argmax()]]
    reordered = fitted.predict_proba(path, class_names=names[::-1])
    np.testing.assert_allclose(reordered[0, ::-1], probability[0], rtol=1e-4)
    with pytest.raises(UserError, match="read the same"):
        fitted.predict(path, class_names=["cat", "cat"])


def test_save_and_load(fitted: PromptClassifier, folder: Path, tmp_path: Path) -> None:
    fitted.save(tmp_path / "prompt")
    back = PromptClassifier.load(tmp_path / "prompt")
    paths = sorted((folder / "test").rglob("*.png"))
    for names in (None, ["tree", "house"]):
        assert np.array_equal(back.predict_proba(paths, names), fitted.predict_proba(paths, names))
    assert back.classes_.tolist() == fitted.classes_.tolist()
    assert back.options["n_ctx"] == 4
    with pytest.raises(UserError, match="own backbone"):
        PromptClassifier.load(tmp_path / "prompt", model=tiny.clip_dir(tmp_path / "other", seed=3))


def test_images_in_memory_are_learned_as_files_are(clip_dir: Path, folder: Path) -> None:
    images, labels = in_memory(folder)
    names = ["blue bird", "cat", "dog"]
    by_name = made(clip_dir, folder).fit((images, labels), shots=None)
    by_index = made(clip_dir, folder).fit((images, [names.index(one) for one in labels], names), shots=None)
    assert by_name.classes_.tolist() == by_index.classes_.tolist() == names
    proba = by_name.predict_proba(images)
    assert np.array_equal(proba, by_index.predict_proba(images))
    right = float((by_name.predict(images) == np.array(labels)).mean())
    assert by_name.score(images, labels) == by_name.score((images, labels)) == right
    assert by_name.score((images, [names.index(one) for one in labels], names)) == right


def test_scoring_few_of_the_classes_keeps_all_of_them(fitted: PromptClassifier, folder: Path) -> None:
    images, labels = in_memory(folder)
    cats = [image for image, label in zip(images, labels, strict=True) if label == "cat"]
    right = float((fitted.predict(cats) == "cat").mean())
    assert fitted.score(cats, ["cat"] * len(cats)) == fitted.score((cats, ["cat"] * len(cats))) == right


def test_loose_pictures_are_not_kept(fitted: PromptClassifier, folder: Path) -> None:
    cache = folder.parent / "cache"
    before = sorted(path.name for path in cache.rglob("*"))
    fitted.predict(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    assert sorted(path.name for path in cache.rglob("*")) == before


def test_zero_shot_fits_too(clip_dir: Path, folder: Path) -> None:
    classifier = PromptClassifier(clip_dir, "zero-shot", cache=folder.parent / "cache").fit(folder, shots=4)
    assert classifier.predict_proba(folder / "test" / "cat" / "0.png").shape == (1, 3)


def test_bad_images_of_a_set_are_skipped_with_a_warning(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    spoilt = Path(shutil.copytree(folder, tmp_path / "spoilt"))
    (spoilt / "train" / "cat" / "0.png").write_bytes(b"no image")
    with (
        pytest.warns(UserWarning, match=r"1 image was skipped: train/cat/0\.png"),
        pytest.warns(UserWarning, match=r"fewer than 6 training images in cat \(5\)"),
    ):
        made(clip_dir, folder).fit(spoilt, shots=6)
    with pytest.raises(UserError, match=r"nothing\.png: cannot be read"):
        made(clip_dir, folder).fit(folder, shots=1).predict(tmp_path / "nothing.png")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (([np.zeros((8, 8, 3), np.uint8)] * 2, [0, 1]), "numbers need class names"),
        (([np.zeros((8, 8, 3), np.uint8)] * 2, [0, 2], ["a", "b"]), "label 2 is not a class"),
        (([np.zeros((8, 8, 3), np.uint8)] * 2, ["a"], ["a", "b"]), "2 images and 1 labels"),
        (([np.zeros((8, 8, 3), np.uint8)] * 2, ["a", "a"]), "at least two classes"),
        (
            ([np.zeros((8, 8, 3), np.uint8)] * 2, ["a", "b"], ["a", "b", "c"]),
            r"no training image that can be used \(c\)",
        ),
    ],
)
def test_data_that_cannot_be_learned(clip_dir: Path, folder: Path, data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(clip_dir, folder).fit(data)


def test_mistakes_are_said_at_once(clip_dir: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'coop'"):
        PromptClassifier(clip_dir, "cop")
    with pytest.raises(UserError, match="Did you mean 'epochs'"):
        PromptClassifier(clip_dir, "coop", epoch=3)
    with pytest.raises(UserError, match="call fit first"):
        PromptClassifier(clip_dir, "coop").predict("a.png")


def test_threads_that_ask_about_other_classes_do_not_disturb_each_other() -> None:
    learned = PromptClassifier(method="coop", epochs=1, shots=1).fit("emoji-animals")
    picture = Image.effect_noise((40, 40), 60)
    lists = [["cat", "dog"], ["red", "blue"], ["tree", "house", "car"], None]
    wanted = [learned.predict_proba(picture, names) for names in lists]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda turn: learned.predict_proba(picture, lists[turn % 4]), range(24)))
    for turn, answer in enumerate(found):
        np.testing.assert_allclose(answer, wanted[turn % 4], atol=1e-5)


def test_predict_decodes_no_more_than_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large JPEG files in part, all others whole; the answers of small ones are those of `predict_proba`."""
    learned = PromptClassifier(method="coop", epochs=1, shots=1).fit("emoji-animals")
    side = learned.clip.preprocess.crop
    for number in range(2 * classifier.AT_ONCE + 3):
        Image.effect_noise((2 * side, 2 * side - 1), number).convert("RGB").save(tmp_path / f"{number:02}.jpg")
    paths = sorted(tmp_path.glob("*.jpg"))
    Image.effect_noise((16 * side, 24 * side), 60).convert("RGB").save(tmp_path / "camera.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    seen = []
    monkeypatch.setattr(
        views,
        "test_view",
        lambda image, *rest, _view=views.test_view: (seen.append(image.size), _view(image, *rest))[1],
    )
    found, reasons = learned.predict_files([*paths[:20], tmp_path / "broken.jpg", *paths[20:], tmp_path / "camera.jpg"])
    assert list(reasons) == [20]
    assert len(found) == len(paths) + 1
    assert sorted(seen)[-1] == (2 * side, 3 * side)
    assert (2 * side, 2 * side - 1) in seen
    np.testing.assert_allclose(found[:-1], learned.predict_proba(paths), atol=1e-6)
