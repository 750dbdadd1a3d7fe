"""Answer pictures over HTTP with an exported prompt, without vlprompt: onnxruntime, numpy, Pillow and the standard library.

vlprompt export onnx runs/mine --out mine.onnx
python examples/serve.py mine.onnx 8000
curl --data-binary @picture.jpg http://localhost:8000/
"""

import io
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
facts = session.get_modelmeta().custom_metadata_map
names, resize, crop = json.loads(facts["class_names"]), int(facts["resize"]), int(facts["crop"])


class Answer(BaseHTTPRequestHandler):
    """One picture in the body of a POST -> the probability of each class."""

    def do_POST(self) -> None:
        try:
            image = Image.open(io.BytesIO(self.rfile.read(min(int(self.headers["Content-Length"]), 20_000_000))))
            image = image.convert("RGB").resize(
                [max(resize, edge * resize // min(image.size)) for edge in image.size], Image.Resampling.BICUBIC
            )
            left, top = (round((edge - crop) / 2) for edge in image.size)
            square = np.asarray(image.crop((left, top, left + crop, top + crop)), np.float32) / 255
        except Exception:
            return self.send_error(400, "send one picture of at most 20 MB")
        row = session.run(["probability"], {"pixels": square.transpose(2, 0, 1)[None]})[0][0]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(dict(zip(names, row.tolist(), strict=True))).encode())


HTTPServer(("localhost", int(sys.argv[2])), Answer).serve_forever()
