"""What is learned: specs whose `build` gives a module that is called with what it asked to see and gives `Prompted`."""

from vlprompt.prompts.context import Bare, BareSpec, ConditionedSpec, ContextSpec

__all__ = ["Bare", "BareSpec", "ConditionedSpec", "ContextSpec"]
