"""`vlprompt head`: numbers and a verdict, with a prompt and without."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Vlprompt
from vlprompt.head import KINDS


def test_the_command_gives_the_numbers_and_a_verdict(vlprompt: Vlprompt, clip_dir: Path, trained: Path) -> None:
    plain = json.loads(vlprompt("head", "--model", clip_dir, "--json").out)
    assert {"natural", "shuffled", "random", "rank", "verdict"} <= plain.keys()
    assert plain["prompted"] is None
    assert json.loads(vlprompt("head", "--run", trained, "--json").out)["prompted"].keys() == set(KINDS)
    done = vlprompt("head", "--model", clip_dir, "--method", "coop", "--set", "n_ctx=4")
    assert done.code == 0, done.err
    for text in ("plain captions", "centred", "cosine", "behind the prompt's context", plain["verdict"][:20]):
        assert text in done.out
    assert "leave out --run" in vlprompt("head", "--run", trained, "--method", "coop").err
    assert "--set needs --method" in vlprompt("head", "--set", "n_ctx=4").err


def test_a_run_is_read_on_the_device_that_is_asked_for(vlprompt: Vlprompt, trained: Path) -> None:
    done = vlprompt("head", "--run", trained, "--device", "nosuch")
    assert done.code == 2
    assert "nosuch" in done.err
