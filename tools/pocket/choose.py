"""Choose all data sets and what is left for pretraining.

python tools/pocket/choose.py DIR        # DIR from prepare.py; writes DIR/sets.json and DIR/pretrain.json
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import sets
from emoji_sets import choose_emoji
from sets import SPLITS, Member

PRETRAINING = "emoji-pretraining"
TESTED_HAND = "fluent-3d"


def main(folder: Path) -> None:
    """Choose from the rendered drawings in `folder`, and write both lists there."""
    drawings = json.loads((folder / "drawings.json").read_text(encoding="utf-8"))
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    members, rest = sets.choose(drawings, pixels)
    fixed: dict[str, str] = {}
    for m in members:
        fixed.setdefault(drawings[m.index]["concept"], m.split)
    members += choose_emoji(drawings, sets.fingerprints(pixels), fixed, rest)
    members += pretraining_set(drawings, rest)
    rows = [{"index": m.index, "set": m.name, "class": m.label, "split": m.split} for m in members]
    (folder / "sets.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "pretrain.json").write_text(json.dumps(sorted(rest)), encoding="utf-8")
    for name in dict.fromkeys(m.name for m in members):
        sizes: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(SPLITS, 0))
        for m in members:
            if m.name == name:
                sizes[m.label][m.split] += 1
        least = {s: min(c[s] for c in sizes.values()) for s in SPLITS}
        print(f"{name}: {len(sizes)} classes, {sum(m.name == name for m in members)} images, at least {least} a class")
    print(f"{len(rest)} drawings for pretraining")


def pretraining_set(drawings: list[dict], rest: set[int]) -> list[Member]:
    """Every emoji that four hands of pretraining drew in its plain form: a class each, one hand for testing."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for i in sorted(rest, reverse=True):
        d = drawings[i]
        if d["hand"] != "openclipart" and d["variant"] == "plain":
            found[d["title"]][d["hand"]] = i
    return [
        Member(i, PRETRAINING, title, "test" if hand == TESTED_HAND else "train")
        for title, hands in sorted(found.items())
        if len(hands) == 4
        for hand, i in sorted(hands.items())
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
