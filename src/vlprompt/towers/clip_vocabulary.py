"""CLIP's own byte-pair vocabulary (49,408 tokens), for checkpoints that bring no tokenizer.

`clip_vocabulary.txt.gz` is the merge list that OpenAI published with CLIP (MIT licence; see NOTICE).
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from tokenizers import Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from vlprompt.towers.tokenizer import END, START, Tokenizer

_NUM_MERGES = 49152 - 256 - 2
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@cache
def clip_tokenizer() -> Tokenizer:
    """The published tokenizer: lower case, CLIP's word pattern, byte-level pieces, `</w>` at word ends."""
    packed = files("vlprompt.towers").joinpath("clip_vocabulary.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").split("\n")[1 : _NUM_MERGES + 1]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())  # one for each byte, in the published order
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    return byte_pair_tokenizer({token: i for i, token in enumerate(tokens)}, merges)


def byte_pair_tokenizer(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """CLIP's tokenizer from its vocabulary and its merges, the most frequent first."""
    backend = Backend(models.BPE(dict(vocab), list(merges), end_of_word_suffix="</w>", unk_token=END))
    backend.add_special_tokens([token for token in (START, END) if token in vocab])
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return Tokenizer(backend)
