"""The local queue as one thing: opened, it accepts, runs and answers; closed, it has lost nothing.

The composition root of `local`. Of the project it imports only `endpoints` and its neighbours.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from batch.endpoints import Endpoint, built_in, load, pinned_in
from batch.local.answers import Piece
from batch.local.bell import Bell
from batch.local.disk import Disk
from batch.local.faults import NO_FAULTS, FaultPlan
from batch.local.luck import Luck
from batch.local.runners import Render, RunBlocking, Workshop
from batch.local.store import Store

if TYPE_CHECKING:
    import httpx
    from starlette.types import ASGIApp

    from batch.local.webhooks import Webhooks

__all__ = ["LocalQueue", "QueueBusy", "open_queue"]


class QueueBusy(RuntimeError):
    """Another process has this queue open; two would render everything twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalQueue:
    """An open queue. `app` is its whole HTTP face."""

    app: ASGIApp
    luck: Luck
    _store: Store

    def accepted_posts(self) -> dict[tuple[str, str], int]:
        """How often each endpoint and canonical input was accepted: the oracle for doubles."""
        return {key: len(ids) for key, ids in self._store.accepted().items()}

    def transport(self) -> httpx.AsyncBaseTransport:
        """A transport that reaches the queue inside this process, whatever host a URL names."""
        from batch.local.wire import InProcess

        return InProcess(self.app)


@asynccontextmanager
async def open_queue(
    *,
    state: Path,
    runners: int,
    clock: Callable[[], float],
    run_blocking: RunBlocking,
    render: Render | None = None,
    seconds: Callable[[Mapping[str, Any]], float] | None = None,
    pinned_dir: Path | None = None,
    entropy: Callable[[int], bytes] = os.urandom,
    faults: FaultPlan = NO_FAULTS,
    webhook_transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[LocalQueue]:
    """Open the queue kept in the folder `state` and run it.

    `clock` gives unix seconds. `seconds` says how much longer than its rendering a request takes. Endpoints are looked
    for in `pinned_dir`, then among the built-in ones. `faults` is what goes wrong, and can be changed while it is open.
    Webhooks go through `webhook_transport`; None is the network.
    QueueBusy when another process has it open.
    """
    from batch.local.app import build_app
    from batch.local.catalogue import Catalogue
    from batch.local.statuses import Statuses
    from batch.local.uploads import Uploads
    from batch.local.webhooks import Webhooks

    assert runners > 0
    state.mkdir(parents=True, exist_ok=True)
    with _locked(state), closing(Store(state / "queue.sqlite3", entropy=entropy)) as store:
        store.recover(clock())
        luck = Luck(faults)
        disk = Disk(state / "files")
        await _swept(store, disk, clock(), run_blocking)
        workshop = Workshop(
            store=store,
            disk=disk,
            clock=clock,
            run_blocking=run_blocking,
            render=render or _real_renderer(),
            endpoint=lambda endpoint_id: _known(endpoint_id, pinned_dir),
            seconds=seconds,
            luck=luck,
        )
        bell = Bell()
        webhooks = Webhooks(store=store, clock=clock, luck=luck, bell=bell, transport=webhook_transport)
        statuses = Statuses(store=store, clock=clock, bell=bell)

        def changed() -> None:
            workshop.wake()
            bell.ring()

        luck.on_change = changed
        store.on_change = bell.ring
        uploads = Uploads(store=store, disk=disk, clock=clock, run_blocking=run_blocking, luck=luck)
        app = build_app(
            store=store,
            clock=clock,
            uploads=uploads,
            catalogue=Catalogue(
                store=store,
                clock=clock,
                ids=lambda: _known_ids(pinned_dir),
                endpoint=lambda endpoint_id: _known(endpoint_id, pinned_dir),
            ),
            luck=luck,
            webhooks=webhooks,
            statuses=statuses,
            wake=workshop.wake,
            stop=workshop.stop,
        )
        async with _running(workshop, runners, webhooks):
            yield LocalQueue(app=app, luck=luck, _store=store)


@asynccontextmanager
async def _running(workshop: Workshop, runners: int, webhooks: Webhooks) -> AsyncIterator[None]:
    """The runners and the webhooks at work. A clip that is being made at the end is finished first: a thread cannot be
    stopped."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        for _ in range(runners):
            tasks.start_soon(workshop.runner)
        tasks.start_soon(webhooks.run)
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - raised again below, where the task group does not wrap it
            failure = exc
        finally:
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _swept(store: Store, disk: Disk, now: float, run_blocking: RunBlocking) -> None:
    """Free the room of files whose time has passed, and of parts that nobody put together."""
    for file_id in store.shelf.over(now):
        await run_blocking(disk.remove, file_id)
        store.shelf.removed(file_id)
    for file_id, numbers in store.shelf.forsaken(now).items():
        await run_blocking(disk.remove_parts, file_id, numbers)
        store.shelf.drop_parts(file_id)


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(state / "queue.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise QueueBusy(f"another process has the local queue in {state} open") from None
    try:
        yield
    finally:
        lock.release()


def _known(endpoint_id: str, pinned_dir: Path | None) -> Endpoint | None:
    is_pinned = pinned_dir is not None and (pinned_dir / (endpoint_id.replace("/", "__") + ".json")).is_file()
    return load(endpoint_id, pinned_dir=pinned_dir) if is_pinned or endpoint_id in built_in() else None


def _known_ids(pinned_dir: Path | None) -> list[str]:
    return sorted({*built_in(), *(() if pinned_dir is None else pinned_in(pinned_dir))})


def _real_renderer() -> Render:
    """The real one, imported when the first clip is wanted: PyAV, Pillow and numpy take a third of a second."""
    made: list[Render] = []

    def render(piece: Piece, pictures: tuple[bytes, ...], out: Path) -> None:
        from batch.local.render import Renderer

        if not made:
            made.append(Renderer())
        made[0](piece, pictures, out)

    return render
