"""`vlprompt convert`, and what other commands make of its artifact."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.cli.conftest import COLORS, Vlprompt
from tests.test_convert import buffers, draw, save
from vlprompt.towers import Clip


def test_a_published_checkpoint_predicts_and_goes_on_learning(
    vlprompt: Vlprompt, clip: Clip, clip_dir: Path, photos: Path
) -> None:
    names = tuple(sorted(COLORS))
    file = save({"ctx": draw(4, 64, seed=1), **buffers(clip, "X X X X", 4, names)}, Path("model.pth.tar-50"))
    Path("names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    done = vlprompt("convert", file, "--model", clip_dir, "--classes", "names.txt", "--out", "prompt")
    assert done.code == 0, done.err
    assert "coop, 256 learned numbers, 3 classes" in done.out
    shown = vlprompt("predict", "prompt", photos / "red" / "0.png")
    assert shown.code == 0, shown.err
    assert vlprompt("explain", "prompt").code == 0
    learned = vlprompt(
        *("train", "--data", photos, "--model", clip_dir, "--method", "plpp+coop", "--init", "prompt", "--views", "1"),
        *("--set", "n_ctx=4", "--set", "epochs=1", "--shots", "2", "--out", "run", "--json"),
    )
    assert learned.code == 0, learned.err
    assert '"init": "' in learned.out
    assert '"init": ""' not in learned.out


def test_what_is_wrong_is_said_without_a_traceback(vlprompt: Vlprompt, clip: Clip, clip_dir: Path) -> None:
    torch.save({"ctx": draw(4, 64, seed=1), **buffers(clip, "X X X X", 4)}, "f")
    base = ("convert", "f", "--model", clip_dir)
    done = vlprompt(*base, "--classes", "cat,dog", "--out", "o")
    assert (done.code, "learned on 3 classes" in done.err) == (3, True)
    assert vlprompt(*base, "--classes", "a,b,c", "--out", "o", "--position", "back").code == 2
    assert vlprompt(*base, "--classes", "blue bird,cat,red tree", "--out", "o", "--template", "photo").code == 2
    assert vlprompt("convert", "absent", "--model", clip_dir, "--classes", "a,b", "--out", "o").code == 3
