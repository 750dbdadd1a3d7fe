"""Class lists of any length whose names are as long, in words and tokens, as ImageNet's.

Every name is one of the hundred real ones with each word replaced by another of equally many tokens: a word of the list, or for
words of one token any plain word of CLIP's vocabulary. The first hundred stay as they are.
"""

from __future__ import annotations

import random

from benchmarks.class_names import CLASS_NAMES
from vlprompt.towers.tokenizer import Tokenizer


def long_class_list(tokenizer: Tokenizer, number: int) -> list[str]:
    """`number` different names, the same at every call."""
    by_tokens: dict[int, list[str]] = {1: _plain_words(tokenizer)}
    for word in sorted({word for name in CLASS_NAMES for word in name.split()}):
        by_tokens.setdefault(len(tokenizer.encode(word)), []).append(word)
    rng = random.Random(0)
    names = dict.fromkeys(CLASS_NAMES[:number])
    while len(names) < number:
        pattern = CLASS_NAMES[len(names) % len(CLASS_NAMES)]
        for _ in range(100):  # a pattern of few variants may be used up: then the next length of list takes another
            name = " ".join(rng.choice(by_tokens[len(tokenizer.encode(word))]) for word in pattern.split())
            if name not in names:
                break
        names.setdefault(name if name not in names else f"{name} {len(names)}")
    return list(names)


def _plain_words(tokenizer: Tokenizer) -> list[str]:
    """Words of four letters or more that are one token."""
    words = (tokenizer.word(number) for number in range(tokenizer.vocab_size))
    return sorted({word for word in words if len(word) >= 4 and word.isascii() and word.isalpha()})
