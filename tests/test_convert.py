"""Checkpoints in the published layouts: converted, they answer as the equal prompt of ours; and nothing in them is executed."""

from __future__ import annotations

import json
import pickle
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from tests import tiny
from tests.engine.made import write_images
from tests.oracle.towers import block_step
from vlprompt import artifact
from vlprompt.convert import convert
from vlprompt.data import open_dataset
from vlprompt.engine.evaluate import Classifier
from vlprompt.engine.images import Images
from vlprompt.errors import DATA, NUMERICAL, UserError
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip

NAMES = ("blue bird", "cat", "red tree")
LENGTH = 40
"""Of the tiny model's text."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("convert") / "colours")


def embedded(clip: Clip, words: str, names: tuple[str, ...] = NAMES) -> Tensor:
    """(C, L, D): whole padded sentences as the published code embeds them, `words` before the name."""
    tokenizer = clip.tokenizer
    ids = torch.zeros(len(names), LENGTH, dtype=torch.int64)
    for row, name in zip(ids, names):
        sentence = [tokenizer.start_id, *tokenizer.encode(f"{words} {name.replace('_', ' ')}."), tokenizer.end_id]
        row[: len(sentence)] = torch.tensor(sentence)
    return clip.vocabulary.weight_VD[ids]


def buffers(clip: Clip, words: str, number: int, names: tuple[str, ...] = NAMES) -> dict[str, Tensor]:
    whole = embedded(clip, words, names)
    return {"token_prefix": whole[:, :1], "token_suffix": whole[:, 1 + number :]}


def trainer_state(tensors: Mapping[str, Tensor], *, plain: bool = False) -> dict[str, Any]:
    """What Dassl's trainer saves: its schedule keeps the schedule after the warm-up as an object, with the optimiser in it."""
    learned = nn.Parameter(next(iter(tensors.values())).clone())
    optimiser = torch.optim.SGD([learned], lr=0.1, momentum=0.9)
    after = CosineAnnealingLR(optimiser, 10.0)
    learned.grad = torch.ones_like(learned)
    optimiser.step()
    schedule = {"successor": after, "warmup_epoch": 1, "cons_lr": 1e-5, "base_lrs": [0.1], "last_epoch": 3}
    state = {"state_dict": dict(tensors), "epoch": 5, "optimizer": optimiser.state_dict(), "val_result": 61.5}
    return state if plain else {**state, "scheduler": schedule}


def draw(*shape: int, seed: int) -> Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def coop_tensors(clip: Clip, *, per_class: bool = False) -> dict[str, Tensor]:
    shape = (len(NAMES), 4, 64) if per_class else (4, 64)
    return {"ctx": draw(*shape, seed=1), **buffers(clip, "X X X X", 4)}


def cocoop_tensors(clip: Clip) -> dict[str, Tensor]:
    sizes = {"linear1.weight": (2, 32), "linear1.bias": (2,), "linear2.weight": (64, 2), "linear2.bias": (64,)}
    net = {f"meta_net.{name}": draw(*size, seed=7) for name, size in sizes.items()}
    return {"ctx": draw(4, 64, seed=1), **buffers(clip, "X X X X", 4), **net}


def maple_tensors(clip: Clip, words: str = "a photo of a") -> dict[str, Tensor]:
    """The whole model's state dict: the towers' tensors are there too."""
    learner = {
        "ctx": draw(2, 64, seed=1).half(),
        "proj.weight": draw(64, 64, seed=2).half(),
        "proj.bias": draw(64, seed=3).half(),
        "compound_prompts_text.0": draw(2, 64, seed=4),
        "compound_prompt_projections.0.weight": draw(64, 64, seed=5),
        "compound_prompt_projections.0.bias": draw(64, seed=6),
        **buffers(clip, words, 2),
    }
    others = {"logit_scale": torch.tensor(3.4), "image_encoder.proj": clip.visual.state_dict()["proj"].half()}
    return {**{f"prompt_learner.{name}": one for name, one in learner.items()}, **others}


def save(tensors: Mapping[str, Tensor], path: Path) -> Path:
    torch.save(trainer_state(tensors), path)
    return path


def logits(clip: Clip, method: Any, prompt: nn.Module | None, folder: Path) -> Tensor:
    samples = open_dataset(folder).test
    return Classifier(clip, method, prompt, NAMES, "a photo of a {}.").logits(samples, Images(clip, None))


def ours(clip: Clip, name: str, options: Mapping[str, object], tensors: Mapping[str, Tensor]) -> tuple[Any, nn.Module]:
    """The same prompt, built by our own names."""
    method = resolve(name, options)
    prompt = method.prompt.build(clip.facts, torch.Generator().manual_seed(3), len(NAMES))
    with torch.no_grad():
        for key, parameter in prompt.named_parameters():
            parameter.copy_(tensors[key].float())
    return method, prompt


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("per_class", [False, True])
def test_coop(clip: Clip, folder: Path, tmp_path: Path, position: Any, per_class: bool) -> None:
    tensors = coop_tensors(clip, per_class=per_class)
    file = save(tensors, tmp_path / "model.pth.tar-50")
    convert(file, clip, NAMES, tmp_path / "out", model="tiny", position=position)
    found = artifact.load(tmp_path / "out", clip)
    wanted = ours(clip, "coop", {"n_ctx": 4, "position": position, "per_class": per_class}, tensors)
    assert torch.equal(logits(clip, found.method, found.prompt, folder), logits(clip, *wanted, folder))
    assert found.class_names == NAMES
    assert found.facts["converted"]["layout"] == "CoOp"


def test_cocoop(clip: Clip, folder: Path, tmp_path: Path) -> None:
    tensors = cocoop_tensors(clip)
    convert(save(tensors, tmp_path / "f"), clip, NAMES, tmp_path / "out", model="tiny")
    found = artifact.load(tmp_path / "out", clip)
    wanted = ours(clip, "cocoop", {"n_ctx": 4, "init": "normal"}, tensors)
    assert torch.equal(logits(clip, found.method, found.prompt, folder), logits(clip, *wanted, folder))


@pytest.mark.parametrize(("words", "init"), [("a photo of a", "a photo of a"), ("X X", "normal")])
@pytest.mark.parametrize("module", ["", "module."])
def test_maple(clip: Clip, folder: Path, tmp_path: Path, words: str, init: str, module: str) -> None:
    """Its file holds the whole model, in one half of its names those of several devices; fixed words are told by their embeddings."""
    stored = maple_tensors(clip, words)
    file = save({module + name: one for name, one in stored.items()}, tmp_path / "model.pth.tar-5")
    convert(file, clip, NAMES, tmp_path / "out", model="tiny")
    found = artifact.load(tmp_path / "out", clip)
    assert found.method.options["init"] == init
    names = {
        "ctx": "ctx",
        "text.1": "compound_prompts_text.0",
        **{f"proj.0.{part}": f"proj.{part}" for part in ("weight", "bias")},
        **{f"proj.1.{part}": f"compound_prompt_projections.0.{part}" for part in ("weight", "bias")},
    }
    tensors = {name: stored[f"prompt_learner.{theirs}"] for name, theirs in names.items()}
    wanted = ours(clip, "maple", {"n_ctx": 2, "depth": 2, "init": init}, tensors)
    assert torch.equal(logits(clip, found.method, found.prompt, folder), logits(clip, *wanted, folder))
    other = ours(
        clip, "maple", {"n_ctx": 2, "depth": 2, "init": "normal" if init != "normal" else "a photo of a"}, tensors
    )
    assert not torch.equal(logits(clip, found.method, found.prompt, folder), logits(clip, *other, folder))


def test_without_the_fixed_tensors_nothing_can_be_checked_and_it_is_still_read(clip: Clip, tmp_path: Path) -> None:
    tensors = {name: one for name, one in maple_tensors(clip).items() if "token_" not in name}
    found = convert(save(tensors, tmp_path / "f"), clip, NAMES, tmp_path / "out", model="tiny")
    assert found.method.options["init"] == "a photo of a"


def test_the_text_of_a_converted_prompt_is_the_published_one(clip: Clip, tmp_path: Path) -> None:
    """The sentences of the published code, put together from its own buffers, in our tower whole: the same class features."""
    tensors = coop_tensors(clip)
    found = convert(save(tensors, tmp_path / "f"), clip, NAMES, tmp_path / "out", model="tiny")
    layout = found.method.prompt.layout if found.method.prompt else None
    got = clip.encode_text(clip.class_tokens(NAMES, layout), found.prompt()).pooled
    context = tensors["ctx"].expand(len(NAMES), -1, -1)
    x = torch.cat([tensors["token_prefix"], context, tensors["token_suffix"]], dim=1)
    tower = clip.text_tower
    rows = []
    for sentence, name in zip(x + tower.positional_embedding[:LENGTH], NAMES):
        for block in tower.blocks:
            sentence = block_step(block, sentence, [], None, clip.config.text.heads, causal=True)
        end = 1 + 4 + len(clip.tokenizer.encode(f"{name}."))
        rows.append(tower.ln_final(sentence)[end] @ tower.text_projection)
    wanted = torch.stack(rows)
    assert float((got - wanted).detach().abs().max()) < 1e-5 * float(wanted.detach().abs().max())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat", "blue bird", "red tree"), "not 'cat'"),
        (("blue bird", "cat", "dog"), "not 'dog'"),
        (("blue bird", "cat"), "learned on 3 classes, but 2 are given"),
        (("cat", "cat", "dog"), "all different"),
    ],
)
def test_other_classes_are_refused(clip: Clip, tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    file = save(coop_tensors(clip), tmp_path / "f")
    with pytest.raises(UserError, match=message):
        convert(file, clip, names, tmp_path / "out", model="tiny")
    assert not (tmp_path / "out").exists()


def test_another_backbone_is_refused(clip: Clip, tmp_path: Path) -> None:
    other = tiny.clip(tmp_path / "other", seed=4)
    with pytest.raises(UserError, match="learned on another backbone"):
        convert(save(coop_tensors(clip), tmp_path / "f"), other, NAMES, tmp_path / "out", model="tiny")
    narrow = tiny.clip(tmp_path / "narrow", text_width=32)
    tensors = {"ctx": draw(4, 64, seed=1)}
    with pytest.raises(UserError, match=r"ctx is \(4, 64\) torch.float32, expected \(4, 32\)"):
        convert(save(tensors, tmp_path / "g"), narrow, NAMES, tmp_path / "out", model="tiny")


def test_what_is_no_prompt_is_refused(clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tensor 'ctx'"):
        convert(save({"weight": draw(2, seed=1)}, tmp_path / "f"), clip, NAMES, tmp_path / "out", model="tiny")
    with pytest.raises(UserError, match="is not a file"):
        convert(tmp_path / "absent", clip, NAMES, tmp_path / "out", model="tiny")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="not an empty directory"):
        convert(save(coop_tensors(clip), tmp_path / "g"), clip, NAMES, tmp_path / "full", model="tiny")
    with pytest.raises(UserError, match="stands at the end"):
        convert(
            save(maple_tensors(clip), tmp_path / "h"), clip, NAMES, tmp_path / "out", model="tiny", position="front"
        )


class Evil:
    """Unpickled by Python, it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.mark, "executed"))


@pytest.mark.parametrize("where", ["epoch", "state_dict", "optimizer"])
def test_a_malicious_file_is_refused_and_not_executed(clip: Clip, tmp_path: Path, where: str) -> None:
    mark, file = tmp_path / "mark", tmp_path / "f"
    state = trainer_state(coop_tensors(clip))
    if where == "epoch":
        state["epoch"] = Evil(mark)
    else:
        state[where]["evil"] = Evil(mark)
    torch.save(state, file)
    with pytest.raises(UserError, match="Nothing of the file was executed") as refused:
        convert(file, clip, NAMES, tmp_path / "out", model="tiny")
    assert refused.value.exit_code == DATA
    assert not mark.exists()
    torch.load(file, weights_only=False)  # it would have done it
    assert mark.exists()


def test_a_plain_pickle_is_refused_and_not_executed(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    with pytest.raises(UserError, match=r"no archive of torch\.save"):
        convert(tmp_path / "f", clip, NAMES, tmp_path / "out", model="tiny")
    assert not (tmp_path / "mark").exists()


def test_a_damaged_file_is_refused(clip: Clip, tmp_path: Path) -> None:
    file = save(coop_tensors(clip), tmp_path / "f")
    with zipfile.ZipFile(file) as archive:
        pickled = next(info for info in archive.infolist() if info.filename.endswith("data.pkl"))
    data = bytearray(file.read_bytes())
    data[pickled.header_offset + 200] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        convert(file, clip, NAMES, tmp_path / "out", model="tiny")


def whole_model(clip: Clip, *, text: bool, image: bool = True) -> dict[str, Tensor]:
    """What the code of IVLP, PromptSRC and VPT saves: the whole model, the frozen towers and the prompts within them."""
    towers = {f"text_encoder.{name}": one for name, one in clip.text_tower.state_dict().items()}
    towers |= {f"image_encoder.{name}": one for name, one in clip.visual.state_dict().items()}
    stored = {"logit_scale": torch.tensor(3.4), **towers}
    if text:
        learner = {"ctx": draw(4, 64, seed=1), **buffers(clip, "a photo of a", 4)}
        stored |= {f"prompt_learner.{name}": one for name, one in learner.items()}
        stored["text_encoder.transformer.resblocks.1.VPT_shallow"] = draw(4, 64, seed=2)
    if image:
        stored["image_encoder.VPT"] = draw(3, 64, seed=3)
        stored["image_encoder.transformer.resblocks.1.VPT_shallow"] = draw(3, 64, seed=4)
    return stored


DEEP = {
    "ctx": "prompt_learner.ctx",
    "text.1": "text_encoder.transformer.resblocks.1.VPT_shallow",
    "image.0": "image_encoder.VPT",
    "image.1": "image_encoder.transformer.resblocks.1.VPT_shallow",
}


@pytest.mark.parametrize("name", ["ivlp", "promptsrc", "vpt"])
def test_prompts_in_both_towers(clip: Clip, folder: Path, tmp_path: Path, name: str) -> None:
    stored = whole_model(clip, text=name != "vpt")
    if name == "promptsrc":
        frozen = {f"prompt_learner.ZS_image_encoder.{key}": one for key, one in clip.visual.state_dict().items()}
        stored |= frozen
    convert(save(stored, tmp_path / "f"), clip, NAMES, tmp_path / "out", model="tiny")
    found = artifact.load(tmp_path / "out", clip)
    assert found.method.name == name
    tensors = {our: stored[theirs] for our, theirs in DEEP.items() if theirs in stored}
    text = {} if name == "vpt" else {"n_ctx": 4, "init": "a photo of a"}
    wanted = ours(clip, name, {**text, "n_image": 3, "depth": 2}, tensors)
    assert torch.equal(logits(clip, found.method, found.prompt, folder), logits(clip, *wanted, folder))


def test_pomps_buffers_have_other_names(clip: Clip, tmp_path: Path) -> None:
    stored = {"ctx": draw(4, 64, seed=1)}
    stored |= {f"train_{name}": one for name, one in buffers(clip, "X X X X", 4).items()}
    stored |= {f"test_{name}": one for name, one in buffers(clip, "X X X X", 4, ("dog",)).items()}
    file = save({f"prompt_learner.{name}": one for name, one in stored.items()}, tmp_path / "f")
    for method in ("pomp", "kgcoop", "prograd"):
        assert convert(file, clip, NAMES, tmp_path / method, model="tiny", method=method).method.name == method
    with pytest.raises(UserError, match=r"has the tensors of CoOp\. Allowed: coop, kgcoop"):
        convert(file, clip, NAMES, tmp_path / "ivlp", model="tiny", method="ivlp")
    with pytest.raises(UserError, match="in another order"):
        convert(file, clip, NAMES[::-1], tmp_path / "other", model="tiny", method="pomp")


@pytest.mark.parametrize(
    ("base", "more"),
    [
        ("coop", "image_encoder.adapter.fc.0.weight"),
        ("coop", "prompt_learner.bias"),
        ("coop", "image_encoder.transformer.resblocks.0.attn.q_proj.w_lora_A"),
        ("maple", "adapter.fc.0.weight"),
        ("ivlp", "VPT_image_trans.conv1.0.weight"),
        ("ivlp", "text_encoder.transformer.resblocks.7.extra"),
        ("vpt", "VPT_image_trans.conv1.0.weight"),
    ],
)
def test_learned_tensors_without_a_place_are_named_and_refused(
    clip: Clip, tmp_path: Path, base: str, more: str
) -> None:
    made = {
        "coop": lambda: {f"prompt_learner.{name}": one for name, one in coop_tensors(clip).items()},
        "maple": lambda: maple_tensors(clip),
        "ivlp": lambda: whole_model(clip, text=True),
        "vpt": lambda: whole_model(clip, text=False),
    }
    file = save({**made[base](), more: draw(4, 4, seed=8)}, tmp_path / "f")
    with pytest.raises(UserError, match=rf"no place for: {more.removeprefix('prompt_learner.')}"):
        convert(file, clip, NAMES, tmp_path / "out", model="tiny")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module.prompt_learner.", "model.module."])
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", None])
def test_names_are_read_within_wrappers(clip: Clip, tmp_path: Path, prefix: str, key: str | None) -> None:
    stored = {f"{prefix}{name}": one for name, one in coop_tensors(clip).items()}
    torch.save(stored if key is None else {key: stored, "epoch": 1}, tmp_path / "f")
    assert convert(tmp_path / "f", clip, NAMES, tmp_path / "out", model="tiny").method.name == "coop"


def test_safetensors_and_plain_values_beside_the_tensors_are_read(clip: Clip, tmp_path: Path) -> None:
    stored = {name: one.contiguous() for name, one in coop_tensors(clip).items()}
    save_file(stored, tmp_path / "f.safetensors")
    torch.save({"state_dict": stored, "val_result": np.float64(61.5), "args": Namespace(lr=0.1)}, tmp_path / "g")
    for file in ("f.safetensors", "g"):
        convert(tmp_path / file, clip, NAMES, tmp_path / f"out-{file}", model="tiny")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(clip: Clip, tmp_path: Path, value: float) -> None:
    stored = coop_tensors(clip)
    stored["ctx"][1, 2] = value
    with pytest.raises(UserError, match="ctx holds numbers that are not finite") as refused:
        convert(save(stored, tmp_path / "f"), clip, NAMES, tmp_path / "out", model="tiny")
    assert refused.value.exit_code == NUMERICAL
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_in_several_files(clip: Clip, tmp_path: Path) -> None:
    """Whether their index, one of them or their folder is given, all are read; without one of them nothing is."""
    stored = {name: one.contiguous() for name, one in coop_tensors(clip).items()}
    wanted = convert(save(stored, tmp_path / "whole"), clip, NAMES, tmp_path / "out", model="tiny").prompt.ctx
    parts = {f"model-0000{i + 1}-of-00003.safetensors": name for i, name in enumerate(sorted(stored))}
    folder = tmp_path / "parts"
    folder.mkdir()
    for file, name in parts.items():
        save_file({name: stored[name]}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, name in parts.items()}}), encoding="utf-8")
    for i, given in enumerate((folder, index, folder / "model-00002-of-00003.safetensors")):
        found = convert(given, clip, NAMES, tmp_path / f"out{i}", model="tiny")
        assert torch.equal(found.prompt.ctx, wanted)
    assert len(found.facts["converted"]["sha256"]) == 64
    for i, name in enumerate(sorted(stored)):
        torch.save({"state_dict": {name: stored[name]}}, folder / f"old-{i + 1}-of-3.bin")
    assert torch.equal(
        convert(folder / "old-3-of-3.bin", clip, NAMES, tmp_path / "out-old", model="tiny").prompt.ctx, wanted
    )
    torch.save({"state_dict": stored}, folder / "old-1-of-3.bin")
    with pytest.raises(UserError, match=r"old-2-of-3.bin holds token_prefix, which another file"):
        convert(folder / "old-3-of-3.bin", clip, NAMES, tmp_path / "bad", model="tiny")
    (folder / "model-00001-of-00003.safetensors").unlink()
    for given in (folder, folder / "model-00002-of-00003.safetensors"):
        with pytest.raises(UserError, match=r"has no model-00001-of-00003\.safetensors"):
            convert(given, clip, NAMES, tmp_path / "bad", model="tiny")
    index.unlink()
    with pytest.raises(UserError, match=r"is a folder without .*it holds: model-00002-of-00003"):
        convert(folder, clip, NAMES, tmp_path / "bad", model="tiny")


def test_other_methods_with_the_same_names_are_told_by_their_shapes(clip: Clip, tmp_path: Path) -> None:
    fixed = {name: one.repeat(4, 1, 1) for name, one in buffers(clip, "X X X X", 4).items()}
    plot = save({"ctx": draw(4, 4, 64, seed=1), **fixed}, tmp_path / "plot")
    with pytest.raises(
        UserError, match=r"ctx \(4, 4, 64\) is 4 contexts for every class, with 12 sentences .* as PLOT"
    ):
        convert(plot, clip, NAMES, tmp_path / "out", model="tiny")
    tcp = cocoop_tensors(clip) | {"meta_net.linear2.weight": draw(256, 8, seed=2)}
    with pytest.raises(UserError, match=r"meta_net makes 256 numbers where CoCoOp's makes 64, as TCP's"):
        convert(save(tcp, tmp_path / "tcp"), clip, NAMES, tmp_path / "out", model="tiny")
    assert not (tmp_path / "out").exists()
