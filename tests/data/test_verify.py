"""Which of the images that are going to be used can be decoded."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.data.make import encoded, folder, noise, sample
from vlprompt.data import open_dataset, verify
from vlprompt.errors import DATA, UserError


def test_good_ones_in_order_and_bad_ones_with_the_reason(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat": 70, "dog": 3})
    (root / "cat/03.png").write_bytes(encoded(noise(1, 64, 64))[:300])
    (root / "cat/05.png").write_text("<svg/>", encoding="utf-8")
    (root / "cat/06.png").write_text("text", encoding="utf-8")
    data = open_dataset(root)
    (root / "dog/00.png").unlink()
    done: list[int] = []
    good, skipped = verify(data.train, progress=done.append)
    assert dict(skipped) == {
        "cat/03.png": "truncated: the end is missing",
        "cat/05.png": "a vector drawing (SVG), not pixels",
        "cat/06.png": "not an image that can be read",
        "dog/00.png": "cannot be read (No such file or directory)",
    }
    assert good == tuple(s for s in data.train if s.id not in dict(skipped))
    assert sum(done) == 73


def test_strict(tmp_path: Path) -> None:
    samples = [sample("a/1.png"), sample("a/2.png", data=b"text")]
    with pytest.raises(UserError, match=r"1 file cannot be used: a/2\.png \(not an image that can be read\)") as caught:
        verify(samples, strict=True)
    assert caught.value.exit_code == DATA
    assert verify(samples[:1], strict=True) == ((samples[0],), ())


def test_known_content_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = sample("a"), sample("b")
    known = {old.content_hash}
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(1) or original(*a, **k))
    assert verify([old, new], known=known)[0] == (old, new)
    assert len(opened) == 1
