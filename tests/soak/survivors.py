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
}
