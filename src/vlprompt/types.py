"""The waist: the few frozen values through which prompts, towers and losses meet.

    prompts/  --Prompted-->  towers/  --Features-->  losses/
    what is learned          frozen CLIP              what it is asked to do

Shape letters, here and in every file: B images, C classes, L rows of a sequence, N prompt tokens, M context tokens,
D width of a tower, E joint embedding, V vocabulary. A tensor's name ends in its shape: ``x_BLD``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

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


WeightPart = Literal["q", "k", "v", "o", "fc", "proj"]
"""A weight matrix of a block: attention's four, and the two of the MLP (into the hidden layer, and out of it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """A change of one weight matrix W (out, in): the product with a row x becomes ``W x + scale * up (down x)``."""

    down: Tensor
    """(R, in)."""
    up: Tensor
    """(out, R)."""
    scale: float = 1.0
    drop: float = 0.0
    """The share of x's numbers that are dropped, the others growing to match; the change's alone, not W's."""
    seed: int = 0
    """Which numbers are dropped."""


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
    """False: the context differs by class, so classes share [SOS] alone."""


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


Score = Callable[[Features, Features, float], Tensor]
"""(image features, class features, logit scale) -> logits (B, C), float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted:
    """What a prompt says: what enters the towers, what is done with their features, and how the two are compared. Empty = frozen CLIP."""

    text: Mapping[int, Splice] = field(default_factory=dict)
    """Layer (from 0) -> tokens of the text tower."""
    image: Mapping[int, Splice] = field(default_factory=dict)
    """Layer (from 0) -> tokens of the image tower."""
    layout: TextLayout | None = None
    """None: the text tower reads whole sentences (a template) instead of learned tokens."""
    weights: Mapping[tuple[Literal["text", "image"], int, WeightPart], LowRank] = field(default_factory=dict)
    """(tower, layer from 0, matrix) -> its change."""
    after_image: Callable[[Tensor], Tensor] | None = None
    """What is done with the image features (B, E), un-normalised; None: nothing."""
    score: Score | None = None
    """None: scale times cosine."""


BARE = Prompted()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The frozen token embedding, and which of its rows are words."""

    weight_VD: Tensor
    word_ids: Tensor
    """(A,) int64, ascending, on the CPU: every id but [SOS] and [EOT]."""
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
class TeacherAnswer:
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
    """(B,) int64, an index into the classes in view; of images with several labels (B, C) float32, 1 for each of them."""
    logits: Tensor
    """(B, C) float32, the prompt's score: logit scale times cosine, where it says no other."""
    text: Features
    image: Features
    prompted: Prompted
    vocabulary: Vocabulary
    context: Context | None = None
    teacher: TeacherAnswer | None = None
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
    """R above 0: the weight is found while learning, so this term's gradient is R times cross-entropy's over the first epoch."""
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


def _settings(values: Preprocess | Schedule, first: Sequence[str]) -> dict[str, object]:
    """The fields of the first version, and of the later ones those that are not at their default."""
    found = {one.name: (getattr(values, one.name), one.default) for one in fields(values)}
    return {name: value for name, (value, usual) in found.items() if name in first or value != usual}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """The image transform that belongs to a model: short edge to `resize`, centre crop, normalise."""

    resize: int
    """Short edge, in pixels."""
    crop: int
    """Side of the square that the tower sees, in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    squash: bool = False
    """Whether both edges become `crop`, the picture's shape or not, and nothing is cut (SigLIP)."""
    filter: Literal["bicubic", "bilinear"] = "bicubic"

    @property
    def settings(self) -> dict[str, object]:
        """All values; of those that came after the first version only what is not the default, so keys of caches stay."""
        return _settings(self, ("resize", "crop", "mean", "std"))


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
    predicts_words: bool = True
    """False where the text tower has no causal mask, because a row that sees the next word cannot predict it; and where no token
    stands before the first word."""


Sight = Literal["image", "classes", "chance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a prompt reads and where it enters, known before it is built. The defaults: a text context that reads nothing."""

    sees: frozenset[Sight] = frozenset()
    """What the module is called with, by keyword. ``image``: the frozen tower's features (B, E) of length 1. ``classes``: its class
    features (C, E) of length 1. ``chance``: a seed (int) that differs from step to step, None where nothing is learned."""
    image_tower: bool = False
    """Whether something enters the image tower (then its features cannot be cached)."""
    text_tower: bool = False
    """Whether the text tower's weights are changed (then class features of a template are encoded anew in every step)."""
    deep_text: bool = False
    """Whether deeper text layers overwrite the context rows."""
    own_classes: bool = False
    """Whether it can answer for the classes that it was learned on alone."""
    reads_text: bool = True
    """Whether it compares images with class features at all."""
    teachers_text: bool = False
    """Whether those are the teacher's, in the teacher's width, where another model teaches."""


def places_of(module: nn.Module) -> Mapping[str, str]:
    """A prompt's parameters, and where each enters in words."""
    places: Mapping[str, str] = module.places()  # type: ignore[operator]  # nn.Module types its attributes as Tensor | Module
    return places


class PromptSpec(Protocol):
    """The options of one kind of prompt; `build` makes the module."""

    @property
    def layout(self) -> TextLayout | None: ...

    @property
    def reach(self) -> Reach: ...

    def build(self, facts: ModelFacts, generator: torch.Generator, num_classes: int) -> nn.Module:
        """A new module with float32 parameters, initialised from the CPU generator.

        It is called with what `Reach.sees` names, by keyword, and gives `Prompted`. Its `places()` (parameter -> words) says for every
        parameter where it enters.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Sentences whose mean feature stands for a class."""

    templates: tuple[str, ...]
    unit: bool = False
    """Whether each sentence's feature is normalised before the mean."""
    own: bool = False
    """Whether the data set's own template is one more sentence."""
    by_class: Mapping[str, tuple[str, ...]] | None = None
    """Class name -> its own whole sentences, in the place of templates; names are compared as `plain_name` writes them."""

    def sentences(self, name: str) -> tuple[str, ...]:
        """A class's own sentences; empty where there are none."""
        return (self.by_class or {}).get(plain_name(name), ())


UNSEEN = dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"))
"""A soft hyphen, a space of no width, marks of direction, a byte-order mark."""


def plain_name(name: str) -> str:
    """A class name as it is compared: what a person reads as one is one.

    Lower case, `_` a space, one way to write accents and wide letters (NFKC), without signs that nobody sees; ``01`` and ``1.0`` are ``1``.
    """
    plain = " ".join(unicodedata.normalize("NFKC", name).translate(UNSEEN).replace("_", " ").casefold().split())
    return str(int(float(plain))) if re.fullmatch(r"\d{1,15}(\.0+)?", plain, re.ASCII) else plain


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSampling:
    """A step that sees some of the classes: those of its images, and others that are drawn for the whole batch."""

    num: int
    """K, the classes that an image is compared with, its own among them: K - 1 are drawn of all N, without replacement."""

    def drawn(self, num_classes: int) -> int | None:
        """How many of N classes are drawn; None: K is at least N, so all are in view."""
        return None if self.num >= num_classes else self.num - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a fit may look at. Letters: N images, C classes, E joint embedding."""

    train: tuple[Tensor, Tensor]
    """(N, E) un-normalised features of the training images in the test view, and their labels (N,)."""
    val: tuple[Tensor, Tensor]
    """The same of the validation images; of none, where there are none."""
    view: Callable[[int], Tensor]
    """Number of a random view -> the training images' features (N, E) in it."""
    text: Callable[[], Features]
    """The frozen tower's class features (C, E)."""
    scale: float
    """CLIP's logit scale."""
    seed: int


class Solver(Protocol):
    """What fits a prompt's module to features of the frozen towers at once, instead of by gradient steps."""

    @property
    def formula(self) -> str:
        """One line of plain text, shown to people."""
        ...

    def solve(self, module: Any, given: Given) -> str:
        """Fit the module in place; says in a sentence what was chosen, and on what."""
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
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    """SGD with momentum; Adam, whose weight decay is part of the gradient; AdamW, whose is not."""
    eps: float = 1e-8
    """Adam and AdamW: added to the root of the second moment."""
    decay: Literal["epochs", "steps"] = "epochs"
    """Whether the cosine falls from epoch to epoch or from step to step."""
    least_lr: float = 0.0
    """Where the cosine ends."""
    draw: Literal["images", "classes"] = "images"
    """What an epoch sees: every image once; `classes`: as many images of each class, for unbalanced sets."""

    @property
    def settings(self) -> dict[str, object]:
        """All values; of those that came after the first version only what is not the default, so hashes of runs stay."""
        return _settings(self, ("epochs", "lr", "batch", "momentum", "weight_decay", "warmup_epochs", "warmup_lr"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Learning by gradient steps: what is asked, how gradients and epochs are put together."""

    terms: tuple[Term, ...]
    schedule: Schedule = Schedule()
    rule: Rule | None = None
    """None: the weighted sum of all terms."""
    average: Average | None = None
    """None: the last epoch's prompt."""
    classes: ClassSampling | None = None
    """None: every step sees every class."""
    first: Solver | None = None
    """What is fitted before the first step; None: nothing."""
    last: Solver | None = None
    """What is fitted after the last step; None: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Learning at once, from features of the frozen towers."""

    solver: Solver


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """The class features of another model that taught, for a prompt that compares images with those (`Reach.teachers_text`)."""

    model: str
    """The teacher as it was asked for: a model's name, a directory or a Hub id; or a directory with a learned prompt."""
    hash: str
    """SHA-256 of its weights, and of its prompt's tensors where it has one."""
    names: tuple[str, ...]
    features: Tensor
    """(C, E) float32 on the CPU, of these names in this order, un-normalised; E is the teacher's width."""


class AtTest(Protocol):
    """What is done for each test image, with that image alone."""

    @property
    def views(self) -> int:
        """Random views of the image, in addition to its test view."""
        ...

    def adapt(self, module: nn.Module, answers: Callable[[], Tensor]) -> None:
        """Change a copy of the prompt's module in place, before it answers for the test view.

        answers(): the logits (1 + views, C) of the module as it now is, with a graph; the test view comes first.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method as a value: what is learned, and how."""

    name: str
    prompt: PromptSpec
    learner: Steps | Fit | None = None
    """None: nothing is learned; the prompt stays as it is built."""
    start: Mapping[str, Tensor] | None = None
    """Learned tensors that the steps begin with, by parameter; None: the prompt as it is built."""
    teacher: Ensemble | None = None
    """What the frozen tower's class features come from (a teacher's, and zero-shot's); None: the template of the data set."""
    at_test: AtTest | None = None
    """None: the prompt answers as it was learned."""
    unlabelled: int | None = None
    """It learns from training images of all classes without their labels: so many, drawn at random (0: all); None: it reads labels."""
    taught: Taught | None = None
    """Class features that another model left in a learned prompt."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Every option with its resolved value, as `--set` names it (overlays' with their prefix)."""

    @property
    def steps(self) -> Steps:
        """For those who know that there are steps."""
        assert isinstance(self.learner, Steps), f"{self.name} takes no gradient steps"
        return self.learner

    @property
    def schedule(self) -> Schedule:
        return self.steps.schedule

    @property
    def terms(self) -> tuple[Term, ...]:
        """Of its steps; empty where there are none."""
        return self.learner.terms if isinstance(self.learner, Steps) else ()

    @property
    def epochs(self) -> int:
        """Of its steps; 0 where there are none."""
        return self.learner.schedule.epochs if isinstance(self.learner, Steps) else 0

    @property
    def setting(self) -> str:
        """How its records are marked: ``test-time`` where it learns from each test image, ``transductive`` where from many images
        without labels, of classes that it is tested on as new ones; else ``inductive``."""
        if self.at_test is not None:
            return "test-time"
        return "inductive" if self.unlabelled is None else "transductive"

    @property
    def chooses(self) -> bool:
        """Whether something is chosen on validation images."""
        return isinstance(self.learner, Fit) or (isinstance(self.learner, Steps) and self.learner.last is not None)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset[Need]().union(*(term.needs for term in self.terms))

    @property
    def reads_words(self) -> bool:
        """Whether it reads the frozen tower's class features: as its own, in its prompt, or as a teacher's."""
        reach = self.prompt.reach
        plain = reach.reads_text and self.prompt.layout is None and not reach.text_tower
        return plain or "classes" in reach.sees or bool(self.needs & {"teacher_text", "teacher_logits"})
