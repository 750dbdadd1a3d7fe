"""Which term reaches which learned tensor, measured through the towers; and that the description says so."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from vlprompt.describe import describe, loss_line, measure_reach
from vlprompt.engine.forward import Forward
from vlprompt.losses.perplexity import flatten_context
from vlprompt.losses.plpp import PlppOptions, plpp_terms
from vlprompt.losses.words import word_table
from vlprompt.methods.resolve import resolve
from vlprompt.prompts import ContextSpec
from vlprompt.towers import Clip
from vlprompt.types import Method, ModelFacts, Prompted, Reach, Splice, TextLayout

ALL = (True,) * 4
NONE = (False,) * 4
BUT_LAST = (True, True, True, False)


def reach(clip: Clip, name: str = "plpp+coop", **overrides: object) -> dict[str, tuple[bool, ...]]:
    settings = {key.replace("_", ".", 1) if key.startswith("plpp_") else key: value for key, value in overrides.items()}
    return measure_reach(resolve(name, {"n_ctx": 4, "plpp.k": 5, "plpp.tau": 0.1, **settings}), clip)[0]["ctx"]


def test_with_shift_1_the_perplexity_term_does_not_reach_the_last_context_token(clip: Clip) -> None:
    found = reach(clip, plpp_shift=1)
    assert found["cross-entropy"] == ALL
    assert found["plpp"] == BUT_LAST
    assert found["plpp-inverse"] == ALL  # through the labels


def test_with_shift_0_it_reaches_all(clip: Clip) -> None:
    assert reach(clip, plpp_shift=0) == {"cross-entropy": ALL, "plpp": ALL, "plpp-inverse": ALL}


@pytest.mark.filterwarnings("ignore:plpp.labels=uniform")
def test_uniform_labels_leave_the_inverse_nothing_to_train(clip: Clip) -> None:
    assert reach(clip, plpp_labels="uniform")["plpp-inverse"] == NONE


def test_a_label_that_is_no_constant_is_trained_too(clip: Clip) -> None:
    assert reach(clip, plpp_shift=1, plpp_detach="student")["plpp"] == ALL


@pytest.mark.parametrize(("tokens", "shift", "reached"), [(1, 1, False), (1, 0, True), (1, "auto", True), (3, 1, True)])
def test_one_token_with_shift_1_is_dead_and_warned_of(clip: Clip, tokens: int, shift: object, reached: bool) -> None:
    options = {"n_ctx": tokens, "plpp.shift": shift, "plpp.k": 5}
    if reached:
        method = resolve("plpp+coop", options)
    else:
        with pytest.warns(UserWarning, match="no gradient"):
            method = resolve("plpp+coop", options)
    found = measure_reach(method, clip)[0]["ctx"]
    assert any(found["plpp"]) == reached
    assert any(found["plpp-inverse"])


def test_word_1_gets_no_student_gradient_with_shift_1(clip: Clip) -> None:
    """[SOS] predicts word 1 and is constant; every later word's prediction reaches the tokens before it and no other."""
    spec = ContextSpec(n_ctx=4)
    prompt = spec.build(clip.facts, torch.Generator().manual_seed(1), 3)
    forward = Forward(clip, tiny.method(spec, "host_states"), ["cat", "dog", "bird"], "a {}.")
    view = forward(prompt, torch.tensor([0, 1]), torch.randn(2, clip.facts.embed_dim), None)
    assert view.context is not None
    _, states = flatten_context(view.context, 1, torch.float32)
    log_q = torch.log_softmax(word_table(view.vocabulary).dot(states), dim=-1)
    for word in range(4):
        (found,) = torch.autograd.grad(log_q[word, 7], list(prompt.parameters()), retain_graph=True, allow_unused=True)
        rows = found.abs().sum(dim=-1) > 0 if found is not None else torch.zeros(4, dtype=torch.bool)
        assert rows.tolist() == [i < word for i in range(4)]


@pytest.mark.parametrize("where", [{"position": "middle"}, {"position": "front"}, {"per_class": True}])
def test_contexts_without_a_shared_prefix_are_read_in_a_pass_of_their_own(clip: Clip, where: dict[str, object]) -> None:
    method = resolve("plpp+coop", {"n_ctx": 4, "plpp.k": 5, **where})
    assert method.needs == {"context_states"}
    assert measure_reach(method, clip)[0]["ctx"] == {"cross-entropy": ALL, "plpp": BUT_LAST, "plpp-inverse": ALL}


def test_the_separate_pass_gives_the_hosts_own_states_for_a_context_at_the_end(clip: Clip) -> None:
    spec = ContextSpec(n_ctx=4)
    prompt = spec.build(clip.facts, torch.Generator().manual_seed(1), 3)
    losses = []
    for head in ("host", "alone"):
        terms = plpp_terms(PlppOptions(head=head, k=5), spec)  # type: ignore[arg-type]
        forward = Forward(clip, tiny.method(spec, *terms[0].needs), ["cat", "dog", "bird"], "a {}.")
        view = forward(prompt, torch.tensor([0, 1]), torch.randn(2, clip.facts.embed_dim), None)
        losses.append([term.score(view).item() for term in terms])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@dataclass(frozen=True)
class DeepSpec:
    """A throw-away host: a context whose rows the second layer's own tokens replace."""

    reach = Reach(deep_text=True)

    @property
    def layout(self) -> TextLayout:
        return TextLayout(num_tokens=4)

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> nn.Module:
        return Deep(torch.randn(2, 4, facts.text_width, generator=generator) * 0.1)


class Deep(nn.Module):
    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.ctx, self.deeper = nn.Parameter(values[0].clone()), nn.Parameter(values[1].clone())

    def forward(self) -> Prompted:
        return Prompted(text={0: Splice(q=self.ctx), 1: Splice(q=self.deeper)}, layout=TextLayout(num_tokens=4))


def test_deep_prompts_hide_the_context_from_the_hosts_states_so_auto_reads_a_separate_pass(clip: Clip) -> None:
    spec = DeepSpec()
    base = resolve("plpp+coop", {"n_ctx": 4})
    for head, ctx, deeper in (("host", NONE, BUT_LAST), ("alone", BUT_LAST, NONE), ("auto", BUT_LAST, NONE)):
        options = PlppOptions(head=head, k=5, mutual="ppl")  # type: ignore[arg-type]
        if head == "host":
            with pytest.warns(UserWarning, match="never the labelled context"):
                terms = plpp_terms(options, spec)
        else:
            terms = plpp_terms(options, spec)
        found = measure_reach(replace(base, prompt=spec, learner=replace(base.steps, terms=terms)), clip)[0]
        assert found["ctx"]["plpp"] == ctx
        assert found["deeper"]["plpp"] == deeper


def test_the_description_says_what_was_measured_and_is_json(clip: Clip) -> None:
    described = describe(resolve("plpp+coop", {"n_ctx": 4, "plpp.k": 5, "plpp.lambda": 0.5}), clip, 10)
    (ctx,) = described.tensors
    assert (ctx.name, ctx.shape, described.parameters) == ("ctx", (4, 64), 256)
    assert [ctx.reach(term) for term in ctx.reached] == ["all", "rows 1-3 of 4", "all"]
    assert described.loss == "L = L_CE + 0.5 L_ppl + 0.5 L_inv"
    words = clip.vocabulary.word_ids.numel()
    assert any(
        f"4 context tokens x 64 x {words:,} words for labels and x 5 for the head" in line for line in described.cost
    )
    plain = json.loads(json.dumps(described.as_dict()))
    assert plain["tensors"][0]["reached"] == {"cross-entropy": "all", "plpp": "rows 1-3 of 4", "plpp-inverse": "all"}
    assert plain["options"]["plpp.k"] == 5
    assert "plpp labels the first layer's context; its head reads the state before each word" in plain["notes"][0]
    assert plain["notes"][1] == "25% of plpp trains nothing there"
    assert plain["gradient_ratios"].keys() == {"plpp", "plpp-inverse"}


def test_class_specific_contexts_are_counted_for_the_classes_asked_about(clip: Clip) -> None:
    described = describe(resolve("plpp+coop", {"n_ctx": 4, "per_class": True}), clip, 10)
    assert described.tensors[0].shape == (10, 4, 64)
    assert any("40 context tokens" in line and "growing with the 10 classes" in line for line in described.cost)


def test_zero_shot_learns_nothing_and_says_so(clip: Clip) -> None:
    described = describe(resolve("zero-shot"), clip)
    assert described.tensors == ()
    assert described.loss == loss_line(()) == "nothing is learned"
    assert json.dumps(described.as_dict())


def test_describing_leaves_the_towers_as_they_were(clip: Clip) -> None:
    before = [parameter.clone() for parameter in clip.parameters()]
    method: Method = resolve("plpp+coop", {"n_ctx": 4})
    describe(method, clip)
    assert all(torch.equal(old, new) for old, new in zip(before, clip.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in clip.parameters())
