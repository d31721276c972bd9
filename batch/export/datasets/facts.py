"""What a file says about itself: size, frames, length, codec. Imports PyAV and Pillow inside functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from batch.export.gallery.posters import media_kind

__all__ = ["Facts", "facts_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The same for every kind of file, so that a column never changes its type: a picture is one frame that lasts no
    time, a sound has neither width nor height. `codec` is a picture's format."""

    bytes: int = 0
    width: int = 0
    height: int = 0
    frames: int = 0
    fps: float = 0.0
    duration: float = 0.0
    codec: str = ""


def facts_of(path: Path) -> Facts | None:
    """The facts of a video, picture or sound; None where it cannot be read as what its name says."""
    import av
    from PIL import Image

    try:
        facts = {"video": _video, "image": _picture, "audio": _sound}[media_kind(path)](path)
        return replace(facts, bytes=path.stat().st_size)
    except (av.FFmpegError, OSError, ValueError, SyntaxError, IndexError, Image.DecompressionBombError):
        return None


def _video(path: Path) -> Facts:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
        fps = float(stream.average_rate or 0)
        seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        if not seconds and container.duration:
            seconds = container.duration / av.time_base
        return Facts(
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            frames=frames,
            fps=round(fps, 3),
            duration=round(seconds, 3),
            codec=stream.codec_context.name,
        )


def _picture(path: Path) -> Facts:
    from PIL import Image

    with Image.open(path) as image:
        frames = getattr(image, "n_frames", 1)
        return Facts(width=image.width, height=image.height, frames=frames, codec=(image.format or "").lower())


def _sound(path: Path) -> Facts:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        seconds = (container.duration or 0) / av.time_base
        return Facts(duration=round(seconds, 3), codec=stream.codec_context.name)
