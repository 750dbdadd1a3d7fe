"""Render every drawing once: DIR/pixels.npy (N, 64, 64, 4) uint8 and DIR/drawings.json (N facts).

python tools/pocket/prepare.py ROOT DIR
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
from sources import EMOJI_HANDS, clipart, emoji, render


def main(root: Path, out: Path, workers: int | None = None) -> None:
    """Read all sources under `root`, render them, and write what could be drawn to `out`."""
    drawings = [d for hand in EMOJI_HANDS for d in emoji(root, hand)] + list(clipart(root))
    drawings.sort(key=lambda d: d.key)
    if workers == 1:
        pixels = [render(d) for d in drawings]
    else:
        with ProcessPoolExecutor(workers) as pool:
            pixels = list(pool.map(render, drawings, chunksize=16))
    kept = [(d, p) for d, p in zip(drawings, pixels, strict=True) if p is not None]
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "pixels.npy", np.stack([p for _, p in kept]))
    facts = [asdict(d) | {"path": d.path.relative_to(root).as_posix()} for d, _ in kept]
    (out / "drawings.json").write_text(json.dumps(facts, indent=0), encoding="utf-8")
    print(f"{len(kept)} of {len(drawings)} drawings rendered")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
