"""The picture a request sends: is it one the model would take, and its pixels in one common form.

Imports Pillow and numpy, so it is imported late; of the project only `endpoints`, for the limits as data. What is wrong
is said in fal's own error types. It fetches nothing: it is given the bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from batch.endpoints import ImageLimits

__all__ = ["BadImage", "first_frame", "open_picture", "picture_size"]

_EXIF_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)


class BadImage(Exception):
    """A picture the model refuses: fal's type for it, the words, and the limits. `number` says which of several."""

    def __init__(self, kind: str, message: str, context: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.context = dict(context or {})
        self.number = 0


def picture_size(
    content: bytes, limits: ImageLimits | None = None, said: Mapping[str, float] | None = None
) -> tuple[int, int]:
    """Width and height as shown (EXIF orientation applied). Decodes nothing.

    BadImage when it is no picture, or with `limits` (the model's) or `said` (the document's, of that very field) one
    that is refused.
    """
    if limits is not None and len(content) >= limits.size_bytes_under:
        most = {"max_size": limits.size_bytes_under}
        raise BadImage("file_too_large", f"The file has {len(content)} bytes, too many for this model", most)
    with _opened(content) as image:
        media_type = Image.MIME.get(image.format or "", "")
        width, height = image.size
        if image.getexif().get(_EXIF_ORIENTATION) in _ON_ITS_SIDE:
            width, height = height, width
    if limits is not None:
        _check(limits, "image/jpeg" if media_type == "image/mpo" else media_type, width, height)
    _check_said(said or {}, len(content), width, height)
    return width, height


def open_picture(content: bytes, *, side_needed: int) -> Image.Image:
    """The picture upright and in RGB, whatever it was; BadImage when it cannot be decoded.

    `side_needed` lets a JPEG be decoded at an eighth, a quarter or a half when that is still at least as large.
    """
    try:
        with _opened(content) as image:
            image.draft("RGB", (side_needed, side_needed))
            upright = ImageOps.exif_transpose(image)
            upright.load()
            return _rgb(upright)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise BadImage("image_load_error", f"Failed to load the image: {exc}") from exc


def first_frame(content: bytes) -> bytes:
    """The first picture of a video, as a file of its own; BadImage when there is none."""
    import av

    try:
        with av.open(io.BytesIO(content), "r") as container:
            frame = next(container.decode(video=0))
    except (av.FFmpegError, StopIteration, IndexError, ValueError) as exc:
        raise BadImage("video_load_error", "Failed to load the video: it is damaged or no video at all") from exc
    out = io.BytesIO()
    Image.fromarray(frame.to_ndarray(format="rgb24")).save(out, "BMP")
    return out.getvalue()


def _check(limits: ImageLimits, media_type: str, width: int, height: int) -> None:
    shape = f"{width}x{height} pixels"
    if media_type not in limits.media_types:
        formats = sorted(name.removeprefix("image/") for name in limits.media_types)
        raise BadImage(
            "unsupported_image_format",
            f"The image is {media_type or 'of no known type'}",
            {"supported_formats": formats},
        )
    if min(width, height) <= limits.side_px_over:
        least = limits.side_px_over + 1
        raise BadImage("image_too_small", f"The image has {shape}", {"min_height": least, "min_width": least})
    if max(width, height) >= limits.side_px_under:
        most = limits.side_px_under - 1
        raise BadImage("image_too_large", f"The image has {shape}", {"max_height": most, "max_width": most})
    if not limits.ratio_over < width / height < limits.ratio_under:
        # fal lists no type for this one; unlisted types are as final as the listed ones.
        bounds = {"min_ratio": limits.ratio_over, "max_ratio": limits.ratio_under}
        raise BadImage("image_aspect_ratio", f"The image has {shape}, too long for its height or width", bounds)


def _check_said(said: Mapping[str, float], size_bytes: int, width: int, height: int) -> None:
    if size_bytes > said.get("max_file_size", size_bytes):
        most = {"max_size": said["max_file_size"]}
        raise BadImage("file_too_large", f"The file has {size_bytes} bytes, too many for this model", most)
    shape = f"The image has {width}x{height} pixels"
    least = {name: said[name] for name in ("min_height", "min_width") if name in said}
    if width < least.get("min_width", width) or height < least.get("min_height", height):
        raise BadImage("image_too_small", shape, least)
    most = {name: said[name] for name in ("max_height", "max_width") if name in said}
    if width > most.get("max_width", width) or height > most.get("max_height", height):
        raise BadImage("image_too_large", shape, most)
    ratio = width / height
    if not said.get("min_aspect_ratio", ratio) <= ratio <= said.get("max_aspect_ratio", ratio):
        bounds = {name: said[name] for name in ("min_aspect_ratio", "max_aspect_ratio") if name in said}
        raise BadImage("image_aspect_ratio", f"{shape}, too long for its height or width", bounds)


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise BadImage("image_load_error", "Failed to load the image: it is damaged or no image at all") from exc


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # Pillow clips wide greys at 255 when it converts them; sixteen bits are scaled, anything else is stretched.
        grey = np.asarray(image).astype(np.float32)
        low, high = (0.0, 65535.0) if image.mode != "F" else (float(grey.min()), float(grey.max()))
        grey = (grey - low) * (255.0 / max(high - low, 1e-6))
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        ground = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(ground, clear).convert("RGB")
    return image.convert("RGB")
