"""How a picture is shown at a training step, and the words that are then true of it.

A caption may claim a look ("an outline of a cat on a red background"); the same drawing with another look does not match
that caption. So the words before a name carry meaning, and a learned context has something to say.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

EFFECTS = {"as drawn": 0.68, "grey": 0.12, "outline": 0.12, "silhouette": 0.08}
EFFECT_WORDS = {
    "as drawn": ("coloured", "colour"),
    "grey": ("black and white", "grey"),
    "outline": ("outline", "line"),
    "silhouette": ("silhouette", "black shape"),
}
COLOURS = {
    "white": (1.0, 1.0, 1.0), "red": (0.85, 0.2, 0.2), "green": (0.3, 0.7, 0.3), "blue": (0.25, 0.4, 0.85),
    "yellow": (0.95, 0.85, 0.3), "pink": (0.95, 0.65, 0.75), "orange": (0.95, 0.6, 0.2), "purple": (0.55, 0.3, 0.7),
    "grey": (0.6, 0.6, 0.6), "black": (0.08, 0.08, 0.08),
}  # fmt: skip
WHITE_SHARE = 0.65
SIZES = {"close-up": (0.55, 0.72), "whole": (0.9, 1.1), "small": (1.35, 1.7)}
SIZE_SHARES = (0.15, 0.7, 0.15)
STYLE_WORDS = {
    "fluent-3d": ("3d", "shiny"),
    "fluent-flat": ("flat",),
    "fluent-modern": ("flat", "simple"),
    "noto": ("emoji", "round"),
    "openclipart": ("clip art",),
}


@dataclass(frozen=True)
class Look:
    """One picture's effect, background, size and style; `colour` is the background in [0, 1]."""

    effect: str
    background: str
    colour: tuple[float, float, float]
    size: str
    zoom: float
    style: str


def draw_look(hand: str, rng: random.Random) -> Look:
    """A look at random for a drawing of this hand."""
    effect = rng.choices(list(EFFECTS), list(EFFECTS.values()))[0]
    # A grey or black picture has no colour behind it.
    white = effect != "as drawn" or rng.random() < WHITE_SHARE
    background = "white" if white else rng.choice([c for c in COLOURS if c != "white"])
    jitter = 0.0 if white else 0.12
    colour = tuple(min(1.0, max(0.0, c + rng.uniform(-jitter, jitter))) for c in COLOURS[background])
    size = rng.choices(list(SIZES), SIZE_SHARES)[0]
    return Look(effect, background, colour, size, rng.uniform(*SIZES[size]), hand)


@dataclass(frozen=True)
class Claims:
    """What a caption says of the look; None: nothing."""

    effect: str | None = None
    background: str | None = None
    size: str | None = None
    style: str | None = None

    def fit(self, look: Look) -> bool:
        """Whether all of it is true of a look. Flat hands share their word."""
        if self.style is not None and not set(STYLE_WORDS[self.style]) & set(STYLE_WORDS[look.style]):
            return False
        return all(
            said in (None, seen)
            for said, seen in (
                (self.effect, look.effect),
                (self.background, look.background),
                (self.size, look.size),
            )
        )


def claim(look: Look, rng: random.Random) -> Claims:
    """Some of what is true: unusual looks mostly, usual ones seldom."""
    return Claims(
        effect=look.effect if rng.random() < (0.1 if look.effect == "as drawn" else 0.75) else None,
        background=look.background if rng.random() < (0.08 if look.background == "white" else 0.6) else None,
        size=look.size if look.size != "whole" and rng.random() < 0.6 else None,
        style=look.style if rng.random() < 0.3 else None,
    )


def phrase(claims: Claims, kind: str, name: str, rng: random.Random) -> str:
    """The claims around a kind and a name: "a small flat outline drawing of a cat on a red background"."""
    before = [rng.choice(STYLE_WORDS[claims.style])] if claims.style else []
    if claims.effect:
        before.append(rng.choice(EFFECT_WORDS[claims.effect]))
    if claims.size:
        before.insert(0, claims.size)
    words = " ".join([*before, kind])
    ground = f"{claims.background} background" if claims.background else ""
    form = rng.random()
    if form < 0.2:
        return ", ".join(filter(None, [ground, *before, name]))
    if ground and form < 0.5:
        return f"{ground}, {words} of {name}."
    article = "an" if words[0] in "aeiou" else "a"
    return f"{article} {words} of {name}" + (f" on a {ground}." if ground else ".")
