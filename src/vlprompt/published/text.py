"""Methods whose learned tokens enter the text tower alone."""

from __future__ import annotations

from vlprompt.prompts import ContextSpec
from vlprompt.published.rows import Host, Recipe
from vlprompt.types import Schedule

TEXT: tuple[Host, ...] = (
    Host(
        name="zero-shot",
        summary="the hand-written template of the data set",
        learns="nothing",
        source="CLIP, arXiv 2103.00020",
        terms=(),
    ),
    Host(
        name="coop",
        summary="learned context tokens in front of the class name",
        learns="text context tokens of the first layer",
        source="CoOp, arXiv 2109.01134",
        recipes={
            "published": Recipe(
                prompt=ContextSpec(n_ctx=16, init="normal", position="end"),
                schedule=Schedule(epochs=200, lr=0.002, batch=32),
                epochs={1: 50, 2: 100, 4: 100, 8: 200, 16: 200},
                source="KaiyangZhou/CoOp: scripts/coop/main.sh, configs/trainers/CoOp",
            ),
            "pocket": Recipe(
                prompt=ContextSpec(n_ctx=4, init="normal", position="end"),
                schedule=Schedule(epochs=30, lr=0.01, batch=32),
                source="project's choice, for the small models inside the package",
            ),
        },
    ),
)
