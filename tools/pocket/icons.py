"""Icons of `@iconify/json`: which collections are one hand, what a name says is drawn, and how an icon looks.

A hand is an author, with every collection and fork that shares drawings: what must not be torn between splits.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

SIZE = 64
MARGIN = 3
# Collections of one author, or that took drawings from each other, are one hand; any other is a hand by itself.
HANDS = {
    "material": "material-symbols material-symbols-light ic mdi mdi-light zmdi memory",
    "microsoft": "fluent fluent-color fluent-mdl2 codicon",
    "streamline": "streamline streamline-block streamline-color streamline-cyber streamline-cyber-color streamline-flex"
    " streamline-flex-color streamline-freehand streamline-freehand-color streamline-kameleon-color streamline-pixel"
    " streamline-plump streamline-plump-color streamline-sharp streamline-sharp-color streamline-stickies-color"
    " streamline-ultimate streamline-ultimate-color guidance covid",
    "icon-park": "icon-park icon-park-outline icon-park-solid icon-park-twotone",
    "font-awesome": "fa fa-regular fa-solid fa6-regular fa6-solid fa7-regular fa7-solid la icons8 wpf flat-color-icons",
    "boxicons": "boxicons bx bxs",
    "feather": "feather lucide lucide-lab meteor-icons",
    "iconscout": "uil uim uis uit",
    "ionic": "ion famicons",
    "heroicons": "heroicons heroicons-outline heroicons-solid sidekickicons",
    "solar": "solar reicon",
    "praveen-juge": "mynaui vadivam",
    "halfmann": "majesticons pixelarticons",
    "pepicons": "pepicons-pencil pepicons-pop pepicons-print",
    "glyphs": "glyphs glyphs-poly",
    "mono": "mono-icons mi",
    "maps": "maki temaki pinhead osmic roentgen map geo",
    "open-ui": "oui ooui",
}
# Not drawings of things (logos, flags, code, charts), animated, or emoji, which are other sources' matter.
SKIPPED = (
    "line-md svg-spinners gcp k8s unjs material-icon-theme file-icons devicon devicon-plain catppuccin skill-icons"
    " vscode-icons simple-icons logos streamline-logos cib fa-brands fa6-brands fa7-brands bxl nonicons arcticons thesvg"
    " thesvg-color selfhst cbi brandico entypo-social token token-branded cryptocurrency cryptocurrency-color openmoji"
    " pepicons twemoji noto fluent-emoji fluent-emoji-flat fluent-emoji-high-contrast noto-v1 emojione emojione-monotone"
    " emojione-v1 fxemoji streamline-emojis circle-flags flag flagpack cif fontelico bpmn ginetex academicons"
)
EMOJI = ("noto-v1", "emojione", "emojione-v1", "fxemoji")
"""Hands of emoji that the other sources do not have."""
FREE = {"MIT", "Apache-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0", "ISC", "BSD-3-Clause", "Unlicense"}
"""Licences under which an icon may be in the package; share-alike, GPL, non-commercial and font licences are not."""
STYLES = (
    "fill filled solid bold outline outlined outlines line linear lines thin light regular duotone twotone tone two"
    " broken bulk round rounded sharp baseline o f alt variant remix color colored colors flat mini micro duo medium"
    " normal basic stroke stroked sd hd ios md bxs bx s l sm lg small big large simple modern classic px nofill free"
    " svg icon border negative empty"
)
FAMILY = re.compile(
    r"^(animal|nature|pet-animals|weather|travel-wayfinding|food-drink|interface-essential|other-ui|transportation"
    r"|entertainment|music|shopping-shipping|school-science|technology|computers-devices-electronics|business-money"
    r"|content-files|building-real-estate|health|romance|photography|clothing|sport|sports|food|drink)-(?=.)"
)


@dataclass(frozen=True, kw_only=True)
class Icon:
    """One icon: its collection, name there, the hand that drew it, and the words it is called by without style."""

    collection: str
    name: str
    hand: str
    stem: str
    licence: str


def hand_of(collection: str) -> str:
    """The hand of a collection."""
    return next((hand for hand, members in HANDS.items() if collection in members.split()), collection)


def stem(name: str) -> str:
    """What an icon's name says is drawn: its words without style, size and counter, as 'hot air balloon'."""
    name = FAMILY.sub("", name)
    kept = [w for w in name.split("-") if w not in STYLES.split() and not re.fullmatch(r"\d+(px)?", w)]
    return " ".join(kept)


def listed(package: Path) -> Iterator[Icon]:
    """Every icon of the collections that draw things, by collection and name."""
    facts = json.loads((package / "collections.json").read_text(encoding="utf-8"))
    for collection in sorted(facts):
        if collection in SKIPPED.split():
            continue
        for name in sorted(load(package, collection)["icons"]):
            # Ionicons' "md" icons are Google's.
            if (words := stem(name)) and not (collection == "ion" and name.startswith("md-")):
                spdx = facts[collection]["license"].get("spdx", "")
                yield Icon(collection=collection, name=name, hand=hand_of(collection), stem=words, licence=spdx)


def load(package: Path, collection: str) -> dict:
    """A collection's file."""
    return json.loads((package / "json" / f"{collection}.json").read_text(encoding="utf-8"))


def svg(book: dict, name: str) -> str:
    """One icon as an SVG document."""
    entry = book["icons"][name]
    box = [entry.get(k, book.get(k, d)) for k, d in (("left", 0), ("top", 0), ("width", 16), ("height", 16))]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{" ".join(map(str, box))}" width="{box[2]}" height="{box[3]}" color="#000">{entry["body"]}</svg>'
    )


def draw(text: str, size: int = SIZE) -> np.ndarray | None:
    """Draw to (size, size, 3) on white, the drawing fitted with a small margin; None when blank or broken."""
    import resvg_py

    try:
        png = resvg_py.svg_to_bytes(svg_string=text, width=2 * size, height=2 * size, skip_system_fonts=True)
    except ValueError:
        return None
    picture = Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGBA")
    box = picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    if box is None:
        return None
    picture = picture.crop(box)
    margin = MARGIN * size // 64
    scale = (size - 2 * margin) / max(picture.size)
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size), (255, 255, 255, 255))
    canvas.alpha_composite(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    pixels = np.asarray(canvas.convert("RGB"))
    return pixels if (pixels.min(axis=2) < 200).mean() > 0.02 else None


def look(pixels: np.ndarray) -> str:
    """'coloured', 'filled' or 'outline': how an icon (size, size, 3) looks, by its pixels alone.

    Coloured: a twentieth of the ink has a hue. Filled: a third of the ink lies deeper than a stroke's half width.
    """
    ink = pixels.min(axis=2) < 200
    rgb = pixels[ink].astype(np.int16)
    if (rgb.max(axis=1) - rgb.min(axis=1) > 40).mean() > 0.05:
        return "coloured"
    depth = distance_transform_edt(np.pad(ink, 1))[1:-1, 1:-1][ink] * 64 / len(pixels)
    return "filled" if (depth > 3.5).mean() > 1 / 3 else "outline"
