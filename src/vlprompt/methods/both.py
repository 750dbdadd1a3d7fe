"""Methods whose learned tokens enter the image tower, alone or with the text tower's."""

from __future__ import annotations

from vlprompt.losses.consistency import ConsistencyOptions, consistency_terms
from vlprompt.losses.distill import DistillOptions, distill_terms
from vlprompt.losses.rules import GaussianAverage
from vlprompt.methods.row import Asked, Host
from vlprompt.methods.templates import SIXTY
from vlprompt.prompts.joint import CoupledSpec, IndependentSpec
from vlprompt.prompts.unshared import UnsharedSpec
from vlprompt.prompts.vision import VisionSpec
from vlprompt.types import Ensemble, PromptSpec


def _consistent(options: ConsistencyOptions, prompt: PromptSpec) -> Asked:
    return Asked(
        terms=consistency_terms(options),
        average=GaussianAverage(mean=options.average_mean, std=options.average_std, epochs=options.average_epochs),
        teacher=Ensemble(templates=SIXTY) if options.teacher == "ensemble" else None,
    )


BOTH: tuple[Host, ...] = (
    Host(
        name="vpt",
        summary="learned image tokens in the first layer; the text is the template",
        learns="image tokens of the first layer",
        source="VPT, arXiv 2203.12119, as the CLIP baseline of MaPLe's code",
        prompt=VisionSpec(depth=1),
    ),
    Host(
        name="vpt-deep",
        summary="learned image tokens in every layer; the text is the template",
        learns="image tokens of every layer",
        source="VPT, arXiv 2203.12119, as the CLIP baseline of MaPLe's code",
        prompt=VisionSpec(),
    ),
    Host(
        name="ivlp",
        summary="learned tokens in both towers, independent of each other",
        learns="text and image tokens of the first three quarters of each tower's layers",
        source="independent vision-language prompting, PromptSRC, arXiv 2307.06948, and its code",
        prompt=IndependentSpec(),
    ),
    Host(
        name="maple",
        summary="learned text tokens, and their linear images in the image tower",
        learns="text tokens of the first three quarters of the smaller tower's layers, and a projection for each layer",
        source="MaPLe, arXiv 2210.03117",
        prompt=CoupledSpec(),
    ),
    Host(
        name="promptsrc",
        summary="independent tokens in both towers, held near frozen CLIP, averaged over epochs",
        learns="text and image tokens of the first three quarters of each tower's layers",
        source="PromptSRC, arXiv 2307.06948",
        prompt=IndependentSpec(),
        options=ConsistencyOptions(),
        asks=_consistent,
    ),
    Host(
        name="rpp",
        summary="unshared query, key and value tokens in both towers, with distillation from frozen CLIP",
        learns="query, key and value tokens of the first three quarters of each tower's layers, and the first layer's own",
        source="RPP, arXiv 2409.06166 (no published code; open choices are the project's, docs/methods/rpp.md)",
        prompt=UnsharedSpec(),
        options=DistillOptions(),
        asks=lambda options, _: Asked(terms=distill_terms(options), classes=options.sampling),
    ),
    Host(
        name="rpp-shared3x",
        summary="RPP's control: three times as many ordinary tokens in both towers, the same distillation",
        learns="text and image tokens of the first three quarters of each tower's layers",
        source="project's own control for RPP, arXiv 2409.06166",
        prompt=IndependentSpec(n_ctx=12, n_image=12),
        options=DistillOptions(),
        asks=lambda options, _: Asked(terms=distill_terms(options), classes=options.sampling),
    ),
)
