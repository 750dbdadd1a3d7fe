"""Which term reaches which learned tensor of the methods that prompt the text alone, with the overlay on each."""

from __future__ import annotations

import pytest

from vlprompt.describe import classes_in_step, describe, measure_reach
from vlprompt.methods.resolve import resolve
from vlprompt.towers import Clip

ALL, BUT_LAST = (True,) * 4, (True, True, True, False)
SMALL = {"n_ctx": 4, "plpp.k": 5, "plpp.tau": 0.1}
OVERLAY = {"plpp": BUT_LAST, "plpp-inverse": ALL}


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("coop", {"cross-entropy": ALL}),
        ("kgcoop", {"cross-entropy": ALL, "text-anchor": ALL}),
        ("prograd", {"cross-entropy": ALL, "teacher": ALL}),
        ("pomp", {"cross-entropy": ALL}),
        ("cocoop", {"cross-entropy": ALL}),
    ],
)
def test_every_term_reaches_the_context(clip: Clip, name: str, own: dict[str, tuple[bool, ...]]) -> None:
    """With shift 1 the last token is predicted by none of the states that the perplexity term trains."""
    found = measure_reach(resolve(f"plpp+{name}", SMALL), clip)[0]
    assert found["ctx"] == own | OVERLAY


def test_a_token_of_zeros_has_no_direction_so_that_the_inverse_term_leaves_it_alone(clip: Clip) -> None:
    """ProGrad's start: two tokens of zeros, then four words; the perplexity term still moves the zeros through the states."""
    found = measure_reach(resolve("plpp+prograd", {**SMALL, "n_ctx": 6, "init": "zeros + a photo of a"}), clip)[0][
        "ctx"
    ]
    assert found["plpp-inverse"] == (False, False, *ALL)
    assert found["plpp"] == (*(True,) * 5, False)


def test_the_overlay_trains_cocoops_network_through_the_vectors_that_enter_the_tower(clip: Clip) -> None:
    found = measure_reach(resolve("plpp+cocoop", SMALL), clip)[0]
    for name, terms in found.items():
        assert all(any(rows) for rows in terms.values()), name


def test_prograds_rule_is_said_in_words(clip: Clip) -> None:
    described = describe(resolve("prograd", {"strength": 0.5}), clip)
    assert described.gradient_rule == (
        "per tensor, of all terms but L_teacher, without its part against L_teacher's (lambda = 0.5)"
    )
    assert described.loss == "L = L_CE + L_teacher"


def test_a_solver_says_what_it_fits(clip: Clip) -> None:
    described = describe(resolve("linear-probe"), clip, 10)
    assert described.parameters == 10 * (clip.facts.embed_dim + 1)
    assert described.loss.startswith("min_(W, b)")
    assert (described.gradient_rule, described.result) == ("none", "the fit")
    assert "one fit on the CPU" in described.cost[0]


def test_a_step_with_sampled_classes_costs_the_drawn_ones_and_the_batchs(clip: Clip) -> None:
    method = resolve("pomp", {"classes": 20, "batch": 8})
    assert [classes_in_step(method, n) for n in (10, 20, 25, 1000)] == [10, 20, 25, 27]
    assert classes_in_step(resolve("coop"), 1000) == 1000
    assert any("of each of 27 classes" in line for line in describe(method, clip, 1000).cost)
