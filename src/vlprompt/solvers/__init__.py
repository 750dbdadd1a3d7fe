"""What is fitted at once to features of the frozen image tower, without a prompt."""

from vlprompt.solvers.probe import LinearProbe, ProbeOptions

__all__ = ["LinearProbe", "ProbeOptions"]
