"""Learn a prompt from your own pictures, see what it is worth, and use it.

    python examples/own_folder.py my_photos        # my_photos/oak_tree/*.jpg, my_photos/pine/*.jpg, ...

Without a folder it uses an embedded set. For photographs give a real CLIP: PromptClassifier("openai/clip-vit-base-patch16").
"""

import sys
import tempfile

from vlprompt import PromptClassifier
from vlprompt.data import open_dataset, open_image, split_by_rule

folder = sys.argv[1] if len(sys.argv) > 1 else "emoji-symbols"
learned = PromptClassifier(method="coop").fit(folder, shots=16)
by_hand = PromptClassifier(method="zero-shot").fit(folder, shots=16)
print(f"hand-written words {100 * by_hand.score(folder):.1f} %, learned {100 * learned.score(folder):.1f} %")

# The prompt is a few kilobytes; whoever has the same CLIP can use it, for other class names too.
place = tempfile.mkdtemp()
learned.save(place)
again = PromptClassifier.load(place)
test = split_by_rule(open_dataset(folder)).test[:3]
pictures = [open_image(sample.source(), name=sample.id) for sample in test]
for sample, row in zip(test, again.predict_proba(pictures), strict=True):
    print(f"{sample.id}: {again.classes_[row.argmax()]} ({row.max():.2f})")
