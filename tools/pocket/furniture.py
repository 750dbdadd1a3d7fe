"""Renders of furniture and other things of a house, from Debian's `sweethome3d-furniture`: classes by category and name."""

from __future__ import annotations

import io
import random
import re
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from pictures import Picture, prints
from PIL import Image
from sets import SEED, grouped, near_duplicates

NAME = "furniture"
FACTS = {NAME: {"template": "a picture of {}.", "description": "Renders of furniture and other things of a house."}}
# Class -> its category in the catalogue, and words of a name; the first that fits takes a model.
CLASSES = {
    "people and animals": ("characters", ""),
    "doors and windows": ("doors and windows", "doors?|windows?"),
    "vehicles": (
        "vehicles",
        "motorbike|scooter|bike|bicycle|biplane|rowboat|truck|car model|wheelbarrow|wheelchair",
    ),
    "lamps": ("lights", "lamps?|lantern|chandelier|spotlight|candles?|light"),
    "sofas and beds": ("", "sofas?|couch|loveseat|divan|settee|beds?|crib|cradle|bunk|mattress|futon|puff"),
    "toys and sports": (
        "",
        "game|toy|ball|doll|goal|football|pool table|trampoline|swing|slide|skate\\w*|guitar|piano|drums?|basketball\\w*"
        "|racket|puzzle|rubik's|chessboard|xylophone|treadmill|fitness|seesaw|teddy|diving board|tennis|net",
    ),
    "chairs and stools": ("", "chairs?|armchair|stools?|bench|seats?|deckchair|lounge"),
    "tables and desks": ("", "tables?|desk"),
    "cabinets and shelves": (
        "",
        "cabinets?|wardrobe|shel\\w+|bookcase|chest|dresser|cupboard|drawers?|sideboard|buffet|nightstand|closet|locker",
    ),
    "plants": (
        "",
        "trees?|plants?|ficus|bamboo|flowers?|tulips?|hedge|palm|maple|cactus|grass|fern|rose|bush|orchids?|bonsai|pine|oak"
        "|yucca|ivy|spathiphyllum|lily|acacia|beech|cypress|poplar|blossom",
    ),
    "bathroom things": ("bathroom", ""),
    "household machines": (
        "",
        "oven|stove|hood|fridge|refrigerator|microwave|dishwasher|cooker|toaster|kettle|coffee maker|mixer|blender|freezer"
        "|cooktop|hob|juicer|washing machine|dryer|boiler|heater|furnace|water cooler|radiator|mower|fan|fryer",
    ),
    "dishes and food": (
        "",
        "bottles?|glass|cups?|plates?|bowl|pots?|pan|cake|cutlery|knife|fork|spoon|tray|teapot|jug|mug|pizza|bread|fruit|wine"
        "|food|hamburger|sandwich|eggs?|salt|dish|butter|milk|hot dog|jar|pottery|apples|creamer|sugar|chicken|steak|fries"
        "|coffee",
    ),
    "electronics": (
        "",
        "tv|television|speakers?|hi-?fi|computer|laptop|screen|monitor|radio|stereo|phone|camera|console|keyboard|printer"
        "|amplifier|turntable|projector|apple|headphones|mp3|dvd|tablet|playstation|joystick|cctv|intercom",
    ),
    "clothes and bags": (
        "",
        "clothes|dress|cap|hat|helmet|short|trousers|jacket|skirt|glove|shoes|slippers|sneakers|bootie|suit|mocassin|handbag"
        "|backpack|suitcase|briefcase|sunglasses|watch|ring|coathanger|shirt|tie|scarf|boots?",
    ),
}
# Electric sockets and switches are all but equal, and no class.
DROPPED = re.compile(r"\b(plugs?|sockets?|outlets?|switch|switches|ring)\b")
SIDE = 128
SPLITS = {"train": 16, "val": 4, "test": 10}
"""Least images of a class in each split; all others are for testing."""


def label_of(name: str, category: str) -> str | None:
    """The first class that takes a model."""
    if DROPPED.search(name.lower()):
        return None
    for label, (wanted, words) in CLASSES.items():
        if category.lower() == wanted or (words and re.search(rf"\b({words})\b", name.lower())):
            return label
    return None


def models(folder: Path) -> list[tuple[str, dict[str, str], np.ndarray]]:
    """Library, facts (name, category, creator, icon) and render on white of every model of a class."""
    out = []
    for path in sorted(folder.glob("*.sh3f")):
        with zipfile.ZipFile(path) as library:
            # Java's properties are Latin-1, and so is the file's own escape of other letters.
            text = library.read("PluginFurnitureCatalog.properties").decode("latin-1")
            entries: dict[int, dict[str, str]] = defaultdict(dict)
            for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*)$", text, re.M):
                entries[int(number)][key] = value.strip()
            for _, facts in sorted(entries.items()):
                if "icon" in facts and label_of(facts["name"], facts["category"]):
                    with Image.open(io.BytesIO(library.read(facts["icon"].lstrip("/"))), formats=("PNG",)) as icon:
                        out.append((path.stem, facts, _fitted(icon.convert("RGBA"))))
    return out


def _fitted(icon: Image.Image) -> np.ndarray:
    """On white, in a square of SIDE pixels."""
    icon.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (SIDE, SIDE), "white")
    canvas.alpha_composite(icon, ((SIDE - icon.width) // 2, (SIDE - icon.height) // 2))
    return np.asarray(canvas.convert("RGB"))


def pictures(folder: Path) -> list[Picture]:
    """Deal the models of each class into splits; what is nearly the same picture stays together, equal ones go."""
    found = models(folder)
    pairs = near_duplicates(prints([pixels for _, _, pixels in found]), range(len(found)))
    labels = [label_of(facts["name"], facts["category"]) for _, facts, _ in found]
    torn = {i for a, b in pairs if labels[a] != labels[b] for i in (a, b)}
    out = []
    for label in CLASSES:
        inside = [i for i in range(len(found)) if labels[i] == label and i not in torn]
        groups = sorted(grouped([[i] for i in inside], pairs), key=lambda g: g[0])
        random.Random(f"{SEED} {NAME} {label}").shuffle(groups)
        # Of nearly equal models one is left: more would only count the same answer again.
        chosen = [group[0] for group in groups]
        for n, i in enumerate(chosen):
            split = "train" if n < SPLITS["train"] else "val" if n < SPLITS["train"] + SPLITS["val"] else "test"
            out.append(_picture(*found[i], label, split))
    return out


def _picture(library: str, facts: dict[str, str], pixels: np.ndarray, label: str, split: str) -> Picture:
    model = facts["icon"].lstrip("/").removesuffix(".png")
    return Picture(
        set=NAME,
        label=label,
        split=split,
        concept=f"furniture/{model}",
        title=facts["name"].lower(),
        hand=library.lower(),
        source=f"{library}.sh3f/{model}.png",
        credit=facts.get("creator", ""),
        pixels=pixels,
    )
