"""Overlays: terms that are added to a method's, written before its name."""

from __future__ import annotations

from vlprompt.losses.plpp import PlppOptions, plpp_cost, plpp_terms
from vlprompt.published.rows import Overlay

OVERLAYS: tuple[Overlay, ...] = (
    Overlay(
        name="plpp",
        summary="keeps the context predictable as text: perplexity and inverse perplexity",
        learns="nothing of its own; adds two losses on the host's text context",
        source="PLPP, arXiv 2412.15277 (no published code; open choices are the project's, docs/plpp.md)",
        options=PlppOptions(),
        build=plpp_terms,
        cost=plpp_cost,
    ),
)
