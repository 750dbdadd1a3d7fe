"""Pictures that are something else, or far larger than their file."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from tests.data.make import noise
from tests.hostile import values
from vlprompt.data import images, open_image
from vlprompt.errors import DATA, UserError

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n"


@pytest.mark.parametrize(
    "data", [POSTSCRIPT, b"\xc5\xd0\xd3\xc6" + POSTSCRIPT, b"SIMPLE  =", b"8BPS\x00\x01", b"gimp xcf", b"<svg></svg>"]
)
def test_no_other_program_is_asked(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was asked")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", never)
    with pytest.raises(UserError, match=r"cat\.jpg") as problem:
        open_image(data, name="cat.jpg")
    assert problem.value.exit_code == DATA


def test_an_image_opened_elsewhere_is_asked_for_its_format(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="a EPS file"):
        open_image(Image.open(io.BytesIO(POSTSCRIPT)))


def test_no_device_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a regular file"):
        open_image("/dev/zero")
    with pytest.raises(UserError, match="cannot be read"):
        open_image(tmp_path / "nothing.png")


def test_a_strip_of_a_million_rows_is_refused() -> None:
    out = io.BytesIO()
    Image.new("1", (1, images.MAX_SIDE + 1)).save(out, "PNG")
    with pytest.raises(UserError, match="too long an edge"):
        open_image(out.getvalue())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16", "I", "F", "CMYK", "1"])
def test_a_large_picture_is_the_same_by_rows(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(0)
    if mode in ("I;16", "I", "F"):
        kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        picture = Image.fromarray(
            (numbers.random((40, 30)) * 3000 - (0 if mode == "I;16" else 900)).astype(kinds[mode])
        )
    else:
        picture = Image.fromarray(numbers.integers(0, 256, (40, 30, 4), dtype=np.uint8), "RGBA").convert(mode)
    if mode == "P":
        picture.info["transparency"] = 3
    whole = open_image(picture).tobytes()
    monkeypatch.setattr(images, "LARGE", 100)
    monkeypatch.setattr(images, "STRIP", 100)
    assert open_image(picture).tobytes() == whole


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_formats_that_are_decoded_whole_have_a_limit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (9, 99, 200)).save(out, kind)
    monkeypatch.setitem(images.MOST_WHOLE, kind, 40 * 30)
    found = open_image(out.getvalue())
    assert found.size == (40, 30)
    assert getattr(found, "_decoder", None) is None, "the decoder holds two more copies"
    monkeypatch.setitem(images.MOST_WHOLE, kind, 40 * 30 - 1)
    with pytest.raises(UserError, match=rf"too many pixels for {kind} \(40 x 30\).*or as JPEG") as problem:
        open_image(out.getvalue(), name="large")
    assert problem.value.exit_code == DATA


PEAK = """
import re, sys
from pathlib import Path
from vlprompt.data import open_image
def now(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[1]) * 1024
before = now("VmRSS")
image = open_image(sys.argv[1])
assert (image.mode, image.size) == ("RGB", (4500, 4000))
print((now("VmHWM") - before) / (4500 * 4000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read as Linux counts it")
@pytest.mark.parametrize(("kind", "most"), [("WEBP", 18), ("PNG", 10)])
def test_the_peak_of_a_large_transparent_picture(kind: str, most: int, tmp_path: Path) -> None:
    """Bytes for each pixel: a WebP decoder's copies (16), or a PNG's pixels and the result (8); no further copy on top."""
    Image.new("RGBA", (4500, 4000), (9, 99, 200, 128)).save(
        tmp_path / "large", kind, **{"method": 0} if kind == "WEBP" else {}
    )
    asked = [sys.executable, "-c", PEAK, str(tmp_path / "large")]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert 4 <= float(done.stdout) < most


def test_torn_pictures_are_pictures_or_user_errors() -> None:
    stream = random.Random(0)
    wholes = []
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "TGA", "ICO", "PPM"):
        out = io.BytesIO()
        noise(1).resize((32, 32)).save(out, kind)
        wholes.append(out.getvalue())
    for number in range(600):
        try:
            open_image(values.torn(wholes[number % len(wholes)], stream), name="torn")
        except UserError as problem:
            assert problem.exit_code == DATA  # noqa: PT017
