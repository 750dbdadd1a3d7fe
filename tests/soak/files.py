"""Files that are torn or altered, by kind: each try gives a value or a `UserError`."""

from __future__ import annotations

import io
import json
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tarfile import REGTYPE

import torch

from tests.data.make import noise
from tests.hostile import models as layouts
from tests.hostile import records as small_files
from tests.hostile import values
from tests.hostile.test_archives import manifest, read_all, tar, zipped
from tests.report import made
from vlprompt import artifact, reading, records
from vlprompt.data import open_image
from vlprompt.data.archive import Unsafe, unpack
from vlprompt.engine.checkpoint import Checkpoints, State
from vlprompt.errors import UserError
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip, load

EXPECTED = (UserError, Unsafe)
SECONDS, MEMORY = 60.0, 1 << 20
"""What a try may take at most: seconds, and KiB by which the peak of the process may rise."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file: `make` prepares a folder and gives what one try does with a stream of random numbers."""

    name: str
    make: Callable[[Path], Callable[[random.Random], None]]


def drawn() -> list[bytes]:
    """A small picture in each format."""
    wholes = []
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "TGA", "ICO", "PPM", "AVIF", "JPEG2000"):
        out = io.BytesIO()
        noise(1).resize((32, 32)).save(out, kind)
        wholes.append(out.getvalue())
    return wholes


def pictures(folder: Path) -> Callable[[random.Random], None]:
    wholes = drawn()
    return lambda stream: void(open_image(values.torn(stream.choice(wholes), stream), name="torn"))


def documents(folder: Path) -> Callable[[random.Random], None]:
    toml = "\n".join(f'[t{i}]\na = {i}\nb = ["x", {{ c = 1.5 }}]' for i in range(20)).encode()
    good = json.dumps({"a": [1, 2.5, None, {"b": "\u00e9\U0001f600"}], "c": {"d": {"e": []}}}).encode()

    def one(stream: random.Random) -> None:
        if stream.random() < 0.5:
            reading.json_value(values.torn(good * stream.choice((1, 3)), stream), "f")
        else:
            reading.toml_value(values.torn(toml, stream).decode("latin-1"), "f")

    return one


def results(folder: Path) -> Callable[[random.Random], None]:
    made.benchmark(
        folder, methods=("coop",), sets=("birds",), shots=(1,), classes=4, images=20, protocols=("few-shot",)
    )
    place = next(records.find(folder))[0]
    wholes = {name: (place / name).read_bytes() for name in (records.RESULT, records.PREDICTIONS)}
    good = json.loads(wholes[records.RESULT])
    ways = list(values.places(good))

    def one(stream: random.Random) -> None:
        for name, data in wholes.items():
            (place / name).write_bytes(data)
        if stream.random() < 0.5:
            odd = values.put(good, stream.choice(ways), stream.choice(values.ODD))
            (place / records.RESULT).write_bytes(values.written(odd))
        else:
            name = stream.choice(list(wholes))
            (place / name).write_bytes(values.torn(wholes[name], stream))
        records.read_predictions(place, records.read(place))

    return one


def saved_prompt(folder: Path) -> Clip:
    """A CoOp prompt in a folder; its model."""
    clip, method = load("pocket-s"), resolve("coop")
    assert method.prompt is not None
    learned = artifact.Learned(
        method=method,
        prompt=method.prompt.build(clip.facts, torch.Generator().manual_seed(0), 2),
        class_names=("cat", "dog"),
        template="a photo of a {}.",
        model="pocket-s",
        weight_hash=clip.weight_hash,
    )
    artifact.save(folder, learned)
    return clip


def artifacts(folder: Path) -> Callable[[random.Random], None]:
    clip = saved_prompt(folder)
    wholes = {name: (folder / name).read_bytes() for name in (artifact.FACTS, artifact.TENSORS)}
    good = json.loads(wholes[artifact.FACTS])
    ways = list(values.places(good))

    def one(stream: random.Random) -> None:
        for name, data in wholes.items():
            (folder / name).write_bytes(data)
        if stream.random() < 0.5:
            odd = values.put(good, stream.choice(ways), stream.choice(values.ODD))
            (folder / artifact.FACTS).write_bytes(values.written(odd))
        else:
            name = stream.choice(list(wholes))
            (folder / name).write_bytes(values.torn(wholes[name], stream))
        artifact.loaded(folder, clip)

    return one


def saved_checkpoint(folder: Path) -> tuple[Checkpoints, State]:
    place = Checkpoints(directory=folder, config_hash="abc")
    state = State(epoch=3, parameters={"ctx": torch.randn(4, 8)}, momentum={"ctx": torch.randn(4, 8)})
    place.save(state)
    return place, state


def checkpoints(folder: Path) -> Callable[[random.Random], None]:
    place, state = saved_checkpoint(folder)
    whole = place.path.read_bytes()

    def one(stream: random.Random) -> None:
        place.path.write_bytes(values.torn(whole, stream))
        back = place.load()
        assert back is not None
        assert torch.equal(back.parameters["ctx"], state.parameters["ctx"]), "other bits were resumed"
        assert torch.equal(back.momentum["ctx"], state.momentum["ctx"]), "other bits were resumed"

    return one


def models(folder: Path) -> Callable[[random.Random], None]:
    made: dict[str, Callable[[random.Random], None]] = {}

    def one(stream: random.Random) -> None:
        name = stream.choice(list(layouts.LAYOUTS))
        if name not in made:
            made[name] = layouts.tries(name, folder / f"model{len(made)}")
        made[name](stream)

    return one


def small(folder: Path) -> Callable[[random.Random], None]:
    return lambda stream: small_files.tries(stream.choice(small_files.FILES), stream)


def packed(folder: Path) -> dict[str, bytes]:
    """Small archives of 20 files, by name."""
    (folder / "made").mkdir()
    names = [(f"d{i}/{i}.bin", REGTYPE, "") for i in range(20)]
    return {
        "a.tar": tar(*names)(folder / "made").read_bytes(),
        "a.tar.gz": tar(*names, name="a.tar.gz", mode="w:gz")(folder / "made").read_bytes(),
        "a.zip": zipped(*((name, b"abc" * 50, 0) for name, _, _ in names))(folder / "made").read_bytes(),
    }


def archives(folder: Path) -> Callable[[random.Random], None]:
    wholes = packed(folder)

    def one(stream: random.Random) -> None:
        name = stream.choice(list(wholes))
        (folder / name).write_bytes(values.torn(wholes[name], stream))
        shutil.rmtree(folder / "out", ignore_errors=True)
        unpack(folder / name, folder / "out")
        assert all(path.resolve().is_relative_to(folder / "out") for path in (folder / "out").rglob("*")), "outside"

    return one


def shards(folder: Path) -> Callable[[random.Random], None]:
    good = manifest(folder)
    whole, ways = (folder / "train-0.tar").read_bytes(), list(values.places(good))

    def one(stream: random.Random) -> None:
        odd = values.put(good, stream.choice(ways), stream.choice(values.ODD)) if stream.random() < 0.5 else good
        (folder / "shards.json").write_bytes(values.written(odd))
        (folder / "train-0.tar").write_bytes(values.torn(whole, stream))
        read_all(folder)

    return one


def void(_: object) -> None:
    """Nothing is kept."""


KINDS = (
    Kind("pictures of 11 formats, torn", pictures),
    Kind("JSON and TOML, torn", documents),
    Kind("result.json and predictions.npz, torn or one value changed", results),
    Kind("prompt.json and prompt.safetensors, torn or one value changed", artifacts),
    Kind("checkpoints, torn", checkpoints),
    Kind("configurations and tokenizers of models in five layouts, torn or one value changed, used", models),
    Kind("choice, course, cell, attempts, split and curve of a run, torn or one value changed", small),
    Kind("tar, tar.gz and zip, torn, unpacked", archives),
    Kind("shards.json and shards, torn or one value changed", shards),
)


def tries(kind: Kind, folder: Path, stream: random.Random) -> Iterator[str]:
    """Endless tries of one kind: an empty string where a try ended as it should, else what happened."""
    one = kind.make(folder)
    while True:
        said, began, peak = "", time.monotonic(), _peak()
        try:
            one(stream)
        except EXPECTED:
            said = ""
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            said = f"{type(error).__name__}: {str(error)[:200]}"
        if (took := time.monotonic() - began) > SECONDS or _peak() - peak > MEMORY:
            said = f"{took:.0f} s, {(_peak() - peak) >> 10} MiB more"
        yield said


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
