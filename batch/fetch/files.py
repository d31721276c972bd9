"""Files in their places: installs that replace nothing, sidecars, hashes. Blocking; no network.

Everything here may be killed at any line: what stands under a final name is whole, or is not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch.errors import Blocked

__all__ = [
    "Naming",
    "disk_trouble",
    "install",
    "link_or_copy",
    "name_all",
    "place",
    "read_sidecar",
    "sha256_of",
    "sidecar_of",
    "sync",
    "write_sidecar",
]

_encoded = json.JSONEncoder(ensure_ascii=False).encode


def install(part: Path, final: Path) -> None:
    """Gives a finished part its final name, for good: on the disk before it returns, and in nobody's place.

    FileExistsError when something else has that name. After a crash in the middle the same call finishes the work.
    """
    with disk_trouble(final):
        _make_folder(final.parent)
    sync(part)
    place(part, final)
    sync(final.parent)


def place(part: Path, final: Path) -> None:
    """`install` of a part whose bytes are on the disk; its name is not before the folder is synced."""
    with disk_trouble(final):
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
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


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
            sync(target.parent)


def write_sidecar(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes the JSON file `path` in one step: a reader, or a crash, sees the old one or the new one."""
    with disk_trouble(path):
        _make_folder(path.parent)
        _write(path, facts)
        sync(path.parent)


@dataclass(slots=True, kw_only=True)
class Naming:
    """A file that is to get a name, its bytes on the disk already: `put` gives it to it, FileExistsError when it is
    taken. `error` is what came between, None when the file has its name for good."""

    path: Path
    facts: Mapping[str, Any]
    put: Callable[[Path], None]
    error: BaseException | None = None


def name_all(group: Sequence[Naming]) -> None:
    """Give each file its name: all sidecars first, each on the disk before its file has the name, then all files. A
    folder is synced once for all that go into it. What happens to one is its own `error` and leaves the others alone;
    where something else has the name, it stays, and no sidecar is left."""
    for act in (_write_sidecar_of, _put):
        for one in group:
            if one.error is None:
                try:
                    act(one)
                except Exception as exc:  # noqa: BLE001 - raised where its name is waited for
                    one.error = exc
        _sync_folders(group)


def _write_sidecar_of(one: Naming) -> None:
    path = sidecar_of(one.path)
    with disk_trouble(path):
        try:
            _write(path, one.facts)
        except FileNotFoundError:
            _make_folder(path.parent)
            _write(path, one.facts)


def _put(one: Naming) -> None:
    try:
        one.put(one.path)
    except FileExistsError:
        sidecar_of(one.path).unlink(missing_ok=True)
        raise


def _sync_folders(group: Sequence[Naming]) -> None:
    for folder in {one.path.parent for one in group if one.error is None}:
        try:
            sync(folder)
        except (Blocked, OSError) as exc:
            for one in group:
                if one.path.parent == folder:
                    one.error = one.error or Blocked(str(exc))


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    """The facts under a name that is taken over in one step, their bytes on the disk."""
    fresh = f"{path}.part"
    handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        left = memoryview((_indented(facts) + "\n").encode())
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(fresh, path)


def _indented(value: Any, margin: str = "\n") -> str:
    """JSON as `json.dumps` indents it by two, for keys that are text: its own way with an indent is slow."""
    inner = margin + "  "
    if isinstance(value, Mapping) and value:
        members = ",".join([f"{inner}{_encoded(name)}: {_indented(one, inner)}" for name, one in value.items()])
        return f"{{{members}{margin}}}"
    if isinstance(value, list | tuple) and value:
        return f"[{','.join([inner + _indented(one, inner) for one in value])}{margin}]"
    return _encoded(value)


def sidecar_of(path: Path) -> Path:
    """Where the facts about a file stand."""
    return path.with_name(path.name + ".json")


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


def sync(path: Path) -> None:
    """Onto the disk: a file's bytes, or a folder's names where the system can do that (Windows cannot)."""
    if os.name == "nt" and path.is_dir():
        return
    with disk_trouble(path):
        handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
