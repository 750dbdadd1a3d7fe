"""`vlprompt recipes`, and `vlprompt train --recipe NAME`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Vlprompt, train_arguments
from vlprompt.methods import recipes


def test_train_takes_the_recipes_method(vlprompt: Vlprompt, clip_dir: Path, photos: Path) -> None:
    base = [*train_arguments(clip_dir, photos), "--recipe", "maple-domain", "--set", "depth=1", "--json"]
    base.remove("--method")
    base.remove("plpp+coop")
    base[base.index("n_ctx=3")] = "n_ctx=2"
    done = vlprompt(*base, "--out", "run")
    assert done.code == 0, done.err
    assert '"method": "maple"' in done.out
    assert '"lr": 0.0026' in done.out
    refused = vlprompt(*base, "--out", "other", "--method", "coop")
    assert refused.code == 2
    assert "is for 'maple'" in refused.err


def test_the_command_lists_and_shows_them(vlprompt: Vlprompt) -> None:
    listed = vlprompt("recipes")
    assert listed.code == 0, listed.err
    assert all(name in listed.out for name in recipes.names())
    shown = vlprompt("recipes", "promptsrc-few-shot")
    assert shown.code == 0, shown.err
    for part in ("82.87", "megvii-research/CasPL", "stanford_cars", "vlprompt train --recipe promptsrc-few-shot"):
        assert part in shown.out
    assert '"value": 82.87' in vlprompt("recipes", "promptsrc-few-shot", "--json").out
    assert vlprompt("recipes", "promptsrc-few").code == 2
