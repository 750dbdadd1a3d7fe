"""The cost model of docs/scaling.md: work, bytes and predicted time of the published pretraining schedule.

    python -m benchmarks.pretrain_cost [--tflops 100] [--cores 8] [--gigabytes 10] [--floor 0.03] [--decode 0.0105]

Nothing is measured here. Work is counted (multiplications and additions of ViT-B/16's matrix products), rates are assumptions that
the options change; --decode is seconds of one core for an image with its four published views.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

TEXT_WIDTH, IMAGE_WIDTH, LAYERS, EMBED = 512, 768, 12, 512
IMAGE_ROWS, PROMPT_ROWS = 197, 4
ROWS_PER_CLASS = 4.65
"""Own rows of a class in `benchmarks.long_class_lists` at 21,841 names, the full stop in it; and [EOT]."""
CLASSES, SHOTS, EPOCHS, COPIES, BATCH, DRAWN = 10_450, 16, 5, 4, 256, 999
LEARNED = 143_360
"""RPP's learned numbers at ViT-B/16's size."""


def text_row() -> float:
    """Operations of one text row's forward pass: 24 width^2 in each layer."""
    return 24 * TEXT_WIDTH**2 * LAYERS


def image_pass() -> float:
    """Operations of one image's forward pass, attention included."""
    rows = IMAGE_ROWS + PROMPT_ROWS
    return LAYERS * (24 * IMAGE_WIDTH**2 * rows + 4 * rows**2 * IMAGE_WIDTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of all processes together."""

    classes: int
    views: int
    image_passes: int
    """1: a prompt of the text tower (frozen features of fresh views); 3: RPP (teacher, forward, backward)."""
    text_passes: int
    """2: forward and backward; 3: in parts, computed once more."""

    @property
    def text(self) -> float:
        return self.text_passes * self.classes * (ROWS_PER_CLASS + 1) * text_row()

    @property
    def image(self) -> float:
        return self.image_passes * self.views * image_pass()

    def bytes(self, world: int) -> float:
        """What one process receives: gathered features, their summed gradient, the learned tensors' gradients, labels."""
        share = (world - 1) / world
        features = self.classes * EMBED * 4
        return share * (features + 2 * features + 2 * LEARNED * 4 + 8 * self.views)


def seconds(step: Step, world: int, options: argparse.Namespace) -> dict[str, float]:
    """Predicted seconds of a step by part, for so many GPUs."""
    rate = options.tflops * 1e12 * world
    return {
        "image tower": step.image / rate,
        "text tower": step.text / rate,
        "launching": options.floor,
        "network": step.bytes(world) / (options.gigabytes * 1e9),
        "decoding": BATCH * options.decode / (options.cores * world),
    }


def predicted(step: Step, world: int, options: argparse.Namespace) -> tuple[float, str]:
    """(seconds of a step, what limits it). Decoding runs next to the GPU; launching hides behind longer work of the GPU."""
    parts = seconds(step, world, options)
    work = max(parts["image tower"] + parts["text tower"], parts["launching"]) + parts["network"]
    if parts["decoding"] > work:
        return parts["decoding"], "decoding"
    longest = max((name for name in parts if name != "decoding"), key=lambda name: parts[name])
    return work, longest


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tflops", type=float, default=100, help="sustained by one GPU, in 10^12 a second")
    parser.add_argument("--cores", type=int, default=8, help="processor cores for each GPU")
    parser.add_argument("--gigabytes", type=float, default=10, help="of the network, a second and process")
    parser.add_argument("--floor", type=float, default=0.03, help="seconds that a step's kernels take to launch")
    parser.add_argument("--decode", type=float, default=0.0105, help="seconds of one core for an image with four views")
    options = parser.parse_args()
    steps = EPOCHS * -(-CLASSES * SHOTS // BATCH)
    views, sampled = BATCH * COPIES, DRAWN + BATCH
    cases = {
        "pomp, 1,000 sampled": Step(classes=sampled, views=views, image_passes=1, text_passes=2),
        "rpp, 1,000 sampled": Step(classes=sampled, views=views, image_passes=3, text_passes=2),
        "rpp, all 10,450": Step(classes=CLASSES, views=views, image_passes=3, text_passes=3),
        "rpp, all 21,841": Step(classes=21_841, views=views, image_passes=3, text_passes=3),
    }
    print(f"{steps:,} steps of {BATCH} images x {COPIES}")
    for name, step in cases.items():
        print(f"\n{name}: image {step.image / 1e12:.1f} TFLOP, text {step.text / 1e12:.2f} TFLOP a step")
        for world in (1, 8, 64):
            each, limit = predicted(step, world, options)
            print(
                f"  {world:>2} GPUs: {1000 * each:8.1f} ms a step, {steps * each / 60:6.1f} min for {EPOCHS} epochs, "
                f"{step.bytes(world) / 1e6:7.1f} MB received a step; limited by {limit}"
            )


if __name__ == "__main__":
    main()
