"""A learned prompt over HTTP: a picture in, probabilities out; and a page to try it on. Needs the extra `serve`."""

from __future__ import annotations

import asyncio
import html
import io
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, PlainTextResponse
from PIL import Image

from vlprompt.classifier import PromptClassifier
from vlprompt.data import open_image
from vlprompt.data.images import FORMATS
from vlprompt.engine.evaluate import probabilities, zero_shot
from vlprompt.errors import UserError
from vlprompt.inputs import samples

PAGE = Path(__file__).with_name("serve.html")
BATCH = 32
WAIT = 0.004
"""Seconds that a picture waits for others (project's choice)."""
MOST_CLASSES = 1000


@dataclass(kw_only=True)
class Server:
    """One prompt and what is counted of its work. One thread answers; pictures that come together are answered together."""

    classifier: PromptClassifier
    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    queue: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    @property
    def names(self) -> tuple[str, ...]:
        return self.classifier.learned.class_names

    @property
    def takes_names(self) -> bool:
        return not self.classifier.learned.method.prompt.reach.own_classes

    async def answer(self, picture: Image.Image, names: Sequence[str], by_hand: bool) -> list[list[float]]:
        """Probabilities of the learned prompt and, by_hand, of hand-written words."""
        done = asyncio.get_running_loop().create_future()
        await self.queue.put((picture, tuple(names), by_hand, done))
        out: list[list[float]] = await done
        return out

    async def work(self) -> None:
        while True:
            batch = [await self.queue.get()]
            await asyncio.sleep(WAIT)
            while len(batch) < BATCH and not self.queue.empty():
                batch.append(self.queue.get_nowait())
            for names, by_hand in dict.fromkeys((one[1], one[2]) for one in batch):
                same = [one for one in batch if (one[1], one[2]) == (names, by_hand)]
                await self._answer_together(same, names, by_hand)

    async def _answer_together(self, same: list[Any], names: tuple[str, ...], by_hand: bool) -> None:
        began = time.perf_counter()
        failed: Exception | None = None
        rows: list[list[list[float]]] = []
        try:
            rows = await asyncio.to_thread(self._rows, [one[0] for one in same], names, by_hand)
        except Exception as problem:
            failed = problem
        self.seconds += time.perf_counter() - began
        self.counts["batches"] += 1
        self.counts["pictures"] += len(same)
        for number, (*_, done) in enumerate(same):
            if done.cancelled():
                continue
            if failed is not None:
                done.set_exception(failed)
            else:
                done.set_result(rows[number])

    def _rows(self, pictures: list[Image.Image], names: tuple[str, ...], by_hand: bool) -> list[list[list[float]]]:
        own = self.classifier
        answers = [own.predict_proba(pictures, None if names == self.names else names).tolist()]
        if by_hand:
            template = own.learned.template
            words = zero_shot(own.clip, names, template, template)
            answers.append(
                probabilities(words.logits(samples(pictures, [0] * len(pictures)), own._loose_images)).tolist()
            )
        return [list(rows) for rows in zip(*answers, strict=True)]

    def picture(self, data: bytes) -> Image.Image:
        """The picture of a request. HTTPException: 413 too many pixels, 415 no picture, 422 damaged."""
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                width, height = opened.size
        except Image.DecompressionBombError:
            raise HTTPException(413, f"the picture has too many pixels. Allowed: {self.max_pixels}.") from None
        except Exception:
            raise HTTPException(415, "this is no picture that can be read. Send JPEG, PNG, WebP, GIF or BMP.") from None
        if width * height > self.max_pixels:
            raise HTTPException(413, f"the picture has {width} x {height} pixels. Allowed: {self.max_pixels} in all.")
        try:
            return open_image(data, name="the picture")
        except UserError as problem:
            raise HTTPException(422, str(problem)) from None

    async def body(self, request: Request) -> bytes:
        """The picture's bytes: the body, or the first file of a form. HTTPException: 413, 422."""
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > self.max_bytes:
                raise HTTPException(413, f"the request is larger than {self.max_bytes} bytes. Send a smaller picture.")
        if request.headers.get("content-type", "").startswith("multipart/"):

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": bytes(data), "more_body": False}

            async with Request(request.scope, receive).form() as form:
                for value in form.values():
                    if not isinstance(value, str):
                        return await value.read()
            raise HTTPException(422, "the form has no file. Send one: curl -F file=@picture.jpg URL.")
        if not data:
            raise HTTPException(422, "the body is empty. Send one picture: curl --data-binary @picture.jpg URL.")
        return bytes(data)

    def chosen(self, classes: str | None) -> tuple[str, ...]:
        """The class list of a request: a name per line, or commas. HTTPException 422."""
        if not classes:
            return self.names
        parts = classes.split("\n") if "\n" in classes else classes.split(",")
        names = tuple(filter(None, (part.strip() for part in parts)))
        if names == self.names:
            return names
        if not self.takes_names:
            raise HTTPException(422, "this prompt knows its own classes alone. Leave out `classes`.")
        if len(names) < 2 or len(set(names)) < len(names) or len(names) > MOST_CLASSES:
            raise HTTPException(422, f"give 2 to {MOST_CLASSES} different class names, a line for each or with commas.")
        return names


def app_of(server: Server) -> FastAPI:
    """The application: `POST /predict`, `GET /classes`, `/health`, `/metrics`, `/docs`, and the page at `/`."""

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(server.work())
        yield
        worker.cancel()

    app = FastAPI(title="vlprompt", lifespan=running, docs_url=None, redoc_url=None)

    @app.post("/predict")
    async def predict(
        request: Request, top: int = 5, classes: str | None = None, by_hand: bool = False
    ) -> dict[str, Any]:
        """Classify one picture: the body itself, or a file in a form. by_hand: also with hand-written words."""
        try:
            names = server.chosen(classes)
            picture = await asyncio.to_thread(server.picture, await server.body(request))
            rows = await server.answer(picture, names, by_hand)
        except UserError as problem:
            server.counts["refused"] += 1
            raise HTTPException(422, str(problem)) from None
        except HTTPException:
            server.counts["refused"] += 1
            raise
        lists = [_best(names, row, top) for row in rows]
        return {**lists[0][0], "top": lists[0], **({"by_hand": lists[1]} if by_hand else {})}

    @app.get("/classes")
    def classes() -> dict[str, Any]:
        """The classes it was learned on, and whether it can be asked about others."""
        return {"classes": list(server.names), "takes_others": server.takes_names}

    @app.get("/health")
    def health() -> dict[str, str]:
        """Whether it answers, and what it is."""
        learned = server.classifier.learned
        return {"status": "ok", "method": learned.method.name, "model": learned.model}

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> str:
        """Counters in Prometheus' text format."""
        kinds = {name: server.counts[name] for name in ("pictures", "batches", "refused")} | {"seconds": server.seconds}
        return "".join(f"# TYPE vlprompt_{n}_total counter\nvlprompt_{n}_total {value}\n" for n, value in kinds.items())

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    def docs() -> str:
        return _docs(app.openapi(), server)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> str:
        return PAGE.read_text(encoding="utf-8")

    return app


def _best(names: Sequence[str], row: Sequence[float], top: int) -> list[dict[str, Any]]:
    order = sorted(range(len(names)), key=lambda label: -row[label])
    return [{"class": names[label], "probability": row[label]} for label in order[: max(top, 1)]]


def _docs(schema: dict[str, Any], server: Server) -> str:
    """The paths, from the schema, without anything from another server."""
    rows = "".join(
        f"<tr><td><code>{verb.upper()} {path}</code></td><td>{html.escape(str(one.get('description', '')))}</td><td>"
        + html.escape(", ".join(parameter["name"] for parameter in one.get("parameters", [])))
        + "</td></tr>"
        for path, verbs in schema["paths"].items()
        for verb, one in verbs.items()
    )
    head = "<!doctype html><meta charset=utf-8><title>vlprompt</title><body style='font:16px sans-serif;margin:2em'>"
    limits = f"A request has at most {server.max_bytes} bytes, a picture {server.max_pixels} pixels."
    return f"{head}<h1>vlprompt</h1><p>{limits} Schema: <a href=openapi.json>openapi.json</a></p><table>{rows}</table>"
