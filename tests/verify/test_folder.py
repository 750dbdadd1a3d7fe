"""`vlprompt verify --cases DIR`: any folder of the same form, towers of any size, and what is said of a malformed one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlprompt import cli
from vlprompt.verify import OURS, Case, Folder, cases, cases_in, given, run_case, trajectories
from vlprompt.verify.parity import INDEX, TRAJECTORIES

Edit = Callable[[dict[str, Any], Path], None]


def run(capsys: pytest.CaptureFixture[str], folder: Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.run(["verify", "--cases", str(folder), "--json"])
    return code, *capsys.readouterr()


def copied(to: Path, name: str = "coop_words", run_of: str = "coop_end") -> Path:
    """A folder with one single pass and one training run of the package's."""
    for source, target, case in ((OURS.place, to, name), (OURS.place / TRAJECTORIES, to / TRAJECTORIES, run_of)):
        target.mkdir(parents=True)
        shutil.copy(source / f"{case}.npz", target)
        index = json.loads((source / INDEX).read_text(encoding="utf-8"))
        index["cases"] = [one for one in index["cases"] if one["name"] == case]
        (target / INDEX).write_text(json.dumps(index), encoding="utf-8")
    shutil.copy(OURS.place / "vit.json", to)
    return to


def test_another_folder_is_computed_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, copied(tmp_path / "cases"))
    answer = json.loads(out)
    assert (code, answer["failed"]) == (0, 0)
    assert [one["name"] for one in answer["cases"]] == ["coop_words", "trajectories/coop_end"]


def edit(folder: Path, change: Edit) -> None:
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    change(index, folder)
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def smaller(index: dict[str, Any], folder: Path) -> None:
    """Text width 128, two layers; image width 192, one layer; 24 x 24 images in 9 patches of 8 x 8."""
    rows = json.loads((folder / "vit.json").read_text(encoding="utf-8"))
    kept = [row for row in rows if "resblocks.2" not in row[0] and "visual.transformer.resblocks.1" not in row[0]]
    new = {512: 128, 768: 192, 1536: 384, 2048: 512, 2304: 576, 3072: 768}
    sizes = {"visual.conv1.weight": [192, 3, 8, 8], "visual.positional_embedding": [10, 192]}
    rows = [[name, sizes.get(name, [new.get(n, n) for n in shape])] for name, shape in kept]
    (folder / "small.json").write_text(json.dumps(rows), encoding="utf-8")
    index["weights"]["manifest"] = "small.json"
    index["images"]["size"] = 24


def recorded(case: Case) -> None:
    """What is computed here, as the numbers of a case."""
    inputs = given.given(case.folder, case.entry, "cpu", "float32")
    if inputs.trains:
        course = trajectories.run(inputs)
        want = {**course["steps"], **course["tensors"]}
    else:
        found = cases.answer(inputs)
        want = {"logits": found["values"]["logits"], **found["gradients"]}
        padded = [torch.tensor(ids + [0] * (77 - len(ids))) for ids in cases.sentence_ids(inputs)]
        want["token_ids"] = torch.stack(padded)
    arrays = {name: value.detach().numpy() for name, value in want.items()}
    np.savez(case.folder.place / f"{case.entry['name']}.npz", **arrays)


def test_the_towers_sizes_are_read_off_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(tmp_path / "cases")
    edit(folder, smaller)

    def of_run(index: dict[str, Any], place: Path) -> None:
        index["weights"]["manifest"] = "../small.json"
        index["images"]["size"] = 24
        index["cases"][0]["learned"]["tensors"] = [["prompt_learner.ctx", [4, 128]]]

    edit(folder / TRAJECTORIES, of_run)
    towers = given.given(Folder(folder), cases_in(Folder(folder))[0].entry, "cpu", "float32").clip
    assert (towers.facts.text_width, towers.facts.text_layers) == (128, 2)
    assert (towers.facts.image_width, towers.facts.image_layers) == (192, 1)
    for case in cases_in(Folder(folder)):
        recorded(case)
    code, out, err = run(capsys, folder)
    assert code == 0, err
    assert [one["ok"] for one in json.loads(out)["cases"]] == [True, True]
    for case in cases_in(Folder(folder)):
        result = run_case(case, dtype="bfloat16")
        assert result.ok, "it is shown, and not judged"
        assert 1e-5 < next(check.error for check in result.checks if check.what in ("loss", "logits")) < 0.1
        assert {check.what for check in result.checks if check.judged} <= {"token ids"}


def entry(*path: str | int, value: object) -> Edit:
    """Puts a value at a place of the index; None takes it away."""

    def change(index: dict[str, Any], folder: Path) -> None:
        inner: Any = index
        for step in path[:-1]:
            inner = inner[step]
        if value is None:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value

    return change


def nothing(index: dict[str, Any], folder: Path) -> None:
    index["cases"] = []
    shutil.rmtree(folder / TRAJECTORIES)


def written(name: str, content: bytes | None) -> Edit:
    """Puts other bytes into a file; None takes it away."""

    def change(index: dict[str, Any], folder: Path) -> None:
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)

    return change


def numbers(**changes: object) -> Edit:
    """Other numbers in the case's .npz; None takes one away."""

    def change(index: dict[str, Any], folder: Path) -> None:
        path = folder / f"{index['cases'][0]['name']}.npz"
        with np.load(path) as arrays:
            found = {**arrays, **changes}
        np.savez(path, **{name: value for name, value in found.items() if value is not None})

    return change


SINGLE: dict[str, tuple[Edit, str]] = {
    "no cases": (nothing, "the list in its index is empty"),
    "cases are no list": (entry("cases", value={}), "must have a list 'cases'"),
    "a case without a name": (entry("cases", 0, "name", value=None), "each with a 'name'"),
    "no weights": (entry("weights", value=None), "coop_words has no 'weights'"),
    "no class names": (entry("class_names", value=None), "has no 'class_names'"),
    "no config": (entry("cases", 0, "config", value=None), "has no 'config'"),
    "a manifest that is not there": (entry("weights", "manifest", value="other.json"), "other.json: cannot be read"),
    "a manifest that is no JSON": (written("vit.json", b"\xff["), "vit.json is not UTF-8 text"),
    "a manifest of something else": (written("vit.json", b'[["weight", [3, 3]]]'), "it has no text_projection"),
    "a manifest without pairs": (written("vit.json", b'[["weight"]]'), "is not as parity/README.md has it"),
    "no numbers": (written("coop_words.npz", None), "coop_words.npz: cannot be read"),
    "damaged numbers": (written("coop_words.npz", b"PK\x03\x04"), "is not an .npz file of numbers, or it is damaged"),
    "numbers that would be executed": (numbers(loss=np.array([{}], dtype=object)), "is not an .npz file of numbers"),
    "a number that is unknown": (numbers(entropy=np.ones(1)), "not computed here: entropy"),
    "a gradient that is not there": (
        numbers(**{"grad:prompt_learner.ctx": None}),
        "has no 'grad_rows:prompt_learner.ctx'",
    ),
    "no token ids": (numbers(token_ids=None), "has no 'token_ids'"),
    "logits of another shape": (numbers(logits=np.ones((2, 7), np.float32)), "shape (2, 7) where (3, 7) is computed"),
    "an unknown method": (entry("cases", 0, "method", value="cop"), "Did you mean 'coop'"),
    "an unknown option": (entry("cases", 0, "config", "n_ctxx", value=4), "Did you mean 'n_ctx'"),
    "words of another length": (entry("cases", 0, "config", "n_ctx", value=5), "the words 'a photo of a' are 4 tokens"),
    "an unknown learned tensor": (
        entry("cases", 0, "learned", value={"seed": 1, "tensors": [["prompt.ctx", [4, 512]]]}),
        "a learned tensor 'prompt.ctx' is unknown",
    ),
    "a learned tensor of another shape": (
        entry("cases", 0, "learned", value={"seed": 1, "tensors": [["prompt_learner.ctx", [3, 512]]]}),
        "ctx is (3, 512)",
    ),
    "a label that is no class": (entry("labels", value=[1, 2, 7]), "from 0 to 6"),
    "too few labels": (entry("labels", value=[1, 2]), "2 labels"),
    "images of another size": (entry("images", "size", value=64), "towers that take 32 pixels"),
    "a method that learns nothing": (entry("cases", 0, "method", value="zero-shot"), "coop_words: unknown option"),
}
RUNS: dict[str, tuple[Edit, str]] = {
    "no batches": (entry("cases", 0, "batches", value=None), "has no 'batches'"),
    "a batch outside the pool": (entry("cases", 0, "batches", 0, 0, 0, value=12), "from 0 to 11"),
    "an empty batch": (entry("cases", 0, "batches", 0, 0, value=[]), "batches []"),
    "an epoch with fewer steps": (entry("cases", 0, "batches", 0, value=[[0, 1]]), "the same number of steps"),
    "batches for other epochs": (entry("cases", 0, "schedule", "epochs", value=3), "batches for 4 epochs of 3"),
    "a schedule that cannot be": (entry("cases", 0, "schedule", "momentum", value=2), "momentum=2"),
    "no rates": (numbers(lr=None), "has no 'lr'"),
    "losses of other steps": (numbers(loss=np.ones((4, 2))), "shape (4, 2) where (4, 3) is computed"),
    "a tensor that is unknown": (numbers(**{"epoch9:prompt_learner.ctx": np.ones(1)}), "not computed here: epoch9"),
}


@pytest.mark.parametrize("what", [*SINGLE, *RUNS])
def test_what_is_malformed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    folder = copied(tmp_path / "cases")
    change, words = (SINGLE | RUNS)[what]
    edit(folder / TRAJECTORIES if what in RUNS else folder, change)
    code, out, err = run(capsys, folder)
    assert (code, out) == (3, ""), err
    assert words in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("missing", "index.json: cannot be read"),
        ("empty", "index.json: cannot be read"),
        ("file", "index.json: cannot be read"),
        ("list", "index.json holds a list, not a JSON object"),
    ],
)
def test_what_is_no_folder_of_cases_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, words: str
) -> None:
    for name in ("empty", "list"):
        (tmp_path / name).mkdir()
    (tmp_path / "list" / INDEX).write_text("[1]", encoding="utf-8")
    (tmp_path / "file").write_text("cases", encoding="utf-8")
    code, _, err = run(capsys, tmp_path / place)
    assert code == 3
    assert words in " ".join(err.split())
