"""This machine: the program and its libraries, settings, folders, and the room on the disk.

Folders are tried, not asked: a file without a name is written and gone again, because permissions alone do not tell of
a read-only disk or a quota. What fits on the disk is compared with what the ledger says is still to come.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

from batch import __version__
from batch.doctor.findings import Check, Said, Verdict, World, note, ok, trouble
from batch.doctor.remembered import Ledger
from batch.ledger import LEDGER_NAME
from batch.ledger.check import SQLITE_VERSION, LedgerCheck
from batch.settings import OPTIONS, Settings

__all__ = ["checks"]

QUICK_S = 5.0  # what needs no disk
DISK_S = 10.0  # a network disk that takes longer to write a page will take longer at every step of a run
FREE_BYTES_MIN = 256 * 2**20
"""What a run leaves free besides what is at fal: with less it submits nothing more. A ledger of 50,000 jobs fits."""

MAKE_ROOM = "make room, or name another folder with --outputs"

TRIED_BYTES = 4096  # a page: a full disk takes an empty file

LIBRARIES = ("anyio", "av", "click", "httpx", "pandas", "pillow", "sqlite-utils", "uvicorn")


def checks(settings: Settings, world: World, ledger: Ledger) -> list[Check]:
    """The checks of this machine, in the order in which they are told."""

    def blocking(name: str, deadline_s: float, func: partial[Said], late: Verdict = Verdict.NOTE) -> Check:
        return Check(name=name, deadline_s=deadline_s, ask=partial(world.run_blocking, func), late=late)

    return [
        blocking("program", QUICK_S, partial(_program)),
        blocking("libraries", QUICK_S, partial(_libraries)),
        blocking("settings", QUICK_S, partial(_settings, settings)),
        blocking("state folder", DISK_S, partial(_state_folder, settings.state), Verdict.TROUBLE),
        blocking("outputs folder", DISK_S, partial(_folder, settings.outputs, "--outputs"), Verdict.TROUBLE),
        blocking("hard links", DISK_S, partial(_hard_links, settings.outputs, world)),
        blocking("state disk", DISK_S, partial(_state_disk, settings.state, world)),
        blocking("outputs disk", ledger.deadline_s, partial(_outputs_disk, settings.outputs, world, ledger)),
    ]


def _program() -> Said:
    system = f"{platform.system()} {platform.machine()}"
    found = f"fal-batch {__version__}, {platform.python_implementation()} {platform.python_version()}, {system}"
    if not __debug__:
        return note(f"{found}, with the program's own checks switched off", "run Python without -O (PYTHONOPTIMIZE)")
    return ok(found)


def _libraries() -> Said:
    versions, missing = [], []
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return trouble(f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return ok(", ".join([*versions, f"SQLite {SQLITE_VERSION}"]))


def _settings(settings: Settings) -> Said:
    sources = [settings.sources[name] for name in OPTIONS if name != "json"]  # that one is about this very print
    counts = Counter(_kind(source) for source in sources if source != "default")
    if not counts:
        return ok("all are defaults")
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return ok(f"not defaults: {told}", "`fal-batch status --settings` shows each")


def _kind(source: str) -> str:
    if source.startswith("--"):
        return "by --local" if source == "--local" else "by flags"
    if source.startswith(".env "):
        return "from .env"
    return "from pyproject.toml" if source.startswith("pyproject.toml") else "from the environment"


# --- folders ---


def _state_folder(state: Path) -> Said:
    said = _folder(state, "--state")
    for name in (LEDGER_NAME, f"{LEDGER_NAME}-wal", f"{LEDGER_NAME}-shm", "ledger.lock"):
        path = state / name
        if said.verdict is Verdict.OK and path.exists() and not _may_write(path):
            return trouble(f"{path} may not be written by this user", "was a run made as another user (sudo)?")
    return said


def _folder(folder: Path, flag: str) -> Said:
    there = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0" * TRIED_BYTES)
            file.flush()
    except OSError as exc:
        return trouble(
            f"{there} cannot be written: {exc.strerror or exc}", f"make it writable, or name another folder with {flag}"
        )
    return ok(f"{folder} can be written" if os.path.lexists(folder) else f"{folder} is not there yet, and can be made")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = Path(os.path.abspath(folder))
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def _may_write(path: Path) -> bool:
    """As the system will see it: by the user we act as."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _hard_links(outputs: Path, world: World) -> Said:
    """Whether rows that share a video share its bytes. Two names are made for a moment, in a folder of their own."""
    there = _existing(outputs)
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".fal-batch-doctor-") as name:
            one = Path(name) / "one"
            one.touch()
            with contextlib.suppress(OSError):
                world.link(one, Path(name) / "two")
                return ok("rows that ask for the same share the bytes of their file")
    except OSError as exc:
        return note(f"not tried: {there} cannot be written: {exc.strerror or exc}")
    return note(f"the file system of {there} has none: rows that ask for the same get copies, and need room for them")


# --- room ---


def _state_disk(state: Path, world: World) -> Said:
    free = world.free_bytes(_existing(state))
    if free < FREE_BYTES_MIN:
        return trouble(f"{_size(free)} free for the ledger", "make room: a ledger that cannot be written stops a run")
    return ok(f"{_size(free)} free for the ledger")


def _outputs_disk(outputs: Path, world: World, ledger: Ledger) -> Said:
    free = world.free_bytes(_existing(outputs))
    if free < FREE_BYTES_MIN:
        return trouble(f"{_size(free)} free for the files", MAKE_ROOM)
    return ledger.answer(partial(_room, free), without=ok(f"{_size(free)} free; nothing is planned yet"))


def _room(free: int, ledger: LedgerCheck) -> Said:
    ahead = ledger.ahead()
    jobs = f"{ahead.in_flight:,} under way and {ahead.to_submit:,} to submit"
    if not ahead.in_flight + ahead.to_submit:
        return ok(f"{_size(free)} free; nothing is under way or to submit")
    if ahead.bytes_a_job is None:
        advice = "see that there is room: a video has some megabytes"
        return note(f"{_size(free)} free for {jobs}; how large a file is shows when the first is saved", advice)
    under_way, in_all = (count * ahead.bytes_a_job for count in (ahead.in_flight, ahead.in_flight + ahead.to_submit))
    found = f"{_size(free)} free; about {_size(in_all)} to come ({jobs}, {_size(ahead.bytes_a_job)} each so far)"
    if free < FREE_BYTES_MIN + in_all:
        which = "what is under way" if free < FREE_BYTES_MIN + under_way else "all that is planned"
        return trouble(f"{found}: not enough for {which}, with {_size(FREE_BYTES_MIN)} left over", MAKE_ROOM)
    return ok(found)


def _size(count: float) -> str:
    """`41.2 GB`, as disks are sold: a kilobyte has 1000 bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
