"""The zip archives of `torch.save` and `torch.jit.save` -> tensors by name, without executing anything of them."""

from __future__ import annotations

import math
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlprompt.errors import DATA, UserError
from vlprompt.towers import pickle_reader
from vlprompt.towers.pickle_reader import Module, Refused, StorageRef, TensorRef

_DTYPES = {
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Double": torch.float64,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_MAX_TENSORS = 100_000


def read_archive(path: Path, *, nested: bool = False) -> dict[str, Tensor]:
    """The state dict in a file: a plain one, or the parameters and buffers of a TorchScript module.

    `nested`: also a training checkpoint's, under the key "state_dict", whose names may begin with "module.". Raises UserError for
    files that are damaged (every part has a checksum) or ask for anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return _read(_Archive(file), nested)
    except Refused as error:
        raise UserError(
            f"{path} {error}. Nothing of the file was executed. Allowed: an archive of tensors by name, as torch.save(model.state_dict(), "
            f"...) writes it, or of a TorchScript module. Get it from its publisher again, or save the state dict anew.",
            exit_code=DATA,
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UserError(
            f"{path} is damaged, cut short, or no archive of torch.save: {error}. Fetch it again (files of torch before 1.6 must be "
            f"saved anew with a later one).",
            exit_code=DATA,
        ) from error


class _Archive:
    """The parts of one open file, under whatever folder name its writer chose."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        roots = [name[: -len("data.pkl")] for name in file.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise Refused(f"holds {len(roots)} parts called data.pkl instead of one")
        self.file, self.root = file, roots[0]
        self.storages: dict[StorageRef, Tensor] = {}
        if f"{self.root}byteorder" in file.namelist() and self.part("byteorder") != sys.byteorder.encode():
            raise Refused(f"was written on a machine with another byte order than this one's ({sys.byteorder})")

    def part(self, name: str, size: int | None = None) -> bytes:
        """The bytes of one part; its checksum is compared while it is read."""
        try:
            entry = self.file.getinfo(self.root + name)
        except KeyError:
            raise Refused(f"is damaged: its part {name} is missing") from None
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise Refused(f"has a part {name} that is compressed or encrypted, which torch.save never does")
        if size not in (None, entry.file_size):
            raise Refused(f"is damaged: its part {name} has {entry.file_size} bytes instead of {size}")
        return self.file.read(entry)

    def tensor(self, ref: TensorRef) -> Tensor:
        """The tensor that a reference describes; it must lie within its storage, every number used at most once."""
        kind, key, length = ref.storage
        dtype = _DTYPES[kind]
        last = ref.offset + sum((n - 1) * step for n, step in zip(ref.size, ref.stride))
        count = math.prod(ref.size)
        if count > length or (count and last >= length):
            raise Refused(f"is damaged: a tensor of size {ref.size} in a storage of {length} numbers")
        if count == 0:
            return torch.empty(ref.size, dtype=dtype)
        if ref.storage not in self.storages:
            data = bytearray(self.part(f"data/{key}", length * dtype.itemsize))
            self.storages[ref.storage] = torch.frombuffer(data, dtype=dtype)
        return self.storages[ref.storage].as_strided(ref.size, ref.stride, ref.offset)


def _read(archive: _Archive, nested: bool) -> dict[str, Tensor]:
    found = pickle_reader.read(archive.part("data.pkl"))
    if isinstance(found, Module):
        return {name: archive.tensor(ref) for name, ref in _walk(found)}
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        if not nested:
            raise Refused(
                "is a training checkpoint, which does not say its activation (if it is open_clip's, put it as open_clip_pytorch_model.bin "
                "into a directory with the model's open_clip_config.json and give that directory)"
            )
        found = {str(name).removeprefix("module."): ref for name, ref in found["state_dict"].items()}
    if not isinstance(found, Mapping):
        raise Refused(f"holds a {type(found).__name__} instead of tensors by name")
    others = [name for name, ref in found.items() if not (isinstance(name, str) and isinstance(ref, TensorRef))]
    if others:
        raise Refused(f"holds values that are no tensors: {', '.join(map(str, others[:5]))}")
    return {name: archive.tensor(ref) for name, ref in found.items()}


def _walk(top: Module) -> Iterator[tuple[str, TensorRef]]:
    """Every tensor of a TorchScript module tree under its dotted name."""
    waiting: list[tuple[str, Any]] = [("", top)]
    for _ in range(_MAX_TENSORS):  # a hostile tree may contain itself
        if not waiting:
            return
        prefix, value = waiting.pop()
        if isinstance(value, TensorRef):
            yield prefix, value
        elif isinstance(value, Module):
            start = f"{prefix}." if prefix else ""
            waiting.extend((start + str(name), part) for name, part in value.attributes.items())
    raise Refused(f"has more than {_MAX_TENSORS} attributes")
