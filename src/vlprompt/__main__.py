"""`python -m vlprompt` is the command `vlprompt`, which Ctrl-C ends in one line even while it is being loaded."""

import sys


def main() -> None:
    """The entry point of both."""
    try:
        from vlprompt import cli
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
