"""`vlprompt` of which a rank is killed (SIGKILL, no warning) before it takes a step, the first time that it is started.

`DIES` says which rank and after how many steps: `1:5` where nothing is said. With COLD in the environment, the features that are cached
there are gone by then.
"""

from __future__ import annotations

import os
import shutil
import signal
from typing import Any

from vlprompt import cli
from vlprompt.engine import train

DIES = "VLPROMPT_TEST_DIES"


def main() -> None:
    real, taken = train.take, [0]
    rank, steps = os.environ.get(DIES, "1:5").split(":")

    def dying(*arguments: Any) -> None:
        if taken[0] == int(steps) and os.environ["RANK"] == rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            if "COLD" in os.environ:
                shutil.rmtree(os.environ["COLD"])
            os.kill(os.getpid(), signal.SIGKILL)
        taken[0] += 1
        real(*arguments)

    train.take = dying  # type: ignore[assignment]
    cli.main()


if __name__ == "__main__":
    main()
