"""`python -m vlprompt` is the command `vlprompt`."""

from vlprompt.cli import main

if __name__ == "__main__":
    main()
