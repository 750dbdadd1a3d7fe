"""Captions: what a drawing may be called, drawn anew at every step.

A caption is fine (it names this concept) or coarse (it names a category; then it fits every drawing of it). It may also
say how the picture looks (`looks`); then it fits pictures that look so.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from looks import Claims, Look, claim, phrase
from sets import CLIPART_LIVING, CLIPART_THINGS, EMOJI_SUBGROUPS, clipart_class

SAYS_NOTHING = Claims()
KINDS = {"openclipart": ("drawing", "clip art", "picture", "cartoon", "illustration")}
EMOJI_KINDS = ("drawing", "picture", "cartoon", "emoji", "illustration", "icon")
# Plain words that other people would use for a subgroup.
PLAIN_WORDS = {
    "transport-ground": "vehicles", "transport-water": "boats", "transport-air": "aircraft", "food-sweet": "desserts",
    "drink": "drinks", "clothing": "clothes", "computer": "computers", "phone": "phones", "place-building": "houses",
    "music": "music", "musical-instrument": "music", "office": "office supplies", "writing": "office supplies",
    "book-paper": "books", "tool": "tools", "arrow": "arrows", "transport-sign": "road signs", "warning": "road signs",
    "sport": "sports", "person-sport": "sports", "game": "toys and games", "place-map": "maps", "country-flag": "flags",
    "food-prepared": "meat and bread", "food-fruit": "fruit", "plant-flower": "flowers", "plant-other": "plants",
    "animal-reptile": "reptiles and frogs", "animal-amphibian": "reptiles and frogs", "animal-bug": "insects",
    "face-smiling": "smileys", "sky-weather": "weather", "time": "time", "light-video": "cameras", "mail": "letters",
}  # fmt: skip
CLASS_OF_SUBGROUP = {sub: name for name, subs in EMOJI_SUBGROUPS.items() for sub in subs.split()}


@dataclass(frozen=True)
class Words:
    """All that is known about one drawing: fine names, keywords, and categories from coarse to fine."""

    names: tuple[str, ...]
    keywords: tuple[str, ...]
    categories: tuple[str, ...]
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Caption:
    """A text, the category that it names (None: it names the concept), and what it says of the look."""

    text: str
    category: str | None
    claims: Claims = SAYS_NOTHING


def words_of(drawing: dict) -> Words:
    """Names, keywords and categories of one drawing's facts."""
    title = drawing["title"].replace("\u2019", "'")
    names = [title]
    if ": " in title:
        head, tail = title.split(": ", 1)
        names = [f"{head}, {tail}", head] if drawing["groups"][0] != "flags" else [f"{tail} flag", f"flag of {tail}"]
    if drawing["hand"] == "openclipart":
        categories = [g for g in drawing["groups"] if g not in {"icons", "applications"}]
        categories += [c for table in (CLIPART_LIVING, CLIPART_THINGS) if (c := clipart_class(drawing, table))]
    else:
        group, sub = drawing["groups"]
        broad = {"animal": "animals", "food": "food", "person": "people", "face": "faces", "hand": "hands"}
        categories = [group.replace("-", " and "), *filter(None, [broad.get(sub.split("-")[0])]), _readable(sub)]
        categories += [table[sub] for table in (PLAIN_WORDS, CLASS_OF_SUBGROUP) if sub in table]
    return Words(
        names=tuple(n for n in names if n),
        keywords=tuple(drawing["keywords"]),
        categories=tuple(dict.fromkeys(c.lower() for c in categories)),
        kinds=KINDS.get(drawing["hand"], EMOJI_KINDS),
    )


def _readable(subgroup: str) -> str:
    """'animal-mammal' is 'mammal', 'face-smiling' is 'smiling face'."""
    head, _, tail = subgroup.partition("-")
    if head in {"animal", "plant", "food", "place"} and tail not in {"other", "prepared"}:
        return tail
    return f"{tail} {head}".strip().replace("-", " ")


def caption(words: Words, rng: random.Random, *, long: bool = False, look: Look | None = None) -> Caption:
    """One caption of a drawing; a long one puts many keywords before its name, as learned prompts do."""
    if long:
        return _long(words, rng)
    if look is not None and (claims := claim(look, rng)) != SAYS_NOTHING:
        return _looking(words, claims, rng)
    kind, pick = rng.choice(words.kinds), rng.random()
    name = rng.choice(words.names)
    some = rng.sample(words.keywords, min(len(words.keywords), rng.randint(1, 5)))
    category = rng.choice(words.categories)
    article = "an" if kind[0] in "aeiou" else "a"
    if pick < 0.15:
        return Caption(category if rng.random() < 0.25 else f"{article} {kind} of {category}.", category)
    if pick < 0.47:
        return Caption(f"{article} {kind} of {name}.", None)
    if pick < 0.60:
        return Caption(name, None)
    if pick < 0.72:
        join = rng.choice((", one of the {}.", ", {}.", ", a kind of {}."))
        return Caption(f"{article} {kind} of {name}" + join.format(category), None)
    if pick < 0.92 and some:
        return Caption(", ".join([*some, name][: rng.randint(1, 6)]), None)
    return Caption(f"{category}: " + ", ".join([name, *some[:3]]), None)


def _looking(words: Words, claims: Claims, rng: random.Random) -> Caption:
    """A caption that says how the picture looks."""
    kind = rng.choice(words.kinds)
    if rng.random() < 0.12:
        category = rng.choice(words.categories)
        return Caption(phrase(claims, kind, category, rng), category, claims)
    name = rng.choice(words.names)
    if words.keywords and rng.random() < 0.25:
        name = f"{rng.choice(words.keywords)}, {name}"
    return Caption(phrase(claims, kind, name, rng), None, claims)


def _long(words: Words, rng: random.Random) -> Caption:
    kind, category = rng.choice(words.kinds), rng.choice(words.categories)
    many = rng.sample(words.keywords, len(words.keywords)) + list(words.categories)
    rng.shuffle(many)
    lead = rng.choice(("", "this is ", f"{kind} ", "a colourful picture with "))
    if rng.random() < 0.4:
        # Words that say nothing of the drawing, then the category alone: all that counts stands late.
        filler = " ".join(
            rng.choices(("a", "the", "of", "drawing", "picture", "nice", "small", "one", "with", "and"), k=14)
        )
        finest = words.categories[-1]
        return Caption(f"{filler} {finest}.", finest)
    return Caption(f"{lead}{', '.join(many[: rng.randint(3, 14)])}, {rng.choice(words.names)}, {category}.", None)
