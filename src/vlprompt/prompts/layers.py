"""What prompts of several layers share: how many layers they enter, and the tensors that they start from.

Letters: N prompt tokens, M context tokens, D width of a tower. Layers count from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from vlprompt.errors import UserError, require
from vlprompt.types import ModelFacts, Splice

NORMAL, ZEROS = "normal", "zeros"
STD = 0.02


def place(tower: Literal["text", "image"], layer: int) -> str:
    """Where the tokens of a layer stand, in words."""
    first = {"text": "before the class name", "image": "after the patches"}
    return f"{tower} tower, layer {layer}, " + ("in place of the layer before's tokens" if layer else first[tower])


def places(tower: Literal["text", "image"], tokens: nn.ParameterDict) -> dict[str, str]:
    """`numbered` tokens of a tower by name, and where each stands."""
    return {f"{tower}.{layer}": place(tower, int(layer)) for layer in tokens}


def first_values(init: str, shape: tuple[int, ...], facts: ModelFacts, generator: torch.Generator) -> Tensor:
    """Where a context of this shape, (M, D) or (C, M, D), starts from: N(0, 0.02), or words that are exactly M tokens long.

    `zeros + WORDS`: the words in the last rows, zeros before (ProGrad's start, arXiv 2205.14865, its code). UserError: other lengths.
    """
    number = shape[-2]
    require_tokens("n_ctx", number)
    if init == NORMAL:
        return normal(shape, generator)
    kind, plus, last = init.partition("+")
    padded = kind.strip() == ZEROS and bool(plus)
    words = last.strip() if padded else init
    rows_WD = _rows_of(words, facts)
    if len(rows_WD) > number or (len(rows_WD) < number and not padded):
        raise UserError(
            f"the words {words!r} are {len(rows_WD)} tokens in this model's vocabulary, but n_ctx is {number}. Use "
            f"--set n_ctx={len(rows_WD)}, other words, or init=normal."
        )
    rows_MD = torch.cat([rows_WD.new_zeros(number - len(rows_WD), rows_WD.shape[1]), rows_WD])
    return rows_MD.expand(shape).clone()


def _rows_of(words: str, facts: ModelFacts) -> Tensor:
    """The embeddings (W, D) of words. UserError: there are none."""
    rows_WD = facts.embed_words(words).cpu()
    if not len(rows_WD):
        raise UserError(f"init={words!r} has no words. Write some, for example 'a photo of a', or take init=normal.")
    return rows_WD


AUTO, ALL = 0, 0
"""How `depth` is kept where it is not a number: "auto" is three quarters of the tower, "all" the whole of it."""
WORDS = "a photo of a"


def three_quarters(layers: int) -> int:
    """The default depth: floor of three quarters of a tower, at least 1 and below its depth where it can be.

    9 of the 12 layers of ViT-B/16, as published for MaPLe and PromptSRC; for other sizes project's choice.
    """
    return max(1, min(3 * layers // 4, layers - 1))


def depths(depth: int, layers: Mapping[str, int]) -> dict[str, int]:
    """Tower -> how many of its `layers` are prompted. UserError: a depth that was asked for is below 1 or above a tower's layers."""
    low = min(layers, key=lambda tower: layers[tower])
    if depth != AUTO and not 1 <= depth <= layers[low]:
        raise UserError(
            f"depth={depth}: the {low} tower of this model has {layers[low]} layers. Use 1 to {layers[low]}, or leave depth as it is."
        )
    return {tower: depth or three_quarters(count) for tower, count in layers.items()}


MAX_TOKENS = 1024


def require_tokens(name: str, count: int) -> None:
    """UserError for fewer tokens than one, or more than any tower has places for."""
    require(1 <= count <= MAX_TOKENS, f"{name}={count}", f"a whole number from 1 to {MAX_TOKENS:,}")


def require_image_prompts(facts: ModelFacts, text_method: str) -> None:
    """UserError where the image tower has no place for tokens."""
    if not facts.takes_image_prompts:
        raise UserError(
            "this method puts tokens into the image tower, but this model's is a ResNet, which has no place for them. Use a model "
            f"with a ViT image tower, or a method that prompts the text alone ({text_method})."
        )


def fixed_words(init: str, num_tokens: int) -> str:
    """The words of `init` that stay fixed behind the context, because it has fewer tokens than there are words.

    Source: MaPLe, arXiv 2210.03117, by its code: 2 tokens of "a photo of a" leave the fixed words "of a".
    """
    return "" if init == NORMAL else " ".join(init.split()[num_tokens:])


def start_context(init: str, num_tokens: int, facts: ModelFacts, generator: torch.Generator) -> Tensor:
    """The layer-0 text context (M, D): N(0, 0.02), or the embeddings of the first M words of `init`.

    If the words are fewer tokens than M, they are repeated, whole next to the class name. This is the project's choice: random
    tokens before them would hide the words, and RPP's control would start further from zero-shot than RPP. UserError where
    words are more than
    one token each, so they don't fit or cannot be cut.
    """
    if init == NORMAL:
        return normal((num_tokens, facts.text_width), generator)
    words = init.split()
    learned = " ".join(words[:num_tokens])
    rows_MD = _rows_of(learned, facts)
    if len(rows_MD) > num_tokens:
        room = f"--set n_ctx={len(rows_MD)}, " if len(words) <= num_tokens else ""
        raise UserError(
            f"the words {learned!r} are {len(rows_MD)} tokens in this model's vocabulary, but n_ctx is {num_tokens}. Use {room}other "
            "words (--set init=...) that are one token each, or init=normal."
        )
    return rows_MD.repeat(-(-num_tokens // len(rows_MD)), 1)[-num_tokens:]


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """N(0, 0.02), from the generator."""
    return torch.empty(shape).normal_(std=STD, generator=generator)


def numbered(tokens: Sequence[Tensor], start: int = 0) -> nn.ParameterDict:
    """Parameters named by layer, in the order of layers."""
    found = nn.ParameterDict()
    for layer, rows in enumerate(tokens, start=start):
        found[str(layer)] = nn.Parameter(rows)
    return found


def spliced(tokens: nn.ParameterDict) -> dict[int, Splice]:
    """`numbered` tokens, as they enter a tower."""
    return {int(layer): Splice(q=rows) for layer, rows in tokens.items()}


def uniform(outputs: int, inputs: int, generator: torch.Generator) -> Tensor:
    """The weights (outputs, inputs) of a linear layer as PyTorch starts it: uniform in +-1/sqrt(inputs), from the generator."""
    return torch.empty(outputs, inputs).uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer as PyTorch starts it, uniform in +-1/sqrt(inputs), but from the generator."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")  # without PyTorch's own draw
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias):
            tensor.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer
