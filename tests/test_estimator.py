"""`PromptClassifier` as scikit-learn uses it, and the module for people with their own loop."""

from __future__ import annotations

import pickle
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

import vlprompt
from tests.engine.made import write_images
from vlprompt import PromptClassifier, PromptedCLIP, UserError, load, load_pixels, open_dataset, resolve
from vlprompt.engine.forward import Forward
from vlprompt.engine.step import gradients_of, weighted

ROOT = Path(__file__).resolve().parents[1]
OPTIONS: dict[str, Any] = {"n_ctx": 2, "epochs": 1, "batch": 8, "views": 1, "shots": None, "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "colours")


@pytest.fixture(scope="module")
def paths(folder: Path) -> list[str]:
    return [str(path) for path in sorted((folder / "train").rglob("*.png"))]


@pytest.fixture(scope="module")
def labels(paths: list[str]) -> list[str]:
    return [Path(path).parent.name for path in paths]


@pytest.fixture
def made(clip_dir: Path, folder: Path) -> PromptClassifier:
    return PromptClassifier(clip_dir, "coop", cache=folder.parent / "cache", **OPTIONS)


def test_cross_validation_search_and_pipeline(made: PromptClassifier, paths: list[str], labels: list[str]) -> None:
    assert is_classifier(made)
    assert clone(made).get_params() == made.get_params()
    assert len(cross_val_score(made, paths, labels, cv=2, error_score="raise")) == 2
    search = GridSearchCV(made, {"n_ctx": [1, 2]}, cv=2, scoring="accuracy", error_score="raise").fit(paths, labels)
    assert search.best_params_["n_ctx"] in (1, 2)
    numbers = np.unique(labels, return_inverse=True)[1] * 10
    piped = Pipeline(
        [("same", FunctionTransformer()), ("clip", clone(made).set_params(class_names=["bird", "cat", "dog"]))]
    )
    piped.fit(paths, numbers)
    assert set(piped.predict(paths)) <= {0, 10, 20}
    assert piped.score(paths, numbers) == (piped.predict(paths) == numbers).mean()


DO_NOT_APPLY = {
    "check_set_params": "a misspelt method or option is an error at once, in set_params too, which the check warns about",
    "check_no_attributes_set_in_init": "options of the method come as keywords and are kept as `options`",
    "check_do_not_raise_errors_in_init_or_set_params": "a misspelt method or option is an error at once",
}


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
    ],
    ids=lambda check: check.__name__,
)
def test_the_checks_of_scikit_learn(check: Callable[[str, object], None], request: pytest.FixtureRequest) -> None:
    """All checks that need no table of numbers for X; what an image classifier is fitted on is none."""
    if check.__name__ in DO_NOT_APPLY:
        request.applymarker(pytest.mark.xfail(reason=DO_NOT_APPLY[check.__name__], strict=True))
    check("PromptClassifier", PromptClassifier())


def test_what_fit_found_is_shown(made: PromptClassifier, folder: Path) -> None:
    assert "nothing yet" in made._repr_html_()
    made.fit(folder, shots=2)
    result = made.result_
    assert result is not None
    assert (result.images, result.classes) == (6, 3)
    assert result.accuracy is not None
    assert f"{result.accuracy:.1f} %" in made._repr_html_()
    assert f"{result.accuracy:.1f} %" in repr(made)
    assert "n_ctx=2" in repr(made)


def test_folders_generators_and_frames(
    made: PromptClassifier, folder: Path, paths: list[str], labels: list[str]
) -> None:
    pandas = pytest.importorskip("pandas")
    made.fit(pandas.DataFrame({"image": paths, "label": labels}))
    answers = made.predict(paths)
    assert made.predict(path for path in paths).tolist() == answers.tolist()
    assert made.predict(folder / "train").tolist() == answers.tolist()
    right = float((answers == np.array(labels)).mean())
    assert made.score(pandas.DataFrame({"image": paths, "label": labels})) == right
    frame = made.frame(paths, labels)
    assert list(frame.columns) == ["image", "answer", "probability", "label", "right"]
    assert frame["right"].mean() == right
    assert made.frame(path for path in paths)["answer"].tolist() == answers.tolist()
    assert made.predict(pandas.DataFrame({"image": paths})).tolist() == answers.tolist()
    assert made.fit(pandas.DataFrame({"image": paths}), labels).predict(paths).tolist() == answers.tolist()
    with pytest.raises(UserError, match="no column 'image'"):
        made.predict(pandas.DataFrame({"picture": paths}))
    with pytest.raises(UserError, match="no column 'label'"):
        made.score(pandas.DataFrame({"image": paths}))


def test_it_is_pickled_without_the_model(made: PromptClassifier, paths: list[str], labels: list[str]) -> None:
    made.fit(paths, labels)
    data = pickle.dumps(made)
    assert len(data) < 20_000
    assert np.array_equal(pickle.loads(data).predict_proba(paths), made.predict_proba(paths))


def test_errors_show_the_callers_lines_and_not_our_insides(made: PromptClassifier) -> None:
    with pytest.raises(UserError, match="numbers need class names") as caught:
        made.fit(["a.png", "b.png"], [0, 1])
    ours = [frame for frame in traceback.extract_tb(caught.value.__traceback__) if "src/vlprompt" in frame.filename]
    assert len(ours) == 1
    assert caught.value._render_traceback_() == [f"UserError: {caught.value}"]


def test_bars_are_drawn_where_they_are_wanted(
    made: PromptClassifier, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.fit(folder, shots=1)
    assert capsys.readouterr().err == ""
    made.set_params(progress=True).fit(folder, shots=1)
    assert "learning" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["coop", "cocoop", "maple", "vpt", "clip-adapter"])
def test_a_loop_of_your_own_has_the_packages_gradient(clip_dir: Path, folder: Path, method: str) -> None:
    data, clip = open_dataset(folder), load(clip_dir)
    samples = data.train[::3][:4]
    truth = torch.tensor([one.label for one in samples])
    pixels = load_pixels(samples, clip.preprocess, None)
    module = PromptedCLIP(clip, method, class_names=data.class_names, template=data.template)
    loss = F.cross_entropy(module(pixels), truth)
    own = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)
    chosen = resolve(method, facts=clip.facts)
    pass_of = Forward(clip, chosen, data.class_names, data.template)
    frozen = module.encode(pixels) if pass_of.reads_frozen else None
    view = pass_of(module.prompt, truth, frozen, pixels)
    wanted = gradients_of(chosen, weighted(chosen.steps.terms, view), list(module.parameters()))
    assert any(one is not None for one in wanted)
    for ours, theirs in zip(own, wanted, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs)


def test_what_a_loop_learned_is_saved_as_any_prompt(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    data, clip = open_dataset(folder), load(clip_dir)
    module = PromptedCLIP(clip, "coop", class_names=data.class_names)
    assert set(module.state_dict()) == {f"prompt.{name}" for name, _ in module.prompt.named_parameters()}
    pixels = load_pixels(data.test, clip.preprocess, None)
    module.save(tmp_path / "prompt")
    loaded = PromptClassifier.from_pretrained(tmp_path / "prompt")
    found = loaded.predict_proba([one.source() for one in data.test][:0] or [folder / one.id for one in data.test])
    np.testing.assert_allclose(module(pixels).softmax(-1).detach().numpy(), found, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(module(pixels, module.encode(pixels)), module(pixels))
    module.ask(["tree", "house"])
    assert module(pixels).shape == (len(data.test), 2)
    with pytest.raises(UserError, match="no tensors"):
        PromptedCLIP(clip, "zero-shot", class_names=data.class_names)


def test_the_page_names_all_that_is_public() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted(vlprompt.__all__)
    assert all(getattr(vlprompt, name) is not None for name in listed)
