"""Methods that learn something other than prompts: on features, on weights, from classes, or at test time."""

from __future__ import annotations

from vlprompt.losses.anchors import AnchorOptions, anchor_terms
from vlprompt.losses.classify import CROSS_ENTROPY
from vlprompt.losses.distill import UnlabelledOptions, unlabelled_terms
from vlprompt.methods.row import Asked, Host
from vlprompt.prompts.adapter import AdapterSpec
from vlprompt.prompts.attest import Tpt, TptOptions
from vlprompt.prompts.classaware import ClassAwareSpec
from vlprompt.prompts.context import ContextSpec
from vlprompt.prompts.lowrank import LowRankSpec
from vlprompt.prompts.projected import ProjectedSpec
from vlprompt.solvers.blend import BlendedProbe, BlendOptions, BlendSpec
from vlprompt.solvers.cache import CacheOptions, CacheSpec, FilledCache, SearchedCache

BEYOND: tuple[Host, ...] = (
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
        asks=lambda options, _: Asked(terms=(), first=FilledCache(options=options, search=True)),
    ),
    Host(
        name="tip-adapter-f",
        summary="Tip-Adapter's cache, whose keys then learn",
        learns="a key for each training image",
        source="Tip-Adapter-F, arXiv 2207.09519",
        prompt=CacheSpec(),
        options=CacheOptions(),
        asks=lambda options, _: Asked(first=FilledCache(options=options), last=SearchedCache(options=options)),
    ),
    Host(
        name="lp-plus-plus",
        summary="a linear probe blended with the class features; rates follow from the data",
        learns="a weight row, a bias and a blend per class, fitted at once",
        source="LP++, arXiv 2404.02285",
        prompt=BlendSpec(),
        options=BlendOptions(),
        asks=lambda options, _: Asked(terms=(), first=BlendedProbe(options=options)),
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
        asks=lambda options, _: Asked(terms=(CROSS_ENTROPY, *anchor_terms(options))),
    ),
    Host(
        name="promptkd",
        summary="image tokens and a projector that imitate a bigger teacher on images without labels",
        learns="image tokens of the first three quarters of the layers, and a network into the teacher's space",
        source="PromptKD, arXiv 2403.02781",
        prompt=ProjectedSpec(),
        options=UnlabelledOptions(),
        asks=lambda options, _: Asked(terms=unlabelled_terms(options), unlabelled=options.images),
    ),
    Host(
        name="tpt",
        summary="a context that takes a step for each test image, towards certain answers on its views",
        learns="nothing from training images; text context tokens anew from each test image",
        source="TPT, arXiv 2209.07511",
        prompt=ContextSpec(n_ctx=4, init="a photo of a"),
        options=TptOptions(),
        asks=lambda options, _: Asked(terms=(), at_test=Tpt(options=options)),
    ),
)
