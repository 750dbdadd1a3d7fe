"""Learning prompts for vision-language models: PLPP, RPP and the methods they are compared with."""

__version__ = "0.1.0"
