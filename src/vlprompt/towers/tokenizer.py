"""The tokenizer that a checkpoint brings: CLIP's byte pairs, or another one that says itself how a sentence begins and ends.

CLIP's own vocabulary (49,408 tokens) is here for checkpoints that bring none.
"""

from __future__ import annotations

import gzip
import html
import string
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from vlprompt.errors import UserError, data_error
from vlprompt.towers.limits import checked_tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
PLACEHOLDER = "X"
Manner = Literal["clip", "canonical", "lower", "plain"]
"""How a text is cleaned: ``clip`` HTML entities unescaped, white space collapsed, lower case; ``canonical`` lower case without ASCII
punctuation, `_` a space (SigLIP); ``lower`` lower case (SigLIP 2); ``plain`` white space collapsed."""
NO_PUNCTUATION = str.maketrans({**dict.fromkeys(string.punctuation, ""), "_": " "})


class Tokenizer:
    """Text -> token ids without what opens and closes a sentence; the caller places those, so a name can never move the end."""

    def __init__(self, backend: tokenizers.Tokenizer, manner: Manner = "clip") -> None:
        # Some published files cut or pad to 77 tokens; a name that is too long must be refused, not cut.
        backend.no_truncation()
        backend.no_padding()
        self._backend, self.manner = backend, manner
        self.opening: list[int] = []
        """The ids that stand before every sentence."""
        self.closing: list[int] = []
        """The ids that stand behind it."""
        if manner != "clip" and backend.token_to_id(START) is not None:
            self.manner = manner = "clip"  # its own tokens say whose it is
        if manner != "clip":
            self.opening, self.closing = self._around()
            self.start_id, self.end_id = (self.opening or [-1])[0], (self.closing or [-1])[-1]
            return
        start, end = backend.token_to_id(START), backend.token_to_id(END)
        if start is None or end is None:
            raise data_error(
                f"the tokenizer has no {START} and {END}; a CLIP tokenizer has both. Use the checkpoint's own tokenizer.json."
            )
        self.start_id, self.end_id = int(start), int(end)
        """-1 where there is none."""
        self.opening, self.closing = [self.start_id], [self.end_id]

    def _around(self) -> tuple[list[int], list[int]]:
        """What the tokenizer's last step puts around a text; behind it at least the end of a sentence, where a token is known for it."""
        bare, whole = (list(self._backend.encode("x", add_special_tokens=one).ids) for one in (False, True))
        first = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        closing = whole[first + len(bare) :]
        ends = (self._backend.token_to_id(token) for token in ("</s>", "<eos>"))
        return whole[:first], closing or [int(one) for one in ends if one is not None][:1]

    @classmethod
    def from_file(cls, path: Path, manner: Manner = "clip") -> Tokenizer:
        """Read a `tokenizer.json`."""
        content = checked_tokenizer(path)
        try:
            return cls(tokenizers.Tokenizer.from_str(content), manner)
        except (UserError, KeyboardInterrupt):
            raise
        except BaseException as error:  # the library raises bare Exception, and its own panic, which is none
            raise data_error(f"cannot read the tokenizer {path}: {error}. Fetch the file again.") from error

    @property
    def vocab_size(self) -> int:
        return int(self._backend.get_vocab_size())

    def id_of(self, token: str) -> int | None:
        """The id of a token that is written so; None: there is none."""
        found = self._backend.token_to_id(token)
        return None if found is None else int(found)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, cleaned in the tokenizer's manner. UserError: a text with one of its reserved tokens."""
        return list(self._encoded(text).ids)

    def encode_after(self, number: int, text: str) -> list[int]:
        """Token ids of `text` behind so many other words: "X X X X a dog." is tokenised whole, and cut."""
        before = " ".join([PLACEHOLDER] * number)
        whole = self._encoded(f"{before} {text}")
        if self.manner == "clip":  # as published: one token for each X
            return list(whole.ids)[number:]
        return [token for token, (_, stop) in zip(whole.ids, whole.offsets, strict=True) if stop > len(before)]

    def _clean(self, text: str) -> str:
        if self.manner == "clip":
            text = html.unescape(html.unescape(text))
        elif self.manner == "canonical":
            text = text.translate(NO_PUNCTUATION)
        text = " ".join(text.split())
        return text if self.manner == "plain" else text.lower()

    def _encoded(self, text: str) -> tokenizers.Encoding:
        ids = (self.start_id, self.end_id)
        reserved = [str(self._backend.id_to_token(one)) for one in ids if one >= 0]
        for special in reserved:
            if special in text:
                raise data_error(f"the text {text!r} contains {special!r}, which the model reserves. Remove it.")
        try:
            return self._backend.encode(self._clean(text), add_special_tokens=False)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # as above
            raise data_error(
                f"the tokenizer fails on {text[:60]!r} ({error}). Use CLIP's own tokenizer.json."
            ) from error

    def word(self, token_id: int) -> str:
        """A readable form of one token: `dog` for a whole word, `do-` for a piece that more letters must follow."""
        token = self._backend.id_to_token(token_id)
        if token is None:
            return f"<{token_id}>"
        if token in (START, END):
            return str(token)
        if self.manner != "clip":
            return str(token).replace("▁", "") if token.startswith("▁") else f"-{token}"
        text = str(self._backend.decode([token_id], skip_special_tokens=False)).replace("</w>", "").strip()
        return text if token.endswith("</w>") else f"{text}-"


_NUM_MERGES = 49152 - 256 - 2
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@cache
def clip_tokenizer() -> Tokenizer:
    """CLIP's own: lower case, its word pattern, byte-level pieces, `</w>` at word ends; merges as OpenAI published them (see NOTICE)."""
    packed = files("vlprompt.towers").joinpath("clip_vocabulary.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").split("\n")[1 : _NUM_MERGES + 1]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())  # one for each byte, in the published order
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    return byte_pair_tokenizer({token: i for i, token in enumerate(tokens)}, merges)


def byte_pair_tokenizer(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """CLIP's tokenizer from its vocabulary and its merges, the most frequent first."""
    backend = tokenizers.Tokenizer(models.BPE(dict(vocab), list(merges), end_of_word_suffix="</w>", unk_token=END))
    backend.add_special_tokens([token for token in (START, END) if token in vocab])
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return Tokenizer(backend)
