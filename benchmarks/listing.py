"""ImageNet-21K-P's listing, 11,060,223 images in 10,450 classes, by simulation: what it costs to list, draw from, shuffle and resume.

    python -m benchmarks.listing [--json FILE] [--images 11060223] [--classes 10450]

No image exists. Folders: the file names are as long as the published ones and come from memory instead of the disk; what the disk
itself takes is measured on `--real` files that do exist, and given a million names. Shards: a `shards.json` of 1,000 images a tar. Each
kind has its own process, whose peak memory is read from the system. `resume_s` is the time from the listing to the images of
step N, for the first step, one in the middle and the last one. `share_read` is the largest part of the shards that one of 8
processes opens in an epoch, over an eighth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import process
from benchmarks.figures import Figure, publish
from vlprompt.data import Spool
from vlprompt.data.large import imagenet21k
from vlprompt.data.large.corpus import Pool
from vlprompt.data.large.shards import MANIFEST, PER_SHARD, SCHEMA, TarShards, open_shards
from vlprompt.pretrain.feed import own_share
from vlprompt.pretrain.order import StepOrder

IMAGES, CLASSES, BATCH, EPOCHS, RANKS, DRAWN = 11_060_223, 10_450, 256, 5, 8, 2000
KINDS = ("folders", "shards")


def key_of(label: int) -> str:
    """A WordNet id."""
    return f"n{label + 10_000_000:08d}"


def clock(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def folders(images: int, classes: int, root: Path) -> Pool:
    """A pool of class folders, through the library's own listing; the names come from memory."""
    (root / "imagenet21k_train").mkdir()
    names = {key_of(label): f"class number {label}" for label in range(classes)}
    lines = "".join(f"{key}\t{name}\n" for key, name in names.items())
    (root / "names.txt").write_text(lines, encoding="utf-8")
    sizes = {key: images * (label + 1) // classes - images * label // classes for label, key in enumerate(names)}
    real = imagenet21k.folder_names, imagenet21k._images
    imagenet21k.folder_names = lambda _: sorted(names)
    imagenet21k._images = lambda folder: sorted(f"{folder.name}_{number}.JPEG" for number in range(sizes[folder.name]))
    try:
        return imagenet21k.open_imagenet21k(root, names_file=root / "names.txt").train
    finally:
        imagenet21k.folder_names, imagenet21k._images = real


def shards(images: int, classes: int, root: Path) -> Pool:
    """A pool of tars, from a manifest as `vlprompt data shards` writes it."""
    rows = [
        {
            "file": f"train-{number:05d}.tar",
            "samples": min(PER_SHARD, images - number * PER_SHARD),
            "bytes": 20 << 20,
            "sha256": f"{number:064x}",
        }
        for number in range(-(-images // PER_SHARD))
    ]
    names = [f"class number {label}" for label in range(classes)]
    written = {"schema": SCHEMA, "name": "21k", "class_names": names, "parts": {"train": rows}}
    (root / MANIFEST).write_text(json.dumps(written), encoding="utf-8")
    return open_shards(str(root), spool=Spool(root / "spool")).train


def drawn(pool: Pool) -> float:
    """Seconds to name so many images from everywhere (their bytes are not read)."""
    step = len(pool) // DRAWN
    if isinstance(pool, TarShards):
        return clock(lambda: [pool._offsets.place(number) for number in range(0, len(pool), step)])
    return clock(lambda: [pool.sample(number) for number in range(0, len(pool), step)])


def largest_share(plan: StepOrder, pool: Pool) -> float:
    """The most shards that a rank opens in an epoch, over an even share of them."""
    assert isinstance(pool, TarShards)
    opened: list[set[int]] = [set() for _ in range(RANKS)]
    for step in range(plan.steps_per_epoch):
        images = plan.images(step)
        for rank, mine in enumerate(opened):
            mine.update((own_share(images, rank, RANKS) // PER_SHARD).unique().tolist())
    return max(map(len, opened)) * RANKS / len(pool.shards)


def serve(kind: str, images: int, classes: int) -> dict[str, float]:
    """Child process: one kind."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        pool = (folders if kind == "folders" else shards)(images, classes, Path(place))
        found["list_s"] = time.perf_counter() - began
        assert len(pool) == images
        found["identity_s"] = clock(lambda: pool.identity)
        found["draw_s"] = drawn(pool)
        whole = StepOrder(images, BATCH, EPOCHS, seed=1, runs=pool.runs).steps
        for name, step in (("first", 0), ("middle", whole // 2), ("last", whole - 1)):
            plan = StepOrder(images, BATCH, EPOCHS, seed=1, runs=pool.runs)  # a process that starts anew knows nothing
            found[f"resume_{name}_s"] = clock(lambda plan=plan, step=step: plan.images(step))  # type: ignore[misc]
        found["peak_gib"] = process.peak_mib() / 1024
        if kind == "shards":
            found["share_read"] = largest_share(plan, pool)
    return found


def real_files(number: int) -> float:
    """Seconds a million files that the disk takes to list names in class folders of 1,000."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        made = [root / key_of(label) for label in range(-(-number // 1000))]
        for folder in made:
            folder.mkdir()
            for one in range(1000):
                (folder / f"{folder.name}_{one}.JPEG").touch()
        return clock(lambda: [imagenet21k._images(folder) for folder in made]) * 1e6 / (1000 * len(made))


def figures(images: int, classes: int, real: int) -> list[Figure]:
    """All figures."""
    out = [Figure("disk_s_per_million", real_files(real), "s, warm")]
    units = {"peak_gib": "GiB, the process", "share_read": "of an even share"}
    for kind in KINDS:
        command = [sys.executable, "-m", "benchmarks.listing", "--kind", kind]
        command += ["--images", str(images), "--classes", str(classes)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        out += [Figure(f"{kind}_{name}", value, units.get(name, "s")) for name, value in found.items()]
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--real", type=int, default=100_000, help="empty files that are made for a moment")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(serve(arguments.kind, arguments.images, arguments.classes)))
    else:
        publish(figures(arguments.images, arguments.classes, arguments.real), arguments.json)


if __name__ == "__main__":
    main()
