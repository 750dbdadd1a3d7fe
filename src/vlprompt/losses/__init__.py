"""What a prompt is asked to do: pure functions of a `View`, and the terms made of them."""

from vlprompt.losses.classify import CROSS_ENTROPY, after, answers, logits

__all__ = ["CROSS_ENTROPY", "after", "answers", "logits"]
