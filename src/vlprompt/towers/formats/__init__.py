"""One small reader for each layout that CLIP weights are published in."""
