"""Why a fault that `tests.soak.mutants` put into the package was not seen: (file, fault, seed of the run) -> reason."""

EXPLAINED: dict[tuple[str, str, int], str] = {
    (
        "vlprompt/losses/plpp.py",
        "self.mutual != 'ppl' -> self.mutual == 'ppl'",
        1,
    ): "`tests/test_methods.py` sees it; the run asked `tests/losses` alone. Since then it asks both.",
    (
        "vlprompt/report/comparison.py",
        "0 <= margin <= 100 -> 0 < margin <= 100",
        2,
    ): "no test had a margin of 0. `tests/report/test_comparison.py` has one now.",
    (
        "vlprompt/prompts/layers.py",
        "0.5 -> 1.5",
        2,
    ): "no test looked at how a network starts. `tests/prompts/test_conditioned.py` does now.",
    (
        "vlprompt/prompts/context.py",
        "16 -> 17",
        2,
    ): "no test asked for a context without options. `tests/prompts/test_start.py` does now.",
    (
        "vlprompt/losses/sampled.py",
        "1 -> 2",
        5,
    ): "no test drew so few classes that one negative is left. `tests/losses/test_anchored.py` does now.",
    (
        "vlprompt/losses/perplexity.py",
        "64 -> 65",
        6,
    ): "equivalent: so many rows are worked on at once; the numbers are the same.",
    ("vlprompt/losses/perplexity.py", "-1 -> +1", 6): "equivalent: the last axis of a matrix is its axis 1.",
    ("vlprompt/losses/rules.py", "-1 -> +1", 6): "equivalent: the last axis of a matrix is its axis 1.",
    (
        "vlprompt/losses/consistency.py",
        "1 -> 2",
        6,
    ): "no test had consistency of logits with sampled classes. `tests/losses/test_teaching.py` has it now.",
    (
        "vlprompt/losses/classify.py",
        "logits_BC - middle -> logits_BC + middle",
        6,
    ): "`tests/engine/test_several.py` sees it; since then the run asks it.",
    (
        "vlprompt/prompts/start.py",
        "(compound := COMPOUND.fullmatch(published)) -> not (compound := COMPOUND.fullmatch(published))",
        5,
    ): "no test of this part read the published code's names. `tests/prompts/test_start.py` does now.",
    (
        "vlprompt/prompts/attest.py",
        "0 < self.share <= 1 -> 0 <= self.share <= 1",
        6,
    ): "equivalent: a share of 0 leaves no view, which the next condition refuses.",
    (
        "vlprompt/prompts/lowrank.py",
        "1 -> 2",
        6,
    ): "no test had a rank of 1. `tests/test_beyond.py` has options at their edges now.",
    (
        "vlprompt/prompts/layers.py",
        "kind.strip() == ZEROS and plus -> kind.strip() == ZEROS or plus",
        6,
    ): "no test had other words with a plus. `tests/prompts/test_start.py` has them now.",
    (
        "vlprompt/prompts/layers.py",
        "0 -> 1",
        6,
    ): "no test read where tokens stand. `tests/prompts/test_start.py` does now.",
    (
        "vlprompt/prompts/unshared.py",
        "self.depth != 1 -> self.depth == 1",
        6,
    ): "no test asked what unshared tokens reach. `tests/prompts/test_start.py` does now.",
    (
        "vlprompt/data/splits.py",
        "instead and bool(val) -> instead or bool(val)",
        6,
    ): "no test asked for held-out images of a set that has its own. `tests/data/test_splits.py` does now.",
    (
        "vlprompt/data/splits.py",
        "len(items) >= number -> len(items) > number",
        6,
    ): "no class had exactly as many images as were drawn. In `tests/data/test_splits.py` two have now.",
    (
        "vlprompt/data/splits.py",
        "UNEVEN * counts[least] -> UNEVEN / counts[least]",
        6,
    ): "no test of this part read the advice on uneven classes. `tests/data/test_splits.py` does now.",
    (
        "vlprompt/data/splits.py",
        "not 0 < UNEVEN * counts[least] <= counts[most] -> not not 0 < UNEVEN * counts[least] <= counts[most]",
        6,
    ): "no test of this part read the advice on uneven classes. `tests/data/test_splits.py` does now.",
    (
        "vlprompt/data/splits.py",
        "1 -> 2",
        6,
    ): "equivalent: of two images one is learned from and none chooses, so the sum is not 2.",
    (
        "vlprompt/report/judgement.py",
        "n + Z ** 2 -> n - Z ** 2",
        5,
    ): "no test had the interval of answers by folds. `tests/report/test_judgement.py` has it now.",
    (
        "vlprompt/report/judgement.py",
        "near - half -> near + half",
        6,
    ): "no test had the interval of answers by folds. `tests/report/test_judgement.py` has it now.",
    (
        "vlprompt/report/judgement.py",
        "first.folds -> not first.folds",
        6,
    ): "no test had the interval of answers by folds. `tests/report/test_judgement.py` has it now.",
    (
        "vlprompt/report/judgement.py",
        "record.folds -> not record.folds",
        6,
    ): "no test had the interval of answers by folds. `tests/report/test_judgement.py` has it now.",
    (
        "vlprompt/report/judgement.py",
        "1 -> 2",
        6,
    ): "no test had two seeds that differ, by the formula. `tests/report/test_judgement.py` has them now.",
}
