"""Every kind of picture as RGB, and every way in which one can be bad."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.make import encoded, noise
from vlprompt.data import open_image
from vlprompt.errors import DATA, UserError

ORIENTATION = 0x0112


def values(image: Image.Image) -> list[list[list[int]]]:
    assert image.mode == "RGB"
    return np.asarray(image).tolist()


def refused(source: object, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        open_image(source, name="cat/1.png")  # type: ignore[arg-type]
    assert caught.value.exit_code == DATA
    for word in ("cat/1.png", *words):
        assert word in str(caught.value)


def test_paths_bytes_and_pil_give_the_same(tmp_path: Path) -> None:
    picture = noise(1)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture))
    for source in (path, str(path), path.read_bytes(), picture, Image.open(path)):
        assert values(open_image(source)) == values(picture)


def test_a_pil_image_that_is_given_is_not_changed() -> None:
    picture = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    open_image(picture)
    assert picture.mode == "RGBA"
    assert picture.getpixel((0, 0)) == (10, 20, 30, 0)


def test_exif_turns_the_picture() -> None:
    """Orientation 6: the stored top row is the right-hand column of what is seen."""
    stored = Image.new("RGB", (2, 1))
    stored.putpixel((0, 0), (255, 0, 0))
    stored.putpixel((1, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    seen = open_image(encoded(stored, exif=exif))
    assert values(seen) == [[[255, 0, 0]], [[0, 0, 255]]]
    exif[ORIENTATION] = 3
    assert values(open_image(encoded(stored, exif=exif))) == [[[0, 0, 255], [255, 0, 0]]]


def clear() -> Image.Image:
    """A red picture that is half transparent, so that on white it would be pink."""
    return Image.new("RGBA", (2, 2), (200, 0, 0, 128))


def turned() -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return encoded(noise(1), exif=exif)


def palette() -> bytes:
    picture = noise(2).quantize(8)
    return encoded(picture, transparency=bytes([0, 128] + [255] * 6))


def deep() -> bytes:
    return encoded(Image.fromarray(np.array([[0, 100, 300, 60000]], dtype=np.uint16)))


PUBLISHED = {"turned": turned, "transparent": lambda: encoded(clear()), "palette": palette, "16-bit grey": deep}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_decoding_is_convert_rgb_alone(kind: str) -> None:
    """As the papers' code reads its data sets; everybody's own pictures are seen upright, on white and scaled."""
    data = PUBLISHED[kind]()
    with Image.open(io.BytesIO(data)) as stored:
        plain = values(stored.convert("RGB"))
    assert values(open_image(data, decoding="published")) == plain
    assert values(open_image(data)) != plain


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_decoding_warns_of_nothing(kind: str) -> None:
    open_image(PUBLISHED[kind](), decoding="published")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize(
    "exif", [b"garbage", b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01"]
)
def test_a_damaged_exif_block_says_nothing(exif: bytes) -> None:
    picture = encoded(noise(1), "JPEG", quality=95)
    damaged = encoded(noise(1), "JPEG", quality=95, exif=exif)
    assert values(open_image(damaged)) == values(open_image(picture))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_lies_on_white(kind: str) -> None:
    picture = Image.new("RGBA", (3, 1), (200, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    picture.putpixel((2, 0), (0, 100, 200, 51))
    data = encoded(picture, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    # 51 / 255 = 0.2: 0.2 * (0, 100, 200) + 0.8 * 255
    assert values(open_image(data)) == [[[200, 0, 0], [255, 255, 255], [204, 224, 244]]]


def test_grey_with_transparency() -> None:
    picture = Image.new("LA", (2, 1), (100, 255))
    picture.putpixel((1, 0), (0, 0))
    assert values(open_image(encoded(picture))) == [[[100] * 3, [255] * 3]]
    assert values(open_image(Image.new("La", (1, 1), (0, 0)))) == [[[255] * 3]]


def test_palette_with_a_transparent_entry() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.putpixel((1, 0), 1)
    assert values(open_image(encoded(picture))) == [[[0, 0, 0], [10, 20, 30]]]
    assert values(open_image(encoded(picture, transparency=0))) == [[[255, 255, 255], [10, 20, 30]]]
    half = encoded(picture, transparency=bytes([0, 255]))
    assert values(open_image(half)) == [[[255, 255, 255], [10, 20, 30]]]


def test_a_transparent_colour_of_an_rgb_picture() -> None:
    picture = Image.new("RGB", (2, 1), (1, 2, 3))
    picture.putpixel((1, 0), (9, 9, 9))
    assert values(open_image(encoded(picture, transparency=(1, 2, 3)))) == [[[255, 255, 255], [9, 9, 9]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    grey = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    assert [pixel[0] for pixel in values(open_image(encoded(Image.fromarray(grey), kind)))[0]] == [0, 1, 128, 255]


def test_wide_integers_and_floats_of_a_tiff() -> None:
    def greys(array: np.ndarray) -> list[int]:
        return [pixel[0] for pixel in values(open_image(encoded(Image.fromarray(array), "TIFF")))[0]]

    assert greys(np.array([[0, 65535]], dtype=np.int32)) == [0, 255]
    assert greys(np.array([[-100, 100]], dtype=np.int32)) == [0, 255]
    assert greys(np.array([[0.0, 0.2, 1.0]], dtype=np.float32)) == [0, 51, 255]
    assert greys(np.array([[0.0, 51.0, 255.0]], dtype=np.float32)) == [0, 51, 255]
    assert greys(np.array([[1000.0, 2000.0]], dtype=np.float32)) == [0, 255]
    refused(encoded(Image.fromarray(np.array([[np.nan]], dtype=np.float32)), "TIFF"), "not finite")


def test_cmyk_grey_bitmap_and_other_modes() -> None:
    assert values(open_image(encoded(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF"))) == [[[255, 0, 0]]]
    red = np.asarray(open_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")))
    assert np.abs(red.astype(int) - [255, 0, 0]).max() <= 3
    assert values(open_image(encoded(Image.new("L", (1, 1), 77)))) == [[[77] * 3]]
    assert values(open_image(encoded(Image.new("1", (1, 1), 1)))) == [[[255] * 3]]
    yellow = np.asarray(open_image(Image.new("RGB", (1, 1), (250, 240, 10)).convert("YCbCr")))
    assert np.abs(yellow.astype(int) - [250, 240, 10]).max() <= 2


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_a_moving_picture_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    more = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **more)
    assert values(open_image(data))[0][0] == [255, 0, 0]
    moved = Image.open(io.BytesIO(data))
    assert moved.n_frames == 3


def test_arrays() -> None:
    rgb = np.asarray(noise(3))
    assert values(open_image(rgb)) == rgb.tolist()
    assert values(open_image(rgb[:, :, 0])) == np.repeat(rgb[:, :, :1], 3, axis=2).tolist()
    assert values(open_image(rgb[:, :, :1])) == np.repeat(rgb[:, :, :1], 3, axis=2).tolist()
    assert values(open_image(rgb[::-1, ::2])) == rgb[::-1, ::2].tolist()
    assert values(open_image(rgb / 255.0)) == rgb.tolist()
    assert values(open_image((rgb / 255.0).astype(np.float32))) == rgb.tolist()
    assert values(open_image(np.array([[[0, 0, 0, 0]]], dtype=np.uint8))) == [[[255] * 3]]


def test_tensors_have_channels_first() -> None:
    rgb = torch.from_numpy(np.asarray(noise(3)).copy())
    chw = rgb.permute(2, 0, 1)
    assert values(open_image(chw)) == rgb.tolist()
    assert values(open_image(chw.float().requires_grad_() / 255)) == rgb.tolist()
    assert (
        values(open_image((chw[:1] > 100).to(torch.bfloat16))) == ((rgb[:, :, :1] > 100) * 255).repeat(1, 1, 3).tolist()
    )
    assert values(open_image(rgb[:, :, 0])) == rgb[:, :, :1].repeat(1, 1, 3).tolist()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((3, 8, 9), np.uint8), ["shape (3, 8, 9)", "(H, W, C)"]),
        (np.zeros((1, 8, 9, 3), np.uint8), ["one image"]),
        (np.zeros((0, 8, 3), np.uint8), ["shape (0, 8, 3)"]),
        (np.full((2, 2), 200.0), ["between 0 and 1", "uint8"]),
        (np.full((2, 2), -0.1), ["between 0 and 1"]),
        (np.full((2, 2), np.nan), ["between 0 and 1"]),
        (np.zeros((2, 2), np.int64), ["type int64", "uint8"]),
        (np.zeros((2, 2), bool), ["type bool"]),
        (torch.zeros(8, 9, 3), ["shape (8, 9, 3)", "(C, H, W)"]),
        (torch.zeros(2, 3, 8, 9), ["shape (2, 3, 8, 9)"]),
        (torch.zeros(3, 8, 8, dtype=torch.int32), ["type int32"]),
        (torch.full((3, 2, 2), 2.0), ["between 0 and 1"]),
    ],
)
def test_bad_arrays_and_tensors(source: object, words: list[str]) -> None:
    refused(source, *words)


def test_other_things() -> None:
    with pytest.raises(UserError, match="an image cannot be made of dict; give a path"):
        open_image({})  # type: ignore[arg-type]


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.png: cannot be read \(No such file"):
        open_image(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match="Is a directory"):
        open_image(str(tmp_path))


def test_unreadable_files() -> None:
    refused(b"", "an empty file (0 bytes)")
    refused(b"hello, this is no picture", "not an image that can be read")
    refused(b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "a vector drawing (SVG)")
    refused(encoded(noise(1))[8:], "not an image")


@pytest.mark.parametrize(("kind", "word"), [("PNG", "truncated"), ("JPEG", "truncated"), ("WEBP", ""), ("GIF", "")])
def test_truncated_files(kind: str, word: str) -> None:
    data = encoded(noise(1, 64, 64), kind)
    refused(data[: len(data) // 2], word)


def test_a_truncated_pil_image() -> None:
    data = encoded(noise(1, 64, 64))
    refused(Image.open(io.BytesIO(data[: len(data) // 2])), "truncated")


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises more than the file holds."""
    data = bytearray(encoded(Image.new("1", (1, 1))))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def test_decompression_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    refused(bomb(100_000, 100_000), "too many pixels", "89478485")
    refused(bomb(10_000, 10_000), "too many pixels")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refused(encoded(noise(1)), "too many pixels", "the limit is 100")
    refused(np.asarray(noise(1)), "too many pixels (12 x 10); the limit is 100")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert open_image(encoded(noise(1))).size == (12, 10)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=60)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
)
def test_damaged_files_give_an_image_or_a_user_error(kind: str, cut: float, changes: list[tuple[float, int]]) -> None:
    data = bytearray(encoded(noise(1), kind))
    for place, value in changes:
        data[int(place * len(data))] = value
    refusal = "x: "
    try:
        picture = open_image(bytes(data[: round(len(data) * (1 - cut))]), name="x")
    except UserError as error:
        picture, refusal = Image.new("RGB", (1, 1)), str(error)
    assert picture.mode == "RGB"
    assert refusal.startswith("x: ")
