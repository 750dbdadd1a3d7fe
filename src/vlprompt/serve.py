"""A learned prompt over HTTP: a picture in, probabilities out; and a page to try it on. Needs the extra `serve`."""

from __future__ import annotations

import asyncio
import html
import io
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from PIL import Image
from starlette.requests import ClientDisconnect
from torch import Tensor

from vlprompt.classifier import PromptClassifier
from vlprompt.data import Sample
from vlprompt.data.images import FORMATS, opened
from vlprompt.data.views import pixels
from vlprompt.engine.dense import heat, laid_over, picture_logits
from vlprompt.engine.evaluate import Classifier, probabilities, zero_shot
from vlprompt.errors import UserError, unknown

PAGE = Path(__file__).with_name("serve.html")
BATCH = 32
WAIT = 0.004
"""Seconds that a picture waits for others (project's choice)."""
MOST_CLASSES = 1000
WAITING = 256
"""Pictures that wait at once; more are told to come again."""
LISTS = 8
"""Class lists whose features are kept."""
HEAT_SIDE, HEAT_RATIO, HEAT_RIVALS = 512, 6, 4
"""Of a heat map: pixels of the long edge; how many times the short edge that may be; likeliest classes that share its scale."""
Looked = tuple[Sample, Tensor]
"""A picture and its test view (3, S, S)."""


@dataclass(kw_only=True)
class Server:
    """One prompt and what is counted of its work. One thread answers; pictures that come together are answered together."""

    classifier: PromptClassifier
    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    queue: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    made: dict[tuple[tuple[str, ...], bool], Classifier] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return self.classifier.learned.class_names

    @property
    def takes_names(self) -> bool:
        return not self.classifier.learned.method.prompt.reach.own_classes

    async def answer(self, look: Looked, names: Sequence[str], by_hand: bool) -> list[list[float]]:
        """Probabilities of the learned prompt and, by_hand, of hand-written words. HTTPException 503: too many wait."""
        if self.queue.qsize() >= WAITING:
            raise HTTPException(503, "too many pictures are waiting. Try again in a moment.", {"Retry-After": "1"})
        done = asyncio.get_running_loop().create_future()
        await self.queue.put((look, tuple(names), by_hand, done))
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
            async with self.alone:
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

    def _rows(self, looks: list[Looked], names: tuple[str, ...], by_hand: bool) -> list[list[list[float]]]:
        samples = [sample for sample, _ in looks]
        images = self.classifier.seen({sample.id: view for sample, view in looks})
        answers = [probabilities(self.asked(names, False).logits(samples, images), self.classifier.learned.temperature)]
        if by_hand:
            answers.append(probabilities(self.asked(names, True).logits(samples, images)))
        return [list(rows) for rows in zip(*(one.tolist() for one in answers), strict=True)]

    def asked(self, names: tuple[str, ...], by_hand: bool) -> Classifier:
        """The learned prompt, or hand-written words, with a class list; the last few are remembered."""
        if (made := self.made.pop((names, by_hand), None)) is None:
            template = self.classifier.learned.template
            made = (
                zero_shot(self.classifier.clip, names, template, template) if by_hand else self.classifier.asked(names)
            )
        self.made[names, by_hand] = made
        while len(self.made) > LISTS:
            del self.made[next(iter(self.made))]
        return made

    def look(self, data: bytes) -> Looked:
        """The picture of a request. HTTPException: 413 too many pixels, 415 no picture, 422 damaged."""
        self.size(data)
        sample = Sample(id="the picture", label=0, source=data.__bytes__)
        view = pixels(sample, self.classifier.clip.preprocess, None, enough=True)
        return replace(sample, id=str(next(self.numbers))), view

    def size(self, data: bytes) -> tuple[int, int]:
        """(width, height). HTTPException as `look`."""
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as found:
                width, height = found.size
        except Image.DecompressionBombError:
            raise HTTPException(413, f"the picture has too many pixels. Allowed: {self.max_pixels}.") from None
        except Exception:
            raise HTTPException(415, "this picture cannot be read. Send JPEG, PNG, WebP, GIF or BMP.") from None
        if width * height > self.max_pixels:
            raise HTTPException(413, f"the picture has {width} x {height} pixels. Allowed: {self.max_pixels} in all.")
        return width, height

    def heat(self, data: bytes, names: tuple[str, ...], of: str, by_hand: bool) -> bytes:
        """A JPEG of the picture, red where it speaks for the class `of` and blue where it speaks against it; as `explain --image`.

        HTTPException as `look`, and 422: a long and narrow picture. UserError: another class; a method that learns from each picture.
        """
        if of not in names:
            raise unknown("class", of, names)
        edges = self.size(data)
        if max(edges) > HEAT_RATIO * min(edges):
            raise HTTPException(422, f"the picture is too long and narrow. Allowed: 1 to {HEAT_RATIO}.")
        with opened(data, name="the picture", least=HEAT_SIDE) as found:
            scale = HEAT_SIDE / max(found.size)
            image = found.resize([max(1, round(edge * scale)) for edge in found.size], Image.Resampling.BICUBIC)
            logits = picture_logits(self.asked(names, by_hand), image)
            label = names.index(of)
            best = logits.mean((1, 2)).topk(min(HEAT_RIVALS, len(names))).indices.tolist()
            drawn = laid_over(image, heat(logits, [label, *best], image.size)[0])
        file = io.BytesIO()
        drawn.save(file, "JPEG", quality=88)
        return file.getvalue()

    async def body(self, request: Request) -> tuple[bytes, str | None]:
        """The picture's bytes: the body, or the first file of a form; and the form's `classes`. HTTPException: 413, 422."""
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > self.max_bytes:
                raise HTTPException(413, f"the request is larger than {self.max_bytes} bytes. Send a smaller picture.")
        if request.headers.get("content-type", "").startswith("multipart/"):

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": bytes(data), "more_body": False}

            async with Request(request.scope, receive).form() as form:
                classes = form.get("classes")
                for value in form.values():
                    if not isinstance(value, str):
                        return await value.read(), classes if isinstance(classes, str) else None
            raise HTTPException(422, "the form has no file. Send one: curl -F file=@picture.jpg URL.")
        if not data:
            raise HTTPException(422, "the body is empty. Send one picture: curl --data-binary @picture.jpg URL.")
        return bytes(data), None

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
    """The application: `POST /predict`, `POST /heat`, `GET /classes`, `/health`, `/metrics`, `/docs`, and the page at `/`."""

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(server.work())
        yield
        worker.cancel()

    app = FastAPI(title="vlprompt", lifespan=running, docs_url=None, redoc_url=None)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, problem: HTTPException) -> JSONResponse:
        server.counts["refused"] += 1
        return JSONResponse({"detail": problem.detail}, problem.status_code, problem.headers)

    @app.exception_handler(UserError)
    async def impossible(_: Request, problem: UserError) -> JSONResponse:
        server.counts["refused"] += 1
        return JSONResponse({"detail": str(problem)}, 422)

    @app.exception_handler(ClientDisconnect)
    async def left(*_: object) -> Response:
        return Response(status_code=400)  # nobody reads it

    @app.post("/predict")
    async def predict(
        request: Request, top: int = 5, classes: str | None = None, by_hand: bool = False
    ) -> dict[str, Any]:
        """Classify one picture: the body itself, or a file in a form. by_hand: also with hand-written words."""
        data, listed = await server.body(request)
        names = server.chosen(classes or listed)
        rows = await server.answer(await asyncio.to_thread(server.look, data), names, by_hand)
        lists = [_best(names, row, top) for row in rows]
        return {**lists[0][0], "top": lists[0], **({"by_hand": lists[1]} if by_hand else {})}

    @app.post("/heat", response_class=Response)
    async def heat_map(request: Request, of: str, classes: str | None = None, by_hand: bool = False) -> Response:
        """A JPEG: the picture, red where it speaks for the class `of` and blue where it speaks against it."""
        data, listed = await server.body(request)
        names = server.chosen(classes or listed)
        async with server.alone:
            found = await asyncio.to_thread(server.heat, data, names, of, by_hand)
        return Response(found, media_type="image/jpeg")

    _pages(app, server)
    return app


def _pages(app: FastAPI, server: Server) -> None:
    """What is asked with GET."""

    @app.get("/classes")
    def classes() -> dict[str, Any]:
        """The classes it was learned on, whether it can be asked about others, and the hand-written words."""
        learned = server.classifier.learned
        return {
            "classes": list(server.names),
            "takes_others": server.takes_names,
            "by_hand": learned.template,
            "reject_below": learned.facts.get("reject_below"),
        }

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
