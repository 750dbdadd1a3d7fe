"""Class vectors for detectors: the prompt's own class features, in the files that are promised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.pretrain.together import config
from vlprompt import artifact, cli
from vlprompt.engine.class_vectors import class_vectors, read_names, write_vectors
from vlprompt.errors import DATA, UserError
from vlprompt.pretrain.run import pretrain_run
from vlprompt.towers import load

NAMES = ("dog", "red cat", "tree", "dog")


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "out"
    pretrain_run(config(root, out, "rpp", overrides={"n_ctx": 2, "epochs": 1}, held_out=0))
    return out / "best"


def test_vectors_are_the_towers_class_features(run: Path, root: Path) -> None:
    vectors_CE, learned = class_vectors(run, NAMES)
    clip = load(root / "clip")
    layout = learned.method.prompt.layout
    with torch.no_grad():
        prompted = learned.prompt()
        for row, name in zip(vectors_CE, NAMES, strict=True):
            wanted = clip.encode_text(clip.class_tokens([name], layout), prompted).pooled[0]
            assert torch.allclose(row, wanted, atol=1e-5)
    assert torch.equal(vectors_CE[0], vectors_CE[3])
    unit_CE, _ = class_vectors(run, NAMES, unit=True)
    assert torch.allclose(unit_CE, torch.nn.functional.normalize(vectors_CE, dim=1))


def test_the_command_writes_what_detic_reads(run: Path, tmp_path: Path) -> None:
    """Detic: torch.tensor(np.load(path), dtype=float32).permute(1, 0), so (C, D), rows by category id."""
    annotations = {"categories": [{"id": 7, "name": "tree"}, {"id": 2, "name": "red_cat"}, {"id": 5, "name": "dog"}]}
    (tmp_path / "lvis.json").write_text(json.dumps(annotations), encoding="utf-8")
    out = tmp_path / "vectors.npy"
    assert (
        cli.run(["export", "class-vectors", str(run), "--names", str(tmp_path / "lvis.json"), "--out", str(out)]) == 0
    )
    array = np.load(out)
    assert (array.shape, array.dtype) == ((3, 32), np.float32)
    vectors_CE, _ = class_vectors(run, ("red_cat", "dog", "tree"))
    assert np.array_equal(array, vectors_CE.numpy())
    assert out.with_suffix(".names.txt").read_text(encoding="utf-8") == "red_cat\ndog\ntree\n"


def test_safetensors_keeps_the_names(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors.safetensors"
    assert cli.run(["export", "class-vectors", str(run), "--out", str(out), "--unit"]) == 0
    with safe_open(out, framework="np") as file:
        assert json.loads(file.metadata()["names"])[:2] == ["cat", "dog"]
        assert np.allclose(np.linalg.norm(file.get_tensor("vectors"), axis=1), 1, atol=1e-5)
        assert file.metadata()["method"] == "rpp"


def test_names_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("cat\n\n dog \n", encoding="utf-8")
    (tmp_path / "a.json").write_text('["cat", "dog"]', encoding="utf-8")
    assert read_names(tmp_path / "a.txt") == read_names(tmp_path / "a.json") == ("cat", "dog")
    for name, content in (("b.json", "{}"), ("c.json", "[1]"), ("d.json", "{"), ("e.txt", "\n")):
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(UserError) as error:
            read_names(tmp_path / name)
        assert error.value.exit_code == DATA
    with pytest.raises(UserError):
        read_names(tmp_path / "nothing.txt")


def test_what_has_no_class_vectors_says_so(root: Path, tmp_path: Path) -> None:
    from vlprompt.engine.train import new_prompt
    from vlprompt.methods.resolve import resolve

    clip = load(root / "clip")
    method = resolve("cocoop", {"n_ctx": 2, "init": "normal"})
    artifact.save(
        tmp_path,
        artifact.Learned(
            method=method,
            prompt=new_prompt(clip, method.prompt, 2, 0),
            class_names=("cat", "dog"),
            template="a photo of a {}.",
            model=str(root / "clip"),
            weight_hash=clip.weight_hash,
        ),
    )
    with pytest.raises(UserError, match="depends on the image"):
        class_vectors(tmp_path, NAMES)
    learned = artifact.loaded(tmp_path)[0]
    with pytest.raises(UserError, match=r"\.txt"):
        write_vectors(tmp_path / "vectors.txt", {"vectors": torch.zeros(1, 2)}, ("cat",), learned)
