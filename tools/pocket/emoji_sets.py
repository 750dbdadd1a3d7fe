"""Data sets of the two hands that no model has seen, Twemoji and OpenMoji, and one of them in other domains.

A concept that another set has keeps its split: no concept is trained on in one set and tested in another.
A drawing that is nearly the same picture as one of pretraining's is in no set.
"""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
from sets import COLOUR_STEP, HASH_BITS, ROOMY, SEED, SPLITS, Member, grouped, near_duplicates
from sources import on_white

HANDS = ("twemoji", "openmoji")
ANY = "*"
# Set -> class -> Unicode subgroups (or whole groups, as "group/*").
EMOJI_SETS = {
    "emoji-animals": {
        "birds": "animal-bird",
        "bugs": "animal-bug",
        "mammals": "animal-mammal",
        "plants and flowers": "plant-flower plant-other",
        "sea animals": "animal-marine",
    },
    "emoji-food": {
        "Asian food": "food-asian",
        "drinks and dishes": "drink dishware",
        "fruit": "food-fruit",
        "prepared food": "food-prepared",
        "vegetables": "food-vegetable",
    },
    "emoji-groups": {
        "activities": "activities/*",
        "animals and plants": "animals-nature/*",
        "faces and feelings": "smileys-emotion/*",
        "food and drink": "food-drink/*",
        "objects": "objects/*",
        "people": "people-body/*",
        "symbols": "symbols/*",
        "travel and places": "travel-places/*",
    },
    "emoji-objects": {
        "books and paper": "book-paper",
        "clothing": "clothing",
        "household things": "household",
        "lights and cameras": "light-video",
        "mail and writing": "mail writing",
        "music and sound": "music musical-instrument sound",
        "office supplies": "office",
        "tools": "tool",
    },
    "emoji-people": {
        "body parts": "body-parts",
        "fantasy beings": "person-fantasy",
        "hands": "hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands hand-prop",
        "people at work": "person-role",
        "people doing activities": "person-activity",
        "people doing sports": "person-sport",
    },
    "emoji-symbols": {
        "arrows": "arrow",
        "letters and words": "alphanum",
        "media buttons": "av-symbol",
        "numbers and marks": "keycap math punctuation",
        "religious and zodiac symbols": "religion zodiac",
        "shapes": "geometric",
        "traffic and warning signs": "transport-sign warning",
    },
    "emoji-travel": {
        "buildings": "place-building place-religious",
        "land vehicles": "transport-ground",
        "ships and aircraft": "transport-water transport-air",
        "sights and places": "place-other place-map place-geographic",
        "sky and weather": "sky-weather",
    },
}
EMOJI_FACTS = {
    "emoji-animals": "Emoji of animals and plants, by kind.",
    "emoji-food": "Emoji of food and drink, by kind.",
    "emoji-groups": "Emoji in the large Unicode groups; the source of the domains.",
    "emoji-objects": "Emoji of things, by use.",
    "emoji-people": "Emoji of people and parts of the body.",
    "emoji-symbols": "Emoji signs, by kind.",
    "emoji-travel": "Emoji of places, vehicles, times and weather.",
}
SOURCE = "emoji-groups"
# Domain -> the hand that draws it and how its pictures are changed.
DOMAINS = {
    "emoji-groups-openmoji": ("openmoji", "as drawn"),
    "emoji-groups-outline": ("openmoji-outline", "as drawn"),
    "emoji-groups-twotone": ("twemoji", "twotone"),
    "emoji-groups-faint": ("twemoji", "faint"),
}
DOMAIN_FACTS = {
    "emoji-groups-openmoji": "The classes of emoji-groups by another hand (OpenMoji).",
    "emoji-groups-outline": "The classes of emoji-groups as black outlines (OpenMoji).",
    "emoji-groups-twotone": "The test images of emoji-groups in black and white alone.",
    "emoji-groups-faint": "The test images of emoji-groups in grey of little contrast.",
}


def class_of(drawing: dict, classes: dict[str, str]) -> str | None:
    """The class that takes this emoji by its group or subgroup."""
    group, sub = drawing["groups"] if len(drawing["groups"]) == 2 else ("", "")
    for name, wanted in classes.items():
        if sub in wanted.split() or f"{group}/{ANY}" in wanted.split():
            return name
    return None


def choose_emoji(
    drawings: list[dict], prints: tuple[np.ndarray, np.ndarray], fixed: dict[str, str], seen: set[int]
) -> list[Member]:
    """Members of every emoji set and domain.

    fixed: concept -> split, extended as sets are dealt. seen: the drawings of pretraining.
    """
    ours = [
        i for i, d in enumerate(drawings) if d["hand"] in {*HANDS, "openmoji-outline"} and "tone" not in d["variant"]
    ]
    # Wider than the test's limits: WebP moves a hash by a bit or two.
    pairs = near_duplicates(prints, ours, bits=HASH_BITS + 2, step=COLOUR_STEP + 1)
    close: dict[int, set[int]] = defaultdict(set)
    for a, b in pairs:
        close[a].add(b)
    usable = {i for i in ours if not close[i] & seen}
    members: list[Member] = []
    # The finest classes first: the large groups take over their splits.
    for name in sorted(EMOJI_SETS, key=lambda n: n == SOURCE):
        members += _one_set(name, drawings, usable, pairs, fixed)
    return members + _domains(members, drawings, usable)


def _one_set(
    name: str, drawings: list[dict], usable: set[int], pairs: list[tuple[int, int]], fixed: dict[str, str]
) -> list[Member]:
    """Deal the concepts of each class into splits."""
    hands = HANDS[:1] if name == SOURCE else HANDS
    labels = {i: class_of(drawings[i], EMOJI_SETS[name]) for i in sorted(usable) if drawings[i]["hand"] in hands}
    # The same picture under two labels would be noise: both go.
    torn = {a for a, b in pairs if labels.get(a) and labels.get(b) and labels[a] != labels[b]}
    concepts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, label in labels.items():
        if label and i not in torn:
            concepts[label][drawings[i]["concept"]].append(i)
    members = []
    for label in sorted(concepts, key=str.lower):
        rng = random.Random(f"{SEED} {name} {label}")
        mine = {i for c in concepts[label].values() for i in c}
        # Copies of one picture in one class add nothing: keep the first.
        copies = {max(a, b) for a, b in pairs if a in mine and b in mine}
        kept = [[i for i in c if i not in copies] for _, c in sorted(concepts[label].items())]
        chosen = [sorted(rng.sample(c, min(len(c), 4))) for c in kept if c]
        groups = grouped(chosen, pairs)
        splits = _deal(groups, drawings, fixed, rng)
        lacks = {s: k - len(splits[s]) for s, k in SPLITS.items() if len(splits[s]) < k}
        if lacks:
            print(f"{name}: '{label}' left out, it lacks {lacks}")
            continue
        members += [Member(i, name, label, s) for s, held in splits.items() for i in sorted(held)]
    return members


def _deal(
    groups: list[list[int]], drawings: list[dict], fixed: dict[str, str], rng: random.Random
) -> dict[str, list[int]]:
    """Groups of a settled concept to its split, the others where most is lacking; at most ROOMY images a split."""
    splits: dict[str, list[int]] = {s: [] for s in SPLITS}
    rng.shuffle(groups)
    settled = [g for g in groups if any(drawings[i]["concept"] in fixed for i in g)]
    for group in settled + [g for g in groups if g not in settled]:
        homes = {fixed[c] for i in group if (c := drawings[i]["concept"]) in fixed}
        if len(homes) > 1:
            continue
        split = homes.pop() if homes else max(splits, key=lambda s: (ROOMY[s] - len(splits[s])) / ROOMY[s])
        for i in group:
            fixed[drawings[i]["concept"]] = split
        splits[split] += group[: max(0, ROOMY[split] - len(splits[split]))]
    return splits


def _domains(members: list[Member], drawings: list[dict], usable: set[int]) -> list[Member]:
    """The source's test concepts, as other hands draw them or changed."""
    test = [m for m in members if m.name == SOURCE and m.split == "test"]
    out = []
    for name, (hand, _) in DOMAINS.items():
        twin = {d["key"].split("/")[1]: i for i in sorted(usable) if (d := drawings[i])["hand"] == hand}
        for m in test:
            code = drawings[m.index]["key"].split("/")[1]
            if code in twin:
                out.append(Member(twin[code], name, m.label, "test"))
    return out


def changed(rgba: np.ndarray, how: str) -> np.ndarray:
    """A picture (64, 64, 4) on white as a domain shows it: (64, 64, 3)."""
    if how == "as drawn":
        return on_white(rgba)
    grey = on_white(rgba).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    shades = 90 + 0.35 * grey if how == "faint" else np.where(grey > threshold(grey), 255.0, 0.0)
    return np.repeat(np.rint(shades)[..., None].astype(np.uint8), 3, axis=2)


def threshold(grey: np.ndarray) -> float:
    """Otsu's: the shade that parts dark from light with the greatest variance between the two."""
    steps = np.arange(8, 248, 4)
    gains = []
    for step in steps:
        dark, light = grey[grey <= step], grey[grey > step]
        gains.append(dark.size * light.size * (dark.mean() - light.mean()) ** 2 if dark.size and light.size else 0.0)
    return float(steps[int(np.argmax(gains))])
