"""A running `vlprompt serve` under load: clients that each send a picture, wait for the answer, and send the next.

    vlprompt serve runs/mine --port 8000
    python -m benchmarks.serving http://localhost:8000/ picture.jpg [--clients 8] [--seconds 30] [--json FILE]

Times are those of the client, from the first byte sent to the last one read, on one connection each. `lost` counts requests without an
answer of status 200; the script ends with 1 if there are any, or if the server counted another number of pictures.
"""

from __future__ import annotations

import argparse
import re
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.figures import Figure, publish


def client(place: str, body: bytes, until: float) -> tuple[list[float], int]:
    """(seconds of each answer; requests that were lost)."""
    connection, took, lost = HTTPConnection(place, timeout=60), list[float](), 0
    while (began := time.perf_counter()) < until:
        try:
            connection.request("POST", "/predict", body)
            answer = connection.getresponse()
            answer.read()
            lost += answer.status != 200
        except (OSError, HTTPException):
            connection.close()
            lost += 1
        took.append(time.perf_counter() - began)
    return took, lost


def counted(place: str) -> int:
    """The pictures that the server has answered so far."""
    connection = HTTPConnection(place, timeout=60)
    connection.request("GET", "/metrics")
    found = re.search(r"^vlprompt_pictures_total (\d+)$", connection.getresponse().read().decode(), re.M)
    assert found is not None
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    place, body = urlsplit(asked.address).netloc, asked.picture.read_bytes()
    client(place, body, time.perf_counter() + 1)
    before, began = counted(place), time.perf_counter()
    with ThreadPoolExecutor(asked.clients) as many:
        found = list(many.map(lambda _: client(place, body, began + asked.seconds), range(asked.clients)))
    seconds, lost = time.perf_counter() - began, sum(one[1] for one in found)
    took = np.concatenate([one[0] for one in found])
    publish(
        [
            Figure("pictures_per_s", len(took) / seconds, "pictures / s"),
            Figure("p50_ms", 1000 * float(np.percentile(took, 50)), "ms"),
            Figure("p99_ms", 1000 * float(np.percentile(took, 99)), "ms"),
            Figure("sent", len(took), "pictures"),
            Figure("lost", lost, "pictures"),
        ],
        asked.json,
    )
    raise SystemExit(int(lost > 0 or counted(place) - before != len(took)))


if __name__ == "__main__":
    main()
