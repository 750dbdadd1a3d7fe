"""Use an exported prompt without vlprompt: onnxruntime, Pillow and numpy are enough.

vlprompt export onnx runs/mine --out mine.onnx
python examples/onnx_only.py mine.onnx picture.jpg another.jpg
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def read(path: str, resize: int, crop: int) -> np.ndarray:
    """The short edge to `resize` pixels, the centre square of `crop`, (3, crop, crop) from 0 to 1."""
    image = Image.open(path).convert("RGB")
    scale = resize / min(image.size)
    image = image.resize([max(resize, int(edge * scale)) for edge in image.size], Image.Resampling.BICUBIC)
    left, top = (round((edge - crop) / 2) for edge in image.size)
    return np.asarray(image.crop((left, top, left + crop, top + crop)), dtype=np.float32).transpose(2, 0, 1) / 255


session = onnxruntime.InferenceSession(sys.argv[1])
facts = session.get_modelmeta().custom_metadata_map
names = json.loads(facts["class_names"])
pixels = np.stack([read(path, int(facts["resize"]), int(facts["crop"])) for path in sys.argv[2:]])
probability = session.run(["probability"], {"pixels": pixels})[0]
for path, row in zip(sys.argv[2:], probability, strict=True):
    print(f"{path}: {names[row.argmax()]} ({row.max():.2f})")
