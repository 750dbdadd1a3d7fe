"""A new method in a few lines: CoOp's context, asked to stay near the words that it starts from. The loop is the package's.

    python examples/new_method.py

docs/add-a-method.md says how it becomes a row of `vlprompt methods`, with options, recipes and commands.
"""

import torch

from vlprompt.data import few_shot, open_dataset
from vlprompt.engine.evaluate import Classifier, accuracy
from vlprompt.engine.images import open_images
from vlprompt.engine.train import Lesson, train
from vlprompt.losses import CROSS_ENTROPY
from vlprompt.prompts import ContextSpec
from vlprompt.towers import load
from vlprompt.types import Method, Schedule, Steps, Term, View

clip, data, words = load("pocket-s"), open_dataset("emoji-symbols"), "a picture of"
start_MD = clip.embed_words(words)


def distance(view: View) -> torch.Tensor:
    """The mean squared distance of the context from its words."""
    return (view.prompted.text[0].q - start_MD).square().mean()


near = Term(
    name="near", score=distance, weight=100.0, formula="L_near = mean_md (ctx_md - start_md)^2", over_images=False
)
method = Method(
    name="near-words",
    prompt=ContextSpec(n_ctx=3, init=words),
    learner=Steps(terms=(CROSS_ENTROPY, near), schedule=Schedule(epochs=20, lr=0.1, batch=32)),
)
images, sample = open_images(clip, None), few_shot(data, shots=16, seed=1)
lesson = Lesson(samples=sample.train, class_names=data.class_names, template=data.template, seed=1, views="centre")
prompt = train(clip, method, lesson, images)
right = accuracy(Classifier(clip, method, prompt, data.class_names, data.template), data.test, images)
count = sum(parameter.numel() for parameter in prompt.parameters())
print(f"{method.name}: {count} numbers learned, test {right:.1f} %")
