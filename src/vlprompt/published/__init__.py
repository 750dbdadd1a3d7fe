"""The published methods: literal tables that can be read from top to bottom."""

from vlprompt.published.both import BOTH
from vlprompt.published.overlays import OVERLAYS
from vlprompt.published.rows import Host, Overlay, Recipe
from vlprompt.published.text import TEXT

HOSTS: tuple[Host, ...] = TEXT + BOTH

__all__ = ["HOSTS", "OVERLAYS", "Host", "Overlay", "Recipe"]
