"""Where a file stands as seen from the page. A gallery among the campaign's own files points at them; one elsewhere
gets them beside the page, as hard links where that is possible, so that its folder can be moved or sent. Blocking."""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path

from batch import fetch

__all__ = ["beside", "href"]

FOLDER = "files"


def href(path: Path, page_folder: Path) -> str:
    """A file's address for a page in `page_folder`: relative, or a file: URL where no path leads (another drive)."""
    try:
        relative = os.path.relpath(path.resolve(), page_folder.resolve())
    except ValueError:
        return path.resolve().as_uri()
    # `./` keeps a colon in a name from being read as a scheme.
    return "./" + urllib.parse.quote(Path(relative).as_posix())


def beside(path: Path, sha256: str, campaign_folder: Path, page_folder: Path) -> Path:
    """The same file below `page_folder`, made if it is not there. What another file's name has is never replaced."""
    inside = path.is_relative_to(campaign_folder)
    target = page_folder / FOLDER / (path.relative_to(campaign_folder) if inside else path.name)
    if _is_there(path, target):
        return target
    if os.path.lexists(target):
        target = target.with_name(f"{target.stem}~{sha256[:8]}{target.suffix}")
    if not _is_there(path, target):
        fetch.link_or_copy(path, target)
    return target


def _is_there(path: Path, target: Path) -> bool:
    """Whether `target` is the file, or a copy of it (saved files do not change: a size tells)."""
    if not target.is_file():
        return False
    return target.samefile(path) or target.stat().st_size == path.stat().st_size
