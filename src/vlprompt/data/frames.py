"""Frames of a video as pictures, one every so many seconds. Needs the extra `video` (PyAV)."""

from __future__ import annotations

import functools
import io
import os
from pathlib import Path
from typing import Any

from vlprompt.data.samples import Sample
from vlprompt.errors import data_error

ENDINGS = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts", ".3gp"))
MOST = 10_000
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpeg,mpegts,mpegvideo,asf"
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
"""Of FFmpeg: what is opened, whatever a file is called. It knows lists of other files too (concat, HLS), and would open those."""


def is_video(name: str) -> bool:
    """Whether a file's name ends as a video's does."""
    return os.path.splitext(name)[1].lower() in ENDINGS


def frames(path: Path, every: float) -> list[Sample]:
    """The frames at 0, `every`, 2 `every` ... seconds, each decoded when it is read, so a long video takes no memory.

    UserError (exit 3): PyAV is not installed, it cannot read the file, or there would be more than 10,000 frames.
    """
    with _opened(path) as container:
        stream, seconds = container.streams.video[0], float(container.duration or 0) / 1e6
        if not seconds and stream.duration:
            seconds = float(stream.duration * stream.time_base)
    number = int(seconds / every) + 1
    if number > MOST:
        raise data_error(
            f"{path}: {number:,} frames at {every:g} s; at most {MOST:,}. Write --every {seconds / MOST:.2g}."
        )
    times = [every * place for place in range(number) if every * place < seconds or not place]
    return [Sample(id=f"{path} at {time:g} s", label=0, source=functools.partial(_frame, path, time)) for time in times]


def _opened(path: Path) -> Any:
    try:
        import av
    except ImportError as missing:
        raise data_error(
            f"{path} is a video, and PyAV, which reads its frames, is not installed. Run: pip install 'vlprompt[video]' (or: pip install "
            "av). Or save frames as pictures, and give those."
        ) from missing
    try:
        container = av.open(str(path), options=dict(OPTIONS))
    except (OSError, ValueError) as problem:  # PyAV's errors are of these
        raise data_error(f"{path} cannot be read as a video ({problem}).") from problem
    if not container.streams.video:
        container.close()
        raise data_error(f"{path} holds no pictures.")
    return container


def _frame(path: Path, time: float) -> bytes:
    """The frame that is shown at a time, as PNG. ValueError where it cannot be decoded."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        container.seek(int(time * 1e6))  # to the key frame before it
        shown = None
        for frame in container.decode(stream):
            if shown is not None and frame.time is not None and frame.time > time + 1e-6:
                break
            shown = frame
        if shown is None:
            raise ValueError("no frame is there")
        file = io.BytesIO()
        shown.to_image().save(file, format="PNG", compress_level=1)
        return file.getvalue()
