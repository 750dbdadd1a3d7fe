"""The published methods: literal tables that can be read from top to bottom."""

from vlprompt.methods.beyond import BEYOND
from vlprompt.methods.both import BOTH
from vlprompt.methods.row import Host, Overlay
from vlprompt.methods.text import OVERLAYS, TEXT

HOSTS: tuple[Host, ...] = TEXT + BOTH + BEYOND

__all__ = ["HOSTS", "OVERLAYS", "Host", "Overlay"]
