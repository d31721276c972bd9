"""The parts of the line, joined; and the world around them: transports, threads, the clock, signals.

`run_line` joins parts that are all passed in, so that the whole line also runs on a virtual clock against a queue
inside the process. The rest of this module is what a real run passes.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from batch.ledger import CampaignTotals, Ledger
from batch.settings import Settings, is_loopback
from batch.states import State

if TYPE_CHECKING:
    import httpx

    from batch.endpoints import Endpoint, UnitPrice
    from batch.scheduler import Ending

__all__ = ["EXIT_INTERRUPTED", "Progress", "call_off", "carry_out", "look", "on_a_loop", "run_line", "stay"]

T = TypeVar("T")
RunBlocking = Callable[..., Awaitable[Any]]

LOCAL_KEY = "local"  # the queue inside the program takes any key
EXIT_INTERRUPTED = 130
WEBHOOK_SECRET_BYTES = 32
LEAVE_S = 10.0  # after the first Ctrl-C; a second one leaves at once

_last_resorts: list[threading.Timer] = []


class Progress(Protocol):
    """Who is told how a run goes. Called on the loop, so it must not block."""

    def begin(self, totals: CampaignTotals) -> None: ...

    def moved(self, job_id: int, was: State, now: State) -> None: ...

    def say(self, message: str) -> None: ...

    def running(self, count: int) -> None: ...

    def end(self) -> None: ...


async def run_line(
    *,
    settings: Settings,
    ledger: Ledger,
    campaign_id: int,
    cap_micros: int | None,
    submit_transport: httpx.AsyncBaseTransport,
    transport: httpx.AsyncBaseTransport,
    media_transport: httpx.AsyncBaseTransport,
    clock: Callable[[], float],
    rng: random.Random,
    run_blocking: RunBlocking,
    free_bytes: Callable[[], int],
    parts_trusted_since: float,
    progress: Progress,
    on_ready: Callable[[Any], None] = lambda scheduler: None,
    only_reconcile: bool = False,
    only_cancelling: bool = False,
    give_up: frozenset[int] = frozenset(),
    only_jobs: frozenset[int] | None = None,
    unit_price_of: Callable[[str], UnitPrice | None] = lambda endpoint: None,
    serving: Callable[[Any], AbstractAsyncContextManager[None]] | None = None,
) -> Ending | None:
    """The parts of the line, joined, and run. What touches the world is passed in: tests pass virtual ones. `serving`
    lets fal reach the receiver of webhooks while the run goes on; without it there are none."""
    from batch import endpoints, fal, fetch
    from batch.save import Saver
    from batch.scheduler import RunOptions, Scheduler

    hosts = fal.Hosts(queue=settings.queue_url, rest=settings.rest_url, cdn=settings.cdn_url, api=settings.api_url)
    key = LOCAL_KEY if settings.local else settings.key
    assert key is not None, "asked for before the run"
    client = fal.FalClient(hosts=hosts, key=key, submit_transport=submit_transport, transport=transport, clock=clock)
    fetcher = fetch.Fetcher(
        transport=media_transport,
        allow_http_loopback=is_loopback(settings.queue_url),
        run_blocking=run_blocking,
        extra_origins=frozenset({settings.queue_url} if settings.local else ()),
        trusted_since=parts_trusted_since,
    )

    @lru_cache
    def endpoint_of(endpoint_id: str) -> Endpoint:
        return endpoints.load(endpoint_id, pinned_dir=settings.pinned)

    options = RunOptions(
        concurrency=settings.concurrency,
        limit=settings.limit,
        cap_micros=cap_micros,
        start_timeout_s=settings.start_timeout,
        run_timeout_s=settings.run_timeout,
        history_delay_s=settings.history_delay,
        waits_for_proof=settings.wait,
        give_up=give_up,
        fail_on_error=settings.fail_on_error,
        downloads=not settings.no_download,
        only_cancelling=only_cancelling,
        only_jobs=only_jobs,
        unit_price_of=unit_price_of,
        webhook=settings.webhook if serving is not None else None,
    )
    secret = "" if serving is None else ledger.webhook_secret(secrets.token_hex(WEBHOOK_SECRET_BYTES))
    scheduler = Scheduler(
        ledger=ledger,
        fal=client,
        saver=Saver(ledger=ledger, fetcher=fetcher, outputs=settings.outputs, run_blocking=run_blocking),
        campaign_id=campaign_id,
        endpoint_of=endpoint_of,
        options=options,
        clock=clock,
        rng=rng,
        run_blocking=run_blocking,
        progress=progress,
        free_bytes=free_bytes,
        webhook_secret=secret,
    )
    on_ready(scheduler)
    try:
        if only_reconcile:
            await scheduler.reconcile()
            return None
        if serving is None:
            return await scheduler.run()
        from batch import receiver

        ledger.doubt_what_a_crash_left()  # before the first delivery: none of these POSTs is open
        app = receiver.build_app(
            secret=secret,
            keys=client.webhook_keys,
            now=lambda: clock() + client.clock_offset_s,
            receive=scheduler.deliveries.receive,
            say=progress.say,
        )
        async with serving(app):
            return await scheduler.run()
    finally:
        await client.aclose()
        await fetcher.aclose()


async def carry_out(
    settings: Settings,
    ledger: Ledger,
    campaign_id: int,
    cap: int | None,
    give_up: frozenset[int],
    progress: Progress,
    only_jobs: frozenset[int] | None,
    unit_price_of: Callable[[str], UnitPrice | None],
    totals: CampaignTotals | None = None,
) -> Ending:
    """A real run of one campaign, from its first signal handler to the last file; with `only_jobs` a retry of these.
    `totals` are those of the ledger as it is, where they were asked for just now."""
    return await _lived(
        settings,
        ledger,
        campaign_id,
        progress,
        cap_micros=cap,
        give_up=give_up,
        only_jobs=only_jobs,
        unit_price_of=unit_price_of,
        totals=totals,
    )


async def call_off(
    settings: Settings,
    ledger: Ledger,
    campaign_id: int,
    job_ids: Sequence[int],
    progress: Progress,
    include_shared: bool = False,
) -> Ending:
    """Have fal call these jobs off, and those that an earlier command wanted called off, until each is confirmed or has
    ended otherwise. Nothing is submitted; a result that came first is paid for and saved like any other.

    The wish is in the ledger before fal is told of it, and stays there until fal confirms it: what this command leaves
    open, the next `cancel` or `run` goes on with. It is dropped where another campaign comes to want the job, but not
    with `include_shared`.
    """
    ledger.cancel_asked(job_ids, None if include_shared else campaign_id)
    return await _lived(settings, ledger, campaign_id, progress, cap_micros=None, only_cancelling=True)


async def _lived(
    settings: Settings,
    ledger: Ledger,
    campaign_id: int,
    progress: Progress,
    *,
    cap_micros: int | None,
    give_up: frozenset[int] = frozenset(),
    only_jobs: frozenset[int] | None = None,
    only_cancelling: bool = False,
    unit_price_of: Callable[[str], UnitPrice | None] = lambda endpoint: None,
    totals: CampaignTotals | None = None,
) -> Ending:
    """A run with the world around it, left in order at a signal or when its time is over."""
    import anyio

    from batch.scheduler import StopKind

    ledger.listener = progress.moved
    progress.begin(ledger.totals(campaign_id) if totals is None else totals)
    ready: list[Any] = []

    def interrupt(kind: StopKind, message: str) -> None:
        progress.say(f"{message}: leaving; what fal has is in the ledger")
        ready[0].interrupt(kind, message)

    async def watch_clock() -> None:
        if settings.max_duration is not None:
            await anyio.sleep(settings.max_duration)
            interrupt(StopKind.TIME, "--max-duration is over")

    ending = None
    try:
        async with _world(settings) as world, anyio.create_task_group() as tasks:
            tasks.start_soon(watch_clock)
            tasks.start_soon(_watch_signals, partial(interrupt, StopKind.INTERRUPTED))
            ending = await run_line(
                settings=settings,
                ledger=ledger,
                campaign_id=campaign_id,
                cap_micros=cap_micros,
                progress=progress,
                on_ready=ready.append,
                give_up=give_up,
                only_jobs=only_jobs,
                only_cancelling=only_cancelling,
                unit_price_of=unit_price_of,
                serving=None if only_cancelling else _serving(settings, progress.say),
                **world,
            )
            tasks.cancel_scope.cancel()
    finally:
        progress.end()
    assert ending is not None
    return ending


def _serving(
    settings: Settings, say: Callable[[str], None]
) -> Callable[[Any], AbstractAsyncContextManager[None]] | None:
    if settings.webhook is None:
        return None
    from batch import receiver

    host, port = settings.webhook_listen
    return partial(receiver.serving, host=host, port=port, say=say)


async def look(settings: Settings, ledger: Ledger, campaign_id: int, progress: Progress) -> None:
    """Ask fal's history about one campaign's attempts in doubt, once."""
    async with _world(settings) as world:
        await run_line(
            settings=settings,
            ledger=ledger,
            campaign_id=campaign_id,
            cap_micros=None,
            progress=progress,
            only_reconcile=True,
            **world,
        )


@asynccontextmanager
async def _world(settings: Settings) -> AsyncIterator[Mapping[str, Any]]:
    """What a real run passes to `run_line`: clock, chance, threads, transports to fal or to the queue inside."""
    from batch import fal

    world: dict[str, Any] = {
        "clock": time.time,
        "rng": random.Random(),
        "run_blocking": _run_in_thread,
        "free_bytes": partial(_free_bytes, settings.outputs),
        "parts_trusted_since": _started_at(),
    }
    if not settings.local:
        is_here = is_loopback(settings.queue_url)
        submit, other = fal.transports(proxy=settings.proxy, is_loopback=is_here)
        _, media = fal.transports(proxy=settings.proxy, is_loopback=is_here)
        yield {**world, "submit_transport": submit, "transport": other, "media_transport": media}
        return
    from batch import local

    runners = max(1, min(settings.concurrency, os.cpu_count() or 1))  # rendering is work for this very machine
    async with local.open_queue(
        state=settings.state / "queue",
        runners=runners,
        clock=time.time,
        run_blocking=_run_in_thread,
        pinned_dir=settings.pinned,
    ) as queue:
        yield world | {name: queue.transport() for name in ("submit_transport", "transport", "media_transport")}


def _started_at() -> float:
    """When this machine was started, by our clock; where it does not tell, now."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() - (0.0 if clock is None else time.clock_gettime(clock))


def _free_bytes(folder: Path) -> int:
    """What the disk of the outputs has left, also before the folder is there. A question of microseconds."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


async def _run_in_thread(func: Callable[..., T], *args: Any) -> T:
    """Blocking work in a thread. A cancelled caller does not wait for it: what it leaves behind, a crash could too."""
    import anyio.to_thread

    return await anyio.to_thread.run_sync(func, *args, abandon_on_cancel=True)


def on_a_loop(func: Callable[..., Awaitable[T]], *args: Any) -> T:
    """`func` on an event loop; an error out of its task groups comes as itself, not as a group of one."""
    import anyio

    try:
        return anyio.run(func, *args)
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


def stay() -> None:
    """Call off the last resort of a run that was interrupted and has left: its process is a script's, and goes on."""
    while _last_resorts:
        _last_resorts.pop().cancel()


async def _watch_signals(on_first: Callable[[str], None]) -> None:
    """Ctrl-C and SIGTERM: the first one leaves in order, the second at once (the ledger is safe at any moment)."""
    import anyio

    if threading.current_thread() is not threading.main_thread():
        return  # signals come to the main thread alone; a script that runs a campaign in another has them to itself
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as numbers:
        seen = 0
        async for number in numbers:
            seen += 1
            if seen > 1:
                os._exit(EXIT_INTERRUPTED)
            # A thread, because whatever keeps the loop from leaving would keep a task of it too.
            last_resort = threading.Timer(LEAVE_S, os._exit, (EXIT_INTERRUPTED,))
            last_resort.daemon = True
            last_resort.start()
            _last_resorts.append(last_resort)
            on_first(f"interrupted ({signal.Signals(number).name})")
