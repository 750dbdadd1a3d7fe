"""Write the data sets as one archive of WebP pictures with a manifest; the same bytes every time.

python tools/pocket/archive.py DIR src/vlprompt/pocket/images.zip     # DIR from prepare.py and sets.py
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from sets import SET_FACTS, SPLITS
from sources import on_white

WHEN = (2000, 1, 1, 0, 0, 0)
QUALITY = 92


def webp(rgb: np.ndarray) -> bytes:
    """Encode one (64, 64, 3) picture."""
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "WEBP", quality=QUALITY, method=6)
    return out.getvalue()


def slug(name: str) -> str:
    """A class name as a folder name."""
    return name.lower().replace(" ", "-")


def manifest(drawings: list[dict], members: list[dict]) -> dict:
    """Sets and images: each image's path, class, split, concept, hand and source, sorted by path."""
    sets = {}
    for name, (template, description) in SET_FACTS.items():
        mine = [m for m in members if m["set"] == name]
        classes = sorted({m["class"] for m in mine}, key=str.lower)
        images = []
        for label in classes:
            for split in SPLITS:
                group = sorted(m["index"] for m in mine if m["class"] == label and m["split"] == split)
                for n, index in enumerate(group):
                    d = drawings[index]
                    images.append(
                        {
                            "path": f"{name}/{split}/{slug(label)}/{n:02d}.webp",
                            "class": label,
                            "split": split,
                            "concept": d["concept"],
                            "title": d["title"],
                            "hand": d["hand"],
                            "source": d["path"],
                            "index": index,
                        }
                    )
        images.sort(key=lambda i: i["path"])
        sets[name] = {"template": template, "description": description, "classes": classes, "images": images}
    return {"schema": 1, "sets": sets}


def write(target: Path, facts: dict, pixels: np.ndarray) -> None:
    """Store pictures and manifest uncompressed, in sorted order, with one fixed date."""
    files = {}
    for entry in facts["sets"].values():
        for image in entry["images"]:
            files[image["path"]] = webp(on_white(pixels[image.pop("index")]))
    files["manifest.json"] = json.dumps(facts, indent=0, sort_keys=True).encode()
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, WHEN)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            info.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED
            archive.writestr(info, files[name])


def main(folder: Path, target: Path) -> None:
    """Build the archive from the rendered drawings and chosen sets in `folder`."""
    drawings = json.loads((folder / "drawings.json").read_text())
    members = json.loads((folder / "sets.json").read_text())
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target, manifest(drawings, members), np.load(folder / "pixels.npy", mmap_mode="r"))
    print(f"{target.name}: {len(members)} images, {target.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
