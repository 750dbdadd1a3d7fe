"""A learned prompt as one file that needs no vlprompt: pixels in, probabilities of the classes out.

Letters: B images, C classes, S side of the square that the model sees, in pixels.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from vlprompt import artifact, disk
from vlprompt.engine.class_vectors import facts_of
from vlprompt.engine.evaluate import Classifier, check_classes
from vlprompt.engine.several import require_one_label
from vlprompt.errors import UserError, data_error
from vlprompt.losses import after, answers
from vlprompt.towers import Clip

Deployable = Literal["onnx", "torch-export"]
INPUT, PROBABILITY, LOGITS = "pixels", "probability", "logits"
OPSET = 18


class Deployed(nn.Module):
    """The image tower with its learned tokens, and the class matrix that the text tower and the prompt made."""

    def __init__(self, clip: Clip, classifier: Classifier, temperature: float) -> None:
        super().__init__()
        self.visual, self.prompt = clip.visual, classifier.prompt
        self.clip = (clip,)  # not as a module: the text tower's weights stay out of the file
        assert classifier.text is not None
        self.temperature = temperature
        self.prompted, self.text = classifier.prompted, classifier.text
        scale = clip.preprocess
        self.mean = nn.Buffer(torch.tensor(scale.mean).view(3, 1, 1))
        self.std = nn.Buffer(torch.tensor(scale.std).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) float32 RGB from 0 to 1 -> probabilities (B, C), logits (B, C)."""
        image = self.clip[0].encode_images((pixels - self.mean) / self.std, self.prompted)
        image = after(self.prompted.after_image, image)
        found = answers(self.prompted, image, self.text, self.clip[0].logit_scale)
        return (found / self.temperature).softmax(-1), found


def deployed(
    run: Path, names: Sequence[str] | None = None, model: artifact.Backbone = None
) -> tuple[Deployed, dict[str, str]]:
    """The best seed of a run as a module on the CPU, and its facts as text: class names, preprocessing, where it comes from.

    names: other classes than the learned ones. UserError: a prompt that depends on the image, whose text tower has to run for every
    image, or classes that it cannot answer for.
    """
    learned, clip = artifact.loaded(artifact.pick(run).directory, model)
    require_one_label(learned, "an exported model")
    method = learned.method
    if "image" in method.prompt.reach.sees or method.at_test is not None:
        raise UserError(
            f"{method.name!r} runs the text tower again for every image, so it cannot be one file of an image tower and a class matrix. "
            f"Learn another method, for example coop (vlprompt methods)."
        )
    classes = tuple(names) if names is not None else learned.class_names
    check_classes(method.prompt, learned.class_names, classes, labelled=names is None)
    classifier = Classifier(clip, method, learned.prompt, classes, learned.template)
    module = Deployed(clip, classifier, learned.temperature)
    scale = clip.preprocess
    resized = f"short edge resized to `resize` ({scale.filter}), centre square of `crop` pixels"
    resized = f"both edges resized to `crop` pixels ({scale.filter})" if scale.squash else resized
    facts = {
        "class_names": json.dumps(list(classes), ensure_ascii=False),
        "resize": str(scale.resize),
        "crop": str(scale.crop),
        "input": f"RGB, {resized}, float32 from 0 to 1",
        "temperature": str(learned.temperature),
        **facts_of(learned),
    }
    return module.eval().requires_grad_(False), facts


def write(path: Path, kind: Deployable, module: Deployed, facts: dict[str, str], *, half: bool = False) -> None:
    """Write one file for any number of images at once; `half` keeps the weights in float16 (ONNX only).

    UserError where the packages of the extra `onnx` are not installed, or the path cannot be written.
    """
    side = module.clip[0].preprocess.crop
    example = (torch.zeros(2, 3, side, side),)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        program = torch.export.export(module, example, dynamic_shapes={INPUT: {0: batch}})
        if kind == "torch-export":
            buffer = io.BytesIO()
            torch.export.save(program, buffer, extra_files=dict(facts))
            disk.write_bytes(path, buffer.getvalue())
            return
        _write_onnx(path, program, facts, half=half)


def _write_onnx(path: Path, program: torch.export.ExportedProgram, facts: dict[str, str], *, half: bool) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as missing:
        raise data_error(f"{missing.name} is not installed. Run: pip install 'vlprompt[onnx]'") from missing
    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # it warns that torchvision is not installed, which nobody needs
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=[PROBABILITY, LOGITS],
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    if half:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model, keep_io_types=True)
    onnx.helper.set_model_props(model, facts)
    disk.write_bytes(path, model.SerializeToString())
