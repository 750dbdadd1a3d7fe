"""What prompts of several layers share: how many layers they enter, and the tensors that they start from.

Letters: N prompt tokens, M context tokens, D width of a tower. Layers count from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vlprompt.errors import UserError
from vlprompt.types import ModelFacts

NORMAL, ZEROS = "normal", "zeros"
STD = 0.02


def image_place(layer: int) -> str:
    """Where the image tokens of a layer stand, in words."""
    how = "after the patches" if layer == 0 else "in place of the layer before's tokens"
    return f"image tower, layer {layer}, {how}"


def text_place(layer: int) -> str:
    """Where the text tokens of a layer stand, in words."""
    how = "before the class name" if layer == 0 else "in place of the layer before's tokens"
    return f"text tower, layer {layer}, {how}"


def first_values(
    init: str, shape: tuple[int, ...], facts: ModelFacts, generator: torch.Generator, std: float
) -> Tensor:
    """Where a context of this shape, (M, D) or (C, M, D), starts from."""
    require_tokens("n_ctx", shape[-2])
    if init == NORMAL:
        return torch.empty(shape).normal_(std=std, generator=generator)
    kind, plus, words = init.partition("+")
    if kind.strip() == ZEROS and plus:
        return words_last(words.strip(), shape[-2], facts).expand(shape).clone()
    return start_from_words(init, shape[-2], facts).expand(shape).clone()


def _rows_of(words: str, facts: ModelFacts) -> Tensor:
    """The embeddings (W, D) of words. UserError: there are none."""
    rows_WD = facts.embed_words(words).cpu()
    if not len(rows_WD):
        raise UserError(f"init={words!r} has no words. Write some, for example 'a photo of a', or take init=normal.")
    return rows_WD


def words_last(words: str, num_tokens: int, facts: ModelFacts) -> Tensor:
    """The embeddings of words in the last rows of (M, D), zeros before (ProGrad's start, arXiv 2205.14865, its code)."""
    rows_WD = _rows_of(words, facts)
    if len(rows_WD) > num_tokens:
        raise UserError(
            f"the words {words!r} are {len(rows_WD)} tokens in this model's vocabulary, and n_ctx is {num_tokens}. Use "
            f"--set n_ctx={len(rows_WD)} or fewer words."
        )
    return torch.cat([rows_WD.new_zeros(num_tokens - len(rows_WD), rows_WD.shape[1]), rows_WD])


def start_from_words(words: str, num_tokens: int, facts: ModelFacts) -> Tensor:
    """The embeddings (M, D) of words that are exactly `num_tokens` tokens long."""
    rows_MD = _rows_of(words, facts)
    if len(rows_MD) != num_tokens:
        raise UserError(
            f"the words {words!r} are {len(rows_MD)} tokens in this model's vocabulary, but n_ctx is {num_tokens}. Use "
            f"--set n_ctx={len(rows_MD)}, other words, or init=normal."
        )
    return rows_MD


AUTO, ALL = 0, 0
"""How `depth` is kept where it is not a number: "auto" is three quarters of the tower, "all" the whole of it."""
WORDS = "a photo of a"


def three_quarters(layers: int) -> int:
    """The default depth: floor of three quarters of a tower, at least 1 and below its depth where it can be.

    9 of the 12 layers of ViT-B/16, as published for MaPLe and PromptSRC; for other sizes project's choice.
    """
    return max(1, min(3 * layers // 4, layers - 1))


def checked_depth(depth: int, layers: Mapping[str, int]) -> None:
    """UserError where a depth that was asked for is below 1 or above a tower's layers (`layers`: tower -> its layers)."""
    low = min(layers, key=lambda tower: layers[tower])
    if not 1 <= depth <= layers[low]:
        raise UserError(
            f"depth={depth}: the {low} tower of this model has {layers[low]} layers. Use 1 to {layers[low]}, or leave depth as it is."
        )


MAX_TOKENS = 1024


def require_tokens(name: str, count: int) -> None:
    """UserError for fewer tokens than one, or more than any tower has places for."""
    if not 1 <= count <= MAX_TOKENS:
        raise UserError(f"{name}={count}: it must be a whole number from 1 to {MAX_TOKENS:,}.")


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
