"""Icons by noun: which hands train, validate and test, and which icons are in the set and its domains.

`icons` holds outline icons. Its domains are the filled and the coloured icons of the test hands. A hand is in one split.
The hands were dealt once, by how many classes then have enough images in every split; no model had a say.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from icons import FREE, Icon, draw, listed, load, look, svg
from pictures import Picture

SOURCE = "icons"
TEMPLATE = "an icon of {}."
DOMAINS = {"filled": "icons-filled", "coloured": "icons-coloured"}
_DOMAIN = {"template": TEMPLATE, "role": "domain", "domain_of": SOURCE}
FACTS = {
    SOURCE: {"template": TEMPLATE, "description": "Outline icons by noun; no hand is in two splits."},
    "icons-filled": {**_DOMAIN, "description": "The classes of icons as filled shapes, by the test hands."},
    "icons-coloured": {**_DOMAIN, "description": "The classes of icons in colour, by the test hands."},
}
HANDS = {
    "train": "akar-icons basil bitcoin-icons boxicons bytesize charm ci cil duo-icons ei ep eva font-awesome fontisto formkit"
    " foundation game-icons gis griddy-icons heroicons hugeicons humbleicons iconamoon iconmind iwwa keyline-icons"
    " lets-icons maps marketeq medical-icon mingcute oi pajamas pixel quill rivet-icons si solar stash tabler tdesign"
    " teenyicons uiw weui",
    "val": "bi clarity codex feather flowbite iconoir ionic lineicons prime proicons qlementine-icons simple-line-icons"
    " system-uicons",
    "test": "ant-design at-icons carbon cuida dinkie-icons eos-icons f7 fad fe flat-ui garden gg glyphs gravity-ui"
    " grommet-icons halfmann healthicons icon-park iconscout il ix jam lsicon mage material meteocons microsoft mono"
    " nimbus nrk octicon open-ui pepicons ph praveen-juge radix-icons raphael ri streamline subway topcoat vaadin"
    " zondicons",
}
CLASSES = {
    "airplane": "plane, aeroplane",
    "alarm clock": "alarm, clock alarm",
    "basket": "shopping basket",
    "battery": "battery full",
    "bell": "",
    "book": "",
    "bookmark": "",
    "box": "package",
    "briefcase": "",
    "bug": "",
    "building": "buildings",
    "bus": "",
    "cake": "birthday cake",
    "calculator": "",
    "calendar": "",
    "camera": "",
    "car": "automobile",
    "clipboard": "",
    "clock": "",
    "cloud": "",
    "coffee cup": "coffee, coffee mug",
    "coin": "coins",
    "compass": "",
    "credit card": "",
    "crown": "",
    "diamond": "gem",
    "dice": "die",
    "envelope": "mail, email",
    "eye": "",
    "fire": "flame",
    "flag": "",
    "folder": "",
    "game controller": "gamepad, controller, gaming pad, joystick",
    "gear": "cog",
    "gift": "present, gift box",
    "glasses": "eyeglasses",
    "globe": "earth",
    "headphones": "headphone",
    "heart": "",
    "hourglass": "",
    "house": "home",
    "key": "",
    "keyboard": "",
    "laptop": "",
    "leaf": "",
    "light bulb": "lightbulb, bulb, idea",
    "lock": "padlock",
    "map": "",
    "map pin": "location pin, map marker",
    "microphone": "mic",
    "moon": "",
    "mouse": "computer mouse",
    "paint brush": "brush, paintbrush",
    "pen": "",
    "pencil": "",
    "person": "user",
    "phone": "telephone",
    "pie chart": "chart pie",
    "printer": "print",
    "radio": "",
    "rocket": "",
    "scissors": "scissor, cut",
    "server": "",
    "shield": "",
    "shop": "store",
    "shopping bag": "",
    "shopping cart": "cart",
    "star": "",
    "stopwatch": "timer",
    "suitcase": "luggage",
    "sun": "",
    "tag": "price tag",
    "thermometer": "",
    "ticket": "",
    "train": "",
    "trash can": "trash, trash bin, bin, garbage, recycle bin, waste",
    "trophy": "",
    "truck": "",
    "umbrella": "",
    "video camera": "video, camcorder",
    "wallet": "",
    "watch": "smartwatch, wristwatch, smart watch",
}
# Split -> at most so many images a class, and so many a hand.
ROOM = {"train": (20, 3), "val": (8, 2), "test": (32, 2)}
DOMAIN_ROOM = {"icons-filled": (20, 2), "icons-coloured": (12, 3)}
ALIKE = 8.0
"""Two icons are nearly equal when their 16 x 16 reductions differ by less than this in the mean, of 255. (A perceptual hash takes
symmetric icons for different that are the same: most of the numbers whose signs it keeps are zero.)"""


def label_of() -> dict[str, str]:
    """What an icon may be called -> its class."""
    return {n.strip(): c for c, names in CLASSES.items() for n in (c, *names.split(",")) if n.strip()}


def barred(words: str) -> bool:
    """Whether a class, another name of it, or its plural is among these words: pretraining sees no such icon."""
    parts = words.split()
    runs = {" ".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
    return any(run in label_of() or re.sub(r"e?s$", "", run) in label_of() or run[:-1] in label_of() for run in runs)


def candidates(package: Path) -> Iterator[tuple[Icon, np.ndarray]]:
    """Every freely licensed icon of a class by a hand of a split, drawn."""
    labels, hands = label_of(), {h for members in HANDS.values() for h in members.split()}
    books: dict[str, list[Icon]] = defaultdict(list)
    for icon in listed(package):
        if icon.stem in labels and icon.hand in hands and icon.licence in FREE:
            books[icon.collection].append(icon)
    for collection, icons in books.items():
        book = load(package, collection)
        for icon in icons:
            if (pixels := draw(svg(book, icon.name))) is not None:
                yield icon, pixels


def reduced(pixels: np.ndarray) -> np.ndarray:
    """Pictures (N, 64, 64, 3) as (N, 768) float32: their 16 x 16 reductions."""
    parts = [p.astype(np.float32).reshape(-1, 16, 4, 16, 4, 3).mean(axis=(2, 4)) for p in np.array_split(pixels, 64)]
    return np.concatenate(parts).reshape(len(pixels), -1)


class Seen:
    """The icons chosen so far."""

    def __init__(self, looks: np.ndarray) -> None:
        self.looks, self.chosen = looks, np.empty_like(looks)
        self.number = 0

    def take(self, i: int) -> bool:
        """Choose icon i, unless one that is nearly the same was chosen before."""
        before = self.chosen[: self.number]
        if (np.abs(before - self.looks[i]).mean(axis=1) < ALIKE).any():
            return False
        self.chosen[self.number] = self.looks[i]
        self.number += 1
        return True


def choose(icons: list[Icon], pixels: np.ndarray) -> list[tuple[int, str, str, str]]:
    """(index, set, class, split) of every member, from all candidates.

    Hands take turns: none fills a class. Of nearly equal pictures one is left, in the first of train, val, test.
    """
    seen = Seen(reduced(pixels))
    looks = [look(p) for p in pixels]
    labels, split_of = label_of(), {h: s for s, members in HANDS.items() for h in members.split()}
    held: dict[tuple[str, str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, icon in enumerate(icons):
        held[labels[icon.stem], split_of[icon.hand], looks[i]][icon.hand].append(i)
    members = []
    for split, (room, each) in ROOM.items():
        for label in CLASSES:
            chosen = _take(held[label, split, "outline"], icons, room, each, seen)
            members += [(i, SOURCE, label, split) for i in chosen]
    for style, name in DOMAINS.items():
        for label in CLASSES:
            chosen = _take(held[label, "test", style], icons, *DOMAIN_ROOM[name], seen)
            members += [(i, name, label, "test") for i in chosen]
    return members


def _take(by_hand: dict[str, list[int]], icons: list[Icon], room: int, each: int, seen: Seen) -> list[int]:
    # The plainest names first: 'key' before 'key-alt-2'.
    queues = [sorted(by_hand[h], key=lambda i: (len(icons[i].name), icons[i].name)) for h in sorted(by_hand)]
    chosen: list[int] = []
    # Sizes of one icon, and its counted versions, are one drawing.
    drawn: set[tuple[str, str]] = set()
    for _ in range(each):
        for queue in queues:
            while queue and len(chosen) < room:
                i = queue.pop(0)
                drawing = (icons[i].collection, re.sub(r"\d+", "", icons[i].name))
                if drawing not in drawn and seen.take(i):
                    drawn.add(drawing)
                    chosen.append(i)
                    break
    return chosen


def pictures(package: Path) -> list[Picture]:
    """Members of the set and its domains, in 16 shades a channel, which their sharp edges do not miss."""
    icons, drawn = zip(*candidates(package), strict=True)
    pixels = np.stack(drawn)
    shades = (np.rint(pixels / 17) * 17).astype(np.uint8)
    return [
        Picture(
            set=name,
            label=label,
            split=split,
            concept=f"icons/{icons[i].hand}",
            title=icons[i].stem,
            hand=icons[i].hand,
            source=f"{icons[i].collection}:{icons[i].name}",
            pixels=shades[i],
        )
        for i, name, label, split in choose(list(icons), pixels)
    ]
