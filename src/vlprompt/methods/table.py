"""The published methods: literal tables that can be read from top to bottom."""

from __future__ import annotations

from vlprompt.losses.classify import CROSS_ENTROPY
from vlprompt.losses.consistency import (
    AnchorOptions,
    ConsistencyOptions,
    DistillOptions,
    UnlabelledOptions,
    anchor_terms,
    consistency_terms,
    distill_terms,
    unlabelled_terms,
)
from vlprompt.losses.plpp import PlppOptions, plpp_cost, plpp_notes, plpp_terms
from vlprompt.losses.rules import GaussianAverage, ProGradOptions, Projection, teacher_term
from vlprompt.losses.sampled import SamplingOptions, sampled_terms
from vlprompt.methods.row import Asked, Host, Overlay
from vlprompt.methods.sentences import DescriptionOptions, SentenceOptions
from vlprompt.methods.templates import SIXTY
from vlprompt.prompts import BareSpec, ConditionedSpec, ContextSpec
from vlprompt.prompts.after_image import AdapterSpec, ProjectedSpec
from vlprompt.prompts.attest import Tpt, TptOptions
from vlprompt.prompts.context import ClassAwareSpec
from vlprompt.prompts.joint import CoupledSpec, IndependentSpec, VisionSpec
from vlprompt.prompts.lowrank import LowRankSpec
from vlprompt.prompts.unshared import UnsharedSpec
from vlprompt.solvers import LinearProbe, LinearSpec, ProbeOptions
from vlprompt.solvers.blend import BlendedProbe, BlendOptions, BlendSpec
from vlprompt.solvers.cache import CacheOptions, CacheSpec, FilledCache, SearchedCache
from vlprompt.types import Ensemble, Fit, PromptSpec, Steps


def _projected(options: ProGradOptions, prompt: PromptSpec) -> Asked:
    terms = (CROSS_ENTROPY, teacher_term(options.temperature))
    return Asked(learner=Steps(terms=terms, rule=Projection(strength=options.strength)))


def _consistent(options: ConsistencyOptions, prompt: PromptSpec) -> Asked:
    average = GaussianAverage(mean=options.average_mean, std=options.average_std, epochs=options.average_epochs)
    return Asked(
        learner=Steps(terms=consistency_terms(options), average=average),
        teacher=Ensemble(templates=SIXTY) if options.teacher == "ensemble" else None,
    )


def _keys_learn(options: CacheOptions, prompt: PromptSpec) -> Asked:
    first, last = FilledCache(options=options), SearchedCache(options=options)
    return Asked(learner=Steps(terms=(CROSS_ENTROPY,), first=first, last=last))


HOSTS: tuple[Host, ...] = (
    # Learned tokens enter the text tower alone, or none are learned.
    Host(
        name="zero-shot",
        summary="the hand-written template of the data set, or the mean of several",
        learns="nothing",
        source="CLIP, arXiv 2103.00020",
        prompt=BareSpec(),
        options=SentenceOptions(),
        asks=lambda options, _: Asked(learner=None, teacher=options.ensemble),
    ),
    Host(
        name="descriptions",
        summary="several sentences that describe each class, such as a language model writes",
        learns="nothing",
        source="CuPL, arXiv 2209.03320",
        prompt=BareSpec(),
        options=DescriptionOptions(),
        asks=lambda options, _: Asked(learner=None, teacher=options.ensemble),
    ),
    Host(
        name="linear-probe",
        summary="logistic regression on frozen image features",
        learns="a weight row and a bias per class, fitted at once",
        source="CLIP, arXiv 2103.00020, as the baseline of CoOp's code (lpclip)",
        prompt=LinearSpec(),
        options=ProbeOptions(),
        asks=lambda options, _: Asked(learner=Fit(solver=LinearProbe(options=options))),
    ),
    Host(
        name="coop",
        summary="learned context tokens in front of the class name",
        learns="text context tokens of the first layer",
        source="CoOp, arXiv 2109.01134",
        prompt=ContextSpec(),
    ),
    Host(
        name="cocoop",
        summary="a context that a small network shifts for every image",
        learns="text context tokens of the first layer, and a network of two layers",
        source="CoCoOp, arXiv 2203.05557",
        prompt=ConditionedSpec(),
    ),
    Host(
        name="kgcoop",
        summary="a context whose class features stay near the hand-written template's",
        learns="text context tokens of the first layer",
        source="KgCoOp, arXiv 2303.13283",
        asks=lambda options, _: Asked(learner=Steps(terms=(CROSS_ENTROPY, *anchor_terms(options)))),
        prompt=ContextSpec(),
        options=AnchorOptions(),
    ),
    Host(
        name="prograd",
        summary="a context whose gradient does not work against zero-shot CLIP's",
        learns="text context tokens of the first layer",
        source="ProGrad, arXiv 2205.14865",
        asks=_projected,
        prompt=ContextSpec(),
        options=ProGradOptions(),
    ),
    Host(
        name="pomp",
        summary="a context for very many classes: each step compares with some of them",
        learns="text context tokens of the first layer",
        source="POMP, arXiv 2304.04704",
        asks=lambda options, _: Asked(learner=Steps(terms=sampled_terms(options), classes=options.sampling)),
        prompt=ContextSpec(),
        options=SamplingOptions(),
    ),
    # Learned tokens enter the image tower, alone or with the text tower's.
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
        asks=lambda options, _: Asked(learner=Steps(terms=distill_terms(options), classes=options.sampling)),
    ),
    Host(
        name="rpp-shared3x",
        summary="RPP's control: three times as many ordinary tokens in both towers, the same distillation",
        learns="text and image tokens of the first three quarters of each tower's layers",
        source="project's own control for RPP, arXiv 2409.06166",
        prompt=IndependentSpec(n_ctx=12, n_image=12),
        options=DistillOptions(),
        asks=lambda options, _: Asked(learner=Steps(terms=distill_terms(options), classes=options.sampling)),
    ),
    # Something other than prompts is learned: on features, on weights, from classes, or at test time.
    Host(
        name="clip-adapter",
        summary="a small network after the image tower, mixed with the frozen feature",
        learns="two layers on the image feature",
        source="CLIP-Adapter, arXiv 2110.04544",
        prompt=AdapterSpec(),
    ),
    Host(
        name="tip-adapter",
        summary="a cache of the training images next to the zero-shot classifier",
        learns="nothing in steps; keeps the training images' features, and searches two numbers",
        source="Tip-Adapter, arXiv 2207.09519",
        prompt=CacheSpec(),
        options=CacheOptions(),
        asks=lambda options, _: Asked(learner=Fit(solver=FilledCache(options=options, search=True))),
    ),
    Host(
        name="tip-adapter-f",
        summary="Tip-Adapter's cache, whose keys then learn",
        learns="a key for each training image",
        source="Tip-Adapter-F, arXiv 2207.09519",
        prompt=CacheSpec(),
        options=CacheOptions(),
        asks=_keys_learn,
    ),
    Host(
        name="lp-plus-plus",
        summary="a linear probe blended with the class features; rates follow from the data",
        learns="a weight row, a bias and a blend per class, fitted at once",
        source="LP++, arXiv 2404.02285",
        prompt=BlendSpec(),
        options=BlendOptions(),
        asks=lambda options, _: Asked(learner=Fit(solver=BlendedProbe(options=options))),
    ),
    Host(
        name="clip-lora",
        summary="low-rank changes of attention in both towers; the text is the template",
        learns="two thin matrices for each query, key and value matrix of both towers",
        source="CLIP-LoRA, arXiv 2405.18541",
        prompt=LowRankSpec(),
    ),
    Host(
        name="tcp",
        summary="a context, and deeper tokens that a network makes of each class's frozen feature",
        learns="text context tokens of the first layer, and a network of two layers",
        source="TCP, arXiv 2311.18231",
        prompt=ClassAwareSpec(),
        options=AnchorOptions(),
        asks=lambda options, _: Asked(learner=Steps(terms=(CROSS_ENTROPY, *anchor_terms(options)))),
    ),
    Host(
        name="promptkd",
        summary="image tokens and a projector that imitate a bigger teacher on images without labels",
        learns="image tokens of the first three quarters of the layers, and a network into the teacher's space",
        source="PromptKD, arXiv 2403.02781",
        prompt=ProjectedSpec(),
        options=UnlabelledOptions(),
        asks=lambda options, _: Asked(learner=Steps(terms=unlabelled_terms(options)), unlabelled=options.images),
    ),
    Host(
        name="tpt",
        summary="a context that takes a step for each test image, towards certain answers on its views",
        learns="nothing from training images; text context tokens anew from each test image",
        source="TPT, arXiv 2209.07511",
        prompt=ContextSpec(n_ctx=4, init="a photo of a"),
        options=TptOptions(),
        asks=lambda options, _: Asked(learner=None, at_test=Tpt(options=options)),
    ),
)

OVERLAYS: tuple[Overlay, ...] = (
    Overlay(
        name="plpp",
        summary="keeps the context predictable as text: perplexity and inverse perplexity",
        learns="nothing itself; adds two losses on the host's text context",
        source="PLPP, arXiv 2412.15277 (no published code; open choices are the project's, docs/plpp.md)",
        options=PlppOptions(),
        decide=PlppOptions.decided,
        build=plpp_terms,
        cost=plpp_cost,
        notes=plpp_notes,
    ),
    Overlay(
        name="described",
        summary="class features come from sentences that describe each class, not from the template",
        learns="nothing itself; the host learns next to described classes",
        source="project's choice; descriptions as in CuPL, arXiv 2209.03320",
        options=DescriptionOptions(),
        cost=lambda *_prompt, **_sizes: "class features once, from the sentences",
        teacher=lambda options: options.ensemble,
    ),
)
