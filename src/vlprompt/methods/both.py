"""Methods whose learned tokens enter the image tower, alone or with the text tower's.

`published` is the base-to-novel setting (16 images per class, ViT-B/16) of the code that is named as its source. Depths are
"auto" there: three quarters of a tower, which is the published 9 of ViT-B/16's 12 layers and the project's choice elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

from vlprompt.losses.consistency import ConsistencyOptions, consistency_terms
from vlprompt.losses.distill import DistillOptions, distill_terms
from vlprompt.losses.rules import GaussianAverage
from vlprompt.methods.row import POCKET_WORDS, TUNED, Asked, Host, Recipe
from vlprompt.methods.templates import SIXTY
from vlprompt.prompts.joint import CoupledSpec, IndependentSpec
from vlprompt.prompts.unshared import UnsharedSpec
from vlprompt.prompts.vision import VisionSpec
from vlprompt.types import Ensemble, PromptSpec, Schedule

POCKET_SCHEDULE = Schedule(epochs=10, lr=0.01, batch=8)


def _consistent(options: ConsistencyOptions, prompt: PromptSpec | None) -> Asked:
    return Asked(
        terms=consistency_terms(options),
        average=GaussianAverage(mean=options.average_mean, std=options.average_std, epochs=options.average_epochs),
        teacher=Ensemble(templates=SIXTY) if options.teacher == "ensemble" else None,
    )


def _distilled(options: DistillOptions, prompt: PromptSpec | None) -> Asked:
    return Asked(terms=distill_terms(options), classes=options.sampling)


BOTH: tuple[Host, ...] = (
    Host(
        name="vpt",
        summary="learned image tokens in the first layer; the text is the template",
        learns="image tokens of the first layer",
        source="VPT, arXiv 2203.12119, as the CLIP baseline of MaPLe's code",
        recipes={
            "published": Recipe(
                prompt=VisionSpec(n_image=8, depth=1),
                schedule=Schedule(epochs=5, lr=0.0025, batch=4),
                source="muzairkhattak/multimodal-prompt-learning: configs/trainers/VPT (deep; at depth 1 project's choice)",
            ),
            "pocket": Recipe(
                prompt=VisionSpec(n_image=8, depth=1), schedule=replace(POCKET_SCHEDULE, lr=0.003), source=TUNED
            ),
        },
    ),
    Host(
        name="vpt-deep",
        summary="learned image tokens in every layer; the text is the template",
        learns="image tokens of every layer",
        source="VPT, arXiv 2203.12119, as the CLIP baseline of MaPLe's code",
        recipes={
            "published": Recipe(
                prompt=VisionSpec(n_image=8),
                schedule=Schedule(epochs=5, lr=0.0025, batch=4),
                source="muzairkhattak/multimodal-prompt-learning: configs/trainers/VPT, base-to-novel",
            ),
            "pocket": Recipe(prompt=VisionSpec(n_image=8), schedule=POCKET_SCHEDULE, source=TUNED),
        },
    ),
    Host(
        name="ivlp",
        summary="learned tokens in both towers, independent of each other",
        learns="text and image tokens of the first three quarters of each tower's layers",
        source="independent vision-language prompting, PromptSRC, arXiv 2307.06948, and its code",
        recipes={
            "published": Recipe(
                prompt=IndependentSpec(n_ctx=4, n_image=4),
                schedule=Schedule(epochs=20, lr=0.0025, batch=4),
                source="muzairkhattak/PromptSRC: configs/trainers/IVLP, base-to-novel",
            ),
            "pocket": Recipe(
                prompt=IndependentSpec(n_ctx=3, n_image=4, init=POCKET_WORDS),
                schedule=replace(POCKET_SCHEDULE, lr=0.03),
                source=TUNED,
            ),
        },
    ),
    Host(
        name="maple",
        summary="learned text tokens, and their linear images in the image tower",
        learns="text tokens of the first three quarters of the smaller tower's layers, and a projection for each layer",
        source="MaPLe, arXiv 2210.03117",
        recipes={
            "published": Recipe(
                prompt=CoupledSpec(n_ctx=2),
                schedule=Schedule(epochs=5, lr=0.0035, batch=4),
                source="muzairkhattak/multimodal-prompt-learning: configs/trainers/MaPLe, base-to-novel",
            ),
            "pocket": Recipe(prompt=CoupledSpec(n_ctx=2, init=POCKET_WORDS), schedule=POCKET_SCHEDULE, source=TUNED),
        },
    ),
    Host(
        name="promptsrc",
        summary="independent tokens in both towers, held near frozen CLIP, averaged over epochs",
        learns="text and image tokens of the first three quarters of each tower's layers",
        source="PromptSRC, arXiv 2307.06948",
        recipes={
            "published": Recipe(
                prompt=IndependentSpec(n_ctx=4, n_image=4),
                options=ConsistencyOptions(),
                schedule=Schedule(epochs=20, lr=0.0025, batch=4),
                source="muzairkhattak/PromptSRC: configs/trainers/PromptSRC, base-to-novel",
            ),
            "pocket": Recipe(
                prompt=IndependentSpec(n_ctx=3, n_image=4, init=POCKET_WORDS),
                options=ConsistencyOptions(),
                schedule=replace(POCKET_SCHEDULE, epochs=20, lr=0.03),
                source=TUNED,
            ),
        },
        asks=_consistent,
    ),
    Host(
        name="rpp",
        summary="unshared query, key and value tokens in both towers, with distillation from frozen CLIP",
        learns="query, key and value tokens of the first three quarters of each tower's layers, and the first layer's own",
        source="RPP, arXiv 2409.06166 (no published code; open choices are the project's, docs/methods/rpp.md)",
        recipes={
            "published": Recipe(
                prompt=UnsharedSpec(n_ctx=4, n_image=4),
                options=DistillOptions(),
                schedule=Schedule(epochs=20, lr=0.0025, batch=4),
                source="project's choice: PromptSRC's base-to-novel schedule; RPP's own is not public",
            ),
            "pocket": Recipe(
                prompt=UnsharedSpec(n_ctx=3, n_image=4, init=POCKET_WORDS),
                options=DistillOptions(),
                schedule=POCKET_SCHEDULE,
                source=TUNED,
            ),
        },
        asks=_distilled,
    ),
    Host(
        name="rpp-shared3x",
        summary="RPP's control: three times as many ordinary tokens in both towers, the same distillation",
        learns="text and image tokens of the first three quarters of each tower's layers",
        source="project's own control for RPP, arXiv 2409.06166",
        recipes={
            "published": Recipe(
                prompt=IndependentSpec(n_ctx=12, n_image=12),
                options=DistillOptions(),
                schedule=Schedule(epochs=20, lr=0.0025, batch=4),
                source="project's choice: as rpp, with 12 + 12 tokens",
            ),
            "pocket": Recipe(
                prompt=IndependentSpec(n_ctx=9, n_image=12, init=POCKET_WORDS),
                options=DistillOptions(),
                schedule=POCKET_SCHEDULE,
                source="project's choice: rpp's for the small models",
            ),
        },
        asks=_distilled,
    ),
)
