"""Your own training loop: the towers and a method's prompt are plain torch modules, the rest is yours.

python examples/own_loop.py
"""

import torch
import torch.nn.functional as F

from vlprompt.data import few_shot, load_pixels, open_dataset
from vlprompt.methods.resolve import resolve
from vlprompt.towers import load

clip = load("pocket-s")
data = open_dataset("emoji-symbols")
sample = few_shot(data, shots=16, seed=1)
spec = resolve("coop", {"n_ctx": 3, "init": "a picture of"}).prompt
prompt = spec.build(clip.facts, torch.Generator().manual_seed(1), len(data.class_names))
tokens = clip.class_tokens(data.class_names, spec.layout)


def answers(images_NE: torch.Tensor) -> torch.Tensor:
    """Image features (N, E) -> logits (N, C); gradients reach the prompt through the frozen text tower."""
    text_CE = clip.encode_text(tokens, prompt()).pooled
    return clip.logit_scale * F.normalize(images_NE, dim=-1) @ F.normalize(text_CE, dim=-1).T


with torch.no_grad():
    train_NE, test_NE = (
        clip.encode_images(load_pixels(part, clip.preprocess, None)).pooled for part in (sample.train, data.test)
    )
labels = torch.tensor([one.label for one in sample.train])
optimiser = torch.optim.AdamW(prompt.parameters(), lr=0.01)
for step in range(60):
    loss = F.cross_entropy(answers(train_NE), labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if step % 20 == 19:
        right = answers(test_NE).argmax(1) == torch.tensor([one.label for one in data.test])
        print(f"step {step + 1}: loss {loss.item():.3f}, test {100 * right.float().mean().item():.1f} %")
