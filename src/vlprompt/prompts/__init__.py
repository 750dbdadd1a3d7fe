"""What is learned: specs whose `build` gives a module that is called with what it asked to see and gives `Prompted`."""

from vlprompt.prompts.bare import Bare, BareSpec
from vlprompt.prompts.conditioned import ConditionedSpec
from vlprompt.prompts.context import ContextSpec

__all__ = ["Bare", "BareSpec", "ConditionedSpec", "ContextSpec"]
