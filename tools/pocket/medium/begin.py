"""Where both towers begin: what can be solved without a gradient; few steps are left to learn.

    python tools/pocket/medium/begin.py WORK           # writes WORK/begin_text.pt; the image tower begins in train_image.py

Text: token embeddings by ridge regression of the phrases' vectors on their tokens (a bag of words), the first attention of every row
an even mean, the projection by ridge regression on the tower's own states.
Image: the patch embedding from ridge regression of the names' vectors on the trunk's mean feature, the rest likewise.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix
from tokenizers import Tokenizer
from torch import Tensor
from tower import WIDTH, ImageTower, TextTower

RIDGE = 3.0
ROWS = 0.05
"""Root mean square of a token's embedding."""


def bag_of_words(ids: list[list[int]], vectors: np.ndarray, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Token embeddings (V, WIDTH), and the map (WIDTH, 384) that makes vectors of their means."""
    rows = np.repeat(np.arange(len(ids)), [len(i) for i in ids])
    columns = np.concatenate([np.array(i) for i in ids])
    values = np.concatenate([np.full(len(i), 1 / len(i), np.float32) for i in ids])
    counts = csr_matrix((values, (rows, columns)), shape=(len(ids), vocabulary))
    gram = (counts.T @ counts).toarray() + RIDGE * np.eye(vocabulary, dtype=np.float32) * 0.1
    solved = np.linalg.solve(gram, counts.T @ vectors.astype(np.float32))
    # The best map of this rank, weighted by how often a token is met.
    often = np.sqrt(np.asarray(counts.sum(0)).ravel() + 0.1)
    _, _, directions = np.linalg.svd(solved * often[:, None], full_matrices=False)
    return solved @ directions[:WIDTH].T, directions[:WIDTH]


def even_mean(attention: torch.nn.Module, width: int, strength: float) -> None:
    """Queries and keys of nothing, values and outputs that copy: attention becomes `strength` times the mean of the rows seen."""
    with torch.no_grad():
        attention.in_proj_weight[: 2 * width].mul_(0.3)
        attention.in_proj_weight[2 * width :].copy_(torch.eye(width))
        attention.out_proj.weight.copy_(strength * torch.eye(width))


def quiet(blocks: torch.nn.Module, share: float) -> None:
    """Later blocks begin as small changes."""
    for block in blocks.resblocks:
        with torch.no_grad():
            block.mlp.c_proj.weight.mul_(share)
    for block in blocks.resblocks[1:]:
        with torch.no_grad():
            block.attn.out_proj.weight.mul_(share)


def ridge(states: Tensor, vectors: Tensor, share: float = 1e-3) -> Tensor:
    """(N, D) -> (N, E): the map (D, E)."""
    gram = states.T @ states
    return torch.linalg.solve(gram + share * gram.diagonal().mean() * torch.eye(len(gram)), states.T @ vectors)


def begin_text(model: TextTower, ids: list[list[int]], vectors: np.ndarray) -> None:
    """Set a new text tower to the bag of words; `ids` with start and end."""
    embedding, _ = bag_of_words([i[1:-1] or i for i in ids], vectors, model.token_embedding.num_embeddings)
    with torch.no_grad():
        model.token_embedding.weight.copy_(torch.from_numpy(embedding * (ROWS / np.sqrt((embedding**2).mean()))))
        model.positional_embedding.mul_(0.5)
    even_mean(model.transformer.resblocks[0].attn, WIDTH, 0.5)
    quiet(model.transformer, 0.3)


def begin_image(model: ImageTower, features: Tensor, vectors: Tensor) -> None:
    """Set a new image tower to ridge regression on mean features (N, 1280)."""
    centred = features - features.mean(0)
    deviation = centred.std(0) + 0.05
    solved = ridge(centred / deviation, vectors - vectors.mean(0), 0.03)
    left, strength, _ = torch.linalg.svd(solved, full_matrices=False)
    with torch.no_grad():
        model.patch.weight.copy_((left * (strength / strength[0]).sqrt()).T[:WIDTH] / deviation * 2)
    even_mean(model.transformer.resblocks[0].attn, WIDTH, 1.0)
    quiet(model.transformer, 0.3)


@torch.no_grad()
def end_states(model: TextTower, ids: list[list[int]], end: int, longest: int = 24) -> Tensor:
    """States at the end tokens (N, WIDTH)."""
    out = []
    for start in range(0, len(ids), 256):
        some = [one[:longest] for one in ids[start : start + 256]]
        tokens = torch.full((len(some), max(map(len, some))), end)
        for line, one in zip(tokens, some, strict=True):
            line[: len(one)] = torch.tensor(one)
        out.append(model.states(tokens)[torch.arange(len(some)), torch.tensor([len(one) - 1 for one in some])])
    return torch.cat(out)


def main(work: Path) -> None:
    facts = json.loads((work / "phrases.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    names = [i for i, kind in enumerate(facts["kinds"]) if kind in ("drawing", "icon", "name")]
    np.random.default_rng(0).shuffle(names)
    vectors = np.load(work / "vectors.npy")[names]
    ids = [e.ids for e in tokenizer.encode_batch([facts["phrases"][i] for i in names])]
    torch.manual_seed(1)
    model, held = TextTower(tokenizer.get_vocab_size()), 2000
    begin_text(model, ids[:-held], vectors[:-held])
    states = end_states(model, [*ids[:6000], *ids[-held:]], tokenizer.token_to_id("<|endoftext|>"))
    with torch.no_grad():
        model.text_projection.copy_(ridge(states[:6000], torch.from_numpy(vectors[:6000]).float()))
    told = torch.cosine_similarity(states[6000:] @ model.text_projection, torch.from_numpy(vectors[-held:]).float())
    print("cosine on phrases that were held out:", round(told.mean().item(), 3))
    torch.save(model.state_dict(), work / "begin_text.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
