from .check import ClassCount, Copies, Report, verify
from .class_names import read_class_names
from .download import Spool
from .images import open_image, picture
from .large.corpus import Corpus, Listed, Pool
from .large.imagenet21k import is_imagenet21k, open_imagenet21k
from .large.shards import is_shards, open_shards, write_shards
from .samples import DEFAULT_TEMPLATE, Dataset, Sample, Skipped
from .sources import open_dataset
from .splits import (
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
from .store import FeatureStore, Stats
from .views import (
    AUGMENTATION_VERSION,
    augmented_view,
    load_pixels,
    test_view,
    train_view,
)

__all__ = [
    "AUGMENTATION_VERSION",
    "DEFAULT_TEMPLATE",
    "ClassCount",
    "Copies",
    "Corpus",
    "Dataset",
    "FeatureStore",
    "FewShot",
    "Listed",
    "Pool",
    "Report",
    "Sample",
    "Skipped",
    "Split",
    "Spool",
    "Stats",
    "Subset",
    "augmented_view",
    "few_shot",
    "halves",
    "is_imagenet21k",
    "is_shards",
    "load_pixels",
    "open_dataset",
    "open_image",
    "open_imagenet21k",
    "open_shards",
    "picture",
    "read_class_names",
    "read_split",
    "restrict",
    "split_by_rule",
    "split_hash",
    "test_view",
    "train_view",
    "verify",
    "write_shards",
    "write_split",
]
