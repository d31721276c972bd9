"""A still of each file and a few facts about it, made once and kept: a JPEG named after the hash of the file's bytes.

The facts stand in the JPEG's own comment, so that a poster and its facts are there together or not at all. Imports PyAV
and Pillow inside the functions. A file that cannot be read has no poster; that is no error here.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["Facts", "Poster", "make_posters", "media_kind"]

LONG_SIDE_PX = 400  # a card is about 280 wide, and screens have up to two dots for each
QUALITY = 75
DECODED_MAX = 240  # frames from a key frame to the middle; ten seconds at 24 a second, more is not worth the wait
WORKERS_MAX = 4
ORIENTATION = 0x0112  # the EXIF tag; from 5 on the picture lies on its side

_KINDS = {
    "video": (".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v"),
    "image": (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".bmp", ".tiff", ".svg", ".heic"),
    "audio": (".mp3", ".wav", ".flac", ".ogg", ".m4a"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a file says about itself; None where it does not, or does not apply."""

    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    fps: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Poster:
    """A file's facts and its still. `path` is None where nothing can be seen of it; `is_new` when it was made now."""

    facts: Facts
    path: Path | None
    is_new: bool


def media_kind(path: Path) -> str:
    """`video`, `image`, `audio`, or `file` for anything else."""
    suffix = path.suffix.lower()
    return next((kind for kind, suffixes in _KINDS.items() if suffix in suffixes), "file")


def make_posters(files: Mapping[str, Path], folder: Path, progress: Callable[[int, int], None]) -> dict[str, Poster]:
    """The poster of each file (its sha256 and where it is) in `folder`, by sha256. One that is there is kept.

    `progress` is told how many of how many are done, from this thread. OSError when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Poster] = {}
    # PyAV lets other threads run while it decodes.
    with ThreadPoolExecutor(max_workers=min(WORKERS_MAX, os.cpu_count() or 1)) as pool:
        made = pool.map(lambda item: _poster(item[1], folder / f"{item[0][:32]}.jpg"), files.items())
        for done, (sha256, poster) in enumerate(zip(files, made, strict=True), start=1):
            found[sha256] = poster
            progress(done, len(files))
    return found


def _poster(path: Path, out: Path) -> Poster:
    kept = _kept_facts(out)
    if kept is not None:
        return Poster(facts=kept, path=out, is_new=False)
    try:
        facts, still = _READERS.get(media_kind(path), _nothing)(path)
    except _unreadable():
        return Poster(facts=Facts(), path=None, is_new=False)
    if still is None:
        return Poster(facts=facts, path=None, is_new=False)
    content = io.BytesIO()
    still.save(content, "JPEG", quality=QUALITY, optimize=True, comment=json.dumps(asdict(facts)).encode())
    part = out.with_name(out.name + ".part")
    part.write_bytes(content.getvalue())
    os.replace(part, out)
    return Poster(facts=facts, path=out, is_new=True)


def _kept_facts(poster: Path) -> Facts | None:
    """The facts in an earlier poster; None where there is none, or none of ours."""
    from PIL import Image

    try:
        with Image.open(poster) as image:
            return Facts(**json.loads(image.info["comment"]))
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _unreadable() -> tuple[type[Exception], ...]:
    """What PyAV and Pillow raise for a file that is no picture or film, or a damaged one."""
    import av
    from PIL import Image

    return (av.FFmpegError, OSError, ValueError, SyntaxError, IndexError, Image.DecompressionBombError)


def _video(path: Path) -> tuple[Facts, Picture | None]:
    """The frame in the middle: the first one of an image-to-video model is the picture that went in."""
    import av
    from PIL import Image

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        seconds = None if container.duration is None else container.duration / av.time_base
        facts = Facts(
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            seconds=None if seconds is None else round(seconds, 3),
            fps=None if stream.average_rate is None else round(float(stream.average_rate), 3),
        )
        middle = (seconds or 0.0) / 2
        if container.duration is not None:
            container.seek(container.duration // 2, backward=True)
        still = None
        for number, frame in enumerate(container.decode(stream), start=1):
            still = frame
            if number >= DECODED_MAX or (frame.time or 0.0) >= middle:
                break
        if still is None:
            return facts, None
        width, height = _fitted(still.width, still.height)
        small = still.reformat(width=width, height=height, format="rgb24").to_ndarray()
        return facts, Image.fromarray(small)


def _picture(path: Path) -> tuple[Facts, Picture | None]:
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        is_turned = opened.getexif().get(ORIENTATION, 1) >= 5
        size = opened.size[::-1] if is_turned else opened.size
        opened.draft("RGB", (LONG_SIDE_PX, LONG_SIDE_PX))  # a large JPEG is read at a fraction of its size
        image = ImageOps.exif_transpose(opened)
        still = image.convert("RGBA")
        still.thumbnail((LONG_SIDE_PX, LONG_SIDE_PX))
        ground = Image.new("RGB", still.size, "white")  # behind what is transparent
        ground.paste(still, mask=still)
        return Facts(width=size[0], height=size[1]), ground


def _sound(path: Path) -> tuple[Facts, Picture | None]:
    import av

    with av.open(str(path)) as container:
        seconds = None if container.duration is None else round(container.duration / av.time_base, 3)
        return Facts(seconds=seconds), None


def _nothing(path: Path) -> tuple[Facts, Picture | None]:
    return Facts(), None


_READERS: dict[str, Callable[[Path], tuple[Facts, Picture | None]]] = {
    "video": _video,
    "image": _picture,
    "audio": _sound,
}


def _fitted(width: int, height: int) -> tuple[int, int]:
    """The size of a still: as the frame, its long side no longer than wanted, both sides even."""
    scale = min(1.0, LONG_SIDE_PX / max(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)
