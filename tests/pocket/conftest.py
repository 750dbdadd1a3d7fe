"""The scripts of tools/pocket on the path, and a made-up set of source packages."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "pocket"))

COLOURS = ("red", "green", "blue", "orange", "purple", "brown", "teal", "navy", "olive", "crimson", "gold", "pink")
SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="60mm" height="{height}mm" viewBox="0 0 60 {height}">
<metadata><rdf:RDF xmlns:rdf="r" xmlns:cc="c" xmlns:dc="d"><cc:Work><dc:title>{title}</dc:title>
<dc:subject><rdf:Bag><rdf:li>{keyword}</rdf:li><rdf:li>somebody</rdf:li></rdf:Bag></dc:subject>
<dc:creator><dc:title>Somebody</dc:title></dc:creator></cc:Work></rdf:RDF></metadata>
{shapes}</svg>"""


def svg(n: int, title: str, keyword: str) -> str:
    """A small drawing of stripes and a disc that no other `n` looks like."""
    height = 40 + 4 * (n % 5)
    parts = [f'<circle cx="{12 + 3 * n % 36}" cy="{10 + 5 * n % 25}" r="{6 + n % 7}" fill="{COLOURS[n % 12]}"/>']
    for k in range(3):
        x, y = (7 * n + 17 * k) % 45, (11 * n + 13 * k) % 35
        colour = COLOURS[(n * (k + 2) + 5) % 12]
        parts.append(f'<rect x="{x}" y="{y}" width="{5 + (n + k) % 9}" height="{20 - (n * k) % 14}" fill="{colour}"/>')
    return SVG.format(height=height, title=title, keyword=keyword, shapes="".join(parts))


@pytest.fixture(scope="session")
def made_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source packages with 3 folders of 14 drawings of clip art and 6 emoji by three hands."""
    root = tmp_path_factory.mktemp("sources")
    for f, (folder, word) in enumerate((("animals/birds", "bird"), ("animals/bugs", "bug"), ("food/fruit", "fruit"))):
        place = root / "openclipart-svg" / folder
        place.mkdir(parents=True)
        letters = "abcdefghijklmn"
        for n, letter in enumerate(letters):
            (place / f"{word}_{letter}_01.svg").write_text(
                svg(14 * f + n, f"{letter * 3} {word}", word), encoding="utf-8"
            )
    (root / "openclipart-svg/animals/birds/broken.svg").write_text("<svg", encoding="utf-8")
    (root / "openclipart-svg/animals/birds/blank.svg").write_text(
        svg(0, "blank", "x").split("<circle")[0] + "</svg>", encoding="utf-8"
    )
    _emoji(root)
    return root


def _emoji(root: Path) -> None:
    codes = {"1F415": "dog", "1F408": "cat", "1F34E": "red apple", "1F44B": "waving hand", "2764": "red heart"}
    subgroups = {"1F415": 0, "1F408": 0, "1F34E": 1, "1F44B": 2, "2764": 3}
    entries = [
        {"label": label, "hexcode": code, "tags": ["pet"], "group": 3, "subgroup": subgroups[code]}
        for code, label in codes.items()
    ]
    entries[3]["skins"] = [{"label": "waving hand: dark skin tone", "hexcode": "1F44B-1F3FF"}]
    names = {"groups": {"3": "animals-nature"}}
    names["subgroups"] = {"0": "animal-mammal", "1": "food-fruit", "2": "hand-fingers-open", "3": "heart"}
    for name, content in (("en/data.json", entries), ("meta/groups.json", names)):
        target = root / "emojibase-data" / name
        target.parent.mkdir(parents=True)
        target.write_text(json.dumps(content), encoding="utf-8")
    for h, (package, folder) in enumerate((("google", "img/google/64"), ("twitter", "img/twitter/64"))):
        place = root / f"emoji-datasource-{package}" / folder
        place.mkdir(parents=True)
        for n, code in enumerate([*codes, "1F44B-1F3FF"]):
            picture = Image.new("RGBA", (64, 64))
            box = (4 + 3 * n + 5 * h, 4 + 2 * h, 34 + 5 * n, 30 + 6 * n)
            ImageDraw.Draw(picture).ellipse(box, fill=COLOURS[n])
            picture.save(place / f"{code.lower()}.png")
    flat = root / "lobehub-fluent-emoji-flat" / "assets"
    flat.mkdir(parents=True)
    for n, code in enumerate(codes):
        (flat / f"{code.lower()}.svg").write_text(svg(50 + n, codes[code], ""), encoding="utf-8")
