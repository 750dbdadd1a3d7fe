"""The first data sets: which drawings make which class, splits by concept, and what is left for pretraining.

A group is what must not be torn apart: all hands, skin tones and genders of one concept, and everything
that a perceptual hash takes for the same picture. A group is in one split of one set, or in pretraining.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.fft import dctn
from sources import on_white

SEED = 20
HELD_OUT_HAND = "twemoji"
HELD_OUT_HANDS = ("twemoji", "openmoji", "openmoji-outline")
SPLITS = {"train": 16, "val": 4, "test": 10}
ROOMY = {"train": 20, "val": 8, "test": 20}
# A pair is near-duplicate when both the hash of its luminance and its colours nearly agree.
HASH_BITS, COLOUR_STEP = 8, 18.0

EMOJI_SUBGROUPS = {
    "smiling faces": "face-smiling face-affection",
    "sick and sleepy faces": "face-unwell face-sleepy",
    "hearts": "heart",
    "open hands": "hand-fingers-open",
    "finger gestures": "hand-fingers-partial hand-single-finger",
    "closed and joined hands": "hand-fingers-closed hands hand-prop",
    "body parts": "body-parts",
    "people making gestures": "person-gesture",
    "people at work": "person-role",
    "fantasy beings": "person-fantasy",
    "people doing activities": "person-activity",
    "people doing sports": "person-sport",
    "mammals": "animal-mammal",
    "birds": "animal-bird",
    "marine animals": "animal-marine",
    "bugs": "animal-bug",
    "plants and flowers": "plant-flower plant-other",
    "fruit": "food-fruit",
    "vegetables": "food-vegetable",
    "prepared food": "food-prepared",
    "Asian food": "food-asian",
    "drinks and dishes": "drink dishware",
    "maps and landscapes": "place-map place-geographic",
    "buildings": "place-building place-religious",
    "sights and places": "place-other",
    "land vehicles": "transport-ground",
    "ships and aircraft": "transport-water transport-air",
    "clocks": "time",
    "sky and weather": "sky-weather",
    "festive events": "event",
    "sports": "sport",
    "games": "game",
    "clothing": "clothing",
    "music and sound": "music musical-instrument sound",
    "computers and phones": "computer phone",
    "lights and cameras": "light-video",
    "books and paper": "book-paper",
    "mail and writing": "mail writing",
    "office supplies": "office",
    "tools": "tool",
    "household things": "household",
    "traffic and warning signs": "transport-sign warning",
    "arrows": "arrow",
    "religious and zodiac symbols": "religion zodiac",
    "media buttons": "av-symbol",
    "letters and words": "alphanum",
    "country flags": "country-flag",
}
# Folders of openclipart, and in the mixed parent folders words of the title, keywords or file name.
# Filed under animals, but neither reptile nor frog.
CLIPART_DROPPED = re.compile(r"cymru_flag|animals/fantasy")
CLIPART_LIVING = {
    "mammals": ("animals/mammals", ""),
    "birds": ("animals/birds", "animals: bird|penguin|tux|pinguino|eagle|rooster|owl|duck"),
    "bugs": ("animals/bugs", "animals: mosquito|scorpion|bug|beetle|spider|butterfly|punaisa"),
    "reptiles and frogs": (
        "animals/dinosaurs animals/amphibian",
        "animals: frog|rana|lizard|lucert|ramarro|snake|turtle|tartaruga|dragon|croc|gecko|geco|serpente|lindworm",
    ),
    "plants": ("plants", ""),
    "people": ("people", "-stickmen|smilies|bodypart|clothing"),
    "stick figures": ("people/stickmen", ""),
    "fruit": ("food/fruit", ""),
}
CLIPART_THINGS = {
    "arrows": ("shapes/arrows", ""),
    "clothes": ("people/clothing", ""),
    "computers": ("computer/hardware", ""),
    "desserts": ("food/desserts", ""),
    "drinks": ("food/beverages", ""),
    "houses": ("buildings", ""),
    "maps": ("geography", "-astronomy"),
    "meat and bread": ("food/meats_and_eggs food/breads_and_carbs", ""),
    "music": ("recreation/music", ""),
    "office supplies": ("office education", ""),
    "road signs": ("transportation/roadsigns", ""),
    "sports": ("recreation/sports", ""),
    "tools": ("tools", "-weapons|toys"),
    "toys and games": ("recreation/toys recreation/games computer/games tools/toys", ""),
    "vehicles": ("transportation/vehicles", "transportation: car|bus|truck|bike|bicycle|fire engine|tram|train|motor"),
}
# Name -> template, description.
SET_FACTS = {
    "emoji-subgroups": ("a picture of {}.", "Emoji of two hands (Twemoji, Noto) in their Unicode subgroups."),
    "clipart-living": ("a drawing of {}.", "Openclipart drawings of animals, plants and people."),
    "clipart-things": ("a drawing of {}.", "Openclipart drawings of things, food, signs and vehicles."),
}


@dataclass(frozen=True)
class Member:
    """One image of a data set."""

    index: int
    name: str
    label: str
    split: str


def emoji_candidates(drawings: list[dict]) -> dict[str, list[list[int]]]:
    """Class -> list of concepts, each the indices of its drawings: one hand, and a second where it is needed."""
    found: dict[str, dict[str, dict[str, list[int]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    class_of = {sub: name for name, subs in EMOJI_SUBGROUPS.items() for sub in subs.split()}
    for i, d in enumerate(drawings):
        name = class_of.get(d["groups"][-1])
        if d["hand"] in {HELD_OUT_HAND, "noto"} and name:
            allowed = {"plain", "gender"} if name != "open hands" else {"plain", "tone"}
            if d["variant"] in allowed:
                found[name][d["concept"]][d["hand"]].append(i)
    result = {}
    for name, concepts in found.items():
        rng = random.Random(f"{SEED} {name}")
        order = sorted(concepts)
        rng.shuffle(order)
        chosen = [rng.sample(concepts[c][HELD_OUT_HAND], min(2, len(concepts[c][HELD_OUT_HAND]))) for c in order]
        # The second hand joins while fewer than 40 drawings are there: what it does not give stays for pretraining.
        for n, c in enumerate(order):
            if sum(map(len, chosen)) >= 40:
                break
            other = concepts[c]["noto"]
            chosen[n] = chosen[n] + rng.sample(other, min(2, len(other)))
        result[name] = [c for c in chosen if c]
    return result


def clipart_candidates(drawings: list[dict], classes: dict[str, tuple[str, str]]) -> dict[str, list[list[int]]]:
    """Class -> list of concepts of clip art, by folder and, in mixed folders, by words."""
    result: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, d in enumerate(drawings):
        name = clipart_class(d, classes)
        if name:
            result[name][d["concept"]].append(i)
    return {name: [concepts[c] for c in sorted(concepts)] for name, concepts in result.items()}


def clipart_class(drawing: dict, classes: dict[str, tuple[str, str]]) -> str | None:
    """The first class that takes this drawing, if it is clip art."""
    key = drawing["key"]
    if drawing["hand"] != "openclipart" or CLIPART_DROPPED.search(key):
        return None
    folder = "/".join(key.split("/")[1:-1])
    text = " ".join((drawing["title"], *drawing["keywords"], key.rsplit("/", 1)[-1].replace("_", " "))).lower()
    for name, (folders, rule) in classes.items():
        if _in_class(folder, text, folders.split(), rule):
            return name
    return None


def _in_class(folder: str, text: str, folders: list[str], rule: str) -> bool:
    inside = any(folder == f or folder.startswith(f + "/") for f in folders)
    if rule.startswith("-"):
        return inside and not re.search(rule[1:], folder)
    if inside or not rule:
        return inside
    parent, pattern = rule.split(": ", 1)
    return folder == parent and re.search(rf"\b({pattern})", text) is not None


def fingerprints(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Perceptual hashes (N,) uint64 of the luminance and coarse colours (N, 8 * 8 * 3) float32."""
    rgb = np.concatenate([on_white(p) for p in np.array_split(pixels, max(1, len(pixels) // 512))]).astype(np.float32)
    grey = rgb.mean(axis=3).reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4))
    low = dctn(grey, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(grey), 64)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    bits[:, 0] = False
    hashes = (bits.astype(np.uint64) << np.arange(64, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
    colours = rgb.reshape(-1, 8, 8, 8, 8, 3).mean(axis=(2, 4)).reshape(len(rgb), -1)
    return hashes, colours


def near_duplicates(
    prints: tuple[np.ndarray, np.ndarray], ours: Iterable[int], *, bits: int = HASH_BITS, step: float = COLOUR_STEP
) -> list[tuple[int, int]]:
    """Pairs (one of `ours`, any other image) that are nearly the same picture."""
    hashes, colours = prints
    pairs = []
    for i in ours:
        close = np.flatnonzero(np.bitwise_count(hashes ^ hashes[i]) <= bits)
        apart = np.abs(colours[close] - colours[i]).mean(axis=1)
        pairs += [(i, int(j)) for j in close[apart < step] if j != i]
    return pairs


def grouped(concepts: list[list[int]], pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Merge concepts that near-duplicates tie together."""
    home = {i: n for n, concept in enumerate(concepts) for i in concept}
    root = list(range(len(concepts)))

    def find(n: int) -> int:
        while root[n] != n:
            n = root[n]
        return n

    for a, b in pairs:
        if a in home and b in home:
            root[find(home[a])] = find(home[b])
    merged = defaultdict(list)
    for n, concept in enumerate(concepts):
        merged[find(n)] += concept
    return list(merged.values())


def divide(groups: list[list[int]], rng: random.Random) -> dict[str, list[int]] | None:
    """Deal whole groups into splits of at least SPLITS images, and on to at most ROOMY where there are more."""
    groups = sorted(groups, key=lambda g: (-len(g), rng.random()))
    splits: dict[str, list[int]] = {name: [] for name in SPLITS}
    for want in (SPLITS, ROOMY):
        rest = []
        for group in groups:
            lacks = {n: want[n] - len(s) for n, s in splits.items() if len(s) < want[n]}
            fits = {n: k / want[n] for n, k in lacks.items() if len(group) <= k + 1 or want is SPLITS}
            if not fits:
                rest.append(group)
                continue
            splits[max(fits, key=lambda n: fits[n])] += group
        groups = rest
    return splits if all(len(splits[n]) >= k for n, k in SPLITS.items()) else None


def choose(drawings: list[dict], pixels: np.ndarray) -> tuple[list[Member], set[int]]:
    """All members of all data sets, and the indices that pretraining may see."""
    prints = fingerprints(pixels)
    by_set = {
        "emoji-subgroups": emoji_candidates(drawings),
        "clipart-living": clipart_candidates(drawings, CLIPART_LIVING),
        "clipart-things": clipart_candidates(drawings, CLIPART_THINGS),
    }
    members: list[Member] = []
    for name, classes in by_set.items():
        inside = sorted(i for concepts in classes.values() for c in concepts for i in c)
        pairs = near_duplicates(prints, inside)
        label_of = {i: label for label, concepts in classes.items() for c in concepts for i in c}
        # The same picture under two labels would be noise: both go.
        torn = {i for pair in pairs if len({label_of.get(p) for p in pair} - {None}) == 2 for i in pair}
        for label in sorted(classes, key=str.lower):
            concepts = [kept for c in classes[label] if (kept := [i for i in c if i not in torn])]
            # Copies of one picture in one class add nothing: keep the first.
            copies = {max(a, b) for a, b in pairs if label_of.get(a) == label_of.get(b) == label}
            groups = grouped(concepts, pairs)
            groups = [[i for n, i in enumerate(g) if n == 0 or i not in copies][:8] for g in groups]
            splits = divide(groups, random.Random(f"{SEED} {name} {label}"))
            if splits is None:
                print(f"{name}: '{label}' left out: {sum(map(len, groups))} images in {len(groups)} groups")
                continue
            members += [Member(i, name, label, s) for s, held in splits.items() for i in held]
    return settled(members, drawings, prints), pretraining(drawings, prints, members)


def settled(members: list[Member], drawings: list[dict], prints: tuple[np.ndarray, np.ndarray]) -> list[Member]:
    """Leave out what still straddles splits: one concept filed under two classes or sets, and equal pictures."""
    order = {split: n for n, split in enumerate(SPLITS)}
    splits_of = defaultdict(list)
    for m in members:
        splits_of[drawings[m.index]["concept"]].append(m.split)
    home = {c: max(sorted(set(s), key=order.__getitem__), key=s.count) for c, s in splits_of.items()}
    split_of, set_of = {m.index: m.split for m in members}, {m.index: m.name for m in members}
    dropped = {m.index for m in members if home[drawings[m.index]["concept"]] != m.split}
    hashes, colours = prints
    for a, b in near_duplicates(prints, sorted(split_of)):
        if b not in split_of or {a, b} & dropped:
            continue
        equal = hashes[a] == hashes[b] and np.abs(colours[a] - colours[b]).max() < 2
        if equal or (set_of[a] == set_of[b] and split_of[a] != split_of[b]):
            dropped.add(max(a, b))
    left = [m for m in members if m.index not in dropped]
    print(f"{len(members) - len(left)} images left out: their concept or picture is in another split or class")
    return left


def pretraining(drawings: list[dict], prints: tuple[np.ndarray, np.ndarray], members: list[Member]) -> set[int]:
    """Every drawing but: the held-out hands', the sets' images, their hand's other versions, near-duplicates."""
    ours = {m.index for m in members}
    taken = {(drawings[i]["hand"], drawings[i]["concept"]) for i in ours}
    copies = {j for _, j in near_duplicates(prints, sorted(ours))}
    return {
        i
        for i, d in enumerate(drawings)
        if d["hand"] not in HELD_OUT_HANDS and (d["hand"], d["concept"]) not in taken and i not in copies
    }
