"""Why a fault that `tests.soak.mutants` put into the package was rightly not seen: (file, fault) -> reason."""

EXPLAINED: dict[tuple[str, str], str] = {}
