"""Any picture as RGB, the way a person sees it."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vlprompt import reading
from vlprompt.data.samples import Decoding, Sample
from vlprompt.errors import UserError, data_error

PictureSource = bytes | str | Path | Image.Image | NDArray[Any] | torch.Tensor
WHITE = (255, 255, 255, 255)
Image.init()
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "TGA", "ICO", "PPM")
    if name in Image.OPEN
)
"""What is opened, whatever a file is called: Pillow knows more, and hands PostScript to another program."""
LARGE = 1 << 24
"""Pixels; above it, one image at a time is decoded, and converted by rows."""
STRIP = LARGE >> 4
"""Pixels that are converted at once of such a picture: a conversion holds four copies of them."""
MOST_WHOLE = {"WEBP": 1 << 26, "AVIF": 1 << 26}
"""Format -> pixels; their decoders cannot decode at a smaller size, and hold 16 bytes for each pixel: 1 GiB here."""
MAX_BYTES = 1 << 30
MAX_SIDE = 1 << 20
"""Pixels of an edge: Pillow keeps 8 bytes for each row of every copy, and no camera makes such strips."""
_one_large = threading.RLock()


def open_image(source: PictureSource, *, name: str | None = None, decoding: Decoding = "upright") -> Image.Image:
    """An image as 8-bit RGB.

    Files (a path or the bytes): the first frame, turned as EXIF says; transparency on white; 16-bit grey scaled, not
    clipped; CMYK converted. With decoding ``published`` Pillow's ``convert("RGB")`` and nothing else: neither turned nor scaled,
    and what stands below a transparent pixel shows. Arrays: (H, W) or (H, W, C), C = 1, 3 or 4; tensors: (H, W) or (C, H, W);
    uint8, or float from 0 to 1. UserError (exit code 3) with the name: unreadable, truncated or empty files, more pixels than
    ``PIL.Image.MAX_IMAGE_PIXELS``, other shapes and values. (EXIF, white and scaling are the project's choice. The papers' data
    sets are read as their code reads them: KaiyangZhou/Dassl.pytorch, dassl/utils/tools.py, ``read_image``.)
    """
    with opened(source, name=name, decoding=decoding) as image:
        return image


@contextmanager
def opened(
    source: PictureSource, *, name: str | None = None, decoding: Decoding = "upright", least: int = 0
) -> Iterator[Image.Image]:
    """As `open_image`, for as long as the image is worked with: threads hold one image of more than 16 megapixels at a time.

    least: pixels of the short edge that are enough: a JPEG file is then decoded at 1/2, 1/4 or 1/8 of its size where that leaves as
    many, which takes less memory and time. 0: all pixels.
    """
    with ExitStack() as held:
        if isinstance(source, torch.Tensor):
            yield _from_array(_channels_last(source, name), name or "the tensor")
        elif isinstance(source, np.ndarray):
            yield _from_array(source, name or "the array")
        elif isinstance(source, Image.Image):
            yield _as_rgb(source, name or "the image")
        elif isinstance(source, str | Path):
            content = _content(Path(source).expanduser(), name or str(source))
            yield _decode(content, name or str(source), held, decoding, least)
        elif isinstance(source, bytes | bytearray | memoryview):
            yield _decode(bytes(source), name or "the image", held, decoding, least)
        else:
            raise UserError(
                f"an image cannot be made of {type(source).__name__}; give a path, bytes, PIL image, array or tensor."
            )


def picture(sample: Sample) -> Image.Image:
    """A sample as 8-bit RGB, decoded as its data set says. UserError as `open_image`."""
    return open_image(sample.read(), name=sample.id, decoding=sample.decoding)


def _content(path: Path, name: str) -> bytes:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise _bad(name, "not a regular file")
        return reading.data(path, most=MAX_BYTES)
    except OSError as error:
        raise _bad(name, f"cannot be read ({error.strerror})") from error


def _decode(data: bytes, name: str, held: ExitStack, decoding: Decoding, least: int) -> Image.Image:
    if not data:
        raise _bad(name, "an empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _require_few(image, name)
            if least:
                image.draft(None, (least, least))
            if image.width * image.height > LARGE:
                held.enter_context(_one_large)
            return _as_rgb(image, name, decoding, own=True)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        raise _bad(name, _reason(error, data)) from error


def _as_rgb(image: Image.Image, name: str, decoding: Decoding = "upright", *, own: bool = False) -> Image.Image:
    """own: nobody else has the image, so it may be changed and given back itself."""
    if image.format not in (None, "MPO", *FORMATS):
        raise _bad(name, f"a {image.format} file, which is not opened. Allowed: {', '.join(FORMATS)}")
    _require_few(image, name)
    try:
        image.load()
        if own:
            _let_go(image)
        _require_few(image, name)  # an icon may hold a larger picture than it says
        if decoding == "published":
            image.info.pop("transparency", None)  # Pillow warns of it, and then leaves it away
            return image.convert("RGB")
        upright = _upright(image, own)
        if own and upright.mode == "RGB" and "transparency" not in upright.info:
            return upright
        if upright.width * upright.height <= LARGE:
            return _flatten(upright)
        return _flatten_by_rows(upright, max(1, STRIP // upright.width))
    except MemoryError:
        raise
    except Exception as error:  # as above, for images that were opened elsewhere and are read only now
        raise _bad(name, _reason(error)) from error


def _let_go(image: Image.Image) -> None:
    """Drop the decoder, which Pillow keeps for further frames: it holds two frames of a WebP or AVIF file, 8 bytes for each pixel."""
    if getattr(image, "_decoder", None) is not None:
        image._decoder = None  # type: ignore[attr-defined]


def _require_few(image: Image.Image, name: str) -> None:
    whole = MOST_WHOLE.get(image.format or "")
    if whole is not None and image.width * image.height > whole:
        raise _bad(
            name,
            f"too many pixels for {image.format} ({image.width} x {image.height}); the limit is {whole}, since it cannot be decoded at a "
            "smaller size. Save it smaller, or as JPEG",
        )
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise _bad(name, f"too many pixels ({image.width} x {image.height}); the limit is {limit}")
    if max(image.size) > MAX_SIDE:
        raise _bad(name, f"too long an edge ({image.width} x {image.height} pixels); the limit is {MAX_SIDE}")


def _flatten_by_rows(image: Image.Image, rows: int) -> Image.Image:
    """As `_flatten`, some rows at a time: a conversion of a whole large picture holds several copies of it."""
    scale = None
    if _is_deep(image):  # 20 bytes and more for a pixel of the part
        rows = max(1, rows // 2)
        scale = _scale(np.asarray(part) for _, part in _parts(image, rows))
    out = Image.new("RGB", image.size)
    for top, part in _parts(image, rows):
        out.paste(_flatten(part, scale), (0, top))
    return out


def _parts(image: Image.Image, rows: int) -> Iterator[tuple[int, Image.Image]]:
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _reason(error: Exception, data: bytes = b"") -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"too many pixels; the limit is {Image.MAX_IMAGE_PIXELS}"
    if isinstance(error, UnidentifiedImageError):
        return (
            "a vector drawing (SVG), not pixels" if b"<svg" in data[:4096].lower() else "not an image that can be read"
        )
    return "truncated: the end is missing" if "truncated" in str(error).lower() else f"damaged ({error})"


def _upright(image: Image.Image, own: bool) -> Image.Image:
    """The image turned as its EXIF block says; a damaged block says nothing. own: turned itself, without a copy."""
    try:
        if own:
            ImageOps.exif_transpose(image, in_place=True)
            return image
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, ArithmeticError):
        return image


def _flatten(image: Image.Image, scale: tuple[float, float] | None = None) -> Image.Image:
    if _is_deep(image):
        grey = np.asarray(image)
        return Image.fromarray(_to_bytes(grey, scale or _scale([grey]))).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image.convert("RGB")


def _scale(parts: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """What becomes 0, and how much more becomes 255, of the parts of a grey image of more than 8 bits.

    Integers are 16-bit (0 .. 65535), floats 0 .. 1 or 0 .. 255; where values lie outside, least and greatest become
    0 and 255.
    """
    low, high, whole = math.inf, -math.inf, True
    for grey in parts:
        least, most = float(grey.min()), float(grey.max())
        if not (math.isfinite(least) and math.isfinite(most)):
            raise ValueError("grey values that are not finite")
        low, high, whole = min(low, least), max(high, most), grey.dtype.kind in "iu"
    full = 65535.0 if whole else (1.0 if high <= 1 else 255.0)
    return (low, max(high - low, 1e-30)) if low < 0 or high > full else (0.0, full)


def _to_bytes(grey: NDArray[Any], scale: tuple[float, float]) -> NDArray[np.uint8]:
    low, full = scale
    values = grey.astype(np.float64)
    if low:
        values -= low
    return np.rint(values * (255 / full)).astype(np.uint8)


def _channels_last(tensor: torch.Tensor, name: str | None) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    if tensor.dim() == 3:
        if tensor.shape[0] not in (1, 3, 4):
            raise _bad(
                name or "the tensor", f"shape {tuple(tensor.shape)}; a tensor must be (H, W) or (C, H, W), C = 1, 3, 4"
            )
        tensor = tensor.permute(1, 2, 0)
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _from_array(array: NDArray[Any], name: str) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise _bad(name, f"shape {array.shape}; one image must be (H, W) or (H, W, C), C = 1, 3, 4 (tensors: C first)")
    if array.dtype.kind == "f":
        # Written so that NaN fails too.
        if not (array.min() >= 0 and array.max() <= 1):
            raise _bad(name, "floats must lie between 0 and 1 (divide by 255, or give uint8)")
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise _bad(name, f"type {array.dtype}; it must be uint8, or float from 0 to 1")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return _as_rgb(Image.fromarray(np.ascontiguousarray(array)), name)


def _bad(name: str, reason: str) -> UserError:
    return data_error(f"{name}: {reason}.")
