"""Pictures for a new sheet: those of a folder, or one that is drawn so that the example row has something to show."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath

from batch.errors import InputError
from batch.manifest import ids_of
from batch.manifest.text import is_damaged_text

__all__ = ["draw_example", "has_pictures", "pictures_in"]

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"})
EXAMPLE_SIZE = (960, 540)

_FORMULA = re.compile(r"^[=+\-@\t\r]+")  # what a spreadsheet program would run


def has_pictures(folder: Path) -> bool:
    """Whether pictures lie in a folder."""
    return next(_names(folder), None) is not None


def pictures_in(folder: Path, sheet_folder: Path) -> Iterator[tuple[str, str]]:
    """An id and a path for each picture in a folder, sorted by name; the path is relative to the sheet."""
    names = sorted(_names(folder))
    for (id, _), name in zip(ids_of(names), names, strict=True):
        path = _relative(folder / name, sheet_folder)
        if is_damaged_text(path):
            shown = path.encode(errors="replace").decode()
            raise InputError(f"{shown}: the name is not UTF-8, and no sheet can say it; rename the picture")
        yield _FORMULA.sub("_", id), path


def draw_example(path: Path) -> None:
    """A picture at `path`: a sun over hills, enough to see a camera move."""
    from PIL import Image, ImageDraw

    width, height = EXAMPLE_SIZE
    sky = Image.linear_gradient("L").resize(EXAMPLE_SIZE)
    picture = Image.merge(
        "RGB", [sky.point([base + value * (255 - base) // 400 for value in range(256)]) for base in (60, 110, 190)]
    )
    draw = ImageDraw.Draw(picture)
    draw.ellipse((width * 0.62, height * 0.16, width * 0.76, height * 0.16 + width * 0.14), fill=(255, 214, 120))
    for left, top, color in ((-0.2, 0.62, (70, 110, 90)), (0.35, 0.68, (52, 92, 74)), (-0.05, 0.78, (34, 66, 52))):
        draw.ellipse((width * left, height * top, width * (left + 1), height * (top + 0.9)), fill=color)
    picture.save(path, quality=90)


def _names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as found:
            for entry in found:
                is_picture = PurePath(entry.name).suffix.lower() in PICTURE_SUFFIXES
                if is_picture and not entry.name.startswith(".") and entry.is_file():
                    yield entry.name
    except OSError as exc:
        raise InputError(f"{folder} cannot be read: {exc.strerror or exc}") from exc


def _relative(path: Path, folder: Path) -> str:
    """A path as a cell names it: from the folder of the sheet, with slashes."""
    try:
        text = PurePath(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return str(path.resolve())
    return f"./{text}" if _FORMULA.match(text) else text
