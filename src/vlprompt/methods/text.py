"""Methods whose learned tokens enter the text tower alone, and those that learn no tokens."""

from __future__ import annotations

from vlprompt.losses import CROSS_ENTROPY
from vlprompt.losses.anchors import AnchorOptions, anchor_terms
from vlprompt.losses.plpp import PlppOptions, plpp_cost, plpp_notes, plpp_terms
from vlprompt.losses.rules import ProGradOptions, Projection, teacher_term
from vlprompt.losses.sampled import SamplingOptions, sampled_terms
from vlprompt.methods.row import Asked, Host, Overlay
from vlprompt.methods.sentences import SentenceOptions
from vlprompt.prompts import BareSpec, ConditionedSpec, ContextSpec
from vlprompt.solvers import LinearProbe, LinearSpec, ProbeOptions
from vlprompt.types import PromptSpec


def _projected(options: ProGradOptions, prompt: PromptSpec) -> Asked:
    terms = (CROSS_ENTROPY, teacher_term(options.temperature))
    return Asked(terms=terms, rule=Projection(strength=options.strength))


TEXT: tuple[Host, ...] = (
    Host(
        name="zero-shot",
        summary="the hand-written template of the data set, or the mean of several",
        learns="nothing",
        source="CLIP, arXiv 2103.00020",
        prompt=BareSpec(),
        options=SentenceOptions(),
        asks=lambda options, _: Asked(terms=(), teacher=options.ensemble),
    ),
    Host(
        name="linear-probe",
        summary="logistic regression on frozen image features",
        learns="a weight row and a bias per class, fitted at once",
        source="CLIP, arXiv 2103.00020, as the baseline of CoOp's code (lpclip)",
        prompt=LinearSpec(),
        options=ProbeOptions(),
        asks=lambda options, _: Asked(terms=(), first=LinearProbe(options=options)),
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
        asks=lambda options, _: Asked(terms=(CROSS_ENTROPY, *anchor_terms(options))),
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
        asks=lambda options, _: Asked(terms=sampled_terms(options), classes=options.sampling),
        prompt=ContextSpec(),
        options=SamplingOptions(),
    ),
)

OVERLAYS: tuple[Overlay, ...] = (
    Overlay(
        name="plpp",
        summary="keeps the context predictable as text: perplexity and inverse perplexity",
        learns="nothing itself; adds two losses on the host's text context",
        source="PLPP, arXiv 2412.15277 (no published code; open choices are the project's, docs/plpp.md)",
        options=PlppOptions(),
        build=plpp_terms,
        cost=plpp_cost,
        notes=plpp_notes,
    ),
)
