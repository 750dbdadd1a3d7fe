"""What the pictures of each part are called, as vectors: WORK/PART/names.json and WORK/names.npy (all parts' phrases).

python tools/pocket/medium/targets.py SOURCES WORK PART...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from words import Teacher


def called(fact: dict) -> list[str]:
    """The name first, then keywords."""
    title = fact["title"].replace("\u2019", "'").lower()
    if ": " in title:
        head, tail = title.split(": ", 1)
        title = f"{tail} flag" if "flag" in head else f"{head}, {tail}"
    return [title, *(k.lower() for k in fact.get("keywords", []))]


def class_names(sources: Path) -> list[list[str]]:
    """ImageNet's thousand classes in the order of the trunk's classifier, each with its lemmas."""
    lemma = dict(
        line.split("\t") for line in (sources / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    )
    return [
        lemma[s].lower().split(", ") for s in (sources / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    ]


def main(sources: Path, work: Path, *parts: str) -> None:
    """Write each part's lists of places in names.npy, and those of the thousand classes."""
    lists = {
        part: [called(f) for f in json.loads((work / part / "facts.json").read_text(encoding="utf-8"))]
        for part in parts
    }
    lists["classes"] = class_names(sources)
    facts = json.loads((work / "phrases.json").read_text(encoding="utf-8"))
    known = {p: n for n, p in enumerate(facts["phrases"])}
    every = list(dict.fromkeys(n for rows in lists.values() for names in rows for n in names))
    fresh = [n for n in every if n not in known]
    place = {n: i for i, n in enumerate(every)}
    vectors = np.zeros((len(every), 384), np.float16)
    old = [n for n in every if n in known]
    vectors[[place[n] for n in old]] = np.load(work / "vectors.npy", mmap_mode="r")[[known[n] for n in old]]
    if fresh:
        vectors[[place[n] for n in fresh]] = Teacher(sources / "minilm")(fresh)
    np.save(work / "names.npy", vectors)
    (work / "names.json").write_text(json.dumps({"names": every}), encoding="utf-8")
    for part, rows in lists.items():
        (work / part).mkdir(exist_ok=True)
        (work / part / "names.json").write_text(
            json.dumps([[place[n] for n in names] for names in rows]), encoding="utf-8"
        )
    print(len(every), "names,", len(fresh), "of them new")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
