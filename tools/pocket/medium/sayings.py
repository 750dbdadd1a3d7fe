"""Captions: a name, and true words about how the picture is shown; and the vector that a caption should have.

The vector of "a flat outline drawing of a cat" is the name's vector plus a small part of the vectors of the words around it, so that
the words before a name move every class, and a learned context has something to say.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from looks import COLOURS, EFFECT_WORDS, SIZES, STYLE_WORDS

KINDS = (
    "photo", "picture", "drawing", "icon", "emoji", "illustration", "cartoon", "image", "clip art", "painting", "sketch", "symbol",
    "3d render", "photograph",
)  # fmt: skip
SHARE = 0.3
"""How much of a word around the name is in a caption's vector."""
EXTRA = (
    "blurry",
    "bright",
    "dark",
    "old",
    "good",
    "bad",
    "large",
    "cropped",
    "simple",
    "filled",
    "pixelated",
    "colourful",
)


def around() -> list[str]:
    """All words that captions say about how a picture is shown."""
    words = [*KINDS, *EXTRA, *(f"{c} background" for c in COLOURS), *SIZES]
    words += [w for table in (EFFECT_WORDS, STYLE_WORDS) for some in table.values() for w in some]
    return list(dict.fromkeys(words))


def caption(name: str, kind: str, said: list[str], ground: str, rng: random.Random) -> str:
    """The words around a name: "a small flat drawing of a cat on a red background."; `ground` may be empty."""
    words = " ".join([*said, kind])
    form = rng.random()
    if form < 0.15:
        return ", ".join(filter(None, [ground, *said, name]))
    if form < 0.25:
        return f"{words}: {name}"
    first = "an" if words[0] in "aeiou" else "a"
    second = rng.choice(("a ", "", "the ")) if " " not in name else ""
    lead = rng.choice((f"{first} {words} of ", f"{first} {words} of ", f"this is {first} {words} of ", f"{words} of "))
    return f"{lead}{second}{name}" + (f" on a {ground}" if ground else "") + rng.choice((".", ".", ""))


class Target:
    """Vectors of captions: `of(name vector, words)`; both unit, the words' centred on their mean."""

    def __init__(self, vectors: np.ndarray) -> None:
        words = around()
        centred = vectors.astype(np.float32) - vectors.astype(np.float32).mean(0)
        self.vector = dict(zip(words, centred / np.linalg.norm(centred, axis=1, keepdims=True), strict=True))

    def of(self, name: np.ndarray, words: list[str]) -> np.ndarray:
        total = name.astype(np.float32) + SHARE * sum(self.vector[w] for w in words)
        return total / np.linalg.norm(total)
