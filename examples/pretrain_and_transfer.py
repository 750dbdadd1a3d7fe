"""Learn a prompt on very many classes first (RPP), then go on from it with a few images of another data set.

python examples/pretrain_and_transfer.py
"""

import tempfile
from pathlib import Path

from vlprompt.engine.config import RunConfig
from vlprompt.engine.run import train_run
from vlprompt.pretrain.config import PretrainConfig
from vlprompt.pretrain.run import pretrain_run

place = Path(tempfile.mkdtemp())
# The embedded pretraining set has 1,067 classes; ImageNet-21K is a folder or tar shards: data="imagenet21k_resized".
pretrain_run(
    PretrainConfig(
        method="rpp",
        model="pocket-s",
        data="pocket",
        out=place / "pretrained",
        shots=1,
        held_out=100,
        overrides={"epochs": 1},
    )
)
for name, init in (("from its own start", None), ("from the pretrained prompt", place / "pretrained" / "best")):
    out = place / name.replace(" ", "-")
    changes = {"epochs": 2}
    config = RunConfig(
        method="rpp", model="pocket-s", data="emoji-symbols", shots=4, out=out, init=init, overrides=changes
    )
    (record,) = train_run(config)
    print(f"{name}: {record.top1:.1f} % (zero-shot {record.zero_shot_top1:.1f} %)")
