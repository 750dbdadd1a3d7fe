"""Tar shards in the WebDataset layout: read by number, from disk or over http(s), each shard fetched whole and once per machine.

A sample is the members of one tar whose names agree up to the first dot of the file name: an image (``000012.jpg``) and its label
(``000012.cls``, a whole number; or ``000012.json`` with a ``label``). ``shards.json`` next to the tars has the number of
samples of each and the class names. Without it the tars on disk are counted, and names come from a file. A tar or a sample that cannot
be read is a UserError of that sample alone, so the reader counts and skips it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import random
import re
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import quote, urljoin

from vlprompt import disk, reading
from vlprompt.data.archive import forwards
from vlprompt.data.class_names import named
from vlprompt.data.download import Spool, is_url
from vlprompt.data.folders import has_image_name
from vlprompt.data.images import open_image
from vlprompt.data.large.corpus import Corpus, Listed, Offsets, Pool, listed_identity
from vlprompt.data.samples import DEFAULT_TEMPLATE, Decoding, Sample, Skipped
from vlprompt.errors import UserError, data_error

MANIFEST = "shards.json"
SCHEMA = 1
HELD_OUT = ("val", "test")
OPEN = 512
"""Shards whose members are remembered at once in each process; a step of pretraining touches up to 256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One tar, as ``shards.json`` names it."""

    file: str
    """A path or a URL."""
    samples: int
    bytes: int | None = None
    """Its size, where known."""
    sha256: str | None = None


class Member(NamedTuple):
    """One sample of a tar: where its bytes lie."""

    key: str
    image: tuple[int, int] | None
    """(offset, size); None: there is no image."""
    suffix: str
    label: tuple[int, int] | None
    is_json: bool


class TarShards:
    """A pool of the samples of tars, numbered in the order of tars and of samples in them."""

    def __init__(self, shards: Sequence[Shard], num_classes: int, spool: Spool, decoding: Decoding = "upright") -> None:
        self.shards, self.num_classes, self.spool = tuple(shards), num_classes, spool
        self.decoding: Decoding = decoding
        self._offsets = Offsets([shard.samples for shard in shards])
        self._members: OrderedDict[int, tuple[Path, list[Member]]] = OrderedDict()
        self._lost: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def runs(self) -> tuple[int, ...]:
        return tuple(shard.samples for shard in self.shards)

    @property
    def identity(self) -> str:
        return listed_identity(
            f"{PurePosixPath(one.file).name} {one.samples} {one.sha256 or ''}" for one in self.shards
        )

    def sample(self, index: int) -> Sample:
        """The image of a number. The tar is opened here for its label; a damaged one is a UserError."""
        place, number = self._offsets.place(index)
        name = PurePosixPath(self.shards[place].file).name
        path, members = self._open(place)
        if number >= len(members):
            raise data_error(f"{name}: sample {number} is missing (the tar has {len(members)}).")
        member = members[number]
        where = f"{name}/{member.key}{member.suffix}"
        if member.image is None or member.label is None:
            lacks = "image" if member.image is None else "label (.cls or .json)"
            raise data_error(f"{where}: the sample has no {lacks}.")
        label = _label(read_at(path, *member.label), member.is_json, where)
        if not 0 <= label < self.num_classes:
            raise data_error(f"{where}: label {label} is none of {self.num_classes} classes.")
        source = functools.partial(read_at, path, *member.image)
        return Sample(id=where, label=label, source=source, decoding=self.decoding)

    def _open(self, place: int) -> tuple[Path, list[Member]]:
        if place in self._members:
            self._members.move_to_end(place)
            return self._members[place]
        if place in self._lost:
            raise data_error(self._lost[place])
        shard = self.shards[place]
        try:
            path = self.spool.path(shard.file, shard.bytes, shard.sha256)
            found = path, members(path)
        except UserError as error:
            self._lost[place] = str(error)
            raise
        self._members[place] = found
        if len(self._members) > OPEN:
            self._members.popitem(last=False)
        return found


def members(path: Path) -> list[Member]:
    """The samples of a tar in order. What stands before a damaged place is kept; UserError where nothing can be read."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    whole = os.path.getsize(path) if os.path.isfile(path) else 0  # a name may be too long to ask for
    try:
        with tarfile.open(path, "r:") as archive:
            try:
                for one in forwards(archive):
                    if one.isfile() and one.offset_data + one.size <= whole:
                        folder, _, name = one.name.rpartition("/")
                        stem, dot, suffix = name.partition(".")
                        key = f"{folder}/{stem}" if folder else stem
                        found.setdefault(key, {})[dot + suffix.lower()] = (one.offset_data, one.size)
            except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, MemoryError):
                pass  # the rest is counted as missing, sample by sample
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, MemoryError) as error:
        raise data_error(f"{path.name}: no readable tar ({error}).") from error
    return [_member(key, parts) for key, parts in found.items()]


def _member(key: str, parts: Mapping[str, tuple[int, int]]) -> Member:
    image = next((suffix for suffix in parts if has_image_name(f"x{suffix}")), "")
    label = next((suffix for suffix in (".cls", ".json") if suffix in parts), "")
    return Member(key, parts.get(image), image, parts.get(label), label == ".json")


def read_at(path: Path, offset: int, size: int) -> bytes:
    """Some bytes of a file; ValueError where it ends before."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise ValueError("the tar ends within it")
    return data


def _label(data: bytes, is_json: bool, where: str) -> int:
    try:
        value = reading.json_value(data, where)["label"] if is_json else reading.whole(data.decode().strip())
        if type(value) is not int:
            raise ValueError(reading.shown(value))
        return value
    except (ValueError, KeyError, TypeError) as error:
        raise data_error(f"{where}: its label is not a whole number ({error}).") from error


def open_shards(source: str, *, names: Mapping[str, str] | None = None, spool: Spool) -> Corpus:
    """The shards of a directory, of a URL of one, or of a ``shards.json`` in either.

    names: names of labels "0", "1", ... for tars on disk without ``shards.json``. UserError: nothing there, no names, a manifest of
    another version.
    """
    base = source if source.endswith(MANIFEST) else source.rstrip("/") + "/" + MANIFEST
    if is_url(source):
        return _from_manifest(spool.read(base), base, spool)
    path = Path(base).expanduser()
    if path.is_file():
        return _from_manifest(path.read_bytes(), str(path), spool)
    return _from_tars(path.parent, names, spool)


def is_shards(source: str) -> bool:
    """Whether `--data` means shards: a URL, a manifest, or a directory that holds one or tars."""
    path = Path(source).expanduser()
    if is_url(source) or path.name == MANIFEST:
        return True
    return path.is_dir() and ((path / MANIFEST).is_file() or any(path.glob("*.tar")))


def _from_manifest(data: bytes, base: str, spool: Spool) -> Corpus:
    try:
        found = reading.json_value(data, base)
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise ValueError(f"schema {reading.shown(found.get('schema')) if isinstance(found, dict) else 'none'}")
        facts = reading.typed(_Manifest, found, base)
        parts = {part: [_shard(base, one) for one in listed] for part, listed in facts.parts.items()}
    except ValueError as error:
        raise data_error(
            f"{base} is not a list of shards that this version reads ({error}). `vlprompt data shards` writes one."
        ) from error
    if sum(shard.samples for listed in parts.values() for shard in listed) > MOST:
        raise data_error(f"{base}: it lists more than {MOST:,} images.")
    if not any(shard.samples for shard in parts.get("train", [])):
        raise data_error(f"{base}: it lists no training images.")
    part = next((one for one in HELD_OUT if parts.get(one)), "val")
    class_names, decoding = tuple(facts.class_names), facts.decoding
    keys = [str(label) for label in range(len(class_names))]  # a comma is part of a name here
    *_, odd = named(keys, {key: name.replace(",", " ") for key, name in zip(keys, class_names, strict=True)})
    return Corpus(
        name=facts.name,
        class_names=class_names,
        template=facts.template,
        train=TarShards(parts["train"], len(class_names), spool, decoding),
        held_out=TarShards(parts.get(part, []), len(class_names), spool, decoding),
        held_out_part=part,
        notes=odd,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
    """The types of ``shards.json``."""

    schema: int
    name: str
    class_names: Sequence[str]
    parts: Mapping[str, Sequence[Mapping[str, object]]]
    template: str = DEFAULT_TEMPLATE
    decoding: Decoding = "upright"


MOST, MOST_UNSTATED = 10**9, 10**6
"""Samples of a list, and of a shard whose bytes are not listed."""
BYTES_PER_SAMPLE = 1024
"""Two headers of a tar, at least."""


def _shard(base: str, values: Mapping[str, object]) -> Shard:
    """ValueError: more samples than its bytes can hold, or a file that is somewhere else."""
    shard = reading.typed(Shard, values, base)
    most = MOST_UNSTATED if shard.bytes is None else shard.bytes // BYTES_PER_SAMPLE
    if not 0 <= shard.samples <= most:
        raise ValueError(
            f"{reading.shown(shard.file)} should have {shard.samples:,} samples, which its bytes cannot hold"
        )
    if shard.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", shard.sha256):
        raise ValueError(f"{reading.shown(shard.sha256)} is not a SHA-256")
    return replace(shard, file=_beside(base, shard.file))


def _beside(base: str, name: str) -> str:
    """A shard's place: a path from the list on, downwards; or a URL, which a list behind https gives as https."""
    if is_url(name) and not (base.startswith("https:") and not name.startswith("https:")):
        return name
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or any(sign in name for sign in "\\:\x00"):
        raise ValueError(f"the file {reading.shown(name)} is not below the list")
    return urljoin(base, quote(name)) if is_url(base) else os.path.join(os.path.dirname(base), name)


def _from_tars(directory: Path, names: Mapping[str, str] | None, spool: Spool) -> Corpus:
    """Tars without a manifest: all are training images."""
    tars = sorted(directory.glob("*.tar"))
    if not tars:
        raise data_error(f"{directory}: there is neither {MANIFEST} nor a .tar file in it.")
    if names is None:
        raise data_error(
            f"{directory} holds tars without {MANIFEST}, and nothing says what their labels mean. Give --class-names FILE with "
            f"lines of a label, a tab and a name, or JSON of label to name."
        )
    wrong = [key for key in names if reading.whole(key) is None]
    if wrong:
        raise UserError(
            f"the labels of shards are numbers, and the class-name file has others ({reading.shown(wrong[0])})."
        )
    keys = sorted(names, key=int)
    if keys != [str(label) for label in range(len(keys))]:
        raise data_error(f"the class-name file must name the labels 0 to {len(keys) - 1}, each once.")
    kept, chosen, odd = named(keys, names)
    if nameless := sorted(set(keys) - set(kept), key=int):
        raise data_error(f"labels without a name: {', '.join(nameless[:5])}.")
    shards = [Shard(file=str(path), samples=len(members(path)), bytes=path.stat().st_size) for path in tars]
    return Corpus(
        name=directory.resolve().name,
        class_names=chosen,
        train=TarShards(shards, len(chosen), spool),
        held_out=Listed(()),
        notes=odd,
    )


PER_SHARD = 1000
"""Images per tar: about 20 MB at 20 kB each, which is fetched in about a second and small compared with a machine's memory."""


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
    disk.write_json(
        out / MANIFEST,
        {
            "schema": SCHEMA,
            "name": corpus.name,
            "template": corpus.template,
            "class_names": list(corpus.class_names),
            "decoding": decoding_of(corpus.train),
            "parts": parts,
        },
    )
    return tuple(skipped)


def decoding_of(pool: Pool) -> Decoding:
    """How the files of a pool become RGB, by the first that can be read."""
    for number in range(len(pool)):
        try:
            return pool.sample(number).decoding
        except UserError:
            continue
    return "upright"


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
        chunk = order[start : start + per_shard]
        count = _write_tar(path, pool, chunk, start, skipped)
        if count:
            written.append(_described(path, count))
        else:
            path.unlink(missing_ok=True)
        if progress:
            progress(len(chunk))
    if not written:
        raise data_error(f"none of the {len(pool)} {part} images can be used.")
    return written


def _described(path: Path, count: int) -> dict[str, object]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "samples": count, "bytes": path.stat().st_size, "sha256": digest}


def _write_tar(path: Path, pool: Pool, numbers: Sequence[int], first: int, skipped: list[Skipped] | None) -> int:
    """One tar, whole or not at all; the number of its samples. Equal inputs give equal bytes."""
    samples: list[tuple[str, bytes, int]] = []
    for offset, number in enumerate(numbers):
        try:
            sample = pool.sample(number)
            data = sample.read()
            if skipped is not None:
                open_image(data, name=sample.id, decoding=sample.decoding)
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
