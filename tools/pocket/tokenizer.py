"""Train a byte-level BPE in CLIP's manner on the captions, and write `tokenizer.json`.

    python tools/pocket/tokenizer.py DIR       # writes DIR/tokenizer.json; reuses it if it is there

The trainer of `tokenizers` gives another vocabulary in every run, so the file belongs to the weights.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from captions import caption, words_of
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SIZE = 4096
START, END = "<|startoftext|>", "<|endoftext|>"
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def empty(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """CLIP's normalisation, splitting and post-processing around a vocabulary."""
    model = models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train(texts: list[str], size: int = SIZE) -> Tokenizer:
    """A vocabulary of 256 bytes, 256 word-final bytes, merges, and the two special tokens last."""
    learner = empty({END: 0}, [])
    trainer = trainers.BpeTrainer(
        vocab_size=4 * size, min_frequency=1, end_of_word_suffix="</w>", show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(m) for m in json.loads(learner.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [c + "</w>" for c in letters]
    kept = []
    for pair in merges:
        if len(tokens) == size - 2:
            break
        if "".join(pair) not in tokens:
            kept.append(pair)
            tokens.append("".join(pair))
    if len(tokens) < size - 2:
        raise ValueError(f"the texts give {len(tokens) + 2} tokens, {size} were asked for")
    vocabulary = {token: n for n, token in enumerate([*tokens, START, END])}
    tokenizer = empty(vocabulary, kept)
    tokenizer.add_special_tokens([START, END])
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), add_prefix_space=False, trim_offsets=False
    )
    return tokenizer


def corpus(drawings: list[dict], seed: int = 20) -> list[str]:
    """Captions of every drawing, and English words that class names of one's own may need."""
    rng = random.Random(seed)
    texts = []
    for drawing in drawings:
        words = words_of(drawing)
        texts += [caption(words, rng).text for _ in range(3)] + [*words.names, ", ".join(words.keywords)]
    return texts


def main(folder: Path, size: int = SIZE) -> None:
    """Write the tokenizer of the drawings in `folder`, unless it has one."""
    target = folder / "tokenizer.json"
    if target.exists():
        print("kept the tokenizer that is there")
        return
    drawings = json.loads((folder / "drawings.json").read_text(encoding="utf-8"))
    chosen = json.loads((folder / "pretrain.json").read_text(encoding="utf-8"))
    train(corpus([drawings[i] for i in chosen]), size).save(str(target))
    print(f"{target}: {Tokenizer.from_file(str(target)).get_vocab_size()} tokens")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
