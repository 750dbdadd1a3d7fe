"""Build the sets that come straight from a package: icons, clothes, furniture, photographs.

    python tools/pocket/build.py ROOT src/vlprompt/pocket [icons fashion furniture photographs]

ROOT holds the packages as README.md says; without names all four archives are built.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fashion
import furniture
import icon_sets
import photographs
from pictures import archive_of

SETS = {
    "icons": (icon_sets, "iconify", None),
    "fashion": (fashion, "dataset-fashion-mnist/usr/share/datasets/fashion-mnist", None),
    "furniture": (furniture, "sweethome3d-furniture/usr/share/sweethome3d/furniture", 85),
    "photographs": (photographs, "gcompris-qt-data", 85),
}
"""Archive -> the module that chooses its pictures, its package below the root, its WebP quality (None: lossless)."""


def main(root: Path, out: Path, names: list[str]) -> None:
    """Write the archives that are asked for."""
    for name in names or SETS:
        source, package, quality = SETS[name]
        chosen = source.pictures(root / package)
        archive_of(out / f"{name}.zip", source.FACTS, chosen, quality=quality)
        print(f"{name}.zip: {len(chosen)} images, {(out / f'{name}.zip').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
