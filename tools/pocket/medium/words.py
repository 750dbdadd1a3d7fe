"""The phrases that pocket-m's text tower learns, and the sentence encoder's vector of each.

    python tools/pocket/medium/words.py SOURCES WORK      # writes WORK/phrases.json, WORK/vectors.npy, WORK/tokenizer.json

Phrases: WordNet's nouns, adjectives and verbs, nouns with the kind of thing that they are, glosses; ImageNet's class names; names and
keywords of the drawings; names of the icons. The encoder (all-MiniLM-L6-v2) teaches and is not shipped.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from sayings import around
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

sys.path.insert(0, str(Path(__file__).parents[1]))
from sources import clipart, emoji
from tokenizer import train

TOKENS = 6144
WORDS = 4  # the longest name


def wordnet(folder: Path) -> Iterator[tuple[str, str]]:
    """(what it is, phrase) of all synsets: name, kind (name, its hypernym) and gloss."""
    first: dict[str, str] = {}
    nouns = []
    for part in ("noun", "adj", "verb"):
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith(" "):
                continue
            facts, _, gloss = line.partition(" | ")
            fields = facts.split()
            count = int(fields[3], 16)
            names = [re.sub(r"\(.*\)", "", n).replace("_", " ").lower() for n in fields[4 : 4 + 2 * count : 2]]
            rest = fields[4 + 2 * count :]
            above = next((rest[i + 1] for i, f in enumerate(rest) if f == "@"), None)
            gloss = re.sub(r"\(.*?\)", "", gloss.split("; ")[0]).strip(' ;"')
            if names[0] != fields[4].replace("_", " ") or any(c.isdigit() for c in names[0]):
                continue  # proper names
            if part == "noun":
                first[fields[0]] = names[0]
                nouns.append((names, above))
            yield from (("name", n) for n in names if n.count(" ") < WORDS)
            if part == "noun" and 2 < len(gloss.split()) < 18:
                yield "gloss", gloss.lower()
    for names, above in nouns:
        if above in first and names[0].count(" ") < WORDS:
            yield "kind", f"{names[0]}, {first[above]}"


def icons(folder: Path) -> Iterator[tuple[str, str]]:
    """Names of all icons, of at most three words, by the number of sets that have them."""
    count: dict[str, int] = {}
    for path in sorted(folder.glob("*.json")):
        names = {" ".join(re.findall(r"[a-z]+", n)) for n in json.loads(path.read_text(encoding="utf-8"))["icons"]}
        for name in names:
            count[name] = count.get(name, 0) + 1
    yield from (("icon", n) for n, c in sorted(count.items()) if c > 2 and 0 < len(n.split()) <= 3 and len(n) > 2)


def gather(sources: Path) -> dict[str, str]:
    """Phrase -> what it is; a phrase that several sources have keeps the first."""
    out: dict[str, str] = {}

    def take(pairs: Iterator[tuple[str, str]]) -> None:
        for kind, phrase in pairs:
            out.setdefault(phrase, kind)

    root = sources / "drawings"
    for drawing in (*emoji(root, "noto"), *emoji(root, "fluent-3d"), *clipart(root)):
        take(("drawing", n) for n in (drawing.title.replace("\u2019", "'"), *drawing.keywords) if n)
    lemmas = (sources / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    take(("name", n.lower()) for line in lemmas for n in line.split("\t")[1].split(", "))
    take(icons(sources / "iconify"))
    take(wordnet(sources / "wordnet"))
    return out


class Teacher:
    """Sentences -> unit vectors (N, 384) of all-MiniLM-L6-v2: the mean of its last states."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(48)
        self.model = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False).eval()
        state = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("pooler")}
        missing = self.model.load_state_dict(state, strict=False)
        assert all("position_ids" in k for k in (*missing.missing_keys, *missing.unexpected_keys)), missing
        self.model.bfloat16()

    @torch.no_grad()
    def __call__(self, phrases: list[str], batch: int = 128) -> np.ndarray:
        ids = [e.ids for e in self.tokenizer.encode_batch(phrases)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = np.zeros((len(ids), 384), np.float16)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            length = max(len(ids[i]) for i in rows)
            mask = torch.tensor([[1] * len(ids[i]) + [0] * (length - len(ids[i])) for i in rows])
            tokens = torch.tensor([ids[i] + [0] * (length - len(ids[i])) for i in rows])
            states = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
            mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            out[rows] = torch.nn.functional.normalize(mean, dim=-1).half().numpy()
        return out


def main(sources: Path, work: Path) -> None:
    """Write phrases, their kinds, and vectors; the tokenizer unless it is there."""
    found = gather(sources)
    phrases = list(found)
    (work / "phrases.json").write_text(
        json.dumps({"phrases": phrases, "kinds": list(found.values())}), encoding="utf-8"
    )
    print(len(phrases), "phrases", {k: list(found.values()).count(k) for k in set(found.values())}, flush=True)
    if not (work / "tokenizer.json").exists():
        often = [p for p, kind in found.items() if kind in ("drawing", "icon")]
        train([*often, *often, *often, *phrases], TOKENS).save(str(work / "tokenizer.json"))
    teacher = Teacher(sources / "minilm")
    np.save(work / "around.npy", teacher(around()))
    np.save(work / "vectors.npy", teacher(phrases))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
