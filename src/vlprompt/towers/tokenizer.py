"""CLIP's byte-pair tokenizer, as the checkpoint brings it."""

from __future__ import annotations

import html
from pathlib import Path

import tokenizers

from vlprompt.errors import DATA, UserError
from vlprompt.towers.limits import checked_tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


class Tokenizer:
    """Text -> token ids without [SOS] and [EOT]; the caller places those, so that a name can never move the end."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        # Some published files cut or pad to 77 tokens; a name that is too long must be refused, not cut.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        start, end = backend.token_to_id(START), backend.token_to_id(END)
        if start is None or end is None:
            raise UserError(
                f"the tokenizer has no {START} and {END}; a CLIP tokenizer has both. Use the checkpoint's own tokenizer.json.",
                exit_code=DATA,
            )
        self.start_id, self.end_id = int(start), int(end)

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Read a `tokenizer.json`."""
        content = checked_tokenizer(path)
        try:
            return cls(tokenizers.Tokenizer.from_str(content))
        except (UserError, KeyboardInterrupt):
            raise
        except BaseException as error:  # the library raises bare Exception, and its own panic, which is none
            raise UserError(
                f"cannot read the tokenizer {path}: {error}. Fetch the file again.", exit_code=DATA
            ) from error

    @property
    def vocab_size(self) -> int:
        return int(self._backend.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, cleaned as published: HTML entities unescaped, white space collapsed, lower case."""
        for special in (START, END):
            if special in text:
                raise UserError(
                    f"the text {text!r} contains {special!r}, which CLIP reserves. Remove it.", exit_code=DATA
                )
        clean = " ".join(html.unescape(html.unescape(text)).split()).lower()
        try:
            return list(self._backend.encode(clean, add_special_tokens=False).ids)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # as above
            raise UserError(
                f"the tokenizer fails on {text[:60]!r} ({error}). Use CLIP's own tokenizer.json.", exit_code=DATA
            ) from error

    def word(self, token_id: int) -> str:
        """A readable form of one token: `dog` for a whole word, `do-` for a piece that more letters must follow."""
        token = self._backend.id_to_token(token_id)
        if token is None:
            return f"<{token_id}>"
        if token in (START, END):
            return str(token)
        text = str(self._backend.decode([token_id], skip_special_tokens=False)).replace("</w>", "").strip()
        return text if token.endswith("</w>") else f"{text}-"
