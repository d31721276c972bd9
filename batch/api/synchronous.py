"""The queue for code without an event loop: the asynchronous one on a loop in a thread of its own.

Nothing of the protocol is here. What is: whose thread callbacks run in (the caller's), what Ctrl-C does, and that the
thread ends with the program.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import anyio
from anyio.from_thread import BlockingPortal

from batch.api.asynchronous import INTERVAL_S, Accepted, AsyncHandle, AsyncQueue, noted, settings_of, start_bound
from batch.api.campaign import RunSettings, RunSummary, flags_of, run_manifest
from batch.api.failures import SubmitInDoubt
from batch.api.inputs import Priority
from batch.api.updates import Status
from batch.fal import CANCEL_GRACE_S, CancelAnswer

if TYPE_CHECKING:
    from PIL.Image import Image

    from batch.run import Progress
    from batch.views import Quote

__all__ = ["Handle", "Queue"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle(Accepted):
    """A request that fal has accepted."""

    _queue: Queue = field(repr=False)

    def status(self, *, with_logs: bool = False) -> Status:
        """Where it stands now."""
        loop = self._queue._running()
        return loop.call(lambda: loop.queue._calls.status(self._ticket, self.application, with_logs))

    def iter_events(self, *, with_logs: bool = False, interval: float = INTERVAL_S) -> Iterator[Status]:
        """Each change of its status, the last one Completed; see `Queue.stream`."""
        loop = self._queue._running()
        return loop.each(loop.queue._calls.updates(self._ticket, self.application, with_logs, interval, math.inf))

    def get(self, *, interval: float = INTERVAL_S) -> dict[str, Any]:
        """Its result, once it has one; see `Queue.result`."""
        loop = self._queue._running()
        return loop.call(lambda: loop.queue._calls.result(self._ticket, self.application, interval))

    def cancel(self) -> CancelAnswer:
        """Has it called off; see `Queue.cancel`."""
        loop = self._queue._running()
        return loop.call(lambda: loop.queue._calls.cancel(self._ticket, self.application))


class Queue:
    """fal's queue, or with `local` the one inside this program. Any number of threads may share one.

    The key is `key`, else the program's own settings have it (FAL_KEY, a .env file); hosts come from the same
    FAL_BATCH_ settings. `state` is the folder of the queue inside the program and of `run`. InputError when there is no
    key, or a setting cannot be read. It closes with the program, or earlier by `close` or `with`.

    But for `run` nothing is written down: a request whose id is lost with the process is paid for and goes on at fal.
    """

    def __init__(
        self, key: str | None = None, *, local: bool | None = None, state: str | os.PathLike[str] | None = None
    ) -> None:
        self._given = (key, local, state)
        settings_of(*self._given)  # what is wrong with them is told here and not at the first call
        self._lock = threading.Lock()
        self._loop: _Loop | None = None

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections and the thread; a later call begins anew. What is at fal goes on."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def submit(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        hint: str | None = None,
        webhook_url: str | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
    ) -> Handle:
        """Puts one request on the queue: one POST, whatever happens; see `AsyncQueue.submit`.

        Ctrl-C in the middle of the POST waits five more seconds for the answer; the request id is then a note on the
        KeyboardInterrupt.
        """
        loop = self._running()
        return self._handle(
            loop.call(
                lambda: loop.queue.submit(
                    application,
                    arguments,
                    hint=hint,
                    webhook_url=webhook_url,
                    priority=priority,
                    headers=headers,
                    start_timeout=start_timeout,
                )
            )
        )

    def subscribe(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        hint: str | None = None,
        with_logs: bool = False,
        interval: float = INTERVAL_S,
        on_enqueue: Callable[[str], None] | None = None,
        on_queue_update: Callable[[Status], None] | None = None,
        webhook_url: str | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
        client_timeout: float | None = None,
    ) -> dict[str, Any]:
        """Submits once, follows the request and returns its result; see `AsyncQueue.subscribe`. Callbacks run in the
        caller's thread."""
        loop = self._running()
        until = loop.call(lambda: _until(client_timeout))
        handle = self.submit(
            application,
            arguments,
            hint=hint,
            webhook_url=webhook_url,
            priority=priority,
            headers=headers,
            start_timeout=start_bound(start_timeout, client_timeout),
        )
        with noted(application, handle.request_id):
            if on_enqueue is not None:
                on_enqueue(handle.request_id)
            ticket = handle._ticket
            for update in loop.each(loop.queue._calls.updates(ticket, application, with_logs, interval, until)):
                if on_queue_update is not None:
                    on_queue_update(update)
            return loop.call(lambda: loop.queue._calls.taken(ticket, application, interval, until))

    def status(self, application: str, request_id: str, *, with_logs: bool = False) -> Status:
        """Where a request stands now, with all its logs so far where they are wanted."""
        loop = self._running()
        return loop.call(lambda: loop.queue.status(application, request_id, with_logs=with_logs))

    def stream(
        self, application: str, request_id: str, *, with_logs: bool = False, interval: float = INTERVAL_S
    ) -> Iterator[Status]:
        """Each change of a request's status until it is Completed; see `AsyncQueue.stream`."""
        loop = self._running()
        return loop.each(loop.queue.stream(application, request_id, with_logs=with_logs, interval=interval))

    def result(self, application: str, request_id: str, *, interval: float = INTERVAL_S) -> dict[str, Any]:
        """Waits until a request is complete and returns its result; see `AsyncQueue.result`."""
        loop = self._running()
        return loop.call(lambda: loop.queue.result(application, request_id, interval=interval))

    def cancel(self, application: str, request_id: str) -> CancelAnswer:
        """Has a request called off. What fal says to that is not how it ends: its result says that."""
        loop = self._running()
        return loop.call(lambda: loop.queue.cancel(application, request_id))

    def get_handle(self, application: str, request_id: str) -> Handle:
        """The handle of a request whose id is known; asks nothing."""
        return self._handle(self._running().queue.get_handle(application, request_id))

    def find(self, error: SubmitInDoubt) -> Handle | None:
        """Looks for a submit whose answer was not seen; see `AsyncQueue.find`. None proves nothing."""
        loop = self._running()
        found = loop.call(lambda: loop.queue.find(error))
        return None if found is None else self._handle(found)

    def upload(self, data: str | bytes, content_type: str, file_name: str | None = None) -> str:
        """Uploads bytes and returns their URL. Free, and harmless to repeat."""
        loop = self._running()
        return loop.call(lambda: loop.queue.upload(data, content_type, file_name))

    def upload_file(self, path: str | os.PathLike[str]) -> str:
        """Uploads a file and returns its URL; its media type is told by its name."""
        loop = self._running()
        return loop.call(lambda: loop.queue.upload_file(path))

    def upload_image(self, image: Image, format: str = "jpeg") -> str:
        """Uploads a Pillow image and returns its URL."""
        loop = self._running()
        return loop.call(lambda: loop.queue.upload_image(image, format))

    def save(self, result: Mapping[str, Any], folder: str | os.PathLike[str], *, name: str | None = None) -> list[Path]:
        """Saves every file of a result in `folder`, and says where; see `AsyncQueue.save`."""
        loop = self._running()
        return loop.call(lambda: loop.queue.save(result, folder, name=name))

    def run(
        self,
        manifest: str | os.PathLike[str],
        *,
        confirm: Callable[[Quote], bool] | None = None,
        progress: Progress | None = None,
        **options: Unpack[RunSettings],
    ) -> RunSummary:
        """Does a manifest as `fal-batch run` does, or goes on with it: ledger, resume, cap, saved files.

        `confirm` is asked before anything is spent (Declined when it says no); without it the run spends at once, so
        give it a `max_cost`. `options` are the command's own. What it has to say goes to the logger `batch`, or to
        `progress`. InputError and ManifestError come before anything is submitted, Blocked when another run is at work.
        Ctrl-C and SIGTERM leave in order and raise KeyboardInterrupt, where this is the main thread; the same call goes
        on.
        """
        key, local, state = self._given
        settings = settings_of(key, local, state, **flags_of(options))
        return run_manifest(Path(manifest), settings, confirm=confirm, progress=progress)

    def _running(self) -> _Loop:
        with self._lock:
            if self._loop is None or self._loop.pid != os.getpid():  # a forked child has no threads of its parent
                self._loop = _Loop(AsyncQueue(self._given[0], local=self._given[1], state=self._given[2]))
            return self._loop

    def _handle(self, handle: AsyncHandle) -> Handle:
        return Handle(
            application=handle.application,
            request_id=handle.request_id,
            status_url=handle.status_url,
            response_url=handle.response_url,
            cancel_url=handle.cancel_url,
            _queue=self,
        )


class _Loop:
    """An open AsyncQueue on an event loop in a thread, and calls to it from other threads."""

    def __init__(self, queue: AsyncQueue) -> None:
        self.queue = queue
        self.pid = os.getpid()
        opened: Future[BlockingPortal] = Future()
        self._thread = threading.Thread(target=self._live, args=(opened,), name="fal-batch queue")
        self._thread.start()
        self._portal = opened.result()
        threading.Thread(target=self._end_with_program, name="fal-batch end", daemon=True).start()

    def _live(self, opened: Future[BlockingPortal]) -> None:
        async def live() -> None:
            async with self.queue, BlockingPortal() as portal:
                opened.set_result(portal)
                await portal.sleep_until_stopped()

        try:
            anyio.run(live, backend="asyncio")
        except BaseException as exc:
            if opened.done():
                raise
            opened.set_exception(exc)

    def _end_with_program(self) -> None:
        """The interpreter waits for threads before it ends, and a loop waits for calls: one of them has to go first."""
        threading.main_thread().join()
        self.close()

    def close(self) -> None:
        with suppress(RuntimeError):  # closed already
            self._portal.call(self._portal.stop, True)
        self._thread.join()

    def call(self, func: Callable[[], Awaitable[T]]) -> T:
        """Awaits it on the loop. Ctrl-C gives what has begun its grace, so that a POST's answer is still seen."""
        came_to: list[T | Exception] = []
        ended = threading.Event()

        async def main() -> None:
            try:
                came_to.append(await func())
            except Exception as exc:
                came_to.append(exc)
                raise
            finally:
                ended.set()

        future = self._portal.start_task_soon(main)
        try:
            future.result()
        except KeyboardInterrupt as exc:
            future.cancel()
            ended.wait(CANCEL_GRACE_S + 1.0)
            _tell(exc, came_to)
            raise
        answer = came_to[0]
        assert not isinstance(answer, Exception)
        return answer

    def each(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """The items of an asynchronous generator, one call each."""

        async def step() -> tuple[T] | None:
            async for item in items:
                return (item,)
            return None

        try:
            while (found := self.call(step)) is not None:
                yield found[0]
        finally:
            self.call(items.aclose)


def _tell(interrupt: KeyboardInterrupt, came_to: list[Any]) -> None:
    """What an interrupted submit came to, on the interrupt: else its request would be paid for and unknown."""
    for answer in came_to:
        if isinstance(answer, AsyncHandle):
            interrupt.add_note(
                f"submitted, and at fal: queue.result({answer.application!r}, {answer.request_id!r}) has its result"
            )
        elif isinstance(answer, SubmitInDoubt):
            interrupt.add_note(answer.message)


async def _until(seconds: float | None) -> float:
    return math.inf if seconds is None else anyio.current_time() + seconds
