"""A prompt over HTTP, asked by a client in the same process."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlprompt import PromptClassifier, PromptedCLIP

fastapi = pytest.importorskip("fastapi")
testclient = pytest.importorskip("fastapi.testclient")

from vlprompt.serve import PAGE, Server, app_of  # noqa: E402


@pytest.fixture(scope="module")
def server(clip_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    place = tmp_path_factory.mktemp("prompt")
    PromptedCLIP(clip_dir, "coop", class_names=["cat", "dog", "bird"]).save(place)
    return Server(classifier=PromptClassifier.load(place), max_bytes=100_000, max_pixels=10_000)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[testclient.TestClient]:
    with testclient.TestClient(app_of(server)) as running:
        yield running


def picture(seed: int = 0, side: int = 40) -> bytes:
    file = io.BytesIO()
    made = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
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
        (b"no picture", {}, 415, "no picture"),
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


def test_pages_need_no_other_server(client: testclient.TestClient) -> None:
    assert client.get("/classes").json() == {"classes": ["cat", "dog", "bird"], "takes_others": True}
    assert client.get("/health").json()["status"] == "ok"
    assert "POST /predict" in client.get("/docs").text
    assert client.get("/").text == PAGE.read_text(encoding="utf-8")
    assert "http" not in client.get("/").text + client.get("/docs").text
