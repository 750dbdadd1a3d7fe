"""The zip archives of `torch.save` and `torch.jit.save` -> tensors by name, without executing anything of them."""

from __future__ import annotations

import math
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vlprompt.errors import data_error
from vlprompt.towers.formats import pickle_reader
from vlprompt.towers.formats.pickle_reader import Module, Name, PickleRefused, StorageRef, TensorRef

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
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    ValueError,
    OverflowError,
)
"""What zipfile raises on files that are not whole."""
_MAX_ATTRIBUTES, _MAX_SOURCE = 100_000, 2**22


NESTED = ("state_dict", "model_state_dict", "model")
"""Where training checkpoints keep the state dict."""


def read_archive(path: Path, *, nested: bool = False) -> dict[str, Tensor]:
    """The state dict in a file: a plain one, or the parameters and buffers of a TorchScript module.

    `nested`: also a training checkpoint's, under the key "state_dict", whose names may begin with "module.". Raises UserError for
    files that are damaged (every part has a checksum) or ask for anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return _read(_Archive(file), nested)
    except PickleRefused as error:
        raise data_error(
            f"{path} {error}. Nothing of the file was executed. Allowed: an archive of tensors by name, as torch.save(model.state_dict(), "
            f"...) writes it, or of a TorchScript module. Get it from its publisher again, or save the state dict anew."
        ) from error
    except _DAMAGED as error:
        raise data_error(
            f"{path} is damaged, cut short, or no archive of torch.save: {error}. Fetch it again (files of torch before 1.6 must be "
            f"saved anew with a later one)."
        ) from error


class _Archive:
    """The parts of one open file, under whatever folder name its writer chose."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        roots = [name[: -len("data.pkl")] for name in file.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise PickleRefused(f"holds {len(roots)} parts called data.pkl instead of one")
        self.file, self.root = file, roots[0]
        self.storages: dict[StorageRef, Tensor] = {}
        self.declared: dict[Name, set[str] | None] = {}
        if f"{self.root}byteorder" in file.namelist() and self.part("byteorder") != sys.byteorder.encode():
            raise PickleRefused(f"was written on a machine with another byte order than this one's ({sys.byteorder})")

    def part(self, name: str, size: int | None = None) -> bytes:
        """The bytes of one part; its checksum is compared while it is read."""
        try:
            entry = self.file.getinfo(self.root + name)
        except KeyError:
            raise PickleRefused(f"is damaged: its part {name} is missing") from None
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise PickleRefused(f"has a part {name} that is compressed or encrypted, which torch.save never does")
        if size not in (None, entry.file_size):
            raise PickleRefused(f"is damaged: its part {name} has {entry.file_size} bytes instead of {size}")
        return self.file.read(entry)

    def tensor(self, ref: TensorRef) -> Tensor:
        """The tensor that a reference describes; it must lie within its storage, every number used at most once."""
        kind, key, length = ref.storage
        dtype = _DTYPES[kind]
        last = ref.offset + sum((n - 1) * step for n, step in zip(ref.size, ref.stride))
        count = math.prod(ref.size)
        if count > length or (count and last >= length):
            raise PickleRefused(f"is damaged: a tensor of size {ref.size} in a storage of {length} numbers")
        if count == 0:
            return torch.empty(ref.size, dtype=dtype)
        if ref.storage not in self.storages:
            data = bytearray(self.part(f"data/{key}", length * dtype.itemsize))
            self.storages[ref.storage] = torch.frombuffer(data, dtype=dtype)
        return self.storages[ref.storage].as_strided(ref.size, ref.stride, ref.offset)

    def declares(self, kind: Name, attribute: str) -> bool:
        """Whether a TorchScript class lists a tensor as parameter or buffer: masks and other constants are plain attributes, and no
        part of its state dict. The lists are read as text off the class's source; without them every tensor counts."""
        if kind not in self.declared:
            self.declared[kind] = self._declared(kind)
        names = self.declared[kind]
        return names is None or attribute in names

    def _declared(self, kind: Name) -> set[str] | None:
        name = f"{self.root}code/{kind.module.replace('.', '/')}.py"
        if name not in self.file.namelist() or self.file.getinfo(name).file_size > _MAX_SOURCE:
            return None
        source = self.file.read(name).decode("utf-8", "replace")
        lists = r"  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]\n"
        found = re.search(rf"^class {re.escape(kind.attribute)}\(Module\):\n{lists}", source, re.MULTILINE)
        return set(re.findall(r'"([^"]*)"', f"{found[1]} {found[2]}")) if found else None


def _read(archive: _Archive, nested: bool) -> dict[str, Tensor]:
    found = pickle_reader.read(archive.part("data.pkl"))
    if isinstance(found, Module):
        return {name: archive.tensor(ref) for name, ref in _walk(found, archive)}
    inside = next((key for key in NESTED if isinstance(found, Mapping) and isinstance(found.get(key), Mapping)), None)
    if inside is not None:
        if not nested:
            raise PickleRefused(
                "is a training checkpoint, which does not say its activation (if it is open_clip's, put it as open_clip_pytorch_model.bin "
                "into a directory with the model's open_clip_config.json and give that directory)"
            )
        found = {str(name).removeprefix("module."): ref for name, ref in found[inside].items()}
    if not isinstance(found, Mapping):
        raise PickleRefused(f"holds a {type(found).__name__} instead of tensors by name")
    others = [name for name, ref in found.items() if not (isinstance(name, str) and isinstance(ref, TensorRef))]
    if others:
        raise PickleRefused(f"holds values that are not tensors: {', '.join(map(str, others[:5]))}")
    return {name: archive.tensor(ref) for name, ref in found.items()}


def _walk(top: Module, archive: _Archive) -> Iterator[tuple[str, TensorRef]]:
    """Every parameter and buffer of a TorchScript module tree under its dotted name."""
    waiting, seen = [("", top)], 0
    while waiting:
        prefix, module = waiting.pop()
        seen += 1 + len(module.attributes)
        if seen > _MAX_ATTRIBUTES:  # a hostile tree may contain itself
            raise PickleRefused(f"has more than {_MAX_ATTRIBUTES} attributes")
        for name, value in module.attributes.items():
            if isinstance(value, Module):
                waiting.append((f"{prefix}{name}.", value))
            elif isinstance(value, TensorRef) and archive.declares(module.kind, name):
                yield f"{prefix}{name}", value
