"""Learned prompts on disk: they come back as they were, or say why not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.report import made
from vlprompt import artifact, records
from vlprompt.artifact import Learned
from vlprompt.engine.train import new_prompt
from vlprompt.errors import UserError
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip


def learned(clip: Clip, name: str = "plpp+coop", **options: object) -> Learned:
    method = resolve(name, {"n_ctx": 4, "epochs": 7, "plpp.k": 5, **options} if name == "plpp+coop" else options)
    prompt = new_prompt(clip, method.prompt, 3, seed=1)
    return Learned(
        method=method,
        prompt=prompt,
        class_names=("cat", "dog", "red bird"),
        template="a drawing of the {}.",
        model=clip.name,
        weight_hash=clip.weight_hash,
        facts={"dataset": "pets", "shots": 16, "seed": 1, "metrics": {"top1": 61.25, "val_top1": None}},
    )


def change_facts(directory: Path, **changes: Any) -> None:
    path = directory / "prompt.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def change_tensors(directory: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, directory / "prompt.safetensors")
    digest = hashlib.sha256((directory / "prompt.safetensors").read_bytes()).hexdigest()
    change_facts(directory, tensors_hash=digest)


def test_a_prompt_comes_back_bit_for_bit(clip: Clip, tmp_path: Path) -> None:
    before = learned(clip)
    artifact.save(tmp_path, before)
    after = artifact.load(tmp_path, clip)
    assert torch.equal(before.prompt.get_parameter("ctx"), after.prompt.get_parameter("ctx"))
    assert not any(p.requires_grad for p in after.prompt.parameters())
    for name in ("class_names", "template", "model", "weight_hash"):
        assert getattr(before, name) == getattr(after, name)
    assert dict(after.facts) == dict(before.facts)
    assert after.method.name == "plpp+coop"
    assert after.method.options == before.method.options
    assert after.method.schedule == before.method.schedule
    assert after.method.options["plpp.k"] == 5


def test_it_is_kilobytes_of_float32_and_nothing_else(clip: Clip, tmp_path: Path) -> None:
    artifact.save(tmp_path, learned(clip))
    assert {path.name for path in tmp_path.iterdir()} == {"prompt.safetensors", "prompt.json", "README.md"}
    tensors = load_file(tmp_path / "prompt.safetensors")
    assert {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()} == {"ctx": ((4, 64), torch.float32)}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 6000


def test_the_backbone_is_found_by_its_name(clip: Clip, tmp_path: Path) -> None:
    artifact.save(tmp_path, learned(clip))
    _, found = artifact.loaded(tmp_path)
    assert found.weight_hash == clip.weight_hash


def test_zero_shot_has_no_tensors(clip: Clip, tmp_path: Path) -> None:
    artifact.save(tmp_path, learned(clip))
    artifact.save(tmp_path, learned(clip, "zero-shot"))
    assert not (tmp_path / "prompt.safetensors").exists()
    assert list(artifact.load(tmp_path, clip).prompt.parameters()) == []


def test_the_card_says_what_it_is(clip: Clip, tmp_path: Path) -> None:
    artifact.save(tmp_path, learned(clip))
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    for part in (
        "# plpp+coop",
        clip.weight_hash[:12],
        "pets, 16 images per class",
        "red bird",
        "61.25 %",
        "`plpp.k=5`",
    ):
        assert part in text
    usage = text.split("```python\n")[1].split("```")[0].strip().splitlines()
    assert len(usage) == 4
    compile("\n".join(usage), "usage", "exec")


def test_another_backbone_is_refused_with_both_named(clip: Clip, tmp_path: Path) -> None:
    other = tiny.clip(tmp_path / "other-clip", seed=7)
    artifact.save(tmp_path / "prompt", learned(clip))
    with pytest.raises(UserError) as refused:
        artifact.load(tmp_path / "prompt", other)
    for part in (clip.name, clip.weight_hash[:12], other.name, other.weight_hash[:12]):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, r"missing ctx \(4, 64\)"),
        ({"ctx": torch.zeros(4, 64), "more": torch.zeros(2)}, r"unexpected more \(2,\)"),
        ({"ctx": torch.zeros(5, 64)}, r"ctx is \(5, 64\) torch.float32, expected \(4, 64\)"),
        ({"ctx": torch.zeros(4, 64, dtype=torch.float16)}, r"torch.float16, expected"),
    ],
)
def test_tensors_that_do_not_fit(clip: Clip, tmp_path: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    artifact.save(tmp_path, learned(clip))
    change_tensors(tmp_path, tensors)
    with pytest.raises(UserError, match=message):
        artifact.load(tmp_path, clip)


def test_other_damage(clip: Clip, tmp_path: Path) -> None:
    artifact.save(tmp_path, learned(clip))
    save_file({"ctx": torch.zeros(4, 64)}, tmp_path / "prompt.safetensors")
    with pytest.raises(UserError, match="SHA-256 differs"):
        artifact.load(tmp_path, clip)
    (tmp_path / "prompt.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    with pytest.raises(UserError, match="not a safetensors file"):
        artifact.load(tmp_path, clip)
    (tmp_path / "prompt.safetensors").unlink()
    with pytest.raises(UserError, match="incomplete"):
        artifact.load(tmp_path, clip)
    change_facts(tmp_path, schema=2)
    with pytest.raises(UserError, match="schema 2; this version"):
        artifact.load(tmp_path, clip)
    (tmp_path / "prompt.json").write_text('{"schema": 1}', encoding="utf-8")
    with pytest.raises(UserError, match="lacks method, options"):
        artifact.load(tmp_path, clip)
    (tmp_path / "prompt.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="damaged"):
        artifact.load(tmp_path, clip)
    (tmp_path / "prompt.json").unlink()
    with pytest.raises(UserError, match=r"there is no prompt\.json"):
        artifact.load(tmp_path, clip)


def test_files_of_another_hand_are_not_lost(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"# My project\xff")
    artifact.save(tmp_path, learned(clip))
    assert (tmp_path / "README.md").read_bytes() == b"# My project\xff"
    assert artifact.load(tmp_path, clip).class_names == learned(clip).class_names
    artifact.save(tmp_path, learned(clip))
    for text in ('{"prompt": "Write a poem"}', '["a photo of"]'):
        (tmp_path / "prompt.json").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"prompt\.json is not of vlprompt and would be lost"):
            artifact.save(tmp_path, learned(clip))
        assert (tmp_path / "prompt.json").read_text(encoding="utf-8") == text


def test_a_save_that_is_cut_off_leaves_no_mixture(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact.save(tmp_path, learned(clip))

    def stop(*args: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(artifact, "card", stop)
    with pytest.raises(KeyboardInterrupt):
        artifact.save(tmp_path, learned(clip, n_ctx=6))
    with pytest.raises(UserError, match="holds no learned prompt"):
        artifact.load(tmp_path, clip)


def finished(run: Path, clip: Clip, seed: int, val_top1: float | None, top1: float) -> None:
    place = run / f"seed{seed}"
    artifact.save(place, learned(clip))
    records.write(place, made.record(method="coop", seed=seed, val_top1=val_top1, top1=top1))


def test_the_seed_that_is_best_on_validation_predicts(clip: Clip, tmp_path: Path) -> None:
    """Test accuracy, here the other way round, plays no part; of equals the lowest seed."""
    for seed, val, top1 in ((10, 80.0, 10.0), (2, 80.0, 20.0), (1, 60.0, 99.0)):
        finished(tmp_path, clip, seed, val, top1)
    picked = artifact.pick(tmp_path)
    assert picked.directory.name == "seed2"
    assert "best on validation" in picked.reason
    assert [path.name for path in artifact.artifacts(tmp_path)] == ["seed1", "seed2", "seed10"]


def test_without_validation_the_lowest_seed_predicts(clip: Clip, tmp_path: Path) -> None:
    for seed, val in ((10, 80.0), (2, None)):
        finished(tmp_path, clip, seed, val, 50.0)
    picked = artifact.pick(tmp_path)
    assert picked.directory.name == "seed2"
    assert "lowest" in picked.reason
    assert artifact.pick(tmp_path / "seed10").directory == tmp_path / "seed10"


def test_an_unfinished_run_predicts_nothing(tmp_path: Path) -> None:
    (tmp_path / "seed1").mkdir()
    with pytest.raises(UserError, match=r"unfinished.*--resume"):
        artifact.pick(tmp_path)
