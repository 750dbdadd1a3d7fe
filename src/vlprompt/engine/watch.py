"""Looking at the prompt after each epoch instead of saving it: for ablations, tuning and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vlprompt.engine.checkpoint import Checkpoints, State, put_back
from vlprompt.engine.train import Lesson, new_prompt
from vlprompt.towers import Clip
from vlprompt.types import PromptSpec


def _nothing(_: Mapping[str, object]) -> None:
    """Nothing is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch(Checkpoints):
    """Stands where the loop would save: hands each epoch's state to a function. Nothing is written, nothing read."""

    after: Callable[[State], None]
    logged: Callable[[Mapping[str, object]], None] = _nothing
    """What the loop would write to `metrics.jsonl`."""
    directory: Path = Path()
    config_hash: str = ""

    def save(self, state: State) -> None:
        self.after(state)

    def load(self) -> None:
        return None

    def log(self, values: Mapping[str, object]) -> None:
        self.logged(values)


def prompt_at(state: State, clip: Clip, spec: PromptSpec, lesson: Lesson) -> nn.Module:
    """The prompt of a state, a copy: learning goes on without it."""
    prompt = new_prompt(clip, spec, len(lesson.class_names), lesson.seed)
    put_back(state.parameters, prompt)
    return prompt
