from .artifact import Learned
from .classifier import PromptClassifier
from .data.images import open_image
from .data.samples import Dataset, Sample
from .data.sources import open_dataset
from .data.splits import few_shot
from .data.views import load_pixels
from .errors import UserError
from .methods.resolve import resolve
from .module import PromptedCLIP
from .towers.clip import Clip
from .towers.load import load
from .types import Method

__version__: str
__all__ = [
    "Clip",
    "Dataset",
    "Learned",
    "Method",
    "PromptClassifier",
    "PromptedCLIP",
    "Sample",
    "UserError",
    "few_shot",
    "load",
    "load_pixels",
    "open_dataset",
    "open_image",
    "resolve",
]
