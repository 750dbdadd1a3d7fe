"""Answer pictures over HTTP with nothing but the standard library; `vlprompt export onnx` needs even less.

python examples/serve.py runs/mine 8000
curl --data-binary @picture.jpg http://localhost:8000/
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from vlprompt import PromptClassifier
from vlprompt.data import open_image
from vlprompt.errors import UserError

MOST = 20 * 2**20
"""Bytes of a picture."""
classifier = PromptClassifier.load(sys.argv[1])


class Answer(BaseHTTPRequestHandler):
    """One picture in the body of a POST -> the probability of each class."""

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= MOST:
            return self.reply(413, {"error": f"send one picture of 1 to {MOST} bytes"})
        try:
            picture = open_image(self.rfile.read(length), name="picture")
        except UserError as problem:
            return self.reply(400, {"error": str(problem)})
        (row,) = classifier.predict_proba([picture])
        return self.reply(200, dict(zip(classifier.classes_.tolist(), row.tolist(), strict=True)))

    def reply(self, code: int, value: dict[str, object]) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())


HTTPServer(("localhost", int(sys.argv[2])), Answer).serve_forever()
