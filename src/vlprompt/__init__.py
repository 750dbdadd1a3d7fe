"""Learning prompts for vision-language models: PLPP, RPP and the methods they are compared with."""

import lazy_loader

# Names are imported when they are first asked for, so `import vlprompt` loads no torch; `__init__.pyi` says where they are.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
