"""Images and class names: where they come from, which are learned from, and what a tower sees of them. Knows no model."""

from vlprompt.data.check import ClassCount, Copies, Report, check
from vlprompt.data.images import open_image
from vlprompt.data.samples import DEFAULT_TEMPLATE, Dataset, Sample, Skipped
from vlprompt.data.sources import open_dataset
from vlprompt.data.splits import (
    FewShot,
    Split,
    Subset,
    few_shot,
    halves,
    read_split,
    restrict,
    split_by_rule,
    split_hash,
    write_split,
)
from vlprompt.data.store import FeatureStore, Stats, default_root
from vlprompt.data.verify import verify
from vlprompt.data.views import AUGMENTATION_VERSION, load_pixels, test_view, train_view

__all__ = [
    "AUGMENTATION_VERSION",
    "DEFAULT_TEMPLATE",
    "ClassCount",
    "Copies",
    "Dataset",
    "FeatureStore",
    "FewShot",
    "Report",
    "Sample",
    "Skipped",
    "Split",
    "Stats",
    "Subset",
    "check",
    "default_root",
    "few_shot",
    "halves",
    "load_pixels",
    "open_dataset",
    "open_image",
    "read_split",
    "restrict",
    "split_by_rule",
    "split_hash",
    "test_view",
    "train_view",
    "verify",
    "write_split",
]
