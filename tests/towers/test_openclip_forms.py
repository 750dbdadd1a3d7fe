"""SigLIP, EVA-CLIP, CLIPA and MobileCLIP-B in open_clip's layout, against their published code written out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests import siglip
from tests.oracle import openclip as oracle
from tests.towers.layouts import refused
from vlprompt.describe import obstacle
from vlprompt.errors import UserError
from vlprompt.towers import Clip, load
from vlprompt.towers.tokenizer import clip_tokenizer
from vlprompt.types import Prompted, Splice, TextLayout
from vlprompt.verify.compare import error

Shapes = dict[str, tuple[int, ...]]
E, LENGTH = 48, 14


def text_shapes(width: int, layers: int, vocab: int, *, bias: bool, prefix: str) -> Shapes:
    out: Shapes = {
        "token_embedding.weight": (vocab, width),
        "positional_embedding": (LENGTH, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    }
    out |= (
        {"text_projection.weight": (E, width), "text_projection.bias": (E,)}
        if bias
        else {"text_projection": (width, E)}
    )
    out |= blocks("transformer.resblocks", width, 4 * width, layers)
    return {f"{prefix}{name}": shape for name, shape in out.items()}


def blocks(at: str, width: int, hidden: int, layers: int) -> Shapes:
    """open_clip's names."""
    out: Shapes = {}
    for i in range(layers):
        out |= {f"{at}.{i}.attn.in_proj_weight": (3 * width, width), f"{at}.{i}.attn.in_proj_bias": (3 * width,)}
        for name, (rows, columns) in {
            "attn.out_proj": (width, width),
            "mlp.c_fc": (hidden, width),
            "mlp.c_proj": (width, hidden),
        }.items():
            out |= {f"{at}.{i}.{name}.weight": (rows, columns), f"{at}.{i}.{name}.bias": (rows,)}
        for name in ("ln_1", "ln_2"):
            out |= {f"{at}.{i}.{name}.{kind}": (width,) for kind in ("weight", "bias")}
    return out


def timm_shapes(
    width: int, hidden: int, *, pairs: dict[str, tuple[int, int]], norms: dict[str, int], more: Shapes
) -> Shapes:
    """Two blocks of timm, their linear layers and norms named; and what stands around them."""
    out: Shapes = dict(more)
    for i in range(2):
        for name, (rows, columns) in pairs.items():
            out[f"blocks.{i}.{name}.weight"] = (rows, columns)
            if name not in ("attn.k_proj", "attn.qkv*"):
                out[f"blocks.{i}.{name}.bias"] = (rows,)
        for name, size in norms.items():
            out |= {f"blocks.{i}.{name}.{kind}": (size,) for kind in ("weight", "bias")}
    out |= {"norm.weight": (width,), "norm.bias": (width,)}
    return {f"visual.trunk.{name.replace('*', '')}": shape for name, shape in out.items()}


W, H, P = 48, 40, 9
LINEAR = {"attn.proj": (W, W), "mlp.fc2": (W, H)}
MLP = {"mlp.fc1": (H, W)}
PATCHES: Shapes = {"patch_embed.proj.weight": (W, 3, 8, 8), "patch_embed.proj.bias": (W,)}
HEAD: Shapes = {"head.weight": (E, W), "head.bias": (E,), "cls_token": (1, 1, W)}
TWO = {"norm1": W, "norm2": W}
EVA02 = timm_shapes(
    W,
    H,
    pairs={**LINEAR, **{f"attn.{one}_proj": (W, W) for one in "qkv"}, "mlp.fc1_g": (H, W), "mlp.fc1_x": (H, W)},
    norms={**TWO, "attn.norm": W, "mlp.norm": H},
    more={**PATCHES, **HEAD, "pos_embed": (1, 1 + P, W)},
)
EVA01 = timm_shapes(
    W,
    H,
    pairs={**LINEAR, **MLP, "attn.qkv*": (3 * W, W)},
    norms=TWO,
    more={**PATCHES, **HEAD, "pos_embed": (1, 1 + P, W)}
    | {f"blocks.{i}.attn.{one}_bias": (W,) for i in range(2) for one in "qv"},
)
POOL: Shapes = {"attn_pool.latent": (1, 1, E), "attn_pool.kv.weight": (2 * E, E), "attn_pool.kv.bias": (2 * E,)}
for name, size in {"q": (E, E), "proj": (E, E), "mlp.fc1": (H, E), "mlp.fc2": (E, H)}.items():
    POOL |= {f"attn_pool.{name}.weight": size, f"attn_pool.{name}.bias": size[:1]}
SIGLIP = timm_shapes(
    E,
    H,
    pairs={"attn.proj": (E, E), "mlp.fc2": (E, H), "mlp.fc1": (H, E), "attn.qkv": (3 * E, E)},
    norms={"norm1": E, "norm2": E},
    more={
        **POOL,
        **{f"attn_pool.norm.{kind}": (E,) for kind in ("weight", "bias")},
        **{"patch_embed.proj.weight": (E, 3, 8, 8), "patch_embed.proj.bias": (E,), "pos_embed": (1, P, E)},
    },
)
CLIP = timm_shapes(
    W,
    H,
    pairs={**LINEAR, **MLP, "attn.qkv": (3 * W, W)},
    norms=TWO,
    more={
        **HEAD,
        **{"patch_embed.proj.weight": (W, 3, 8, 8), "pos_embed": (1, 1 + P, W)},
        **{f"norm_pre.{kind}": (W,) for kind in ("weight", "bias")},
    },
)
STEM: Shapes = {}
for i, (into, out, size) in enumerate([(3, 12, 4), (12, 12, 2), (12, W, 1)]):
    STEM[f"patch_embed.backbone.{i}.conv.weight"] = (out, into, size, size)
    if i < 2:
        STEM |= {
            f"patch_embed.backbone.{i}.bn.{one}": (out,) for one in ("weight", "bias", "running_mean", "running_var")
        }
STEM["patch_embed.backbone.2.conv.bias"] = (W,)
MOBILE = timm_shapes(
    W, H, pairs={**LINEAR, **MLP, "attn.qkv": (3 * W, W)}, norms=TWO, more={**STEM, **HEAD, "pos_embed": (1, P, W)}
)
CLIPA: Shapes = {
    "visual.class_embedding": (W,),
    "visual.positional_embedding": (1 + P, W),
    "visual.conv1.weight": (W, 3, 8, 8),
    "visual.proj": (W, E),
    **{f"visual.ln_post.{kind}": (W,) for kind in ("weight", "bias")},
    **blocks("visual.transformer.resblocks", W, 4 * W, 2),
}
BERT = ("[PAD]", "[CLS]", "[SEP]", "<unk>")


@dataclass(frozen=True, kw_only=True)
class Form:
    """One published architecture in small."""

    vision: dict[str, Any]
    image: Shapes
    plain: Callable[[dict[str, Tensor], Tensor], Tensor]
    text: dict[str, Any]
    custom: bool = True
    tokens: tuple[tuple[str, ...], str] | None = None
    """Specials and the template of its tokenizer; None: CLIP's own."""
    bias: bool = False


def timm_form(
    name: str, image: Shapes, plain: Callable[..., Tensor], text: dict[str, Any] | None = None, **more: Any
) -> Form:
    pool = "map" if "siglip" in name else "token"
    vision = {
        "timm_model_name": name,
        "timm_model_pretrained": False,
        "timm_pool": pool,
        "timm_proj": None,
        "image_size": 24,
    }
    return Form(vision=vision, image=image, plain=plain, text=text or {}, **more)


SIGLIP_TEXT = {
    **{"hf_tokenizer_name": "timm/x", "tokenizer_kwargs": {"clean": "canonicalize"}, "no_causal_mask": True},
    **{"proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}},
}
SIGLIP_TOKENS = (("<pad>", "</s>", "<unk>"), "$A </s>")
HEADS = {"heads": 12, "layers": 2}
NATIVE: dict[str, Any] = {
    "vision": {
        **{"image_size": 24, "layers": 2, "width": W, "head_width": 12, "patch_size": 8},
        **{"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
    },
    "image": CLIPA,
    "plain": lambda w, x: oracle.clipa_image(w, x, heads=4, layers=2),
    "custom": False,
}
FORMS = {
    "EVA02-B-16": timm_form("eva02_base_patch16_clip_224", EVA02, lambda w, x: oracle.eva(w, x, **HEADS, rotary=True)),
    "EVA01-g-14": timm_form(
        "eva_giant_patch14_224", EVA01, lambda w, x: oracle.eva(w, x, heads=16, layers=2, rotary=False)
    ),
    "ViT-B-16-SigLIP": timm_form(
        "vit_base_patch16_siglip_224",
        SIGLIP,
        lambda w, x: oracle.siglip_image(w, x, **HEADS, approximate="none"),
        SIGLIP_TEXT,
        tokens=SIGLIP_TOKENS,
        bias=True,
    ),
    "ViT-B-32-SigLIP2-256": timm_form(
        "vit_base_patch32_siglip_256",
        SIGLIP,
        lambda w, x: oracle.siglip_image(w, x, **HEADS, approximate="tanh"),
        {**SIGLIP_TEXT, "act_kwargs": {"approximate": "tanh"}},
        tokens=(("<pad>", "<eos>", "<bos>", "<unk>"), "$A <eos>"),
        bias=True,
    ),
    "ViT-L-16-SigLIP2-512": timm_form(
        "vit_large_patch16_siglip_512",
        SIGLIP,
        lambda w, x: oracle.siglip_image(w, x, heads=16, layers=2, approximate="tanh"),
        SIGLIP_TEXT,
        tokens=SIGLIP_TOKENS,
        bias=True,
    ),
    "ViT-SO400M-16-SigLIP-i18n-256": timm_form(
        "vit_so400m_patch16_siglip_256",
        SIGLIP,
        lambda w, x: oracle.siglip_image(w, x, heads=16, layers=2, approximate="tanh"),
        {**SIGLIP_TEXT, "proj_bias": False, "proj_type": "none", "width": E},
        tokens=SIGLIP_TOKENS,
        bias=True,
    ),
    "MobileCLIP2-L-14": timm_form(
        "vit_large_patch14_clip_224",
        CLIP,
        lambda w, x: oracle.clip_image(w, x, heads=16, layers=2),
        {"no_causal_mask": True},
    ),
    "ViT-L-14-worldwide": Form(
        **NATIVE,
        text={
            **{"hf_tokenizer_name": "google/mt5-base", "tokenizer_kwargs": {"clean": "canonicalize"}},
            **{"pool_type": "eos", "eos_id": 1},
        },
        tokens=SIGLIP_TOKENS,
    ),
    "MobileCLIP-B": timm_form("vit_base_mci_224", MOBILE, lambda w, x: oracle.mobile_image(w, x, **HEADS)),
    "ViT-L-14-CLIPA": Form(
        **NATIVE,
        text={
            **{"hf_tokenizer_name": "bert-base-uncased", "tokenizer_kwargs": {"strip_sep_token": True}},
            **{"pool_type": "last", "no_causal_mask": True},
        },
        tokens=(BERT, "[CLS] $A [SEP]"),
    ),
    "bidirectional, argmax": Form(**NATIVE | {"custom": True}, text={"no_causal_mask": True}),
}


def drawn(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, shape in shapes.items():
        x = torch.randn(shape, generator=generator)
        if len(shape) > 1 and "embed" not in name and "token" not in name:
            x = (
                x / shape[1:].numel() ** 0.5
                if isinstance(shape, torch.Size)
                else x / torch.Size(shape[1:]).numel() ** 0.5
            )
        elif "norm" in name or "ln_" in name or "bn." in name:
            x = (1 if name.endswith("weight") else 0) + 0.2 * x
        out[name] = x.abs() + 0.5 if name.endswith("running_var") else 0.5 * x if len(shape) == 1 else x
    return out


def directory(path: Path, form: Form) -> tuple[Path, dict[str, Tensor]]:
    """The form's open_clip directory, and its tensors in its own names."""
    path.mkdir()
    backend = siglip.unigram(*form.tokens) if form.tokens else None
    vocab = backend.get_vocab_size() if backend else clip_tokenizer().vocab_size
    text = {"context_length": LENGTH, "vocab_size": vocab, "width": 24, "heads": 2, "layers": 2, **form.text}
    model = {"embed_dim": E, "vision_cfg": form.vision, "text_cfg": text, "custom_text": form.custom}
    tensors = drawn(
        {
            **text_shapes(
                text["width"], 2, vocab, bias=text.get("proj_bias", False), prefix="text." if form.custom else ""
            ),
            **form.image,
        }
    )
    if text.get("proj_type") == "none":
        del tensors["text.text_projection"]
    tensors["logit_scale"] = torch.tensor(2.0)
    if form.bias:
        model["init_logit_bias"] = -10
        tensors["logit_bias"] = torch.tensor(-9.0)
    transform = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    transform["resize_mode"] = "squash" if form.bias else "shortest"
    raw = {"model_cfg": model, "preprocess_cfg": transform}
    (path / "open_clip_config.json").write_text(json.dumps(raw), encoding="utf-8")
    save_file({name: one.contiguous() for name, one in tensors.items()}, path / "open_clip_model.safetensors")
    if backend:
        backend.save(str(path / "tokenizer.json"))
    return path, tensors


@pytest.fixture(scope="module", params=sorted(FORMS))
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Form, Clip, dict[str, Tensor]]:
    form = FORMS[request.param]
    path, tensors = directory(tmp_path_factory.mktemp("form") / "model", form)
    return form, load(path), tensors


def pixels() -> Tensor:
    return torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(3))


def test_images_equal_the_published_code(built: tuple[Form, Clip, dict[str, Tensor]]) -> None:
    form, clip, tensors = built
    start = "visual.trunk." if "timm_model_name" in form.vision else "visual."
    own = {name.removeprefix(start): one for name, one in tensors.items()}
    expected = form.plain(own, pixels())
    assert error(clip.encode_images(pixels()[None]).pooled[0], expected.numpy()) <= 1e-5
    assert clip.preprocess.squash == form.bias
    assert clip.logit_bias == (-9.0 if form.bias else 0.0)


def published_ids(form: Form, clip: Clip, sentence: str) -> tuple[list[int], int]:
    """The ids of a sentence as open_clip makes them, as long as the context, and the row that it pools."""
    if form.tokens is None:
        ids = [49406, *clip_tokenizer().encode(sentence), 49407]
        return [*ids, *[0] * (LENGTH - len(ids))], len(ids) - 1
    backend = siglip.unigram(*form.tokens)
    if "clean" in form.text["tokenizer_kwargs"]:
        sentence = sentence.translate(str.maketrans("", "", ".,!'-")).lower()
    ids = backend.encode(sentence).ids
    pad = backend.token_to_id(form.tokens[0][0])
    if form.tokens[0] is BERT:
        ids = [0 if one == backend.token_to_id("[SEP]") else one for one in ids]
    row = LENGTH - 1 if form.text["pool_type"] == "last" else len(ids) - 1
    return [*ids, *[pad] * (LENGTH - len(ids))], row


def test_texts_equal_the_published_code(built: tuple[Form, Clip, dict[str, Tensor]]) -> None:
    form, clip, tensors = built
    sentences = ["a photo of a cat.", "the red dog"]
    found = clip.encode_text(clip.sentence_tokens(sentences)).pooled
    own = {name.removeprefix("text."): one for name, one in tensors.items()}
    causal, eps = not form.text.get("no_causal_mask", False), form.text.get("norm_kwargs", {}).get("eps", 1e-5)
    approximate = form.text.get("act_kwargs", {}).get("approximate", "none")
    for ours, sentence in zip(found, sentences, strict=True):
        ids, row = published_ids(form, clip, sentence)
        theirs = oracle.text(own, ids, heads=2, layers=2, causal=causal, row=row, eps=eps, approximate=approximate)
        assert error(ours, theirs.numpy()) <= 1e-5


def test_learned_tokens_stand_in_front_of_the_name(built: tuple[Form, Clip, dict[str, Tensor]]) -> None:
    """In the first layer and in a deeper one, whether or not the tokenizer has a start token."""
    form, clip, tensors = built
    layout, names = TextLayout(num_tokens=2), ["cat", "red dog"]
    generator = torch.Generator().manual_seed(5)
    learned = {layer: torch.randn(2, clip.facts.text_width, generator=generator) for layer in (0, 1)}
    prompted = Prompted(text={layer: Splice(q=rows) for layer, rows in learned.items()}, layout=layout)
    found = clip.encode_text(clip.class_tokens(names, layout), prompted).pooled
    own = {name.removeprefix("text."): one for name, one in tensors.items()}
    causal, eps = not form.text.get("no_causal_mask", False), form.text.get("norm_kwargs", {}).get("eps", 1e-5)
    approximate = form.text.get("act_kwargs", {}).get("approximate", "none")
    more = {"heads": 2, "layers": 2, "causal": causal, "eps": eps, "approximate": approximate}
    first = len(clip.tokenizer.opening)
    for ours, name in zip(found, names, strict=True):
        ids, row = published_ids(form, clip, f"a the {name}.")  # two words of one token each, whose places are taken
        theirs = oracle.text(own, ids, row=row, learned=learned, first=first, **more)
        assert error(ours, theirs.numpy()) <= 1e-5


def test_without_a_start_token_nothing_predicts_the_first_word(tmp_path: Path) -> None:
    path, _ = directory(tmp_path / "model", FORMS["ViT-L-14-worldwide"])
    clip = load(path)
    assert not clip.tokenizer.opening
    assert not clip.facts.predicts_words
    with pytest.raises(UserError, match="without a start token"):
        clip.word_states(clip.tokenizer.encode("a cat"))
    assert "no first word without a start token" in obstacle("plpp+coop", clip)
    assert obstacle("maple", clip) == ""


def test_image_tokens_have_the_gradient_of_finite_differences(built: tuple[Form, Clip, dict[str, Tensor]]) -> None:
    _, clip, _ = built
    clip = clip.double()
    generator = torch.Generator().manual_seed(4)
    width = clip.facts.image_width
    first, second, weights, step = (
        torch.randn(n, generator=generator, dtype=torch.float64) for n in (width, width, E, width)
    )
    inside = first.clone().requires_grad_()

    def value(x: Tensor) -> Tensor:
        prompted = Prompted(image={0: Splice(q=x[None]), 1: Splice(q=second[None])})
        return (clip.encode_images(pixels()[None].double(), prompted).pooled[0] * weights).sum()

    value(inside).backward()
    assert inside.grad is not None
    with torch.no_grad():
        difference = (value(first + 1e-5 * step) - value(first - 1e-5 * step)) / 2e-5
    torch.testing.assert_close((inside.grad * step).sum(), difference, rtol=1e-6, atol=1e-8)
    clip.float()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("fastvit_mci1", "FastViT"), ("eva02_enormous_patch14_clip_224", "after each product"), ("other", "not known")],
)
def test_other_image_towers_are_refused_with_their_reason(tmp_path: Path, name: str, reason: str) -> None:
    path, _ = directory(tmp_path / "model", FORMS["MobileCLIP-B"])
    raw = json.loads((path / "open_clip_config.json").read_text(encoding="utf-8"))
    raw["model_cfg"]["vision_cfg"]["timm_model_name"] = name
    (path / "open_clip_config.json").write_text(json.dumps(raw), encoding="utf-8")
    assert reason in refused(path)


def test_a_missing_tensor_of_an_image_tower_is_named(tmp_path: Path) -> None:
    path, tensors = directory(tmp_path / "model", FORMS["EVA02-B-16"])
    del tensors["visual.trunk.norm.weight"]
    save_file({name: one.contiguous() for name, one in tensors.items()}, path / "open_clip_model.safetensors")
    assert "missing visual.ln_post.weight" in refused(path)
    del tensors["visual.trunk.patch_embed.proj.weight"]
    save_file({name: one.contiguous() for name, one in tensors.items()}, path / "open_clip_model.safetensors")
    assert "patch_embed.proj.weight" in refused(path)


def test_only_the_biases_of_keys_may_be_missing(tmp_path: Path) -> None:
    path, tensors = directory(tmp_path / "model", FORMS["EVA02-B-16"])
    del tensors["visual.trunk.blocks.0.attn.k_proj.weight"]
    save_file({name: one.contiguous() for name, one in tensors.items()}, path / "open_clip_model.safetensors")
    assert "blocks.0.attn.k_proj.weight" in refused(path)
