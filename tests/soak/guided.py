"""Files that a fuzzer makes, guided by the branches that they reach (atheris): each gives a value or a `UserError`.

`python -m tests.soak.guided --seconds 600 --seed 1` gives every target its share, each in a process that ends with it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vlprompt import disk, reading

RECORD = Path(__file__).resolve().parents[2] / "docs" / "records" / "guided.json"
SECONDS, MEBIBYTES = 60, 2048
"""What one file may take at most: seconds, and memory of the process."""
GRACE = 300
"""Seconds that a process has to load the package and to end."""
FOLLOWED = ["vlprompt", "PIL", "zipfile", "tarfile", "json", "csv", "tomllib"]
"""What the fuzzer follows: the package, and what reads files for it in Python."""
CHILD = f"""
import atheris, sys
with atheris.instrument_imports(include={FOLLOWED}):
    from tests.soak.guided import fuzz
fuzz(*sys.argv[1:])
"""
Prepared = tuple[Sequence[bytes], Callable[[bytes], object]]
"""Good contents to begin with, and what reads other ones."""


def _pictures(_: Path) -> Prepared:
    from tests.soak.files import drawn
    from vlprompt.data import open_image

    return drawn(), lambda data: open_image(data, name="made")


def _json(_: Path) -> Prepared:
    return [b'{"a": [1, 2.5, null, {"b": "\\u00e9"}], "c": {}}'], lambda data: reading.json_value(data, "f")


def _toml(_: Path) -> Prepared:
    good = b'[t]\na = 1\nb = ["x", { c = 1.5 }]\n'
    return [good], lambda data: reading.toml_value(data.decode("latin-1"), "f")


def _written(folder: Path, name: str, good: Sequence[bytes], read: Callable[[Path], object]) -> Prepared:
    """A file that is written into a folder, and read there."""

    def one(data: bytes) -> object:
        (folder / name).write_bytes(data)
        return read(folder)

    return good, one


def _result(folder: Path, file: str) -> Prepared:
    from tests.report import made
    from vlprompt import records

    made.benchmark(
        folder, methods=("coop",), sets=("birds",), shots=(1,), classes=4, images=20, protocols=("few-shot",)
    )
    place = next(records.find(folder))[0]
    return _written(
        place, file, [(place / file).read_bytes()], lambda at: records.read_predictions(at, records.read(at))
    )


def _prompt(folder: Path, file: str) -> Prepared:
    from tests.soak.files import saved_prompt
    from vlprompt import artifact

    clip = saved_prompt(folder)
    return _written(folder, file, [(folder / file).read_bytes()], lambda at: artifact.loaded(at, clip))


def _checkpoint(folder: Path) -> Prepared:
    from tests.soak.files import saved_checkpoint

    place, _ = saved_checkpoint(folder)
    return _written(folder, place.path.name, [place.path.read_bytes()], lambda _: place.load())


def _archive(folder: Path, name: str) -> Prepared:
    from tests.soak.files import packed
    from vlprompt.data.archive import unpack

    def read(at: Path) -> None:
        shutil.rmtree(at / "out", ignore_errors=True)
        unpack(at / name, at / "out")
        assert all(path.resolve().is_relative_to(at / "out") for path in (at / "out").rglob("*")), "outside"

    return _written(folder, name, [packed(folder)[name]], read)


def _shards(folder: Path, name: str) -> Prepared:
    from tests.hostile.test_archives import manifest, read_all

    (folder / "shards.json").write_text(json.dumps(manifest(folder)), encoding="utf-8")
    return _written(folder, name, [(folder / name).read_bytes()], read_all)


def _table(folder: Path, name: str, good: bytes) -> Prepared:
    from tests.data.make import noise
    from vlprompt.data.tables import scan_table

    for number in range(4):
        noise(number).save(folder / f"{number}.png")
    return _written(folder, name, [good], lambda at: scan_table(at / name, {}))


def _class_names(folder: Path, name: str, good: bytes) -> Prepared:
    from vlprompt.data.class_names import read_class_names

    return _written(folder, name, [good], lambda at: read_class_names(at / name, ("n01", "n02")))


def _sentences(folder: Path) -> Prepared:
    from vlprompt.methods.resolve import resolve

    good = json.dumps({"cat": ["a cat.", "a small animal."], "dog": ["a dog."]}).encode()
    return _written(folder, "s.json", [good], lambda at: resolve("descriptions", {"sentences": str(at / "s.json")}))


def _small(folder: Path, name: str) -> Prepared:
    from tests.hostile import records as small

    file = next(one for one in small.FILES if one.name == name)
    return _written(folder, file.name, [json.dumps(file.good).encode()], file.read)


def _model(folder: Path, layout: str, file: str) -> Prepared:
    from tests.hostile.models import LAYOUTS, used

    model = LAYOUTS[layout][0](folder / "model")
    return _written(model, file, [(model / file).read_bytes()], used)


def _pickle(folder: Path) -> Prepared:
    """The list of tensors within an archive of torch.save, whose other parts are whole."""
    import torch

    from vlprompt.towers.formats.archive import read_archive

    buffer = io.BytesIO()
    torch.save({"state_dict": {"a.weight": torch.ones(2, 3), "b": torch.zeros(2, dtype=torch.long)}}, buffer)
    with zipfile.ZipFile(buffer) as whole:
        parts = {entry.filename: whole.read(entry) for entry in whole.infolist()}
    (listed,) = (name for name in parts if name.endswith("/data.pkl"))

    def read(data: bytes) -> None:
        with zipfile.ZipFile(folder / "weights.pt", "w") as made:
            for name, part in {**parts, listed: data}.items():
                made.writestr(name, part)
        read_archive(folder / "weights.pt", nested=True)

    return [parts[listed]], read


def _text(_: Path) -> Prepared:
    from vlprompt.towers import load

    clips = [load(name) for name in ("pocket-s", "pocket-m")]

    def read(data: bytes) -> None:
        text = data.decode("utf-8", errors="replace")
        for clip in clips:
            words = clip.tokenizer.encode(text)
            assert all(isinstance(clip.tokenizer.word(one), str) for one in words)
            clip.sentence_tokens([text])

    return ["a photo of a caf\u00e9, \u72d7 \U0001f600".encode()], read


def _split_file(folder: Path) -> Prepared:
    from vlprompt.data.papers.readers import from_split

    good = {"train": [["a/1.jpg", 0, "cat"]], "val": [["a/2.jpg", 0, "cat"]], "test": [["b/3.jpg", 1, "dog"]]}
    return _written(folder, "split.json", [json.dumps(good).encode()], lambda at: from_split(at / "split.json"))


TARGETS: dict[str, Callable[[Path], Prepared]] = {
    "pictures": _pictures,
    "JSON": _json,
    "TOML": _toml,
    "result.json": lambda at: _result(at, "result.json"),
    "predictions.npz": lambda at: _result(at, "predictions.npz"),
    "prompt.json": lambda at: _prompt(at, "prompt.json"),
    "prompt.safetensors": lambda at: _prompt(at, "prompt.safetensors"),
    "checkpoints": _checkpoint,
    "a checkpoint's list of tensors": _pickle,
    "tar": lambda at: _archive(at, "a.tar"),
    "tar.gz": lambda at: _archive(at, "a.tar.gz"),
    "zip": lambda at: _archive(at, "a.zip"),
    "shards.json": lambda at: _shards(at, "shards.json"),
    "a shard": lambda at: _shards(at, "train-0.tar"),
    "tables, CSV": lambda at: _table(at, "t.csv", b"path,label,split\n0.png,cat,train\n1.png,dog,test\n"),
    "tables, JSON lines": lambda at: _table(
        at, "t.jsonl", b'{"file_name": "0.png", "label": "cat"}\n{"file_name": "1.png", "label": ["dog", "cat"]}\n'
    ),
    "class names, text": lambda at: _class_names(at, "c.txt", b"n01 cat\nn02 dog, hound\n"),
    "class names, JSON": lambda at: _class_names(at, "c.json", b'{"n01": "cat", "n02": "dog"}'),
    "sentences": _sentences,
    "split files": _split_file,
    "choice.json": lambda at: _small(at, "choice.json"),
    "course.json": lambda at: _small(at, "course.json"),
    "attempts.json": lambda at: _small(at, "attempts.json"),
    "split.json": lambda at: _small(at, "split.json"),
    "curve.json": lambda at: _small(at, "curve.json"),
    "a model's config.json": lambda at: _model(at, "Hugging Face", "config.json"),
    "a model's tokenizer.json": lambda at: _model(at, "Hugging Face", "tokenizer.json"),
    "merges.txt": lambda at: _model(at, "Hugging Face, older tokenizer", "merges.txt"),
    "open_clip_config.json": lambda at: _model(at, "open_clip", "open_clip_config.json"),
    "class names through the tokenizer": _text,
}


def fuzz(target: str, within: str, seconds: str, seed: str) -> None:
    """One target in this process, which ends with it (`CHILD`)."""
    import atheris

    folder = Path(within)
    place, corpus = folder / "place", folder / "corpus"
    place.mkdir()
    corpus.mkdir()
    with atheris.instrument_imports(include=FOLLOWED):
        from vlprompt.data.archive import Unsafe
        from vlprompt.errors import UserError

        good, read = TARGETS[target](place)
        for number, data in enumerate(good):
            read(data)  # it loads what it needs, to be followed too; what is whole must be read
            (corpus / f"good{number}").write_bytes(data)

    def one(data: bytes) -> None:
        with contextlib.suppress(UserError, Unsafe):
            read(data)

    options = {"max_total_time": round(float(seconds)), "seed": seed, "timeout": SECONDS, "rss_limit_mb": MEBIBYTES}
    options |= {"max_len": max(map(len, good)) + 4096, "artifact_prefix": f"{folder}/", "verbosity": 1}
    atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)], one)
    atheris.Fuzz()


def run(seconds: float, seed: int, only: str | None = None) -> None:
    """Write the record of all targets, after each of them. only: one target, whose row is put into the record that is there."""
    known = reading.json_object(RECORD)["targets"] if only is not None and RECORD.is_file() else []
    names = [name for name in TARGETS if only in (None, name)]
    if not names:
        raise SystemExit(f"no target is called {only!r}. There are: {', '.join(TARGETS)}")
    for name in names:
        row = _ran(name, seconds / len(names), seed) | {"date": date.today().isoformat(), "seed": seed}
        print(json.dumps(row), flush=True)
        known = sorted(
            [*(one for one in known if one["name"] != name), row], key=lambda one: list(TARGETS).index(one["name"])
        )
        disk.write_json(RECORD, {"command": "python -m tests.soak.guided", "targets": known})


def _ran(name: str, seconds: float, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CHILD, name, folder, str(seconds), str(seed)]
        began = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, timeout=seconds + GRACE, check=False)
            said, code = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace"), done.returncode
        except subprocess.TimeoutExpired as late:
            said, code = (late.stderr or b"").decode(errors="replace") + "\nit did not end", 1
    reached = re.findall(r"cov: (\d+)", said)
    runs = re.findall(r"^(?:Done (\d+) runs|#(\d+)\s)", said, re.MULTILINE)
    wrong = "" if code == 0 else "\n".join(said.splitlines()[-40:])
    return {
        "name": name,
        "runs": max((int(one or other) for one, other in runs), default=0),
        "branches": int(reached[-1]) if reached else 0,
        "seconds": round(time.monotonic() - began, 1),
        "wrong": wrong,
    }


def lines(record: dict[str, Any]) -> Iterator[str]:
    """The part of docs/reliability.md that says what was run."""
    yield from (
        "## Files that a fuzzer makes",
        "",
        "`python -m tests.soak.guided` (atheris): a fuzzer changes a good file, keeps the changes that reach code which none",
        "reached before, and goes on from those. Each try must end in a value or in a message for the user.",
        "",
        "| file | tries | places reached | wrong | seconds | run on | seed |",
        "|---|---:|---:|---:|---:|---|---:|",
    )
    for one in record["targets"]:
        wrong = "yes" if one["wrong"] else 0
        yield f"| {one['name']} | {one['runs']:,} | {one['branches']:,} | {wrong} | {one['seconds']:,} | {one['date']} | {one['seed']} |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="Of all targets together.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="One target; its row is put into the record.")
    given = parser.parse_args()
    if find_spec("atheris") is None:
        raise SystemExit("atheris is not installed. Run: pip install atheris")
    run(given.seconds, given.seed, given.only)


if __name__ == "__main__":
    main()
