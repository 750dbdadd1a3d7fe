"""A checkpoint's tokenizer: its words as people read them, and the texts and files that it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from vlprompt.errors import DATA, UserError
from vlprompt.pocket import model_dir
from vlprompt.towers.tokenizer import END, START, Tokenizer


@pytest.fixture(scope="module")
def clips() -> Tokenizer:
    return Tokenizer.from_file(model_dir("pocket-s") / "tokenizer.json")


def sentencepiece(*, ends: str = "", **tokens: int) -> tokenizers.Tokenizer:
    """One of whole words behind "▁", as SigLIP's; ends: what it puts behind a text."""
    backend = tokenizers.Tokenizer(models.WordLevel({"▁a": 0, "▁dog": 1, "x": 2, "▁x": 3, **tokens}, unk_token="x"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    if ends:
        backend.post_processor = processors.TemplateProcessing(
            single=f"$A {ends}", special_tokens=[(ends, tokens[ends])]
        )
    return backend


def test_words_are_shown_as_people_read_them(clips: Tokenizer) -> None:
    whole, *pieces = clips.encode("dog"), *clips.encode("zebrafinch")
    assert clips.word(whole[0]) == "dog"
    assert [clips.word(one) for one in pieces][:-1] == [f"{clips.word(one)[:-1]}-" for one in pieces[:-1]]
    assert "".join(clips.word(one).rstrip("-") for one in pieces) == "zebrafinch"
    assert (clips.word(clips.start_id), clips.word(clips.end_id)) == (START, END)
    assert clips.word(clips.vocab_size + 5) == f"<{clips.vocab_size + 5}>", "an id that nobody has"
    assert clips.id_of(START) == clips.start_id
    assert clips.id_of("no such token") is None


def test_another_kind_marks_the_pieces_that_go_on() -> None:
    found = Tokenizer(sentencepiece(**{"</s>": 4}), "canonical")
    assert [found.word(one) for one in found.encode("A dog.")] == ["a", "dog"]
    assert found.word(2) == "-x"
    assert (found.opening, found.closing, found.end_id) == ([], [4], 4), "a known end, though no step adds it"
    assert Tokenizer(sentencepiece(ends="<end>", **{"<end>": 4}), "plain").closing == [4]
    without = Tokenizer(sentencepiece(), "plain")
    assert (without.start_id, without.end_id) == (-1, -1)


def test_a_name_with_a_reserved_token_is_refused(clips: Tokenizer) -> None:
    with pytest.raises(UserError, match="which the model reserves") as problem:
        clips.encode(f"a dog {END} and a cat")
    assert problem.value.exit_code == DATA
    ended = Tokenizer(sentencepiece(**{"</s>": 4}), "canonical")
    with pytest.raises(UserError, match="which the model reserves"):
        ended.encode("a dog</s>")


@pytest.mark.parametrize(
    "change",
    [{"model": {"type": "BPE"}}, {"model": None}, {"added_tokens": []}, {"pre_tokenizer": {"type": "Nothing"}}],
)
def test_a_file_that_is_no_clip_tokenizer_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    good = json.loads((model_dir("pocket-s") / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = {token: number for token, number in good["model"]["vocab"].items() if token not in (START, END)}
    if "added_tokens" in change:
        change = {**change, "model": {**good["model"], "vocab": vocabulary}}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**good, **change}), encoding="utf-8")
    with pytest.raises(UserError, match="tokenizer") as problem:
        Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert problem.value.exit_code == DATA
