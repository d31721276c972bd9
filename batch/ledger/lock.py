"""One writer at a time: an OS lock beside the ledger, which a crash releases and a child process does not inherit.

The lock's holder is written into a file of its own, because the lock file is emptied by whoever tries to take it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batch.errors import Blocked, LedgerBusy

__all__ = ["at_work", "held", "holder"]


@contextmanager
def held(folder: Path, command: str) -> Iterator[None]:
    """Hold the folder's lock while the body runs.

    LedgerBusy names the holder when somebody else has it; Blocked when the folder cannot be made or written.
    """
    import filelock

    lock = filelock.FileLock(folder / "ledger.lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as exc:
        raise LedgerBusy(f"{folder} is in use by {holder(folder)}; wait for it to end, or stop it") from exc
    except (OSError, NotImplementedError) as exc:
        raise Blocked(
            f"the folder {folder} cannot be used for a ledger: {getattr(exc, 'strerror', None) or exc}"
        ) from exc
    try:
        _note_holder(folder, command)
        yield
    finally:
        _holder_file(folder).unlink(missing_ok=True)
        lock.release()


def holder(folder: Path) -> str:
    """Who holds the lock, for a person: the words of its own note, as far as they can be read."""
    try:
        facts = json.loads(_holder_file(folder).read_text(encoding="utf-8"))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts["since"]))
        return f"`{facts['command']}` (process {facts['pid']} on {facts['host']}, since {since})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another fal-batch"


def at_work(folder: Path) -> str | None:
    """Who holds the lock now, None where nobody does, without touching it: by the holder's own note, and whether its
    process is alive. A note from another machine is believed."""
    try:
        facts = json.loads(_holder_file(folder).read_text(encoding="utf-8"))
        if facts["host"] == socket.gethostname():
            os.kill(int(facts["pid"]), 0)
    except PermissionError:
        pass  # it is there, and somebody else's
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return holder(folder)


def _note_holder(folder: Path, command: str) -> None:
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": time.time()}
    with contextlib.suppress(OSError):  # only words for a person hang on it
        _holder_file(folder).write_text(json.dumps(facts), encoding="utf-8")


def _holder_file(folder: Path) -> Path:
    return folder / "ledger.holder.json"
