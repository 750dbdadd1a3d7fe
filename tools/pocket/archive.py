"""Write the data sets as archives of WebP pictures, each with a manifest; the same bytes every time.

    python tools/pocket/archive.py DIR src/vlprompt/pocket     # DIR from prepare.py and choose.py

An archive for the first sets, one for the emoji sets, one for what OpenMoji drew of those (its licence is share-alike),
and one for pretraining. A set's images may lie in several archives.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
from choose import PRETRAINING
from emoji_sets import DOMAIN_FACTS, DOMAINS, EMOJI_FACTS, SOURCE, changed
from PIL import Image
from sets import SET_FACTS, SPLITS

WHEN = (2000, 1, 1, 0, 0, 0)
ARCHIVES = {"images.zip": 92, "emoji.zip": 86, "openmoji.zip": 86, "pretraining.zip": 86}
"""Name -> WebP quality."""
LICENCE = Path(__file__).parents[2] / "src/vlprompt/pocket/LICENSE-CC-BY-SA-4.0.txt"
"""Of OpenMoji; it travels in the archive."""


def facts_of(name: str) -> dict[str, object]:
    """Template, description, and what a set is for."""
    if name in SET_FACTS:
        template, description = SET_FACTS[name]
        return {"template": template, "description": description}
    facts: dict[str, object] = {"template": "a picture of {}."}
    if name in DOMAIN_FACTS:
        return facts | {"description": DOMAIN_FACTS[name], "role": "domain", "domain_of": SOURCE}
    if name == PRETRAINING:
        description = "Emoji by name, four hands each; the model has seen them. For pretraining prompts."
        return facts | {"description": description, "role": "pretraining"}
    return facts | {"description": EMOJI_FACTS[name]}


def webp(rgb: np.ndarray, quality: int | None) -> bytes:
    """Encode one (height, width, 3) picture; without a quality, to the same pixels again."""
    out = io.BytesIO()
    how = {"lossless": True, "quality": 100} if quality is None else {"quality": quality}
    Image.fromarray(rgb).save(out, "WEBP", method=6, **how)
    return out.getvalue()


def slug(name: str) -> str:
    """A class name as a folder name."""
    return name.lower().replace(" ", "-")


def home(name: str, hand: str) -> str:
    """The archive of a set's image."""
    if name in SET_FACTS:
        return "images.zip"
    if name == PRETRAINING:
        return "pretraining.zip"
    return "openmoji.zip" if hand.startswith("openmoji") else "emoji.zip"


def manifest(drawings: list[dict], members: list[dict], archive: str) -> dict:
    """Sets and images of one archive: each image's path, class, split, concept, hand and source, sorted by path."""
    sets: dict[str, dict] = {}
    count: dict[tuple[str, str, str], int] = {}
    order = {split: n for n, split in enumerate(SPLITS)}
    for m in sorted(members, key=lambda m: (m["set"], m["class"].lower(), order[m["split"]], m["index"])):
        d = drawings[m["index"]]
        if home(m["set"], d["hand"]) != archive:
            continue
        entry = sets.setdefault(m["set"], {**facts_of(m["set"]), "classes": [], "images": []})
        place = (m["set"], m["split"], slug(m["class"]))
        n = count[place] = count.get(place, -1) + 1
        how = DOMAINS.get(m["set"], ("", "as drawn"))[1]
        # The first sets' files are named by set, split and class; later ones by drawing, as sets share them.
        flat = d["key"] if how == "as drawn" else f"{how}/{d['key']}"
        entry["images"].append(
            {
                "path": ("/".join(place) + f"/{n:02d}.webp") if archive == "images.zip" else f"{flat}.webp",
                "class": m["class"],
                "split": m["split"],
                "concept": d["concept"],
                "title": d["title"],
                "hand": d["hand"],
                "source": d["path"],
                "how": how,
                "index": m["index"],
            }
        )
    for name, entry in sets.items():
        # The whole set's classes: labels agree between its archives.
        entry["classes"] = sorted({m["class"] for m in members if m["set"] == name}, key=str.lower)
        entry["images"].sort(key=lambda i: i["path"])
    return {"schema": 1, "sets": dict(sorted(sets.items()))}


def write(target: Path, facts: dict, pixels: np.ndarray, quality: int) -> None:
    """Encode the pictures that a manifest names, and store them."""
    files = {}
    for entry in facts["sets"].values():
        for image in entry["images"]:
            how, index = image.pop("how"), image.pop("index")
            if image["path"] not in files:
                files[image["path"]] = webp(changed(pixels[index], how), quality)
    if target.name == "openmoji.zip":
        files["LICENSE.txt"] = LICENCE.read_bytes()
    store(target, facts, files)


def store(target: Path, facts: dict, files: dict[str, bytes]) -> None:
    """Write an archive's files (path -> bytes) and its manifest: the same bytes every time."""
    files = {**files, "manifest.json": json.dumps(facts, indent=0, sort_keys=True).encode()}
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, WHEN)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            info.compress_type = zipfile.ZIP_STORED if name.endswith(".webp") else zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])


def main(folder: Path, out: Path) -> None:
    """Build the archives from the rendered drawings and chosen sets in `folder`."""
    drawings = json.loads((folder / "drawings.json").read_text(encoding="utf-8"))
    members = json.loads((folder / "sets.json").read_text(encoding="utf-8"))
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    out.mkdir(parents=True, exist_ok=True)
    for name, quality in ARCHIVES.items():
        facts = manifest(drawings, members, name)
        images = sum(len(entry["images"]) for entry in facts["sets"].values())
        write(out / name, facts, pixels, quality)
        print(f"{name}: {images} images, {(out / name).stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
