"""Prompts that are learned together are those that are learned alone, to 1e-5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.engine.conftest import Memory
from tests.engine.made import config, images, lesson, method, taught, write_images
from vlprompt.artifact import TENSORS
from vlprompt.data import open_dataset
from vlprompt.engine import replicas
from vlprompt.engine.learn import alike, learn_all
from vlprompt.engine.run import train_run
from vlprompt.engine.train import Task
from vlprompt.errors import NUMERICAL, UserError
from vlprompt.towers import Clip
from vlprompt.types import Method

SEEDS = (1, 2, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos")


def pupils(folder: Path, methods: list[Method]) -> list[Task]:
    val = open_dataset(folder).val
    return [Task(method=one, feed=lesson(folder, seed=seed), val=val) for one, seed in zip(methods, SEEDS)]


def difference(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of two prompts, relative to the largest number."""
    pairs = list(zip(one.parameters(), other.parameters(), strict=True))
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in pairs)


@pytest.mark.parametrize(
    "name", ["coop", "plpp+coop", "kgcoop", "prograd", "maple", "plpp+maple", "promptsrc", "rpp", "ivlp"]
)
def test_three_seeds_together_are_three_seeds_alone(clip: Clip, folder: Path, name: str) -> None:
    group = pupils(folder, [method(name)] * 3)
    assert alike(group)
    together = learn_all(clip, group, images(clip))
    for prompt, one in zip(together, group, strict=True):
        assert isinstance(prompt, nn.Module)
        assert difference(prompt, taught(clip, one.method, one.feed, one.val, images(clip))) < 1e-5


def test_options_may_differ_as_long_as_the_steps_are_the_same(clip: Clip, folder: Path) -> None:
    changes: list[dict[str, object]] = [{}, {"plpp.mutual": "ppl", "lr": 0.01}, {"plpp.balance": 0.3}]
    group = pupils(folder, [method("plpp+coop", **one) for one in changes])
    assert alike(group)
    for prompt, one in zip(learn_all(clip, group, images(clip)), group, strict=True):
        assert isinstance(prompt, nn.Module)
        assert difference(prompt, taught(clip, one.method, one.feed, one.val, images(clip))) < 1e-5


def test_the_text_tower_runs_once_a_step(clip: Clip, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    plain = replicas._text

    def counted(*args: object) -> object:
        found = plain(*args)  # type: ignore[arg-type]
        calls.append(len(found or ()))
        return found

    monkeypatch.setattr(replicas, "_text", counted)
    learn_all(clip, pupils(folder, [method("coop")] * 3), images(clip))
    assert set(calls) == {3}


def test_three_prompts_take_as_many_backward_passes_as_one(
    clip: Clip, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    plain = torch.autograd.grad

    def counted(*args: object, **options: object) -> object:
        passes[-1] += 1
        return plain(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.autograd, "grad", counted)
    chosen = method("plpp+coop", **{"plpp.balance": 0.3})
    for number in (1, 3):
        passes.append(0)
        learn_all(clip, pupils(folder, [chosen] * number), images(clip))
    assert passes[0] == passes[1] > 0


@pytest.mark.parametrize(
    "changes", [[{}, {"epochs": 4}, {}], [{}, {"batch": 4}, {}], [{"per_class": True}] * 3, [{}, {"n_ctx": 2}, {}]]
)
def test_what_does_not_fit_together_is_not_alike(clip: Clip, folder: Path, changes: list[dict[str, object]]) -> None:
    assert not alike(pupils(folder, [method("coop", **one) for one in changes]))
    assert not alike(pupils(folder, [method("cocoop")] * 3))


def test_one_that_breaks_does_not_take_the_others_along(clip: Clip, folder: Path) -> None:
    group = pupils(folder, [method("coop"), method("coop", lr=1e30, warmup_lr=1e30), method("coop")])
    first, broken, last = learn_all(clip, group, images(clip))
    assert isinstance(broken, UserError)
    assert broken.exit_code == NUMERICAL
    for prompt, one in ((first, group[0]), (last, group[2])):
        assert isinstance(prompt, nn.Module)
        assert all(torch.isfinite(value).all() for value in prompt.parameters())
        assert difference(prompt, taught(clip, one.method, one.feed, one.val, images(clip))) < 1e-5


def test_a_run_with_replicas_writes_what_one_by_one_would(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    plain = train_run(config(clip_dir, folder, tmp_path / "plain", seeds=SEEDS))
    together = train_run(config(clip_dir, folder, tmp_path / "together", seeds=SEEDS, replicas=3))
    assert [one.seed for one in together] == list(SEEDS)
    for one, other in zip(plain, together, strict=True):
        assert one.config_hash == other.config_hash
        assert (one.top1, one.val_top1, one.split_hash) == (other.top1, other.val_top1, other.split_hash)
    again = train_run(config(clip_dir, folder, tmp_path / "together", seeds=(*SEEDS, 4), replicas=4))
    assert again[:3] == together


def test_a_stopped_run_with_replicas_is_resumed(clip_dir: Path, folder: Path, tmp_path: Path) -> None:
    class Stop(Memory):
        def advance(self, steps: int, shown: Mapping[str, float]) -> None:
            if shown.get("epoch") == 3:
                raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_run(config(clip_dir, folder, out, seeds=SEEDS, replicas=3), Stop())
    records = train_run(config(clip_dir, folder, out, seeds=SEEDS, replicas=3, resume=True))
    train_run(config(clip_dir, folder, tmp_path / "whole", seeds=SEEDS, replicas=3))
    for one in records:
        learned_now, learned_whole = (
            load_file(place / f"seed{one.seed}" / TENSORS) for place in (out, tmp_path / "whole")
        )
        assert all(torch.equal(learned_now[name], learned_whole[name]) for name in learned_whole)
