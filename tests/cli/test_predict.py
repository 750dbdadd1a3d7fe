"""Which classes `predict` is asked about, and that each picture is decoded once, however many there are."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Vlprompt
from tests.data.serving import Behaviour, serving
from vlprompt.cli import predict
from vlprompt.data import frames, images
from vlprompt.errors import UserError


def classes(vlprompt: Vlprompt, trained: Path, photos: Path, *asked: object) -> set[str]:
    options = [part for one in asked for part in ("--classes", one)]
    done = vlprompt("predict", trained, photos / "red/0.png", *options, "--json", "--device", "cpu")
    assert done.code == 0, done.err
    return {one["class"] for one in json.loads(done.out)[0]["top"]}


def test_classes_are_names_or_a_file_of_names(vlprompt: Vlprompt, trained: Path, photos: Path, tmp_path: Path) -> None:
    for name, text in (("a.txt", "\ufeffbird\r\npepper, bell\r\n"), ("a.json", '["bird", "pepper, bell"]')):
        (tmp_path / name).write_bytes(text.encode())
        assert classes(vlprompt, trained, photos, tmp_path / name) == {"bird", "pepper, bell"}
    for asked in (('bird,"pepper, bell"',), ('["bird", "pepper, bell"]',), ("bird", '"pepper, bell"')):
        assert classes(vlprompt, trained, photos, *asked) == {"bird", "pepper, bell"}


def test_one_picture_loads_nothing_that_it_does_not_need(trained: Path, photos: Path) -> None:
    heavy = ("sklearn", "scipy", "pandas", "optuna", "matplotlib", "jinja2", "torch._dynamo", "torch._inductor")
    heavy += ("huggingface_hub", "transformers", "onnx", "fastapi", "datasets", "ray")
    picture = photos / "red/0.png"
    code = (
        f"import sys, vlprompt.cli; assert vlprompt.cli.run(['predict', {str(trained)!r}, {str(picture)!r}]) == 0; "
        f"found = [name for name in {heavy!r} if name in sys.modules]; assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("bird", "names one class ('bird')"),
        ("names.txt", "there is no such file"),
        ("some/names", "there is no such file"),
        ("bird,,bug", "an empty or a repeated name"),
        ("bird,bird", "an empty or a repeated name"),
        ('["bird", 1]', "not a JSON list of names"),
    ],
)
def test_classes_that_are_not_meant_so_are_refused(
    vlprompt: Vlprompt, trained: Path, photos: Path, asked: str, said: str
) -> None:
    done = vlprompt("predict", trained, photos / "red/0.png", "--classes", asked)
    assert done.code == 2
    assert said in " ".join(done.err.split())


def test_skipped_files_stand_in_json_and_csv(vlprompt: Vlprompt, trained: Path, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("text", encoding="utf-8")
    asked = ("predict", trained, photos / "red/0.png", bad, "--top", 2, "--device", "cpu")
    good, skipped = json.loads(vlprompt(*asked, "--json").out)
    assert good["class"] == good["top"][0]["class"]
    assert skipped == {"path": str(bad), "error": f"{bad}: not an image that can be read."}
    header, first, second = csv.reader(vlprompt(*asked, "--csv").out.splitlines())
    assert header == ["path", "class", "probability", "class 2", "probability 2", "error"]
    assert (first[1], float(first[2])) == (good["class"], pytest.approx(good["probability"]))
    assert second == [str(bad), "", "", "", "", skipped["error"]]


def test_each_picture_is_decoded_once_and_only_its_view_is_kept(
    vlprompt: Vlprompt, trained: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    honest = images._decode

    def counted(data: bytes, name: str, *rest: object) -> object:
        decoded.append(name)
        return honest(data, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "_decode", counted)
    done = vlprompt("predict", trained, photos, "--json", "--device", "cpu")
    assert len(json.loads(done.out)) == len(decoded) == len(set(decoded)) == 24


def test_a_phones_picture_is_named_with_what_to_do(vlprompt: Vlprompt, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "x.HEIC").write_bytes(b"\0\0\0\x24ftypheic" + b"\0" * 100)
    done = vlprompt("predict", trained, tmp_path / "x.HEIC")
    assert done.code == 3
    assert "HEIC" in done.err
    assert "convert" in done.err.lower() or "save" in done.err.lower()


def said_of(vlprompt: Vlprompt, trained: Path, *pictures: object) -> list[dict[str, object]]:
    done = vlprompt("predict", trained, *pictures, "--json", "--device", "cpu")
    assert done.code == 0, done.err
    found: list[dict[str, object]] = json.loads(done.out)
    return found


def test_an_address_is_fetched_and_a_bad_one_is_skipped(vlprompt: Vlprompt, trained: Path, photos: Path) -> None:
    picture = photos / "red/0.png"
    with serving() as server:
        server.files["a.png"] = Behaviour(picture.read_bytes(), kind="image/png")
        server.files["page"] = Behaviour(b"<html>", kind="text/html")
        url = server.url("a.png")
        fetched, local, *bad = said_of(vlprompt, trained, url, picture, server.url("page"), server.url("gone.png"))
    assert (fetched["path"], fetched["probability"]) == (url, pytest.approx(local["probability"]))
    assert "a page for people" in str(bad[0]["error"])
    assert "404" in str(bad[1]["error"])


class Piped(io.TextIOWrapper):
    """Standard input that is no terminal, or one."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


def test_a_picture_from_standard_input(
    vlprompt: Vlprompt, trained: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = photos / "red/0.png"
    monkeypatch.setattr(sys, "stdin", Piped(io.BytesIO(picture.read_bytes())))
    piped, local = said_of(vlprompt, trained, "-", picture)
    assert (piped["path"], piped["probability"]) == ("standard input", pytest.approx(local["probability"]))
    monkeypatch.setattr(sys, "stdin", Piped(io.BytesIO()))
    assert "an empty file" in vlprompt("predict", trained, "-").err
    monkeypatch.setattr("vlprompt.data.download.SMALL", 10)
    monkeypatch.setattr(sys, "stdin", Piped(io.BytesIO(picture.read_bytes())))
    assert "more than 10 bytes" in vlprompt("predict", trained, "-").err
    monkeypatch.setattr(Piped, "terminal", True)
    assert "Pipe one into it" in vlprompt("predict", trained, "-").err


def test_a_video_without_a_decoder_says_the_command(
    vlprompt: Vlprompt, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "av", None)
    done = vlprompt("predict", trained, tmp_path / "a.mp4")
    assert done.code == 3
    assert "pip install 'vlprompt[video]'" in done.err


def test_the_frames_of_a_video(vlprompt: Vlprompt, trained: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(25):
            pixels = np.zeros((48, 64, 3), np.uint8)
            pixels[..., min(number // 10, 1)] = 220  # a second of red, then green
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    shown = [np.asarray(images.open_image(one.read())).mean((0, 1)).argmax() for one in frames.frames(path, 0.5)]
    assert shown == [0, 0, 1, 1, 1]
    found = said_of(vlprompt, trained, path, "--every", 1)
    assert [one["path"] for one in found] == [f"{path} at {second} s" for second in range(3)]
    with pytest.raises(UserError, match=r"at most 10,000. Write --every"):
        frames.frames(path, 0.0001)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read as a video"):
        frames.frames(tmp_path / "list.mp4", 1)  # FFmpeg would open the files of the list
    path.write_bytes(b"no video")
    assert "cannot be read as a video" in vlprompt("predict", trained, path).err


def test_an_unsure_answer_is_none_of_these(vlprompt: Vlprompt, trained: Path, photos: Path, tmp_path: Path) -> None:
    asked = ("predict", trained, photos / "red/0.png", "--device", "cpu")
    (plain,) = json.loads(vlprompt(*asked, "--json").out)
    for below, name in ((plain["probability"] + 0.01, "none of these"), (plain["probability"] - 0.01, plain["class"])):
        (found,) = json.loads(vlprompt(*asked, "--json", "--reject", below).out)
        assert found == plain | {"class": name}
    assert "none of these" in vlprompt(*asked, "--reject", "1").out
    assert vlprompt(*asked, "--reject", "1", "--csv").out.splitlines()[1].split(",")[1] == "none of these"
    for wrong in ("2", "some"):
        assert "from 0 to 1" in vlprompt(*asked, "--reject", wrong).err
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    for facts in copy.rglob("prompt.json"):
        changed = json.loads(facts.read_text(encoding="utf-8")) | {"reject_below": 1.0, "temperature": 1e-3}
        facts.write_text(json.dumps(changed), encoding="utf-8")
    done = vlprompt("predict", copy, photos / "red/0.png", "--reject", "auto", "--json")
    assert json.loads(done.out)[0]["probability"] > plain["probability"], "a low temperature is sure"
    assert "Below 1.00" in done.err


@pytest.mark.parametrize(("columns", "shown"), [(72, 0), (98, 1), (200, 2)])
def test_a_picture_has_one_line_where_the_terminal_allows(
    columns: int, shown: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    top = (("ankle boot", 0.75), ("sandal with a heel", 0.2), ("bag", 0.05))
    predict._show([predict.Answer(f"photographs of clothes/picture {n}.webp", top) for n in range(3)], 3)
    said = capsys.readouterr()
    rows = [line for line in said.out.splitlines() if "picture " in line and ".webp" in line]
    assert len(rows) == 3
    assert all(len(re.findall(r"0\.\d\d", row)) == 1 + shown for row in rows), said.out
    assert ("left out for width" in said.err) == (shown < 2)


def test_many_pictures_have_progress(vlprompt: Vlprompt, trained: Path, photos: Path, tmp_path: Path) -> None:
    for n in range(predict.FEW + 1):
        shutil.copy(photos / "red/0.png", tmp_path / f"{n}.png")
    done = vlprompt("predict", trained, tmp_path, "--json", "--device", "cpu")
    assert f"classifying: {predict.FEW + 1}/{predict.FEW + 1}" in done.err
    assert "classifying" not in vlprompt("predict", trained, tmp_path / "0.png", "--json", "--device", "cpu").err
