"""Folders in the ImageNet-21K layout, shards of them, and a server that hands them out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.images import write_squares

NAMES = {
    "n00000001": "cat, house cat",
    "n00000002": "dog",
    "n00000003": "bird",
    "n00000004": "red circle",
    "n00000005": "dog",
    "n00000006": "green truck",
    "n00000007": "",
}
"""Synonyms, a name that two classes have, and a class without a name."""
USED = 6


def write_imagenet(root: Path, *, train: int = 5, val: int = 2, seed: int = 0) -> Path:
    """train / val folders of class folders named by WordNet ids, and the file of their names."""
    shades = {
        key: ((97 * label) % 256, (53 * label + 80) % 256, (31 * label + 160) % 256) for label, key in enumerate(NAMES)
    }
    parts = {"imagenet21k_train": train, "imagenet21k_val": val}
    write_squares(root, shades, parts, seed=seed, noise=40, size=(36, 40), called="{name}_{i}.png")
    (root / "classnames.txt").write_text("".join(f"{key} {names}\n" for key, names in NAMES.items()), encoding="utf-8")
    return root


class _Quiet(SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 (a list per server, set in `serving`)

    def log_message(self, format: str, *arguments: object) -> None:
        self.asked.append(self.path)


@contextmanager
def serving(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """(the URL of a directory on this machine, the paths that were asked for)."""
    asked: list[str] = []
    handler = type("Handler", (_Quiet,), {"asked": asked})
    server = ThreadingHTTPServer(("localhost", 0), partial(handler, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
