"""Tensors from files: whole, of the right shapes, and finite, before anything is computed with them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from vlprompt import artifact, tensors
from vlprompt.engine.checkpoint import Checkpoints, State
from vlprompt.errors import NUMERICAL, UserError
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip, load


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load("pocket-s")


def saved(clip: Clip, out: Path, method: str = "coop", **settings: object) -> Path:
    chosen = resolve(method, settings)
    artifact.save(
        out,
        artifact.Learned(
            method=chosen,
            prompt=chosen.prompt.build(clip.facts, torch.Generator().manual_seed(0), 2),
            class_names=("cat", "dog"),
            template="a photo of a {}.",
            model="pocket-s",
            weight_hash=clip.weight_hash,
        ),
    )
    return out


def changed(out: Path, **facts: object) -> None:
    path = out / artifact.FACTS
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | facts), encoding="utf-8")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_a_prompt_that_is_not_finite_is_refused(clip: Clip, tmp_path: Path, value: float) -> None:
    learned, _ = artifact.loaded(saved(clip, tmp_path), clip)
    values = {name: tensor.detach().clone() for name, tensor in learned.prompt.named_parameters()}
    values["ctx"][1, 2] = value
    data = save(values)
    (tmp_path / artifact.TENSORS).write_bytes(data)
    changed(tmp_path, tensors_hash=artifact.hashlib.sha256(data).hexdigest())
    with pytest.raises(UserError, match="ctx holds 1 of") as problem:
        artifact.load(tmp_path, clip)
    assert problem.value.exit_code == NUMERICAL
    with torch.no_grad():
        dict(learned.prompt.named_parameters())["ctx"].copy_(values["ctx"])
    with pytest.raises(UserError, match="ctx holds 1 of"):
        artifact.save(tmp_path / "again", learned)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("coop", {"n_ctx": 20_000_000}),
        ("coop", {"n_ctx": 70, "per_class": True}),
        ("cocoop", {"n_ctx": 20_000_000, "init": "a photo"}),
        ("vpt", {"n_image": 2_000_000_000}),
        ("maple", {"n_ctx": 20_000_000}),
        ("ivlp", {"n_image": 2_000_000_000}),
    ],
)
def test_no_option_allocates_more_than_the_file_holds(
    clip: Clip, tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    own = {"init": "normal"} if method in ("cocoop", "maple", "ivlp") else {}
    saved(clip, tmp_path, method, **own)
    before = json.loads((tmp_path / artifact.FACTS).read_text(encoding="utf-8"))
    names = [f"class {i}" for i in range(3_000_000)] if "per_class" in options else before["class_names"]
    changed(tmp_path, options=before["options"] | options, class_names=names)
    with pytest.raises(UserError):
        artifact.load(tmp_path, clip)


@pytest.mark.parametrize(
    "facts",
    [
        {"schema": "1"},
        {"schema": None},
        {"method": ["coop"]},
        {"method": "no-such"},
        {"options": []},
        {"options": {"n_ctx": [4]}},
        {"options": {"n_ctx": -1}},
        {"options": {"lr": 1e39}},
        {"options": {"epochs": 10**18}},
        {"model": 3},
        {"model": "\x00"},
        {"weight_hash": None},
        {"class_names": "cat"},
        {"class_names": []},
        {"class_names": ["cat", ""]},
        {"class_names": ["cat", 3]},
        {"template": "a photo"},
        {"template": {}},
        {"tensors_hash": 5},
        {"seed": "one"},
        {"shots": 1.5},
        {"metrics": {"top1": "high"}},
        {"metrics": 3},
    ],
)
def test_facts_of_another_type_are_named(clip: Clip, tmp_path: Path, facts: dict[str, object]) -> None:
    changed(saved(clip, tmp_path), **facts)
    with pytest.raises(UserError):
        artifact.loaded(tmp_path, None if "model" in facts else clip)


def test_every_flipped_bit_of_a_checkpoint_is_seen(tmp_path: Path) -> None:
    stream = random.Random(0)
    checkpoints = Checkpoints(directory=tmp_path, config_hash="abc")
    state = State(epoch=3, parameters={"ctx": torch.randn(4, 8)}, momentum={"ctx": torch.randn(4, 8)})
    checkpoints.save(state)
    whole = checkpoints.path.read_bytes()
    for position in [*range(40), *(stream.randrange(len(whole)) for _ in range(300))]:
        torn = bytearray(whole)
        torn[position] ^= 1 << stream.randrange(8)
        checkpoints.path.write_bytes(torn)
        try:
            back = checkpoints.load()
        except UserError:
            continue
        # A bit of the header's padding means nothing.
        assert back is not None
        assert all(torch.equal(back.parameters[name], state.parameters[name]) for name in state.parameters)
        assert all(torch.equal(back.momentum[name], state.momentum[name]) for name in state.momentum)


def test_a_checkpoint_of_other_tensors_is_refused(clip: Clip, tmp_path: Path) -> None:
    from vlprompt.engine.checkpoint import put_back

    spec = resolve("coop").prompt
    assert spec is not None
    with pytest.raises(UserError, match="other tensors than the prompt"):
        put_back({"ctx": torch.ones(3, 3)}, spec.build(clip.facts, torch.Generator().manual_seed(0), 2))


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x05" + bytes(7) + b'{"a":', b"\x02" + bytes(7) + b"[]"])
def test_headers_are_bounded(content: bytes) -> None:
    with pytest.raises(UserError, match="the file"):
        tensors.header(content, "the file")
