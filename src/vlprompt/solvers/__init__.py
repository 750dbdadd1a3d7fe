"""What is fitted at once to features of the frozen image tower, without a prompt."""

from vlprompt.solvers.probe import LinearProbe, LinearSpec, ProbeOptions

__all__ = ["LinearProbe", "LinearSpec", "ProbeOptions"]
