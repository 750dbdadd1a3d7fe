"""Read the drawings of the source packages as `Drawing` values, and render each to 64 x 64 RGBA.

The packages are unpacked next to each other under one root (see README.md): `openclipart-svg`, the two
`emoji-datasource-*`, the three `lobehub-fluent-emoji-*` and `emojibase-data`.
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

SIZE = 64
EMOJI_HANDS = {
    "noto": ("emoji-datasource-google", "img/google/64/*.png"),
    "twemoji": ("emoji-datasource-twitter", "img/twitter/64/*.png"),
    "fluent-3d": ("lobehub-fluent-emoji-3d", "assets/*.webp"),
    "fluent-flat": ("lobehub-fluent-emoji-flat", "assets/*.svg"),
    "fluent-modern": ("lobehub-fluent-emoji-modern", "assets/*.svg"),
    "openmoji": ("openmoji", "color/svg/*.svg"),
    "openmoji-outline": ("openmoji", "black/svg/*.svg"),
}
SKIPPED_CLIPART = re.compile(
    r"^(unsorted|special|shapes/(stars|jigsaw|flowchart|callouts)|signs_and_symbols/(flags|led)|logos|computer/buttons"
    r"|computer/icons/(etiquette-theme|lemon-theme|flat-theme/(action|applications))|recreation/games/cards)(/|$)"
)
# Titles that name a whole series; the file name then says more.
SERIES = re.compile(
    r"untitled|open clip art|svg road signs|aiga symbol|map symbols|chess pieces|flat icon|iconset|gold theme"
    r"|etiquette|open icon|hotel icon$"
)
TONES = {"1F3FB": "light", "1F3FC": "medium light", "1F3FD": "medium", "1F3FE": "medium dark", "1F3FF": "dark"}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One drawing: who drew it, what it shows, and where its file is.

    `concept` is shared by all hands, skin tones and genders of one thing. `groups` runs from coarse to fine.
    """

    key: str
    hand: str
    concept: str
    title: str
    keywords: tuple[str, ...]
    groups: tuple[str, ...]
    variant: str
    path: Path


def words(text: str) -> str:
    """Lower-case words of a file name, slug or title, digits and punctuation removed."""
    return " ".join(re.findall(r"[a-z']+", re.sub(r"[_\-]+", " ", text.lower())))


def emoji_concept(code: str) -> str:
    """The code of an emoji without skin tone, variation selector, gender sign or sex of its persons."""
    parts = [p for p in code.upper().split("-") if p not in TONES and p != "FE0F"]
    text = "-".join(parts)
    text = re.sub(r"-200D-(2640|2642)$", "", text)
    return re.sub(r"\b(1F468|1F469)\b", "1F9D1", text)


def variant(code: str) -> str:
    """'plain', 'gender', 'tone' or 'tone gender': how an emoji departs from its concept's plain form."""
    parts = [p for p in code.upper().split("-") if p != "FE0F"]
    tone = any(p in TONES for p in parts)
    gender = bool({"2640", "2642", "1F468", "1F469"} & set(parts)) and len(parts) > 1
    return " ".join(n for n, on in (("tone", tone), ("gender", gender)) if on) or "plain"


def emoji_facts(root: Path) -> dict[str, dict]:
    """Label, tags, group and subgroup of every emoji code, skin tones included, from emojibase-data."""
    data = json.loads((root / "emojibase-data" / "en" / "data.json").read_text(encoding="utf-8"))
    names = json.loads((root / "emojibase-data" / "meta" / "groups.json").read_text(encoding="utf-8"))
    facts = {}
    for entry in data:
        if "group" not in entry or entry["group"] == 2:
            continue
        group = names["groups"][str(entry["group"])]
        subgroup = names["subgroups"][str(entry["subgroup"])]
        for form in (entry, *entry.get("skins", ())):
            code = "-".join(p for p in form["hexcode"].split("-") if p != "FE0F")
            facts[code] = {"label": form["label"], "tags": entry.get("tags", []), "groups": (group, subgroup)}
    return facts


def emoji(root: Path, hand: str) -> Iterator[Drawing]:
    """All drawings of one emoji hand that emojibase-data names."""
    package, pattern = EMOJI_HANDS[hand]
    facts = emoji_facts(root)
    seen = set()
    for path in sorted((root / package).glob(pattern)):
        code = "-".join(p for p in path.stem.upper().split("-") if p != "FE0F")
        fact = facts.get(code)
        if fact is None or code in seen:
            continue
        seen.add(code)
        yield Drawing(
            key=f"{hand}/{code.lower()}",
            hand=hand,
            concept=f"emoji/{emoji_concept(code).lower()}",
            title=fact["label"].lower(),
            keywords=tuple(fact["tags"]),
            groups=fact["groups"],
            variant=variant(code),
            path=path,
        )


def clipart(root: Path) -> Iterator[Drawing]:
    """The drawings of openclipart-svg, each once, without icon themes, stars, flags, cards and gradients."""
    base = root / "openclipart-svg"
    seen: set[str] = set()
    # Deepest folders first: a drawing filed in several folders keeps its most special one.
    for path in sorted(base.rglob("*.svg"), key=lambda p: (-len(p.parts), p.as_posix())):
        folder = path.parent.relative_to(base).as_posix()
        if SKIPPED_CLIPART.match(folder) or path.name in seen or path.stat().st_size > 3_000_000:
            continue
        seen.add(path.name)
        title, keywords = clipart_words(path)
        yield Drawing(
            key=f"openclipart/{folder}/{path.stem}",
            hand="openclipart",
            concept=f"clipart/{clipart_concept(path.stem, title)}",
            title=title,
            keywords=keywords,
            groups=tuple(words(part) for part in folder.split("/")),
            variant="plain",
            path=path,
        )


def clipart_words(path: Path) -> tuple[str, tuple[str, ...]]:
    """Title and keywords in an SVG file's metadata, its author's name left out."""
    text = path.read_text(encoding="utf-8", errors="ignore")
    found = re.search(r"<metadata.*?</metadata>", text, re.S)
    block = found.group(0) if found else ""
    titles = [words(t) for t in re.findall(r"<dc:title>([^<]{1,200})</dc:title>", block)]
    creators = {w for t in re.findall(r"<dc:creator>.*?</dc:creator>", block, re.S) for w in words(t).split()}
    title = titles[0] if titles and len(titles[0]) > 1 else ""
    title = re.sub(r"^clipart by \w+ \w+ ?", "", title)
    # Some files carry the title of another drawing: a title that shares no word with the file name is not trusted.
    if len(title) < 2 or SERIES.search(title) or not _akin(title, words(path.stem)):
        title = words(re.sub(r"_[a-z.]+_[a-z.]+_?\d*$", "", path.stem)) or title
    found_keywords = [words(k) for k in re.findall(r"<rdf:li>([^<]{1,100})</rdf:li>", block)]
    noise = {"", "clip art", "clipart", "image", "media", "public domain", "png", "svg", "hash", "unsorted"}
    kept = [k for k in found_keywords if k not in noise and not (set(k.split()) & creators)]
    return title[:80], tuple(dict.fromkeys(kept))[:12]


def _akin(title: str, stem: str) -> bool:
    ours, theirs = ({w[:4] for w in text.split()} for text in (title, stem))
    return bool(ours & theirs)


def clipart_concept(stem: str, title: str) -> str:
    """A name that all versions of one drawing or series share: the title without counters and colours."""
    text = title or words(stem)
    dropped = {"bw", "b", "n", "bn", "black", "white", "color", "colour", "colored", "v", "md", "r", "of", "the", "a"}
    kept = [w for w in text.split() if w not in dropped]
    return "-".join(kept[:3]) or words(stem).replace(" ", "-")


def render(drawing: Drawing) -> np.ndarray | None:
    """Draw to (64, 64, 4) straight-alpha RGBA, longest side fitted; None when it cannot be drawn or is blank."""
    try:
        picture = _open(drawing.path)
    except (ValueError, OSError):
        return None
    picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (SIZE, SIZE), (255, 255, 255, 0))
    canvas.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
    pixels = np.asarray(canvas).copy()
    return None if _blank(on_white(pixels)) else pixels


def _open(path: Path) -> Image.Image:
    if path.suffix != ".svg":
        return Image.open(path, formats=("PNG", "WEBP")).convert("RGBA")
    import resvg_py

    text = path.read_text(encoding="utf-8", errors="ignore")
    # Large enough for a small drawing on an A4 page; sizes in mm or pt need a dpi (90, as Inkscape then had).
    width, height = _aspect(text)
    scale = 4 * SIZE / max(width, height)
    size = {"width": max(1, round(width * scale)), "height": max(1, round(height * scale))}
    png = resvg_py.svg_to_bytes(svg_string=text, dpi=90, skip_system_fonts=True, **size)
    return _trim(Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGBA"))


def _aspect(text: str) -> tuple[float, float]:
    head = (re.search(r"<svg[^>]*>", text, re.S) or re.match("", text)).group(0)
    sizes = [re.search(rf'\b{k}\s*=\s*["\']\s*([\d.]+)', head) for k in ("width", "height")]
    if all(sizes) and "%" not in "".join(s.group(0) for s in sizes):
        width, height = (float(s.group(1)) for s in sizes)
    else:
        box = re.search(r'viewBox\s*=\s*["\']\s*[-\d.e]+[\s,]+[-\d.e]+[\s,]+([\d.e]+)[\s,]+([\d.e]+)', head)
        width, height = (float(box.group(1)), float(box.group(2))) if box else (1.0, 1.0)
    ratio = width / height if width > 0 and height > 0 else 1.0
    return (ratio, 1.0) if 0.05 < ratio < 20 else (1.0, 1.0)


def _trim(picture: Image.Image) -> Image.Image:
    """Cut away empty margins (page-sized clip art), keeping a margin of one twentieth."""
    box = picture.getchannel("A").getbbox()
    if box is None:
        return picture
    margin = round(0.05 * max(box[2] - box[0], box[3] - box[1]))
    return picture.crop((box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin))


def on_white(pixels: np.ndarray) -> np.ndarray:
    """Composite (..., 4) RGBA on white: (..., 3) uint8."""
    alpha = pixels[..., 3:].astype(np.float32) / 255
    return np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _blank(rgb: np.ndarray) -> bool:
    """Nearly nothing drawn: fewer than 1.5 % of the pixels differ from the most common colour."""
    grey = rgb.astype(np.int16)
    flat = grey.reshape(-1, 3)
    common = np.median(flat, axis=0)
    return bool((np.abs(flat - common).max(axis=1) > 24).mean() < 0.015)
