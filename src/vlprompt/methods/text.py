"""Methods whose learned tokens enter the text tower alone, and those that learn no tokens."""

from __future__ import annotations

from dataclasses import replace

from vlprompt.losses import CROSS_ENTROPY
from vlprompt.losses.anchors import AnchorOptions, anchor_terms
from vlprompt.losses.plpp import PlppOptions, plpp_cost, plpp_terms
from vlprompt.losses.rules import ProGradOptions, Projection, teacher_term
from vlprompt.losses.sampled import SamplingOptions, sampled_cross_entropy
from vlprompt.methods.row import POCKET_WORDS, TUNED, Asked, Host, Overlay, Recipe
from vlprompt.methods.sentences import SentenceOptions
from vlprompt.prompts import ConditionedSpec, ContextSpec
from vlprompt.solvers import LinearProbe, ProbeOptions
from vlprompt.types import PromptSpec, Schedule

BY_SHOTS = {1: 50, 2: 100, 4: 100, 8: 200, 16: 200}
"""CoOp's epochs."""
POCKET_SCHEDULE = Schedule(epochs=40, lr=0.1, batch=32)


def _zero_shot(options: SentenceOptions, prompt: PromptSpec | None) -> Asked:
    return Asked(terms=(), teacher=options.ensemble)


def _probe(options: ProbeOptions, prompt: PromptSpec | None) -> Asked:
    return Asked(terms=(), solver=LinearProbe(options=options))


def _anchored(options: AnchorOptions, prompt: PromptSpec | None) -> Asked:
    return Asked(terms=(CROSS_ENTROPY, *anchor_terms(options)))


def _projected(options: ProGradOptions, prompt: PromptSpec | None) -> Asked:
    terms = (CROSS_ENTROPY, teacher_term(options.temperature))
    return Asked(terms=terms, rule=Projection(strength=options.strength))


def _sampled(options: SamplingOptions, prompt: PromptSpec | None) -> Asked:
    if options.sampling is None:
        return Asked()
    return Asked(terms=(sampled_cross_entropy(options.correction),), classes=options.sampling)


TEXT: tuple[Host, ...] = (
    Host(
        name="zero-shot",
        summary="the hand-written template of the data set, or the mean of several",
        learns="nothing",
        source="CLIP, arXiv 2103.00020",
        options=SentenceOptions(),
        asks=_zero_shot,
    ),
    Host(
        name="linear-probe",
        summary="logistic regression on frozen image features",
        learns="a weight row and a bias per class, fitted at once",
        source="CLIP, arXiv 2103.00020, as the baseline of CoOp's code (lpclip)",
        options=ProbeOptions(),
        asks=_probe,
    ),
    Host(
        name="coop",
        summary="learned context tokens in front of the class name",
        learns="text context tokens of the first layer",
        source="CoOp, arXiv 2109.01134",
        recipes={
            "published": Recipe(
                prompt=ContextSpec(n_ctx=16, init="normal", position="end"),
                schedule=Schedule(epochs=200, lr=0.002, batch=32),
                epochs=BY_SHOTS,
                source="KaiyangZhou/CoOp: scripts/coop/main.sh, configs/trainers/CoOp",
            ),
            "pocket": Recipe(
                prompt=ContextSpec(n_ctx=3, init=POCKET_WORDS, position="end"),
                schedule=POCKET_SCHEDULE,
                source=TUNED,
            ),
        },
    ),
    Host(
        name="cocoop",
        summary="a context that a small network shifts for every image",
        learns="text context tokens of the first layer, and a network of two layers",
        source="CoCoOp, arXiv 2203.05557",
        recipes={
            "published": Recipe(
                prompt=ConditionedSpec(n_ctx=4, init="a photo of a"),
                schedule=Schedule(epochs=10, lr=0.002, batch=1),
                source="KaiyangZhou/CoOp: configs/trainers/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1.yaml",
            ),
            "pocket": Recipe(
                prompt=ConditionedSpec(n_ctx=3, init=POCKET_WORDS),
                schedule=Schedule(epochs=10, lr=0.01, batch=8),
                source=TUNED,
            ),
        },
    ),
    Host(
        name="kgcoop",
        summary="a context whose class features stay near the hand-written template's",
        learns="text context tokens of the first layer",
        source="KgCoOp, arXiv 2303.13283",
        asks=_anchored,
        recipes={
            "published": Recipe(
                prompt=ContextSpec(n_ctx=4, init="a photo of a"),
                options=AnchorOptions(weight=8.0),
                schedule=Schedule(epochs=100, lr=0.002, batch=128),
                source="htyao89/KgCoOp: configs/trainers/KgCoOp/vit_b16_ep100_ctxv1.yaml",
            ),
            "pocket": Recipe(
                prompt=ContextSpec(n_ctx=3, init=POCKET_WORDS),
                options=AnchorOptions(weight=2.0),
                schedule=replace(POCKET_SCHEDULE, lr=0.03),
                source=TUNED,
            ),
        },
    ),
    Host(
        name="prograd",
        summary="a context whose gradient does not work against zero-shot CLIP's",
        learns="text context tokens of the first layer",
        source="ProGrad, arXiv 2205.14865",
        asks=_projected,
        recipes={
            "published": Recipe(
                prompt=ContextSpec(n_ctx=16, init="zeros + a photo of a"),
                options=ProGradOptions(strength=1.0, temperature=1.0),
                schedule=Schedule(epochs=200, lr=0.002, batch=32),
                epochs=BY_SHOTS,
                source="BeierZhu/Prompt-align: ProGrad.public/trainers/prograd.py, configs/trainers/ProGrad",
            ),
            "pocket": Recipe(
                prompt=ContextSpec(n_ctx=16, init=f"zeros + {POCKET_WORDS}"),
                options=ProGradOptions(strength=1.0, temperature=1.0),
                schedule=replace(POCKET_SCHEDULE, lr=0.03),
                source=TUNED,
                overlays={
                    "plpp": {"mutual": "ppl"}
                },  # the inverse term's gradient grows as tokens that start at zero are short
            ),
        },
    ),
    Host(
        name="pomp",
        summary="a context for very many classes: each step compares with some of them",
        learns="text context tokens of the first layer",
        source="POMP, arXiv 2304.04704",
        asks=_sampled,
        recipes={
            "published": Recipe(
                prompt=ContextSpec(n_ctx=4, init="normal"),
                options=SamplingOptions(classes=1000, correction="log10"),
                schedule=Schedule(epochs=5, lr=0.002, batch=32),
                source="amazon-science/prompt-pretraining: trainers/pomp.py, configs/trainers/POMP, scripts/pomp",
            ),
            "pocket": Recipe(
                prompt=ContextSpec(n_ctx=3, init=POCKET_WORDS),
                options=SamplingOptions(classes=8, correction="natural"),
                schedule=POCKET_SCHEDULE,
                source="project's choice: CoOp's for the small models, so that the sampling is all the difference",
            ),
        },
    ),
)

OVERLAYS: tuple[Overlay, ...] = (
    Overlay(
        name="plpp",
        summary="keeps the context predictable as text: perplexity and inverse perplexity",
        learns="nothing of its own; adds two losses on the host's text context",
        source="PLPP, arXiv 2412.15277 (no published code; open choices are the project's, docs/plpp.md)",
        options=PlppOptions(),
        build=plpp_terms,
        cost=plpp_cost,
    ),
)
