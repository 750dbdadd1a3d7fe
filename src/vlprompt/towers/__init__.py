"""Frozen CLIP towers: exact, and as little work as the method allows."""

from vlprompt.towers.clip import Clip
from vlprompt.towers.load import assemble, load
from vlprompt.towers.tokens import ClassTokens

__all__ = ["ClassTokens", "Clip", "assemble", "load"]
