"""Exported files answer as the prompt does: ONNX by onnxruntime, torch.export by torch, any number of images."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.made import config, write_images
from vlprompt import PromptClassifier
from vlprompt.data import open_image, test_view
from vlprompt.engine.deploy import INPUT, LOGITS, PROBABILITY, deployed, write
from vlprompt.engine.run import train_run
from vlprompt.errors import UserError

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_only.py"


@pytest.fixture(scope="module")
def run(clip_dir: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A run of the method that the test names, on small pictures in photos next to it; mine.onnx is made of it."""
    place = tmp_path_factory.mktemp(request.param)
    write_images(place / "photos")
    asked = config(clip_dir, place / "photos", place / "run", method=request.param)
    train_run(dataclasses.replace(asked, overrides={}) if request.param == "linear-probe" else asked)
    return place / "run"


@functools.cache
def whole(run: Path) -> Path:
    write(run.parent / "mine.onnx", "onnx", *deployed(run))
    return run.parent / "mine.onnx"


def pixels_and_answers(run: Path) -> tuple[torch.Tensor, np.ndarray]:
    """Three pictures as the file takes them, and what the prompt answers."""
    classifier = PromptClassifier.load(run)
    paths = sorted((run.parent / "photos").rglob("*.png"))[:3]
    scale = classifier.clip.preprocess
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (scale.mean, scale.std))
    views = [test_view(open_image(path.read_bytes(), name=path.name), scale) * std + mean for path in paths]
    return torch.stack(views), classifier.predict_proba(paths)


@pytest.mark.parametrize("run", ["coop", "maple", "linear-probe"], indirect=True)
def test_onnx_answers_as_the_prompt(run: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    session = onnxruntime.InferenceSession(whole(run))
    pixels, expected = pixels_and_answers(run)
    for count in (1, 3):
        probability, logits = session.run([PROBABILITY, LOGITS], {INPUT: pixels[:count].numpy()})
        assert np.abs(probability - expected[:count]).max() < 1e-5
        assert logits.shape == expected[:count].shape
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    assert names == list(PromptClassifier.load(run).classes_)


@pytest.mark.parametrize("run", ["coop"], indirect=True)
def test_the_example_needs_no_vlprompt_and_half_is_smaller(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    write(tmp_path / "half.onnx", "onnx", *deployed(run), half=True)
    assert (tmp_path / "half.onnx").stat().st_size < 0.7 * whole(run).stat().st_size
    assert "vlprompt" not in EXAMPLE.read_text(encoding="utf-8").split('"""')[2], "the code below the docstring"
    picture = next((run.parent / "photos").rglob("*.png"))
    for file in (whole(run), tmp_path / "half.onnx"):
        done = subprocess.run([sys.executable, EXAMPLE, file, picture], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert str(PromptClassifier.load(run).predict(picture)[0]) in done.stdout


@pytest.mark.parametrize("run", ["coop"], indirect=True)
def test_torch_export_answers_as_the_prompt_without_the_text_tower(run: Path, tmp_path: Path) -> None:
    module, facts = deployed(run)
    write(tmp_path / "mine.pt2", "torch-export", module, facts)
    kept = {"class_names": ""}
    program = torch.export.load(tmp_path / "mine.pt2", extra_files=kept)
    pixels, expected = pixels_and_answers(run)
    assert np.abs(program.module()(pixels)[0].numpy() - expected).max() < 1e-5
    assert json.loads(kept["class_names"]) == list(PromptClassifier.load(run).classes_)
    assert not [name for name in program.state_dict if "token_embedding" in name]


@pytest.mark.parametrize("run", ["cocoop"], indirect=True)
def test_a_prompt_that_depends_on_the_image_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match="runs the text tower again for every image"):
        deployed(run)
