"""The four files of MNIST's layout: all images of a part in one array, all labels in another, each gzipped.

The layout: two zero bytes, one that names the type (8: bytes), one with the number of axes, a big-endian 32-bit length of each axis,
the values (the MNIST page; zalandoresearch/fashion-mnist utils/mnist_reader.py).
"""

from __future__ import annotations

import functools
import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlprompt.errors import DATA, UserError

BYTES, MOST = 8, 1 << 30


@functools.lru_cache(maxsize=4)
def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of a file: images (N, height, width) or labels (N,). UserError: not such a file."""
    try:
        with gzip.open(path) as file:
            kind, axes = file.read(4)[2:]
            shape = struct.unpack(f">{axes}I", file.read(4 * axes))
            wanted = math.prod(shape)
            data = file.read(wanted + 1) if axes in (1, 3) and wanted <= MOST else b""
    except (OSError, ValueError, EOFError, zlib.error, IndexError, struct.error) as error:
        raise UserError(f"{path}: cannot be read ({error}). Fetch it again.", exit_code=DATA) from error
    if kind != BYTES or len(data) != wanted:
        raise UserError(f"{path}: not a file of {wanted:,} bytes in {shape}. Fetch it again.", exit_code=DATA)
    return np.frombuffer(data, np.uint8).reshape(shape)


def idx_image(folder: str, path: str) -> bytes:
    """Image number n of a file as a PNG; `path` is ``FILE/n``."""
    file, _, number = path.rpartition("/")
    out = io.BytesIO()
    Image.fromarray(read_idx(Path(folder, file))[int(number)]).save(out, "PNG")
    return out.getvalue()
