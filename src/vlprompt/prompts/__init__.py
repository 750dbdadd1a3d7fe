"""What is learned: specs whose `build` gives a module that maps image features (or None) to `Prompted`."""

from vlprompt.prompts.conditioned import ConditionedSpec
from vlprompt.prompts.context import ContextSpec

__all__ = ["ConditionedSpec", "ContextSpec"]
