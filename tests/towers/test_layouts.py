"""The same weights in every layout are the same model; what a layout cannot be is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.towers import layouts
from vlprompt import parity
from vlprompt.errors import UserError
from vlprompt.towers import Clip, load, openai, pickle_reader
from vlprompt.towers.clip_vocabulary import clip_tokenizer
from vlprompt.types import TextLayout

CONFIG = layouts.config()
NAMES = ("huggingface", "sharded", "split_tokenizer", "openclip", "openclip_pickled", "state_dict", "torchscript")


def write(name: str, folder: Path, tensors: dict[str, Tensor]) -> Path:
    """One model in one layout; the path that a user would give."""
    match name:
        case "huggingface":
            return layouts.huggingface_dir(folder, CONFIG, tensors)
        case "sharded":
            return layouts.huggingface_dir(folder, CONFIG, tensors, shards=3)
        case "split_tokenizer":
            layouts.split_tokenizer(layouts.huggingface_dir(folder, CONFIG, tensors))
            return folder
        case "openclip" | "openclip_pickled":
            return layouts.openclip_dir(folder, CONFIG, tensors, pickled=name == "openclip_pickled")
        case "state_dict":
            return layouts.state_dict_file(folder.with_suffix(".pt"), tensors)
        case "torchscript":
            return layouts.torchscript_file(folder.with_suffix(".pt"), layouts.halved(tensors))
    raise AssertionError(name)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, tensors = tmp_path_factory.mktemp("layouts"), layouts.weights(CONFIG)
    return {name: write(name, folder / name, tensors) for name in NAMES}


@pytest.fixture(scope="module")
def reference(paths: dict[str, Path]) -> Clip:
    return load(paths["huggingface"])


def refused(path: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        load(path)
    assert caught.value.exit_code == 3
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_layout_is_the_same_model(paths: dict[str, Path], reference: Clip, name: str) -> None:
    clip = load(paths[name])
    assert clip.weight_hash == reference.weight_hash
    assert clip.config == reference.config
    assert clip.preprocess == reference.preprocess
    assert clip.logit_scale == reference.logit_scale
    theirs = reference.state_dict()
    assert clip.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in clip.state_dict().items())
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(clip.encode_images(pixels).pooled, reference.encode_images(pixels).pooled)
    texts = [c.encode_text(c.class_tokens(["cat", "St. Bernard", "a long name"])).pooled for c in (clip, reference)]
    assert torch.equal(*texts)


def test_the_hugging_face_layout_is_transformers(paths: dict[str, Path], reference: Clip) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPModel.from_pretrained(paths["sharded"], attn_implementation="eager").eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = theirs.visual_projection(theirs.vision_model(pixels).pooler_output)
    got = reference.encode_images(pixels).pooled
    assert float((got - want).abs().max() / want.abs().max()) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_every_layout_reads_the_awkward_sentences(paths: dict[str, Path], name: str) -> None:
    case = next(case["config"] for case in parity.index()["cases"] if case["name"] == "clip_vit")
    tokenizer = load(paths[name]).tokenizer
    for sentence, ids in zip(case["sentences"], parity.case("clip_vit")["token_ids"], strict=True):
        ours = [tokenizer.start_id, *tokenizer.encode(sentence), tokenizer.end_id]
        assert ours == list(ids[: len(ours)])
        assert not ids[len(ours) :].any()


def test_a_tokenizer_that_cuts_and_pads_does_neither_here(paths: dict[str, Path], tmp_path: Path) -> None:
    # Published tokenizer.json files may say "truncation" and "padding"; a name that is too long must be refused, not cut.
    directory = Path(shutil.copytree(paths["huggingface"], tmp_path / "copy"))
    backend = clip_tokenizer()._backend.from_file(str(directory / "tokenizer.json"))
    backend.enable_truncation(5)
    backend.enable_padding(length=9)
    backend.save(str(directory / "tokenizer.json"))
    clip = load(directory)
    assert clip.tokenizer.encode("cat") == clip_tokenizer().encode("cat")
    with pytest.raises(UserError, match="too long"):
        clip.class_tokens(["cat", "dog " * 80], TextLayout(num_tokens=4))


@pytest.mark.parametrize("name", ["sharded", "openclip", "state_dict", "torchscript"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_layout_loads_in_half_precision(paths: dict[str, Path], reference: Clip, name: str, dtype: str) -> None:
    clip = load(paths[name], dtype=dtype)
    assert clip.dtype == getattr(torch, dtype)
    assert clip.text_tower.ln_final.weight.dtype == torch.float32
    assert clip.weight_hash == reference.weight_hash
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    cosine = (clip.encode_images(pixels).unit * reference.encode_images(pixels).unit).sum(-1)
    assert (cosine > 0.999).all()


# OpenAI's files


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


def test_tensors_that_are_no_clip_are_refused(tmp_path: Path) -> None:
    tensors = layouts.weights(CONFIG)
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(2)}, path)
    assert "is no CLIP of OpenAI's: it has no text_projection" in refused(path)
    torch.save({"state_dict": tensors, "epoch": 3}, path)
    assert "open_clip_config.json" in refused(path)
    torch.save({**tensors, "step": 3}, path)
    assert "no tensors: step" in refused(path)
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


# The restricted reader


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
    with pytest.raises(pickle_reader.Refused, match=reason.replace(".", r"\.")):
        pickle_reader.read(pickled)


def test_no_change_of_bytes_does_more_than_be_refused(paths: dict[str, Path]) -> None:
    with zipfile.ZipFile(paths["torchscript"]) as file:
        whole = file.read(next(name for name in file.namelist() if name.endswith("/data.pkl")))
    rng, outcomes = random.Random(0), set()
    for _ in range(150):
        changed = bytearray(whole[:3000])
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        try:
            pickle_reader.read(bytes(changed) + b".")
            outcomes.add("read")
        except pickle_reader.Refused:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def rewritten(source: Path, target: Path, **parts: bytes) -> Path:
    """A torch archive with some parts replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, parts.get(Path(name).name.replace(".", "_"), old.read(name)))
    return target


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


# open_clip's directories


def changed(paths: dict[str, Path], tmp_path: Path, part: str | None, **values: object) -> Path:
    """The open_clip directory with some values of its configuration changed."""
    directory = Path(shutil.copytree(paths["openclip"], tmp_path / "copy", dirs_exist_ok=True))
    raw = layouts.openclip_config(CONFIG)
    target = raw if part is None else raw["model_cfg"] if part == "model_cfg" else raw.get(part)
    target = raw["model_cfg"][part] if target is None else target
    target.update(values)
    (directory / "open_clip_config.json").write_text(json.dumps(raw))
    return directory


REFUSED = [
    ("model_cfg", {"init_logit_bias": -10}, "init_logit_bias is -10"),
    ("model_cfg", {"custom_text": True}, "custom_text is True"),
    ("model_cfg", {"multimodal_cfg": {"width": 512}}, "multimodal_cfg is {'width': 512}"),
    ("model_cfg", {"something_new": 1}, "something_new is 1 (allowed: no such key)"),
    ("text_cfg", {"hf_model_name": "roberta-base"}, "text_cfg.hf_model_name is 'roberta-base'"),
    ("text_cfg", {"pool_type": "last"}, "text_cfg.pool_type is 'last' (allowed: 'argmax')"),
    ("text_cfg", {"no_causal_mask": True}, "text_cfg.no_causal_mask is True"),
    ("text_cfg", {"embed_cls": True}, "text_cfg.embed_cls is True"),
    ("text_cfg", {"proj_bias": True}, "text_cfg.proj_bias is True"),
    ("text_cfg", {"tokenizer_kwargs": {"clean": "canonicalize"}}, "text_cfg.tokenizer_kwargs"),
    ("text_cfg", {"heads": 7}, "multiple of the number of heads (7)"),
    ("text_cfg", {"width": None}, "no number where one belongs"),
    ("vision_cfg", {"timm_model_name": "convnext_base"}, "vision_cfg.timm_model_name is 'convnext_base'"),
    ("vision_cfg", {"pool_type": "avg"}, "vision_cfg.pool_type is 'avg' (allowed: 'tok')"),
    ("vision_cfg", {"attentional_pool": True}, "vision_cfg.attentional_pool is True"),
    ("vision_cfg", {"no_ln_pre": True}, "vision_cfg.no_ln_pre is True"),
    ("vision_cfg", {"ls_init_value": 0.0001}, "vision_cfg.ls_init_value is 0.0001"),
    ("vision_cfg", {"image_size": [32, 64]}, "vision_cfg.image_size is [32, 64] (allowed: a square)"),
    ("vision_cfg", {"norm_kwargs": {"bias": False}}, "vision_cfg.norm_kwargs is {'bias': False} (allowed: eps alone)"),
    ("preprocess_cfg", {"resize_mode": "squash"}, "preprocess_cfg.resize_mode is 'squash' (allowed: 'shortest')"),
    ("preprocess_cfg", {"interpolation": "bilinear"}, "preprocess_cfg.interpolation is 'bilinear'"),
    ("preprocess_cfg", {"size": [48, 48]}, "preprocess_cfg.size is [48, 48] (allowed: the tower's 32)"),
]


@pytest.mark.parametrize(("part", "values", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_other_architectures_of_open_clip_are_refused_by_name(
    paths: dict[str, Path], tmp_path: Path, part: str, values: dict[str, object], message: str
) -> None:
    assert message in refused(changed(paths, tmp_path, part, **values))


def test_all_that_is_wrong_is_named_at_once(paths: dict[str, Path], tmp_path: Path) -> None:
    directory = changed(paths, tmp_path, "model_cfg", custom_text=True, vision_cfg={"timm_model_name": "eva02"})
    message = refused(directory)
    assert "custom_text is True" in message
    assert "vision_cfg.timm_model_name is 'eva02'" in message


def test_open_clips_gelu_heads_and_epsilon_are_read(paths: dict[str, Path], tmp_path: Path) -> None:
    assert load(changed(paths, tmp_path, "model_cfg", quick_gelu=False)).config.text.activation == "gelu"
    clip = load(changed(paths, tmp_path, "vision_cfg", head_width=16, norm_kwargs={"eps": 1e-6}, patch_dropout=0.5))
    assert clip.config.image.heads == 4
    assert clip.config.image.eps == 1e-6
    assert clip.visual.ln_post.eps == 1e-6
    assert clip.config.text.eps == 1e-5
    mean = load(changed(paths, tmp_path, "preprocess_cfg", mean=[0.5, 0.4, 0.3], size=[3, 32, 32])).preprocess.mean
    assert mean == (0.5, 0.4, 0.3)


def test_open_clips_vocabulary_is_carried_only_where_it_is_clips(paths: dict[str, Path], tmp_path: Path) -> None:
    directory = changed(paths, tmp_path, "text_cfg", hf_tokenizer_name="someone/else")
    assert "someone/else" in refused(directory)
    shutil.copy(paths["huggingface"] / "tokenizer.json", directory)
    assert load(directory).tokenizer.encode("cat") == clip_tokenizer().encode("cat")
    assert "32000 tokens" in refused(changed(paths, tmp_path / "other", "text_cfg", vocab_size=32000))


def test_missing_open_clip_weights_are_named(paths: dict[str, Path], tmp_path: Path) -> None:
    assert "neither config.json nor open_clip_config.json" in refused(tmp_path)
    directory = changed(paths, tmp_path, "model_cfg")
    (directory / "open_clip_model.safetensors").unlink()
    assert "open_clip_model.safetensors" in refused(directory)


def test_of_two_layouts_the_complete_one_is_read(paths: dict[str, Path], tmp_path: Path, reference: Clip) -> None:
    directory = changed(paths, tmp_path, "model_cfg")
    shutil.copy(paths["huggingface"] / "config.json", directory)
    assert load(directory).weight_hash == reference.weight_hash  # open_clip's: the other has no weights
    (directory / "config.json").write_text(json.dumps({"architecture": "vit_base_patch32_clip_224"}))
    shutil.copy(paths["huggingface"] / "model.safetensors", directory)
    assert load(directory).weight_hash == reference.weight_hash  # open_clip's: the other is no CLIPModel
    shutil.copytree(paths["huggingface"], directory, dirs_exist_ok=True)
    (directory / "open_clip_model.safetensors").unlink()
    assert load(directory).weight_hash == reference.weight_hash


def test_hugging_faces_older_pickled_weights_are_read(paths: dict[str, Path], tmp_path: Path, reference: Clip) -> None:
    directory = Path(shutil.copytree(paths["huggingface"], tmp_path / "copy"))
    (directory / "model.safetensors").unlink()
    torch.save(layouts.huggingface_names(layouts.weights(CONFIG)), directory / "pytorch_model.bin")
    assert load(directory).weight_hash == reference.weight_hash


def test_a_broken_index_and_missing_shards_are_named(paths: dict[str, Path], tmp_path: Path) -> None:
    directory = Path(shutil.copytree(paths["sharded"], tmp_path / "copy"))
    (directory / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors" in refused(directory)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../elsewhere"}}))
    assert "no weight_map" in refused(directory)


# The Hub


def cached(home: Path, model: str, source: Path) -> Path:
    """A model as the Hub's own cache keeps it."""
    folder = home / "hub" / f"models--{model.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abcd")
    shutil.copytree(source, folder / "snapshots" / "0123abcd")
    return folder


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty HF_HOME, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return tmp_path / "home"


@pytest.mark.parametrize("name", ["sharded", "openclip", "openclip_pickled"])
def test_cached_models_load_without_a_network(
    paths: dict[str, Path], reference: Clip, offline: Path, name: str
) -> None:
    cached(offline, "someone/clip", paths[name])
    assert load("someone/clip").weight_hash == reference.weight_hash
    assert load("hf-hub:someone/clip").weight_hash == reference.weight_hash


def test_what_the_cache_lacks_says_what_to_do(paths: dict[str, Path], offline: Path) -> None:
    assert "Go online once" in refused("someone/absent")
    folder = cached(offline, "someone/clip", paths["huggingface"])
    (folder / "snapshots" / "0123abcd" / "model.safetensors").unlink()
    assert "has no weights that can be read" in refused("someone/clip")
    assert "is no Hub id" in refused("some one/cl ip")


def test_hf_home_and_offline_mode_are_honoured(paths: dict[str, Path], reference: Clip, tmp_path: Path) -> None:
    cached(tmp_path / "home", "someone/clip", paths["openclip"])
    code = "import sys, vlprompt.towers as t; print(t.load('someone/clip').weight_hash)"
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    env.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == reference.weight_hash


def test_only_the_weights_that_are_needed_are_fetched(
    paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Clip
) -> None:
    remote, local = tmp_path / "remote", tmp_path / "local"
    for name in ("huggingface", "openclip", "openclip_pickled"):
        shutil.copytree(paths[name], remote, dirs_exist_ok=True)
    torch.save({}, remote / "pytorch_model.bin")

    def fetch(model: str, allow_patterns: list[str]) -> str:
        assert model == "someone/clip"
        local.mkdir(exist_ok=True)
        for path in remote.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, local)
        return str(local)

    def weights() -> set[str]:
        return {path.name for path in local.iterdir() if path.suffix in (".safetensors", ".bin")}

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert load("someone/clip").weight_hash == reference.weight_hash
    assert weights() == {"model.safetensors"}
    shutil.rmtree(local)
    (remote / "config.json").unlink()
    assert load("hf-hub:someone/clip").weight_hash == reference.weight_hash
    assert weights() == {"open_clip_model.safetensors"}


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("GatedRepoError", "gated", "accepted its terms"),
        ("RepositoryNotFoundError", "absent", "has no model 'a/b'"),
        ("HfHubHTTPError", "503 busy.", "503 busy. Go online once"),
        ("LocalEntryNotFoundError", "not cached.", "not cached. Go online once"),
        (None, "no route.", "no route. Go online once"),
    ],
)
def test_errors_of_the_hub_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, kind: str | None, text: str, message: str
) -> None:
    from huggingface_hub import errors

    class Raised(ConnectionError if kind is None else getattr(errors, kind)):  # type: ignore[misc]
        def __init__(self) -> None:  # the Hub's own constructors want a response of the HTTP library of their version
            Exception.__init__(self, text)

        def __str__(self) -> str:
            return text

    def fail(*_: object, **__: object) -> str:
        raise Raised

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    assert message in refused("a/b")
