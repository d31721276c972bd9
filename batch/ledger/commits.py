"""Transactions of the ledger's one writing connection: a commit for each step, or one for several of them.

A commit waits for the disk, and with hundreds of jobs under way that is most of what writing costs. While commits are
shared, a step that says so leaves its transaction open for the steps of other jobs, and whoever wrote one awaits
`durable` before doing anything that hangs on it. Any other step commits at once, and with it what others left open.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from batch.errors import Blocked, LedgerFault

__all__ = ["Commits"]

REST_TIMES, REST_S_MAX = 3, 0.05
"""After a commit the next one lets as much time pass as three of it took, this much at most: a slow disk then has the
event loop for a quarter of the time, and what is written meanwhile shares the next commit. A step waits some
milliseconds for that, and a job takes seconds at the least."""


class _Shared:
    """What is written and not committed yet. `error` says why it never will be."""

    def __init__(self) -> None:
        import anyio  # here, because the commands that only read load this module too

        self.is_over = anyio.Event()
        self.is_awaited = False
        self.error: BaseException | None = None


class Commits:
    """`path` is the file, for messages; `undone` is called when a commit fails that steps had returned before."""

    def __init__(self, connection: sqlite3.Connection, path: Path, *, undone: Callable[[], None]) -> None:
        self._db = connection
        self._path = path
        self._undone = undone
        self._is_sharing = False
        self._is_stepping = False
        self._shared: _Shared | None = None
        self._after: list[Callable[[], None]] = []
        self._rests_until = -math.inf  # by the event loop's clock

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """While the body runs, on an event loop, steps may share their commits."""
        self._is_sharing = True
        try:
            yield
        finally:
            self._is_sharing = False
            self._commit()

    @contextmanager
    def step(self, *, shares: bool = False, is_one_statement: bool = False) -> Iterator[None]:
        """One step, as a whole or not at all; durable when this returns or, with `shares`, when `durable` does. Of one
        statement SQLite itself sees to that.

        Blocked when the file cannot be written: what the step shared its commit with is undone too, and whoever awaits
        that is told. LedgerFault when the schema refuses the step; the others' stay.
        """
        assert not self._is_stepping, "a step has no steps in it: the inner one would commit half of the outer"
        self._is_stepping, is_inner = True, self._db.in_transaction
        has_savepoint = is_inner and not is_one_statement
        try:
            if has_savepoint:
                self._db.execute("SAVEPOINT step")
            elif not is_inner:
                self._db.execute("BEGIN IMMEDIATE")
            yield
            if has_savepoint:
                self._db.execute("RELEASE step")
        except sqlite3.OperationalError as exc:  # disk full, read-only, I/O error: the world's fault, not ours
            raise self._failed(exc) from exc
        except sqlite3.IntegrityError as exc:  # the schema refuses what the code should never have asked for
            self._undo_step(exc, is_inner=is_inner, has_savepoint=has_savepoint)
            raise LedgerFault(f"the ledger refuses it: {exc}") from exc
        except BaseException as exc:
            self._undo_step(exc, is_inner=is_inner, has_savepoint=has_savepoint)
            raise
        finally:
            self._is_stepping = False
        if not (shares and self._is_sharing):
            self._commit()
        elif self._shared is None:
            self._shared = _Shared()

    def once_durable(self, act: Callable[[], None]) -> None:
        """Call `act` when what was written last is committed: at once, or never should that fail."""
        if self._db.in_transaction:
            self._after.append(act)
        else:
            act()

    async def durable(self) -> None:
        """Returns when all that was written is committed; Blocked when it could not be, and then none of it happened.

        Not to be cancelled: it takes a turn of the loop or a few, in which others write what goes into the same commit.
        """
        shared = self._shared
        if shared is None:
            return
        import anyio.lowlevel

        if shared.is_awaited:
            with anyio.CancelScope(shield=True):
                await shared.is_over.wait()
        else:
            shared.is_awaited = True
            rest_s = self._rests_until - anyio.current_time()
            if rest_s > 0:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(rest_s)
            else:
                await anyio.lowlevel.cancel_shielded_checkpoint()
            if shared is self._shared:
                began = anyio.current_time()
                self._commit()
                ended = anyio.current_time()
                self._rests_until = ended + min(REST_TIMES * (ended - began), REST_S_MAX)
        if shared.error is not None:
            raise Blocked(str(shared.error)) from shared.error

    def _commit(self) -> None:
        if not self._db.in_transaction:
            return
        try:
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as exc:
            raise self._failed(exc) from exc
        except BaseException as exc:
            self._failed(exc)
            raise
        self._over(None)
        after, self._after = self._after, []
        for act in after:
            act()

    def _failed(self, exc: BaseException) -> Blocked:
        """Undo all that is not committed, and tell those who wait for it."""
        blocked = Blocked(f"the ledger {self._path} cannot be written: {exc}")
        self._after.clear()
        self._over(blocked)
        self._undone()
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        return blocked

    def _over(self, error: Blocked | None) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.error = error
            shared.is_over.set()

    def _undo_step(self, exc: BaseException, *, is_inner: bool, has_savepoint: bool) -> None:
        if not self._db.in_transaction:
            self._failed(exc)  # SQLite itself has undone all of it: when memory is short, it does
        elif has_savepoint:
            self._db.execute("ROLLBACK TO step")
            self._db.execute("RELEASE step")
        elif not is_inner:
            self._db.execute("ROLLBACK")
