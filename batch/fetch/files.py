"""Files in their places: installs that replace nothing, sidecars, hashes. Blocking; no network.

Everything here may be killed at any line: what stands under a final name is whole, or is not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batch.errors import Blocked

__all__ = [
    "disk_trouble",
    "install",
    "link_or_copy",
    "read_sidecar",
    "sha256_of",
    "write_sidecar",
]


def install(part: Path, final: Path) -> None:
    """Gives a finished part its final name, for good: on the disk before it returns, and in nobody's place.

    FileExistsError when something else has that name. After a crash in the middle the same call finishes the work.
    """
    with disk_trouble(final):
        _make_folder(final.parent)
        _sync(part)
        try:
            os.link(part, final)
        except FileExistsError:
            if not os.path.samestat(os.stat(part), os.lstat(final)):
                raise
            # A crash came between the link and the unlink: both names are the one file.
        except OSError:
            # No hard links here (exFAT, some network disks). Looking first leaves a gap; one writer holds the ledger.
            if os.path.lexists(final):
                raise FileExistsError(f"{final} exists") from None
            os.rename(part, final)
        part.unlink(missing_ok=True)
        _sync(final.parent)


def link_or_copy(source: Path, target: Path) -> None:
    """Gives the file `source` a second name, or a copy where links do not reach. FileExistsError when it is taken."""
    with disk_trouble(target):
        _make_folder(target.parent)
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:
            if os.path.lexists(target):
                raise FileExistsError(f"{target} exists") from None
            copy = target.with_name(target.name + ".part")
            shutil.copyfile(source, copy)
            install(copy, target)
        else:
            _sync(target.parent)


def write_sidecar(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes the JSON file `path` in one step: a reader, or a crash, sees the old one or the new one."""
    with disk_trouble(path):
        _make_folder(path.parent)
        fresh = path.with_name(path.name + ".part")
        fresh.write_text(json.dumps(dict(facts), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        _sync(fresh)
        os.replace(fresh, path)
        _sync(path.parent)


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """The facts in a sidecar; None when there is none, or it is torn."""
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def disk_trouble(path: Path) -> Iterator[None]:
    """What the disk refuses (full, read-only, no permission) stops the run; it is no fault of the row at hand."""
    try:
        yield
    except (FileExistsError, TimeoutError):
        raise
    except OSError as exc:
        raise Blocked(f"cannot write {path}: {exc.strerror or exc}") from exc


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as exc:  # a file has the folder's name; not to be mistaken for a taken file name
        raise Blocked(f"cannot make the folder {path}: {exc.filename} is a file") from exc


def _sync(path: Path) -> None:
    """Onto the disk: a file's bytes, or a folder's names where the system can do that (Windows cannot)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
