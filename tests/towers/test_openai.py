"""OpenAI's `.pt` files, and the reader that opens them without executing anything."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from tests.towers import layouts
from tests.towers.layouts import refused, rewritten
from vlprompt.towers import load
from vlprompt.towers.formats import openai, pickle_reader

CONFIG = layouts.config()


def test_published_files_are_known_by_their_bytes(paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(paths["torchscript"]).published is None
    digest = hashlib.sha256(paths["torchscript"].read_bytes()).hexdigest()
    monkeypatch.setitem(openai.PUBLISHED, "ViT-B/16", digest)
    assert load(paths["torchscript"]).published == "ViT-B/16"
    assert all(len(bytes.fromhex(known)) == 32 for known in openai.PUBLISHED.values())


def test_openais_model_names_say_what_to_give() -> None:
    assert "path of the .pt file" in refused("ViT-B/16")
    assert "path of the .pt file" in refused("RN50")


def test_a_file_that_is_no_checkpoint_is_refused(paths: dict[str, Path], tmp_path: Path) -> None:
    assert "give the directory" in refused(paths["huggingface"] / "model.safetensors")
    (tmp_path / "empty.pt").write_bytes(b"")
    assert "damaged, cut short" in refused(tmp_path / "empty.pt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "before 1.6" in refused(tmp_path / "old.pt")


@pytest.mark.parametrize("name", ["state_dict", "torchscript"])
def test_a_damaged_file_is_refused(paths: dict[str, Path], tmp_path: Path, name: str) -> None:
    whole = paths[name].read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    assert "cut short" in refused(tmp_path / "cut.pt")
    with zipfile.ZipFile(paths[name]) as file:
        largest = max(file.infolist(), key=lambda entry: entry.file_size)
    position = largest.header_offset + largest.file_size // 2
    (tmp_path / "bit.pt").write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
    assert "Bad CRC-32" in refused(tmp_path / "bit.pt")


def test_a_scripted_modules_plain_tensors_are_no_weights(paths: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(paths["torchscript"]) as file:
        source = next(name for name in file.namelist() if b"attn_mask" in file.read(name) and name.endswith(".py"))
        assert b"__buffers__" in file.read(source)
    # The same file without the lists of parameters and buffers: then the mask counts, and is named.
    blank = rewritten(paths["torchscript"], tmp_path / "blank.pt", **{Path(source).name.replace(".", "_"): b""})
    assert "unexpected transformer.attn_mask" in refused(blank)


def test_tensors_that_are_no_clip_are_refused(tmp_path: Path) -> None:
    tensors = layouts.weights(CONFIG)
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(2)}, path)
    assert "is not a CLIP of OpenAI's: it has no text_projection" in refused(path)
    torch.save({"state_dict": tensors, "epoch": 3}, path)
    assert "open_clip_config.json" in refused(path)
    torch.save({**tensors, "step": 3}, path)
    assert "not tensors: step" in refused(path)
    torch.save([torch.zeros(2)], path)
    assert "holds a list" in refused(path)
    torch.save({**tensors, "token_embedding.weight": torch.zeros(99, 64)}, path)
    assert "99 rows" in refused(path)
    torch.save({**tensors, "visual.positional_embedding": torch.zeros(12, 64)}, path)
    assert "12 image positions" in refused(path)
    torch.save({**tensors, "ln_final.weight": torch.zeros(65)}, path)
    assert "multiple of 64" in refused(path)
    del tensors["visual.ln_pre.bias"]
    torch.save(tensors, path)
    assert "missing visual.ln_pre.bias" in refused(path)


class Payload:
    """Runs a shell command when Python's own unpickler reads it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_a_file_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    payload = {"text_projection": torch.zeros(1), "extra": Payload(f"touch {marker}")}
    torch.save(payload, tmp_path / "bad.pt")
    message = refused(tmp_path / "bad.pt")
    assert f"asks for {os.system.__module__}.system" in message
    assert "Nothing of the file was executed" in message
    assert not marker.exists()
    torch.load(tmp_path / "bad.pt", weights_only=False)
    assert marker.exists(), "the payload must be one that works, or this test shows nothing"


def test_a_pickled_module_is_refused_by_its_name(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    message = refused(tmp_path / "module.pt")
    assert "asks for torch.nn.modules.linear.Linear" in message
    assert "torch.save(model.state_dict()" in message


def instructions(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
ODD = {
    "eval": (instructions(b"cbuiltins\neval\n", b"X\x01\x00\x00\x001\x85R"), "builtins.eval"),
    "protocol 4": (pickle.dumps(print, protocol=4), "pickle instruction"),
    "an argument": (instructions(b"ccollections\nOrderedDict\n", b"]\x85R"), "collections.OrderedDict in a way"),
    "module call": (instructions(b"c__torch__\nM\n", b")R"), "__torch__.M in a way"),
    "dict as class": (instructions(b"ccollections\nOrderedDict\n", b")\x81"), "collections.OrderedDict in a way"),
    "state of a name": (instructions(TENSOR, b"}b"), "does not parse"),
    "no storage": (instructions(TENSOR, b"(K\x01K\x00))\x89NtR"), "does not parse"),
    "empty stack": (instructions(b"\x85"), "does not parse"),
    "no mark": (instructions(b"t"), "does not parse"),
    "no end": (b"\x80\x02}", "does not parse"),
    "unknown memo": (instructions(b"h\x07"), "does not parse"),
    "extension": (instructions(b"\x82\x01"), "pickle instruction EXT1"),
    "a tuple as key": (instructions(b"})Ns"), "something else than a string"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_instructions_are_refused(name: str) -> None:
    pickled, reason = ODD[name]
    with pytest.raises(pickle_reader.PickleRefused, match=reason.replace(".", r"\.")):
        pickle_reader.read(pickled)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pickletools, of odd escapes
def test_no_change_of_bytes_does_more_than_be_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2, 3), "b": torch.zeros(4)}, tmp_path / "small.pt")
    with zipfile.ZipFile(tmp_path / "small.pt") as file:
        whole = file.read("small/data.pkl")
    rng, outcomes = random.Random(0), set()
    for _ in range(600):
        changed = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        try:
            pickle_reader.read(bytes(changed))
            outcomes.add("read")
        except pickle_reader.PickleRefused:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_tensors_beyond_their_storage_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(6.0)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as file:
        pickled = file.read("good/data.pkl")
    size, stride = b"K\x06\x85q", b"K\x01\x85q"
    assert size in pickled
    assert stride in pickled
    for old, new in ((size, b"K\x07\x85q"), (stride, b"K\x02\x85q"), (size, b"K\xff\x85q")):
        bad = rewritten(tmp_path / "good.pt", tmp_path / "bad.pt", data_pkl=pickled.replace(old, new))
        assert "in a storage of 6 numbers" in refused(bad)
    short = rewritten(tmp_path / "good.pt", tmp_path / "short.pt", **{"0": b"1234"})
    assert "4 bytes instead of 24" in refused(short)
    other = "big" if sys.byteorder == "little" else "little"
    swapped = rewritten(tmp_path / "good.pt", tmp_path / "swapped.pt", byteorder=other.encode())
    assert "another byte order" in refused(swapped)


def test_a_module_that_contains_itself_is_refused(paths: dict[str, Path], tmp_path: Path) -> None:
    loop = instructions(b"c__torch__\nM\n", b")\x81q\x00}X\x01\x00\x00\x00ah\x00sb")
    assert "attributes" in refused(rewritten(paths["torchscript"], tmp_path / "loop.pt", data_pkl=loop))
