"""Why a fault that `tests.soak.mutants` put into the package was not seen: (file, fault) -> reason."""

EXPLAINED: dict[tuple[str, str], str] = {
    (
        "vlprompt/losses/plpp.py",
        "self.mutual != 'ppl' -> self.mutual == 'ppl'",
    ): "`tests/test_methods.py` sees it; the run asked `tests/losses` alone. Since then it asks both.",
    (
        "vlprompt/report/comparison.py",
        "0 <= margin <= 100 -> 0 < margin <= 100",
    ): "no test had a margin of 0. `tests/report/test_comparison.py` has one now.",
    (
        "vlprompt/prompts/context.py",
        "16 -> 17",
    ): "open: these tests do not ask for the default, and it is not looked at whether another one does.",
    (
        "vlprompt/prompts/layers.py",
        "0.5 -> 1.5",
    ): "no test looked at how a network starts. `tests/prompts/test_conditioned.py` does now.",
}
