"""What is learned: specs whose `build` gives a module that maps image features (or None) to `Prompted`."""

from vlprompt.prompts.context import ContextSpec

__all__ = ["ContextSpec"]
