"""`vlprompt` whose rank 1 is killed (SIGKILL, no warning) before it takes its sixth step, the first time that it is started.

With COLD in the environment, the features that are cached there are gone by then.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from typing import Any

from vlprompt.cli import run
from vlprompt.engine import train

STEPS = 5


def main() -> None:
    real, taken = train.take, [0]

    def dying(*arguments: Any) -> None:
        if taken[0] == STEPS and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            if "COLD" in os.environ:
                shutil.rmtree(os.environ["COLD"])
            os.kill(os.getpid(), signal.SIGKILL)
        taken[0] += 1
        real(*arguments)

    train.take = dying  # type: ignore[assignment]
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
