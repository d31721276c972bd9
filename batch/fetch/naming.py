"""Files get their names in groups: those that wait for their names at the same time are synced together.

Each file needs its sidecar on the disk before its name and its name on the disk before the ledger is told, and a folder
is synced for each of the two. With hundreds of jobs under way that is most of what saving costs, so one hand-over to a
thread does it for all that have gathered. What waits here are names and sidecars alone: a large file's bytes are on the
disk before, and hold nobody up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from batch.fetch.files import Naming, name_all

__all__ = ["Namer"]

GROUP_MAX = 16  # files: two syncs for all and one for each; on a slow disk, as long as others wait


class _Waiting:
    """A file that waits. `bell` rings when it is done, or when it is its turn to take along all that wait."""

    def __init__(self, naming: Naming) -> None:
        self.naming = naming
        self.bell = anyio.Event()
        self.leads = False


class Namer:
    """`run_blocking` runs what waits for the disk: `await run_blocking(function, *args)`."""

    def __init__(self, run_blocking: Callable[..., Awaitable[Any]]) -> None:
        self._run_blocking = run_blocking
        self._waiting: deque[_Waiting] = deque()
        self._is_led = False  # whether a group is with the disk, or about to be: one at a time

    async def give(self, path: Path, facts: Mapping[str, Any], put: Callable[[Path], None]) -> None:
        """Give a file whose bytes are on the disk the name `path`, its sidecar before it; both are on the disk when
        this returns. FileExistsError, and no sidecar, when something else has the name; Blocked when the disk refuses.

        Not to be cancelled: others of its group wait for it.
        """
        one = _Waiting(Naming(path=path, facts=facts, put=put))
        with anyio.CancelScope(shield=True):
            self._waiting.append(one)
            if self._is_led:
                await one.bell.wait()
            else:
                self._is_led = one.leads = True
                await anyio.lowlevel.checkpoint()  # those of this turn of the loop come along
            if one.leads:
                await self._lead()
        if one.naming.error is not None:
            raise one.naming.error

    async def _lead(self) -> None:
        """Have those that wait longest named, the leader first of them, and pass the lead to the next."""
        group = [self._waiting.popleft() for _ in range(min(GROUP_MAX, len(self._waiting)))]
        try:
            await self._run_blocking(name_all, [one.naming for one in group])
        except BaseException as exc:
            for one in group:
                one.naming.error = one.naming.error or exc
            raise
        finally:
            for one in group:
                one.bell.set()
            self._is_led = bool(self._waiting)
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].bell.set()
