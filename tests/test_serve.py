"""A prompt over HTTP, asked by a client in the same process."""

from __future__ import annotations

import io
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlprompt import PromptClassifier, PromptedCLIP, cli
from vlprompt.engine.dense import heat, laid_over, picture_logits

fastapi = pytest.importorskip("fastapi")
testclient = pytest.importorskip("fastapi.testclient")

from vlprompt.serve import LISTS, PAGE, WAITING, Server, app_of  # noqa: E402

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def server(clip_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    place = tmp_path_factory.mktemp("prompt")
    PromptedCLIP(clip_dir, "coop", class_names=["cat", "dog", "bird"]).save(place)
    return Server(classifier=PromptClassifier.load(place), max_bytes=100_000, max_pixels=10_000)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[testclient.TestClient]:
    with testclient.TestClient(app_of(server)) as running:
        yield running


def picture(seed: int = 0, side: int = 40, high: int | None = None) -> bytes:
    file = io.BytesIO()
    made = np.random.default_rng(seed).integers(0, 255, (high or side, side, 3), dtype=np.uint8)
    Image.fromarray(made).save(file, "PNG")
    return file.getvalue()


def test_it_answers_as_the_classifier(client: testclient.TestClient, server: Server) -> None:
    raw = client.post("/predict?by_hand=true", content=picture()).json()
    form = client.post("/predict?by_hand=true", files={"file": ("a.png", picture())}).json()
    assert raw == form
    wanted = server.classifier.predict_proba(Image.open(io.BytesIO(picture())))[0]
    assert raw["class"] == server.names[wanted.argmax()]
    np.testing.assert_allclose([one["probability"] for one in raw["top"]], sorted(wanted, reverse=True), rtol=1e-4)
    assert sum(one["probability"] for one in raw["by_hand"]) == pytest.approx(1)
    other = client.post("/predict", params={"classes": "tree\nhouse", "top": 1}, content=picture()).json()
    assert other["class"] in ("tree", "house")
    assert len(other["top"]) == 1


def test_pictures_that_come_together_are_answered_together(client: testclient.TestClient, server: Server) -> None:
    before = server.counts["batches"], server.counts["pictures"]
    alone = [client.post("/predict", content=picture(n)).json()["probability"] for n in range(8)]
    middle = server.counts["batches"]
    with ThreadPoolExecutor(8) as many:
        together = list(many.map(lambda n: client.post("/predict", content=picture(n)).json()["probability"], range(8)))
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    assert server.counts["pictures"] - before[1] == 16
    assert server.counts["batches"] - middle < 8
    assert f"vlprompt_pictures_total {server.counts['pictures']}\n" in client.get("/metrics").text


@pytest.mark.parametrize(
    ("body", "parameters", "code", "words"),
    [
        (b"x" * 100_001, {}, 413, "larger than"),
        (picture(side=101), {}, 413, "101 x 101 pixels"),
        (b"no picture", {}, 415, "cannot be read"),
        (b"", {}, 422, "empty"),
        (picture()[:-2000], {}, 422, "picture"),
        (picture(), {"classes": "cat,cat"}, 422, "different class names"),
    ],
)
def test_what_it_refuses(
    client: testclient.TestClient, body: bytes, parameters: dict[str, str], code: int, words: str
) -> None:
    answer = client.post("/predict", params=parameters, content=body)
    assert answer.status_code == code
    assert words in answer.json()["detail"]


def test_a_heat_map_is_that_of_explain(client: testclient.TestClient, server: Server) -> None:
    asked = {"of": "house", "classes": "tree\nhouse"}
    form = client.post("/heat", params={"of": "house"}, files={"file": picture()}, data={"classes": "tree\nhouse"})
    raw = client.post("/heat", params=asked, content=picture())
    assert raw.content == form.content
    assert raw.headers["content-type"] == "image/jpeg"
    shown = Image.open(io.BytesIO(raw.content)).convert("RGB")
    assert shown.size == (512, 512)
    whole = Image.open(io.BytesIO(picture())).resize((512, 512), Image.Resampling.BICUBIC)
    logits = picture_logits(server.asked(("tree", "house"), False), whole)
    wanted = laid_over(whole, heat(logits, [1, 0], whole.size)[0])
    np.testing.assert_allclose(np.asarray(shown, float), np.asarray(wanted, float), atol=60)
    assert np.abs(np.asarray(shown, float) - np.asarray(wanted, float)).mean() < 5
    assert client.post("/heat", params=asked | {"by_hand": True}, content=picture()).content != raw.content
    for of, body, words in (("bush", picture(), "unknown class 'bush'"), ("tree", picture(side=90, high=2), "narrow")):
        answer = client.post("/heat", params=asked | {"of": of}, content=body)
        assert answer.status_code == 422
        assert words in answer.json()["detail"]


def test_too_many_waiting_are_told_to_come_again(server: Server) -> None:
    busy = Server(classifier=server.classifier)
    for _ in range(WAITING):
        busy.queue.put_nowait(None)
    client = testclient.TestClient(app_of(busy))  # without `with` nothing works the queue off
    answer = client.post("/predict", content=picture())
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


def test_class_lists_that_are_kept_are_few(server: Server) -> None:
    for number in range(2 * LISTS):
        server.asked((f"class {number}", "other"), False)
    assert len(server.made) == LISTS
    assert server.asked(("class 15", "other"), False) is server.asked(("class 15", "other"), False)


def test_a_port_in_use_is_said_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.run(["serve", str(tmp_path), "--port", str(port)]) == 2
    assert f"--port {port}: Address already in use. Give another port" in " ".join(capsys.readouterr().err.split())


def test_pages_need_no_other_server(client: testclient.TestClient) -> None:
    assert client.get("/classes").json() == {
        "classes": ["cat", "dog", "bird"],
        "takes_others": True,
        "by_hand": "a photo of a {}.",
        "reject_below": None,
    }
    assert client.get("/health").json()["status"] == "ok"
    assert "POST /predict" in client.get("/docs").text
    assert client.get("/").text == PAGE.read_text(encoding="utf-8")
    assert "http" not in client.get("/").text + client.get("/docs").text


@pytest.fixture
def address(server: Server) -> Iterator[str]:
    """Where the server listens, as uvicorn runs it."""
    uvicorn = pytest.importorskip("uvicorn")
    fresh = Server(classifier=server.classifier)  # the other one's queue belongs to the event loop of `client`
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = uvicorn.Server(uvicorn.Config(app_of(fresh), log_level="warning"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://localhost:{listener.getsockname()[1]}/"
        running.should_exit = True
        thread.join()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_pages_curl_lines_work(address: str, tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(picture())
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    lines = re.findall(r"^curl .*", page, re.M)
    assert len(lines) == 5
    for line in lines:
        asked = line.replace("http://localhost:8000/", address).replace("curl ", "curl -sSf -m 60 ")
        done = subprocess.run(asked, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stderr}{done.stdout}"
    assert Image.open(io.BytesIO((tmp_path / "heat.jpg").read_bytes())).size == (512, 512)


@pytest.mark.slow
def test_load_is_held_and_nothing_lost(address: str, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(picture())
    command = [sys.executable, "-m", "benchmarks.serving", address, str(tmp_path / "picture.png"), "--seconds", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"lost\s+0 pictures", done.stdout), done.stdout


class Stopped:
    """Stands where uvicorn would serve: keeps where it listens, and ends at once."""

    def __init__(self, config: object) -> None:
        self.config = config

    def run(self, sockets: list[socket.socket]) -> None:
        addresses.append(sockets[0].getsockname()[:2])


addresses: list[tuple[str, int]] = []


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    uvicorn = pytest.importorskip("uvicorn")
    addresses.clear()
    monkeypatch.setattr(uvicorn, "Server", Stopped)
    return addresses


def test_the_command_says_the_address_and_warns_where_others_can_ask(
    clip_dir: Path, tmp_path: Path, stopped: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    PromptedCLIP(clip_dir, "coop", class_names=["cat", "dog"]).save(tmp_path)
    assert cli.run(["serve", str(tmp_path), "--port", "0", "--device", "cpu"]) == 0
    host, port = stopped[0]
    said = capsys.readouterr().err
    assert host == "127.0.0.1"
    assert f"Open http://127.0.0.1:{port}/ in a browser" in said
    assert "There is no password" not in said
    assert cli.run(["serve", str(tmp_path), "--port", "0", "--host", "0.0.0.0", "--device", "cpu"]) == 0
    host, port = stopped[1]
    said = " ".join(capsys.readouterr().err.split())
    assert host == "0.0.0.0"
    assert f"Open http://localhost:{port}/" in said
    assert "everyone who can reach this machine can ask. There is no password." in said
    assert cli.run(["serve", str(tmp_path / "nothing"), "--port", "0"]) in (2, 3)
    assert len(stopped) == 2


@pytest.mark.parametrize("there", [True, False])
def test_a_demo_opens_a_browser_where_there_is_one(
    there: bool,
    clip_dir: Path,
    tmp_path: Path,
    stopped: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or there)
    PromptedCLIP(clip_dir, "coop", class_names=["cat", "dog"]).save(tmp_path)
    assert cli.run(["demo", str(tmp_path), "--device", "cpu"]) == 0
    assert opened == [f"http://127.0.0.1:{stopped[0][1]}/"]
    assert ("No browser could be opened here" in capsys.readouterr().err) is not there
    assert cli.run(["demo", str(tmp_path), "--no-open", "--device", "cpu"]) == 0
    assert len(opened) == 1


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.run(["serve", str(tmp_path)]) == 2
    assert "pip install 'vlprompt[serve]'" in " ".join(capsys.readouterr().err.split())
