"""Why a fault that `tests.soak.mutants` put into the package was not seen: (file, fault) -> reason."""

EXPLAINED: dict[tuple[str, str], str] = {
    (
        "vlprompt/losses/plpp.py",
        "self.mutual != 'ppl' -> self.mutual == 'ppl'",
    ): "`tests/test_methods.py` sees it; the run asked `tests/losses` alone. Since then it asks both.",
}
