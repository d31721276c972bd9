"""One output picture: the input picture in the size asked for, or a made one; graded by its seed and marked.

Imports Pillow and numpy, so it is imported late. It knows nothing of requests, HTTP or storage.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from batch.local.answers import Piece
from batch.local.camera import STATIC, views
from batch.local.drawn import drawn
from batch.local.images import open_picture
from batch.local.mark import marked

__all__ = ["render_still"]

_SAVED: dict[str, tuple[str, dict[str, int]]] = {
    "jpg": ("JPEG", {"quality": 88}),
    "png": ("PNG", {"compress_level": 1}),  # a tenth of the time of the usual 6, a fifth more bytes
    "webp": ("WEBP", {"quality": 85, "method": 1}),
    "gif": ("GIF", {}),
}


def render_still(piece: Piece, pictures: Sequence[bytes], out: Path) -> None:
    """Write the picture to `out`. BadImage when the input picture cannot be decoded."""
    size = (piece.width, piece.height)
    if pictures:
        image = _cropped(open_picture(pictures[0], side_needed=max(size)), size, piece.seed)
    else:
        image = drawn(str(piece.request.get("prompt") or ""), piece.seed, *size)
    format, options = _SAVED[piece.kind.suffix]
    marked(_graded(image, piece.seed)).save(out, format, **options)


def _cropped(image: Image.Image, size: tuple[int, int], seed: int) -> Image.Image:
    """The part of the picture in the wanted shape; where exactly is up to the seed."""
    [view] = views(STATIC, seed, 1)
    scale = min(image.width / size[0], image.height / size[1])
    width, height = size[0] * scale * view.size, size[1] * scale * view.size
    left = (image.width - size[0] * scale) / 2 + size[0] * scale * view.left
    top = (image.height - size[1] * scale) / 2 + size[1] * scale * view.top
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    return image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)


def _graded(image: Image.Image, seed: int) -> Image.Image:
    """A little lighter or darker, warmer or cooler: pictures with different seeds differ at a glance."""
    chance = random.Random(seed)
    gain, lift = chance.uniform(0.95, 1.05), chance.uniform(-7.0, 7.0)
    shifts = [chance.uniform(-6.0, 6.0) for _ in range(3)]
    table = [
        round(min(255.0, max(0.0, (value - 128) * gain + 128 + lift + shift)))
        for shift in shifts
        for value in range(256)
    ]
    return image.point(table)
