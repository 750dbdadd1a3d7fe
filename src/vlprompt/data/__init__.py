"""Images and class names: where they come from, which are learned from, and what a tower sees of them. Knows no model."""

import lazy_loader

# Names are imported when they are first asked for, so lists of data sets load no torch; `__init__.pyi` says where they are.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
