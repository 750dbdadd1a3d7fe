"""Frozen image features on disk: computed once per image, model, preprocessing and view; shared by everything that asks.

    ROOT/features/SPACE/space.json    what the space is: model, preprocessing, view
    ROOT/features/SPACE/BLOCK.npy     (n, E) float32, never changed once there
    ROOT/features/SPACE/BLOCK.json    the n picture hashes of its rows, and the SHA-256 of BLOCK.npy

A block's name is made of its content, and its ``.json`` is renamed into place last: it alone means that the block is whole.
So processes need no locks: two that compute the same rows write two blocks, or one block twice. A block that does not fit
its ``.json`` is passed over and its rows are computed again.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import secrets
import time
import warnings
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprompt import disk, reading
from vlprompt.data.samples import Sample
from vlprompt.data.views import AUGMENTATION_VERSION, AnyView, ahead, pixels
from vlprompt.errors import NUMERICAL, UserError
from vlprompt.types import Preprocess

SCHEMA = 1
ROWS_PER_BLOCK = 4096
SECONDS_PER_BLOCK = 30.0
"""A block is written at the latest after so many rows or seconds: that much work a kill can lose."""


@dataclass(slots=True)
class Stats:
    """What a store has been asked for."""

    hits: int = 0
    """Features that were there."""
    computed: int = 0
    """Features that had to be encoded."""
    seconds: float = 0.0
    """Wall time, both together."""


class FeatureStore:
    """Features by image content. It knows no model: the caller names it and encodes.

    `root`: a cache directory (see `disk.default_root`); None: nothing is written, memory only.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self.stats = Stats()
        self.writable = root is not None
        self._spaces: dict[str, _Space] = {}

    def features(
        self,
        samples: Sequence[Sample],
        *,
        view: AnyView,
        model_key: str,
        preprocess: Preprocess,
        encode: Callable[[Tensor], Tensor],
        batch: int = 64,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """(n, E) float32: features of the test view (`view` None) or of training view `view` of every sample, in order.

        `encode` maps what `load_pixels` gives, (B, 3, S, S) float32 on the CPU, to (B, E), each row from its own image alone (a range
        of views is one row: (B, 1 + V, 3, S, S) to (B, (1 + V) E)); `model_key` must name
        all that decides its result (weights and their dtype). `progress` is called with the number of images just done.
        UserError: an image that cannot be read, features that are not finite (exit code 4).
        """
        started = time.perf_counter()
        if not samples:
            return torch.empty(0, 0)
        space = self._space(model_key, preprocess, view)
        hashes = [sample.picture_hash for sample in samples]
        rows = space.fetch(hashes)
        missing = {content: sample for content, sample in zip(hashes, samples, strict=True) if content not in rows}
        self.stats.hits += len(samples) - len(missing)
        self.stats.computed += len(missing)
        if progress:
            progress(len(samples) - len(missing))
        try:
            if missing:
                rows |= _compute(space, missing, preprocess, view, encode, batch, progress)
        finally:
            self.stats.seconds += time.perf_counter() - started
        return torch.from_numpy(np.stack([rows[content] for content in hashes]))

    def known(self, *, model_key: str, preprocess: Preprocess, view: AnyView) -> Set[str]:
        """Picture hashes of the images whose features are there, and which therefore could be decoded once."""
        space = self._space(model_key, preprocess, view)
        space.refresh()
        return space.place.keys()

    def _space(self, model_key: str, preprocess: Preprocess, view: AnyView) -> _Space:
        facts = {
            "schema": SCHEMA,
            "model": model_key,
            "preprocess": preprocess.settings,
            "view": [None, *view] if isinstance(view, range) else view,
            "augmentation": None if view is None else AUGMENTATION_VERSION,
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        if key not in self._spaces:
            directory = None if self.root is None else self.root / "features" / key
            self._spaces[key] = _Space(key, directory, facts, self)
        return self._spaces[key]

    def give_up(self, error: OSError) -> None:
        """Keep features in memory from now on; that is said once. What is on disk is still read."""
        warnings.warn(
            f"the feature cache {self.root} cannot be written ({error.strerror}); features are kept in memory. Make room, or set "
            "VLPROMPT_CACHE to another folder.",
            stacklevel=2,
        )
        self.writable = False


def _compute(
    space: _Space,
    missing: dict[str, Sample],
    preprocess: Preprocess,
    view: AnyView,
    encode: Callable[[Tensor], Tensor],
    batch: int,
    progress: Callable[[int], None] | None,
) -> dict[str, NDArray[np.float32]]:
    """Encode what is missing, decoding the next batch meanwhile; what is done is kept even if it is interrupted."""
    items = list(missing.items())
    batches = [items[start : start + batch] for start in range(0, len(items), batch)]
    done: dict[str, NDArray[np.float32]] = {}
    fresh: dict[str, NDArray[np.float32]] = {}
    written = time.monotonic()
    look = functools.partial(pixels, preprocess=preprocess, view=view)
    with closing(ahead(look, [[sample for _, sample in part] for part in batches])) as looks:
        try:
            for part, looked in zip(batches, looks, strict=True):
                with torch.no_grad():
                    features_BE = encode(torch.stack(looked))
                assert features_BE.shape[:-1] == (len(part),), f"{tuple(features_BE.shape)} for {len(part)} images"
                array = features_BE.detach().to("cpu", torch.float32).numpy().copy()
                _refuse_non_finite(array, [sample for _, sample in part])
                fresh |= {content: row for (content, _), row in zip(part, array, strict=True)}
                if progress:
                    progress(len(part))
                if len(fresh) >= ROWS_PER_BLOCK or time.monotonic() - written > SECONDS_PER_BLOCK:
                    space.add(fresh)
                    done |= fresh
                    fresh, written = {}, time.monotonic()
        finally:
            if fresh:
                space.add(fresh)
                done |= fresh
    return done


def _refuse_non_finite(array: NDArray[np.float32], samples: Sequence[Sample]) -> None:
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise UserError(
            f"the image tower gives features that are not finite, first for {samples[int(bad.argmax())].id}. "
            "Try --dtype float32; if that does not help, the model's files are damaged.",
            exit_code=NUMERICAL,
        )


@dataclass(slots=True)
class _Block:
    """Rows of one file, or in memory."""

    name: str
    hashes: tuple[str, ...]
    array: NDArray[np.float32] | None = None
    """In memory only."""
    digest: str = ""
    checked: bool = False


class _Space:
    """All blocks of one (model, preprocessing, view)."""

    def __init__(self, key: str, directory: Path | None, facts: dict[str, object], store: FeatureStore) -> None:
        self.key, self.directory, self.facts, self.store = key, directory, facts, store
        self.place: dict[str, tuple[_Block, int]] = {}
        self._seen: set[str] = set()

    def fetch(self, hashes: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The rows that are there, by content hash."""
        if any(content not in self.place for content in hashes):
            self.refresh()
        found: dict[str, NDArray[np.float32]] = {}
        arrays: dict[str, NDArray[np.float32] | None] = {}
        for content in hashes:
            if content in found or content not in self.place:
                continue
            block, row = self.place[content]
            if block.name not in arrays:
                arrays[block.name] = self._open(block)
            array = arrays[block.name]
            if array is not None:
                found[content] = np.array(array[row])
        return found

    def refresh(self) -> None:
        """Look for blocks that this or another process has written since."""
        if self.directory is None or not self.directory.is_dir():
            return
        for path in sorted(self.directory.glob("*.json")):
            if path.name == "space.json" or path.name in self._seen:
                continue
            block = self._parse(path)
            if block is not None:
                self._seen.add(path.name)
                self._enter(block)

    def add(self, rows: dict[str, NDArray[np.float32]]) -> None:
        """Keep new rows, on disk if the space has a directory."""
        array, block = np.stack(list(rows.values())), None
        if self.directory is not None and self.store.writable:
            try:
                block = self._written(self.directory, array, list(rows))
            except OSError as error:
                self.store.give_up(error)
        self._enter(block or _Block(f"memory-{len(self.place)}", tuple(rows), array=array))

    def _written(self, directory: Path, array: NDArray[np.float32], hashes: list[str]) -> _Block:
        buffer = io.BytesIO()
        np.save(buffer, array)
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        block = _Block(_block_name(digest, hashes), tuple(hashes), digest=digest)
        index = {"schema": SCHEMA, "space": self.key, "sha256": digest, "hashes": hashes}
        mark = f".{secrets.token_hex(8)}"
        if not (directory / "space.json").exists():
            disk.write_bytes(directory / "space.json", json.dumps(self.facts, indent=2).encode(), mark)
        disk.write_bytes(directory / f"{block.name}.npy", buffer.getvalue(), mark)
        disk.write_bytes(directory / f"{block.name}.json", json.dumps(index).encode(), mark)
        self._seen.add(f"{block.name}.json")
        return block

    def _enter(self, block: _Block) -> None:
        for row, content in enumerate(block.hashes):
            self.place.setdefault(content, (block, row))

    def _parse(self, path: Path) -> _Block | None:
        """The index of a block; None where it is torn or belongs elsewhere."""
        try:
            index = reading.json_object(path)
            digest, hashes = str(index["sha256"]), tuple(str(content) for content in index["hashes"])
            intact = index["schema"] == SCHEMA and path.stem == _block_name(digest, hashes)
            return _Block(path.stem, hashes, digest=digest) if intact and index["space"] == self.key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _open(self, block: _Block) -> NDArray[np.float32] | None:
        """A block's rows, mapped; None (and forgotten) where the file does not fit its index."""
        if block.array is not None:
            return block.array
        if self.directory is None:
            return None
        path = self.directory / f"{block.name}.npy"
        try:
            # The bytes are compared once per process; after that a block is only mapped.
            intact = block.checked or hashlib.sha256(path.read_bytes()).hexdigest() == block.digest
            array: NDArray[np.float32] | None = np.load(path, mmap_mode="r", allow_pickle=False) if intact else None
        except (OSError, ValueError, EOFError):
            array = None
        if array is None or array.dtype != np.float32 or array.ndim != 2 or len(array) != len(block.hashes):
            self.place = {content: at for content, at in self.place.items() if at[0] is not block}
            return None
        block.checked = True
        return array


def _block_name(digest: str, hashes: Iterable[str]) -> str:
    return hashlib.sha256((digest + "".join(hashes)).encode()).hexdigest()[:32]
