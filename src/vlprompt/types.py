"""The waist: the few frozen values through which prompts, towers and losses meet.

    prompts/  --Prompted-->  towers/  --Features-->  losses/
    what is learned          frozen CLIP              what it is asked to do

Shape letters, here and in every file: B images, C classes, L rows of a sequence, N prompt tokens, M context tokens,
D width of a tower, E joint embedding, V vocabulary. A tensor's name ends in its shape: ``x_BLD``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Axis = Literal["shared", "class", "image"]
Residual = Literal["replace", "keep", "v"]
Position = Literal["end", "middle", "front"]
Views = int | Literal["epochs", "centre"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Splice:
    """The tokens that one layer of one tower finds at its prompt rows.

    Shapes: (N, D) with axis ``shared``; (C, N, D) with axis ``class``; (B, N, D) with axis ``image``. All tensors of one
    splice have the same shape.
    """

    q: Tensor
    """What queries are made from; for an ordinary prompt the token itself."""
    k: Tensor | None = None
    """What keys are made from; None: the same rows as ``q`` (an ordinary prompt)."""
    v: Tensor | None = None
    """What values are made from; None: the same rows as ``q``."""
    token: Tensor | None = None
    """Layer 0 with residual ``keep`` only: the row that exists before anything replaces it."""
    axis: Axis = "shared"
    residual: Residual = "replace"
    """What the prompt rows carry on: ``replace`` q's tokens; ``keep`` the un-replaced rows; ``v`` v's tokens."""

    def __post_init__(self) -> None:
        assert (self.k is None) == (self.v is None), "k and v are both given or both None"
        assert self.k is not None or self.residual == "replace", "residual policies are for unshared q, k, v"
        assert self.q.dim() == (2 if self.axis == "shared" else 3), f"{tuple(self.q.shape)} with axis {self.axis}"

    @property
    def num_tokens(self) -> int:
        return self.q.shape[-2]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLayout:
    """Where the learned text tokens stand in the sentence of a class: a static fact of a prompt, not learned."""

    num_tokens: int
    """M, the number of learned context tokens of layer 0."""
    position: Position = "end"
    """Where the class NAME stands: ``end`` [SOS] ctx name . ; ``middle`` half of ctx, name, the rest; ``front`` name ctx."""
    words: str = ""
    """Fixed words between the context and the name (MaPLe's ``of a``)."""
    shared: bool = True
    """False: the context differs by class, so that classes share [SOS] alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted:
    """What a prompt says and the towers obey: layer (from 0) -> Splice, per tower. Empty = the bare tower."""

    text: Mapping[int, Splice] = field(default_factory=dict)
    image: Mapping[int, Splice] = field(default_factory=dict)
    layout: TextLayout | None = None
    """None: the text tower reads whole sentences (a template) instead of learned tokens."""


BARE = Prompted()


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What a tower answers: projected, UN-normalised embeddings in float32."""

    pooled: Tensor
    """(C, E), (B, E), or (B, C, E) where the text depends on the image."""
    states: Tensor | None = None
    """Only where asked for. Text: (1 + M, D), or (B, 1 + M, D) for image-conditioned prompts, float32: the rows [SOS]
    and context of the shared prefix after ln_final."""

    @property
    def unit(self) -> Tensor:
        """The embeddings divided by their length."""
        return F.normalize(self.pooled, dim=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The frozen token embedding, and which of its rows are words."""

    weight_VD: Tensor
    word_ids: Tensor
    """(A,) int64, ascending: every id but [SOS] and [EOT]."""
    words: Callable[[int], str]
    """Id -> readable word."""
    mean_state: Callable[[], Tensor] | None = None
    """(D,) float32: the mean of the bare text tower's states after ln_final over plain sentences; found when first asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The layer-0 text context as a language model sees it (what PLPP reads).

    Leading axes ``...``: none for a unified context, C for class-specific ones. Image-conditioned contexts come as their
    mean over images (project's choice).
    """

    vectors: Tensor
    """(..., M, D): the learned tokens in the token-embedding space, without positions."""
    states: Tensor
    """(..., 1 + M, D): the text tower's states after ln_final at [SOS], p_1 .. p_M."""
    found: dict[object, Tensor] = field(default_factory=dict, compare=False, repr=False)
    """What one term has computed of this context and another can use; it lives as long as the step's view."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Frozen CLIP's answer on the same classes and images; each field only where a term asks for it."""

    text: Features | None = None
    image: Features | None = None
    logits: Tensor | None = None
    """(B, C), zero-shot, at the model's own logit scale."""


Need = Literal["host_states", "context_states", "teacher_text", "teacher_image", "teacher_logits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Which classes each image is compared with, where a step sees some of them."""

    seen: Tensor
    """(B, C) bool, of the classes in view: the image's own and the drawn ones."""
    num_classes: int
    """N, all classes, of which some were drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that a loss may look at."""

    labels: Tensor
    """(B,) int64, an index into the classes in view."""
    logits: Tensor
    """(B, C) float32, logit scale times cosine."""
    text: Features
    image: Features
    prompted: Prompted
    vocabulary: Vocabulary
    context: Context | None = None
    teacher: Teacher | None = None
    sampled: Sampled | None = None
    """None: every image is compared with every class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One part of a loss: a pure function of the view, its weight, and what it needs."""

    name: str
    """Its name in metrics and in ``vlprompt methods``."""
    score: Callable[[View], Tensor]
    """View -> scalar, unweighted."""
    weight: float = 1.0
    needs: frozenset[Need] = frozenset()
    formula: str = ""
    """One line of plain text, shown to people."""
    over_images: bool = True
    """Whether it is a mean over the batch's images; False: it depends on the prompt and the classes alone."""
    balance: float = 0.0
    """R above 0: the weight is found while learning, so that this term's gradient is R times cross-entropy's over the first epoch."""
    labelled: Callable[[Prompted], tuple[Tensor, ...]] | None = None
    """The learned tensors on which its gradient is measured against cross-entropy's; None: all."""


class Rule(Protocol):
    """How several losses become one gradient. The default is their weighted sum; ProGrad's is a projection."""

    def groups(self, losses: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Weighted losses by term name -> the scalars that are differentiated one by one."""
        ...

    def combine(self, gradients: Sequence[Tensor]) -> Tensor:
        """One parameter's gradient of each group -> its gradient."""
        ...


class Average(Protocol):
    """How the prompts after each epoch become the final one."""

    def weights(self, epochs: int) -> Sequence[float] | None:
        """One weight per epoch, summing to 1; None: the last epoch's prompt is the result."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """The image transform that belongs to a model: short edge to `resize` (bicubic), centre crop, normalise."""

    resize: int
    """Short edge, in pixels."""
    crop: int
    """Side of the square that the tower sees, in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a prompt must know of the towers to be built."""

    embed_dim: int
    text_width: int
    text_layers: int
    image_width: int
    image_layers: int
    embed_words: Callable[[str], Tensor]
    """Words -> (number of tokens, text_width) float32, rows of the token embedding."""
    takes_image_prompts: bool = True
    """False for a ResNet image tower."""


class Prompt(Protocol):
    """A module that owns the learned tensors and maps image features (or None) to `Prompted`."""

    def __call__(self, image_features: Tensor | None) -> Prompted: ...


class PromptSpec(Protocol):
    """The options of one kind of prompt; `build` makes the module."""

    @property
    def layout(self) -> TextLayout | None: ...

    @property
    def conditioned(self) -> bool:
        """Whether the prompt reads the image's features (B, E), normalised."""
        ...

    @property
    def prompts_image(self) -> bool:
        """Whether tokens enter the image tower (then image features cannot be cached)."""
        ...

    @property
    def deep_text(self) -> bool:
        """Whether deeper text layers overwrite the context rows."""
        ...

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> nn.Module:
        """A new module with float32 parameters, initialised from the CPU generator. `places(self) -> dict[str, str]` of the
        module says for every parameter where it enters."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Sentences whose mean feature stands for a class."""

    templates: tuple[str, ...]
    unit: bool = False
    """Whether each sentence's feature is normalised before the mean."""
    own: bool = False
    """Whether the data set's own template is one more sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSampling:
    """A step that sees some of the classes: those of its images, and others that are drawn for the whole batch."""

    num: int
    """K, the classes that an image is compared with, its own among them: K - 1 are drawn of all N, without replacement."""

    def drawn(self, num_classes: int) -> int | None:
        """How many of N classes are drawn; None: K is no smaller than N, so that all are in view."""
        return None if self.num >= num_classes else self.num - 1


class Solver(Protocol):
    """What is fitted to features of the frozen image tower at once, instead of by gradient steps."""

    @property
    def formula(self) -> str:
        """One line of plain text, shown to people."""
        ...

    def build(self, facts: ModelFacts, num_classes: int) -> nn.Module:
        """A module with float32 parameters: un-normalised image features (B, E) -> logits (B, C); `places` as a prompt's."""
        ...

    def solve(self, module: nn.Module, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], seed: int) -> str:
        """Fit the module in place to (features (N, E), labels (N,)); says in a sentence what was chosen on `val`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Optimiser and schedule of the field's shared trainer (Dassl): SGD, cosine by epoch, one warm-up epoch.

    Epoch 0: ``warmup_lr``; epoch e >= 1: ``lr * (1 + cos(pi * (e - 1) / epochs)) / 2``.
    """

    epochs: int = 200
    """Passes over the training images."""
    lr: float = 0.002
    """Peak learning rate; cosine by epoch."""
    batch: int = 32
    """Images per step."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 5e-4
    """Of SGD, on every learned tensor."""
    warmup_epochs: int = 1
    """First epochs at the constant rate warmup_lr."""
    warmup_lr: float = 1e-5
    """Learning rate of the warm-up epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A published method as a value: what is learned, what is asked, how gradients and epochs are put together."""

    name: str
    prompt: PromptSpec | None
    """None: nothing is learned by gradient (zero-shot, or a solver)."""
    terms: tuple[Term, ...] = ()
    rule: Rule | None = None
    """None: the weighted sum of all terms."""
    average: Average | None = None
    """None: the last epoch's prompt."""
    teacher: Ensemble | None = None
    """What the teacher's class features come from, and zero-shot's; None: the template of the data set."""
    classes: ClassSampling | None = None
    """None: every step sees every class."""
    solver: Solver | None = None
    """What is fitted at once, without a prompt; None: nothing."""
    schedule: Schedule | None = None
    """The resolved schedule; None for methods without gradient steps."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Every option with its resolved value, as `--set` names it (overlays' with their prefix)."""

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset[Need]().union(*(term.needs for term in self.terms))
