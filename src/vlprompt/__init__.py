"""Learning prompts for vision-language models: PLPP, RPP and the methods they are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlprompt.classifier import PromptClassifier

__version__ = "0.1.0"
__all__ = ["PromptClassifier", "__version__"]


def __getattr__(name: str) -> object:
    """`PromptClassifier`, imported when it is first asked for, so `import vlprompt` stays light."""
    if name != "PromptClassifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vlprompt.classifier import PromptClassifier

    return PromptClassifier
