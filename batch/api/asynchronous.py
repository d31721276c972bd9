"""The queue for code with an event loop, asyncio's or trio's: submit once, follow, take the result.

Every call is the line's own client; what is here is what a script would otherwise write around it: which answers are
asked for again and how long, which failure has which name. It remembers nothing that outlives it and submits nothing
twice; a whole sheet is `run`'s, in campaign.py.
"""

from __future__ import annotations

import inspect
import itertools
import math
import os
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from batch import fal, fetch, reconcile
from batch.api import inputs
from batch.api.failures import QueueError, SubmitInDoubt, submit_failure
from batch.api.following import Following
from batch.api.inputs import Priority
from batch.api.saving import save
from batch.api.updates import Status
from batch.errors import Action, CallFailed, InputError
from batch.jobs import Attempt, Ticket
from batch.reconcile import Finding, Known
from batch.settings import Settings, is_loopback, load_settings

if TYPE_CHECKING:
    import httpx
    from PIL.Image import Image

    from batch.fal import CancelAnswer, FalClient

__all__ = ["Accepted", "AsyncHandle", "AsyncQueue", "noted", "settings_of"]

T = TypeVar("T")

INTERVAL_S = 0.5  # between two status questions, where the stream does not tell
REMEMBERED_MAX = 10_000  # requests of this object, so that `find` does not take one for a lost one
LOCAL_KEY = "local"  # the queue inside the program takes any key

OnUpdate = Callable[[Status], Awaitable[None] | None]
OnEnqueue = Callable[[str], Awaitable[None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A request that fal has accepted, with the URLs that it gave."""

    application: str
    request_id: str
    status_url: str
    response_url: str
    cancel_url: str

    @property
    def _ticket(self) -> Ticket:
        return Ticket(
            request_id=self.request_id,
            status_url=self.status_url,
            response_url=self.response_url,
            cancel_url=self.cancel_url,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncHandle(Accepted):
    """A request that fal has accepted."""

    _queue: AsyncQueue = field(repr=False)

    async def status(self, *, with_logs: bool = False) -> Status:
        """Where it stands now."""
        return await self._queue._calls.status(self._ticket, self.application, with_logs)

    def iter_events(self, *, with_logs: bool = False, interval: float = INTERVAL_S) -> AsyncGenerator[Status, None]:
        """Each change of its status, the last one Completed; see `AsyncQueue.stream`."""
        return self._queue._calls.updates(self._ticket, self.application, with_logs, interval, math.inf)

    async def get(self, *, interval: float = INTERVAL_S) -> dict[str, Any]:
        """Its result, once it has one; see `AsyncQueue.result`."""
        return await self._queue._calls.result(self._ticket, self.application, interval)

    async def cancel(self) -> CancelAnswer:
        """Has it called off; see `AsyncQueue.cancel`."""
        return await self._queue._calls.cancel(self._ticket, self.application)


class AsyncQueue:
    """fal's queue, or with `local` the one inside this program: `async with AsyncQueue() as queue`.

    The key is `key`, else the program's own settings have it (FAL_KEY, a .env file); hosts come from the same
    FAL_BATCH_ settings. `state` is the folder of the queue inside the program and of `Queue.run`. InputError when there
    is no key, or a setting cannot be read.

    Nothing here is written down: a request whose id is lost with the process is paid for and goes on at fal.
    """

    def __init__(
        self, key: str | None = None, *, local: bool | None = None, state: str | os.PathLike[str] | None = None
    ) -> None:
        self._settings = settings_of(key, local, state)
        self._numbers = itertools.count(1)
        self._known: dict[str, Known] = {}
        self._open: dict[int, Attempt] = {}
        self._rng = random.Random()
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> AsyncQueue:
        settings = self._settings
        hosts = fal.Hosts(queue=settings.queue_url, rest=settings.rest_url, cdn=settings.cdn_url, api=settings.api_url)
        async with AsyncExitStack() as stack:
            submit, other, media = await self._transports(stack)
            key = LOCAL_KEY if settings.local else settings.key
            assert key is not None, "settings_of has asked for it"
            self._fal: FalClient = fal.FalClient(
                hosts=hosts, key=key, submit_transport=submit, transport=other, clock=time.time
            )
            stack.push_async_callback(self._fal.aclose)
            self._following = Following(self._fal, self._rng)
            self._fetcher = fetch.Fetcher(
                transport=media,
                allow_http_loopback=is_loopback(settings.queue_url),
                run_blocking=anyio.to_thread.run_sync,
                extra_origins=frozenset({settings.queue_url} if settings.local else ()),
            )
            stack.push_async_callback(self._fetcher.aclose)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._stack is not None
        stack, self._stack = self._stack, None
        await stack.aclose()

    async def submit(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        hint: str | None = None,
        webhook_url: str | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
    ) -> AsyncHandle:
        """Puts one request on the queue: one POST, whatever happens; it is never sent again.

        `application` is the endpoint's whole id. A `pathlib.Path` anywhere in `arguments` is uploaded first, and its
        URL sent. fal drops a request that has not started within `start_timeout` seconds (the program's own setting,
        an hour, where none is given).

        NotSubmitted when fal took nothing; SubmitInDoubt when the POST was sent and its answer not seen. Cancelled in
        the middle of the POST it waits five more seconds for the answer.
        """
        more = inputs.submit_headers(priority, hint, headers)
        seconds = self._settings.start_timeout if start_timeout is None else float(start_timeout)
        if not 1 < seconds < math.inf:
            raise InputError(f"start_timeout: expected more than one second, found {start_timeout!r}")
        _checked_id(application)
        attempt = Attempt(
            id=next(self._numbers),
            job_id=0,
            job_key="",
            number=1,
            endpoint=application,
            body=await self._body(arguments),
            price_micros=None,
            start_timeout_s=seconds,
            run_timeout_s=self._settings.run_timeout,
            submitting_at=time.time(),
            clock_offset_s=self._client.told_clock_offset_s,
        )
        self._open[attempt.id] = attempt
        try:
            ticket = await self._client.submit(attempt, webhook_url=webhook_url, headers=more)
        except CallFailed as exc:
            sent = replace(attempt, closed_at=time.time(), request_id=exc.request_id)
            raise submit_failure(exc, sent) from exc
        finally:
            del self._open[attempt.id]
        self._remember(attempt, ticket)
        # load-bearing: nothing is awaited between the answer and here; a cancellation waits for the caller's next step.
        return self._handle(application, ticket)

    async def subscribe(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        hint: str | None = None,
        with_logs: bool = False,
        interval: float = INTERVAL_S,
        on_enqueue: OnEnqueue | None = None,
        on_queue_update: OnUpdate | None = None,
        webhook_url: str | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
        client_timeout: float | None = None,
    ) -> dict[str, Any]:
        """Submits once, follows the request and returns its result, the model's own JSON.

        `on_enqueue` gets the request id, `on_queue_update` each change of the status, with the log entries that are
        new. After `client_timeout` seconds the request is called off and ClientTimeout raised; the time bounds the
        request's start too, where no `start_timeout` is given. Other errors: those of `submit` and `result`. Whatever
        is raised after the submit has the request id in a note.
        """
        until = self._until(client_timeout)
        handle = await self.submit(
            application,
            arguments,
            hint=hint,
            webhook_url=webhook_url,
            priority=priority,
            headers=headers,
            start_timeout=start_bound(start_timeout, client_timeout),
        )
        with noted(application, handle.request_id):
            await _called(on_enqueue, handle.request_id)
            async with aclosing(self._calls.updates(handle._ticket, application, with_logs, interval, until)) as events:
                async for update in events:
                    await _called(on_queue_update, update)
            return await self._calls.taken(handle._ticket, application, interval, until)

    async def status(self, application: str, request_id: str, *, with_logs: bool = False) -> Status:
        """Where a request stands now, with all its logs so far where they are wanted."""
        return await self._calls.status(self._ticket(application, request_id), application, with_logs)

    def stream(
        self, application: str, request_id: str, *, with_logs: bool = False, interval: float = INTERVAL_S
    ) -> AsyncGenerator[Status, None]:
        """Each change of a request's status until it is Completed, with the log entries that are new.

        fal's status stream tells them; where it does not, or breaks, the status is asked every `interval` seconds.
        """
        return self._calls.updates(self._ticket(application, request_id), application, with_logs, interval, math.inf)

    async def result(
        self,
        application: str,
        request_id: str,
        *,
        interval: float = INTERVAL_S,
    ) -> dict[str, Any]:
        """Waits until a request is complete and returns its result, the model's own JSON.

        RequestFailed is fal's verdict; ResultGone when neither the queue nor the history has it; NoAnswer when it could
        not be had now.
        """
        return await self._calls.result(self._ticket(application, request_id), application, interval)

    async def cancel(self, application: str, request_id: str) -> CancelAnswer:
        """Has a request called off. What fal says to that is not how it ends: its result says that."""
        return await self._calls.cancel(self._ticket(application, request_id), application)

    def get_handle(self, application: str, request_id: str) -> AsyncHandle:
        """The handle of a request whose id is known; asks nothing."""
        return self._handle(application, self._ticket(application, request_id))

    async def find(self, error: SubmitInDoubt) -> AsyncHandle | None:
        """Looks for a submit whose answer was not seen: by the id that a damaged answer named, then in fal's history.

        A request is it when it was sent in those minutes, every field that was sent is equal, and it is none that this
        object knows. None proves nothing: the history may be minutes late. QueueError when it cannot be asked.
        """
        attempt = error.attempt
        seen = attempt.request_id
        if seen is not None and seen not in self._known:
            try:
                await self._calls.status(self._ticket(attempt.endpoint, seen), attempt.endpoint, False)
            except QueueError:
                pass  # the history decides
            else:
                return self._adopted(attempt, seen)
        asked_at, offset = time.time(), self._client.clock_offset_s
        assert attempt.closed_at is not None
        start = attempt.submitting_at - reconcile.HISTORY_BEFORE_S
        end = min(asked_at, attempt.closed_at + reconcile.HISTORY_BEFORE_S) + 1.0
        history = await self._calls.history(attempt.endpoint, start + offset, end + offset)
        (verdict,) = reconcile.judge(
            [attempt],
            history,
            known=self._known,
            file_fields=frozenset(),  # a script's fields have no seed of ours: nothing but all of them tells it apart
            seed_field=None,
            seed_range=(0, 0),
            asked_from=start,
            asked_until=end,
            asked_at=asked_at,
            history_delay_s=self._settings.history_delay,
            clock_offset_s=offset,
            open_posts=tuple(self._open.values()),
        ) or (None,)
        if verdict is None or verdict.finding is not Finding.FOUND:
            return None
        assert verdict.request is not None
        return self._adopted(attempt, verdict.request.request_id)

    async def upload(self, data: str | bytes, content_type: str, file_name: str | None = None) -> str:
        """Uploads bytes and returns their URL. Free, and harmless to repeat."""
        content = data.encode() if isinstance(data, str) else bytes(data)
        return await self._upload(Path(file_name or "upload" + inputs.suffix_of(content_type)), content, content_type)

    async def upload_file(self, path: str | os.PathLike[str]) -> str:
        """Uploads a file and returns its URL; its media type is told by its name."""
        return await self._upload(Path(path), await anyio.to_thread.run_sync(inputs.read_file, Path(path)), None)

    async def upload_image(self, image: Image, format: str = "jpeg") -> str:
        """Uploads a Pillow image and returns its URL."""
        content = await anyio.to_thread.run_sync(inputs.encoded_image, image, format)
        return await self._upload(Path(f"image.{format.lower()}"), content, f"image/{format.lower()}")

    async def save(
        self, result: Mapping[str, Any], folder: str | os.PathLike[str], *, name: str | None = None
    ) -> list[Path]:
        """Saves every file of a result in `folder`, whole and checked, and says where. What is there is never replaced.

        A file is called `name`, else as fal calls it. DownloadFailed when one cannot be had whole, Blocked when the
        disk refuses.
        """
        return await save(result, Path(folder), name, self._fetcher, self._rng)

    # --- small steps ---

    def _until(self, seconds: float | None) -> float:
        return math.inf if seconds is None else anyio.current_time() + seconds

    @property
    def _calls(self) -> Following:
        _ = self._client  # open?
        return self._following

    @property
    def _client(self) -> FalClient:
        if self._stack is None:
            raise RuntimeError("the queue is not open: `async with AsyncQueue() as queue`")
        return self._fal

    async def _transports(self, stack: AsyncExitStack) -> tuple[httpx.AsyncBaseTransport, ...]:
        """The ways to the queue: for submits, for all else, for files."""
        settings = self._settings
        if not settings.local:
            is_here = is_loopback(settings.queue_url)
            pair = fal.transports(proxy=settings.proxy, is_loopback=is_here)
            return (*pair, fal.transports(proxy=settings.proxy, is_loopback=is_here)[1])
        from batch import local

        try:
            queue = await stack.enter_async_context(
                local.open_queue(
                    state=settings.state / "scripts",
                    runners=os.cpu_count() or 1,
                    clock=time.time,
                    run_blocking=anyio.to_thread.run_sync,
                )
            )
        except local.QueueBusy as exc:
            raise InputError(f"{exc}: a script has it to itself; give this one a folder of its own, state=…") from exc
        return queue.transport(), queue.transport(), queue.transport()

    async def _body(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(arguments, Mapping):
            raise InputError(f"arguments: expected the input as a dict, found {type(arguments).__name__}")
        urls = {path: await self.upload_file(path) for path in inputs.paths_in(arguments)}
        body = inputs.with_urls(arguments, urls)
        assert isinstance(body, dict)
        return body

    async def _upload(self, path: Path, content: bytes, content_type: str | None) -> str:
        file = await anyio.to_thread.run_sync(inputs.file_of, path, content, content_type)
        try:
            return (
                await self._calls.asked(lambda: self._client.upload(file, content), "", None, (Action.FAIL_JOB,))
            ).url
        except CallFailed as exc:
            raise InputError(exc.message) from exc

    def _ticket(self, application: str, request_id: str) -> Ticket:
        return self._client.ticket(_checked_id(application), request_id)

    def _handle(self, application: str, ticket: Ticket) -> AsyncHandle:
        return AsyncHandle(
            application=application,
            request_id=ticket.request_id,
            status_url=ticket.status_url,
            response_url=ticket.response_url,
            cancel_url=ticket.cancel_url,
            _queue=self,
        )

    def _adopted(self, attempt: Attempt, request_id: str) -> AsyncHandle:
        ticket = self._ticket(attempt.endpoint, request_id)
        self._remember(attempt, ticket)
        return self._handle(attempt.endpoint, ticket)

    def _remember(self, attempt: Attempt, ticket: Ticket) -> None:
        self._known[ticket.request_id] = Known(attempt.id, attempt.submitting_at)
        if len(self._known) > REMEMBERED_MAX:
            del self._known[next(iter(self._known))]


def settings_of(key: str | None, local: bool | None, state: str | os.PathLike[str] | None, **flags: str) -> Settings:
    """The program's settings as a script has them. InputError when there is no key and it is no rehearsal."""
    given = {**flags, "local": None if local is None else str(local), "state": None if state is None else str(state)}
    settings = load_settings(given, environ=os.environ, cwd=Path.cwd())
    if key is not None:
        settings = replace(settings, key=key)
    if settings.key is None and not settings.local:
        raise InputError(f"{settings.no_key} (in a script: Queue(local=True))")
    return settings


def start_bound(start_timeout: float | None, client_timeout: float | None) -> float | None:
    """Who waits so long at the most has no use for a later start; fal refuses one second and less."""
    if start_timeout is not None or client_timeout is None:
        return start_timeout
    return client_timeout if client_timeout > 1 else None


@contextmanager
def noted(application: str, request_id: str) -> Iterator[None]:
    """Whatever is raised inside says which request goes on at fal, so that nobody has to submit it again."""
    try:
        yield
    except QueueError:
        raise  # has it
    except BaseException as exc:
        exc.add_note(f"submitted, and at fal: queue.result({application!r}, {request_id!r}) has its result")
        raise


async def _called(callback: Callable[[T], Awaitable[None] | None] | None, value: T) -> None:
    if callback is not None and inspect.isawaitable(awaitable := callback(value)):
        await awaitable


def _checked_id(application: str) -> str:
    try:
        fal.app_id(application)
    except ValueError as exc:
        raise InputError(str(exc)) from exc
    return application
