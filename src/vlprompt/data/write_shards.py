"""Writing tar shards: the images of a corpus, shuffled once, so that reading shards in order mixes the classes."""

from __future__ import annotations

import hashlib
import io
import os
import random
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from vlprompt import atomic
from vlprompt.data.images import open_image
from vlprompt.data.pool import Corpus, Pool
from vlprompt.data.samples import Skipped
from vlprompt.data.shards import MANIFEST, SCHEMA, members
from vlprompt.errors import DATA, UserError

PER_SHARD = 1000
"""Images per tar: about 20 MB at 20 kB each, which is fetched in about a second and small beside a machine's memory."""


def write_shards(
    corpus: Corpus,
    out: Path,
    *,
    per_shard: int = PER_SHARD,
    seed: int = 0,
    verify: bool = True,
    progress: Callable[[int], None] | None = None,
) -> tuple[Skipped, ...]:
    """Write ``train-00000.tar``, ..., the held-out part likewise, and ``shards.json`` last. Gives what was left out.

    Files are the images' own bytes; the order is shuffled by the seed. A tar that is there already with the same samples (an
    interrupted run's) is kept. verify: decode every image first and leave out what does not decode. UserError: `out` holds other
    shards; a part without any usable image.
    """
    if per_shard < 1:
        raise UserError(f"--per-shard is {per_shard}; it must be at least 1.")
    skipped: list[Skipped] = []
    parts: dict[str, list[dict[str, object]]] = {}
    for part, pool in (("train", corpus.train), (corpus.held_out_part, corpus.held_out)):
        if len(pool):
            parts[part] = _write_part(part, pool, out, per_shard, seed, skipped if verify else None, progress)
    atomic.write_json(
        out / MANIFEST,
        {
            "schema": SCHEMA,
            "name": corpus.name,
            "template": corpus.template,
            "class_names": list(corpus.class_names),
            "parts": parts,
        },
    )
    return tuple(skipped)


def _write_part(
    part: str,
    pool: Pool,
    out: Path,
    per_shard: int,
    seed: int,
    skipped: list[Skipped] | None,
    progress: Callable[[int], None] | None,
) -> list[dict[str, object]]:
    order = list(range(len(pool)))
    random.Random(seed).shuffle(order)
    written = []
    for number, start in enumerate(range(0, len(order), per_shard)):
        path = out / f"{part}-{number:05d}.tar"
        before = len(skipped) if skipped is not None else 0
        count = _write_tar(path, pool, order[start : start + per_shard], start, skipped)
        if count:
            written.append(_described(path, count))
        else:
            path.unlink(missing_ok=True)
        if progress:
            progress(count + (len(skipped) - before if skipped is not None else 0))
    if not written:
        raise UserError(f"none of the {len(pool)} {part} images can be used.", exit_code=DATA)
    return written


def _described(path: Path, count: int) -> dict[str, object]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"file": path.name, "samples": count, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _write_tar(path: Path, pool: Pool, numbers: Sequence[int], first: int, skipped: list[Skipped] | None) -> int:
    """One tar, whole or not at all; the number of its samples. Equal inputs give equal bytes."""
    samples: list[tuple[str, bytes, int]] = []
    for offset, number in enumerate(numbers):
        try:
            sample = pool.sample(number)
            data = sample.read()
            if skipped is not None:
                open_image(data, name=sample.id)
        except UserError as error:
            if skipped is None:
                raise
            skipped.append(Skipped(*str(error).partition(": ")[::2]))
            continue
        suffix = PurePosixPath(sample.id).suffix.lower() or ".jpg"
        samples.append((f"{first + offset:09d}{suffix}", data, sample.label))
    if path.is_file():
        if [member.key + member.suffix for member in members(path)] == [name for name, _, _ in samples]:
            return len(samples)
        raise UserError(f"{path} holds other samples than these. Use another --out, or remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data, label in samples:
            _add(archive, name, data)
            _add(archive, f"{name.partition('.')[0]}.cls", str(label).encode())
    os.replace(part, path)
    return len(samples)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    facts = tarfile.TarInfo(name)
    facts.size = len(data)
    archive.addfile(facts, io.BytesIO(data))
