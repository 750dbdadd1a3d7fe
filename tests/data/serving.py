"""A server on this machine that gives files as a bad day would: cut, without ranges, changed, refused, or as a page."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How one path is served."""

    data: bytes
    ranges: bool = True
    tag: str | None = '"one"'
    kind: str = "application/octet-stream"
    cut_at: list[int] = field(default_factory=list)
    """For each request in turn: how many bytes are sent before the connection is closed; none left: all are."""
    status: list[int] = field(default_factory=list)
    """For each request in turn: an error in place of the file; none left: none."""
    moved_to: str = ""
    linked: str = ""
    """The SHA-256 that a redirect names, as the Hub does."""


@dataclass
class Server:
    """Where it is, what it serves, and what it was asked."""

    address: str
    files: dict[str, Behaviour] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(path, Range) of every request."""

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.partition("?")[0].lstrip("/")
            server.asked.append((name, self.headers.get("Range", "")))
            file = server.files.get(name)
            if file is None:
                self.send_error(404)
                return
            if file.status:
                self.send_error(file.status.pop(0))
                return
            if file.moved_to:
                self.send_response(302)
                self.send_header("Location", server.url(file.moved_to))
                self.send_header("X-Linked-ETag", f'"{file.linked}"')
                self.end_headers()
                return
            self._give(file)

        def _give(self, file: Behaviour) -> None:
            start = 0
            asked = self.headers.get("Range", "")
            same = self.headers.get("If-Range") in (None, file.tag)
            if asked and file.ranges and same:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(file.data):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(file.data) - 1}/{len(file.data)}")
            else:
                self.send_response(200)
            body = file.data[start:]
            self.send_header("Content-Type", file.kind)
            self.send_header("Content-Length", str(len(body)))
            if file.tag:
                self.send_header("ETag", file.tag)
            self.end_headers()
            if file.cut_at:
                body = body[: file.cut_at.pop(0)]
                self.close_connection = True
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[Server]:
    """The server, as long as the block lasts."""
    server = Server("")
    http = ThreadingHTTPServer(("localhost", 0), _handler(server))
    server.address = f"http://localhost:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
