"""Threads for what blocks: the disk, and hashing. Lighter than anyio's: those took a tenth of a run's CPU.

A call is handed over by one queue in C, without a turn of the loop before it, and what is over is told to the loop in
one go. For asyncio alone, which is what a run has; on a virtual clock nothing may run in a thread anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any

__all__ = ["THREADS_MAX", "Threads"]

THREADS_MAX = 8  # downloads write six files at most, and more threads wait for each other as well as for the disk


@dataclass(slots=True)
class _Call:
    """One piece of work, and what came of it."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None


class Threads:
    """Those of one event loop, while the body runs that it is entered for. They are started when there is work."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._under_way = 0  # calls that are not told yet; only the loop counts them
        self._count = 0
        self._lock = threading.Lock()
        self._over: list[_Call] = []

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        """What is under way is left alone: what it leaves behind, a crash could too."""
        for _ in range(self._count):
            self._calls.put(None)

    async def run(self, func: Callable[..., Any], *args: Any) -> Any:
        """`func(*args)` in a thread. A cancelled caller does not wait for it; what has not begun by then never does."""
        call = _Call(func, args, self._loop.create_future())
        self._under_way += 1
        if self._count < min(self._under_way, THREADS_MAX):
            self._count += 1
            threading.Thread(target=self._work, name=f"disk {self._count}", daemon=True).start()
        self._calls.put(call)
        return await call.future

    def _work(self) -> None:
        """In a thread of its own."""
        while (call := self._calls.get()) is not None:
            if not call.future.cancelled():
                try:
                    call.value = call.func(*call.args)
                except BaseException as exc:  # noqa: BLE001 - raised where it is waited for
                    call.error = exc
            with self._lock:
                self._over.append(call)
                is_first = len(self._over) == 1
            if is_first:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
                    self._loop.call_soon_threadsafe(self._tell)
            del call

    def _tell(self) -> None:
        with self._lock:
            over, self._over = self._over, []
        self._under_way -= len(over)
        for call in over:
            if call.future.done():
                continue  # its caller has left
            if call.error is None:
                call.future.set_result(call.value)
            else:
                call.future.set_exception(call.error)
