"""fal itself: are its hosts there, is the key taken, what may it read, and do our clocks agree? Every call is free.

A queue on this machine is asked like fal's own; in a rehearsal, where no host is, nothing here is asked.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from batch.doctor.findings import Check, Said, Verdict, World, note, ok, trouble
from batch.doctor.remembered import Ledger
from batch.errors import Action, Blocked, CallFailed, FalBatchError
from batch.ledger.check import Control, LedgerCheck
from batch.reconcile import HISTORY_KEPT_S, SKEW_S
from batch.settings import OPTIONS, Settings, is_loopback

if TYPE_CHECKING:
    from batch.fal.probe import Probe, Reached

__all__ = ["checks"]

HOST_S = 12.0  # fal answers in tenths of a second; a connection that is not there in 10 has words of its own
HISTORY_S = 30.0  # it searches

CLOCK_NOTE_S = 2.0  # a Date has whole seconds, and the way of a question takes some
CLOCK_TROUBLE_S = 60.0  # half of what a proof allows for


@dataclass(frozen=True, slots=True)
class _Host:
    """A host by its setting, what it is for, and what it means when it is silent."""

    setting: str
    purpose: str
    silence: Verdict


HOSTS = {
    "queue host": _Host("queue_url", "nothing can be submitted or followed", Verdict.TROUBLE),
    "storage host": _Host("rest_url", "local pictures cannot be uploaded", Verdict.TROUBLE),
    "file host": _Host("cdn_url", "local pictures cannot be uploaded", Verdict.TROUBLE),
    "platform host": _Host("api_url", "what is in doubt cannot be looked up", Verdict.NOTE),
}

KEYS = "https://fal.ai/dashboard/keys"
ADVICE = {
    "key_refused": f"is it whole, and not revoked? {KEYS} has the valid ones",
    "account_locked": "top up at https://fal.ai/dashboard/billing; what fal has already goes on",
    "forbidden": f"the key may lack the API scope: {KEYS}",
}


def checks(settings: Settings, world: World, ledger: Ledger) -> list[Check]:
    """The checks of fal, in the order in which they are told; none in a rehearsal."""
    if settings.local:
        return []
    ask = partial(_asked, settings, world)
    found = [
        Check(name=name, deadline_s=HOST_S, ask=partial(ask, partial(_host, settings, host)), late=host.silence)
        for name, host in HOSTS.items()
    ]
    found.append(Check(name="clock", deadline_s=HOST_S, ask=partial(ask, partial(_clock, settings))))
    if settings.key is None:
        return [Check(name="key", deadline_s=HOST_S, ask=partial(_no_key, settings)), *found]
    return [
        Check(name="key", deadline_s=HOST_S, ask=partial(ask, partial(_key, settings))),
        *found,
        Check(
            name="history",
            deadline_s=HISTORY_S + ledger.deadline_s,
            ask=partial(ask, partial(_history, settings, world, ledger)),
        ),
        Check(name="prices", deadline_s=HOST_S, ask=partial(ask, partial(_prices, settings))),
    ]


async def _asked(settings: Settings, world: World, question: Callable[[Probe], Awaitable[Said]]) -> Said:
    async with _probe(settings, world) as probe:
        return await question(probe)


@asynccontextmanager
async def _probe(settings: Settings, world: World) -> AsyncIterator[Probe]:
    """On connections of its own, so that what a host takes includes the way to it."""
    from batch import fal
    from batch.fal.probe import Probe

    transport = world.transport
    if transport is None:
        _, transport = fal.transports(proxy=settings.proxy, is_loopback=is_loopback(settings.queue_url))
    hosts = fal.Hosts(queue=settings.queue_url, rest=settings.rest_url, cdn=settings.cdn_url, api=settings.api_url)
    probe = Probe(hosts=hosts, key=settings.key, transport=transport, clock=world.clock)
    try:
        yield probe
    finally:
        await probe.aclose()


# --- the way there ---


async def _host(settings: Settings, host: _Host, probe: Probe) -> Said:
    url = getattr(settings, host.setting)
    try:
        reached = await probe.reach(url)
    except CallFailed as exc:
        return Said(verdict=host.silence, found=f"{exc}: {host.purpose}", advice=_way(settings, host))
    found = f"{url} answered in {reached.seconds:.2f} s{_through(settings)}"
    if reached.status_code == 407:
        return Said(verdict=host.silence, found=f"{found}: the proxy wants a login", advice=_way(settings, host))
    if reached.status_code >= 500:
        return note(f"{found}, with {reached.status_code}", "fal may have an outage; a run waits for it for a while")
    return ok(found)


def _through(settings: Settings) -> str:
    return ", through a proxy" if settings.proxy is not None else ""


def _way(settings: Settings, host: _Host) -> str:
    parts = ["the network"]
    if settings.proxy is not None:
        parts.append("the proxy (HTTPS_PROXY or ALL_PROXY)")
    if settings.sources[host.setting] != "default":
        parts.append(OPTIONS[host.setting].variable)
    return f"check {' and '.join(parts)}"


async def _clock(settings: Settings, probe: Probe) -> Said:
    try:
        reached: Reached = await probe.reach(settings.queue_url)
    except CallFailed:
        return note(f"not known: no answer from {settings.queue_url} tells its time")
    if reached.clock_offset_s is None:
        return note(f"not known: the answer of {settings.queue_url} tells no time")
    off = abs(reached.clock_offset_s)
    if off <= CLOCK_NOTE_S:
        return ok("as fal's, to a second or two")
    found = f"{_seconds(off)} {'behind' if reached.clock_offset_s > 0 else 'ahead of'} fal's"
    if off <= CLOCK_TROUBLE_S:
        return note(found, "set it by the network (NTP); fal-batch corrects times by fal's own clock")
    why = "a lost request is looked for by its time, and that it was never taken is proved by time"
    return trouble(
        f"{found}: {why}, within {SKEW_S:.0f} s",
        "set it by the network (NTP) while no run is at work: what was in doubt when it is set may stay so",
    )


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


# --- the key ---


async def _no_key(settings: Settings) -> Said:
    return trouble(settings.no_key)


async def _key(settings: Settings, probe: Probe) -> Said:
    there = f"set by {settings.sources['key']}"
    try:
        await probe.key(_endpoint(settings))
    except CallFailed as exc:
        if exc.action is Action.STOP_RUN:
            return trouble(f"{there}, and refused: {exc}", ADVICE.get(exc.cause))
        return note(f"{there}; whether fal takes it is not known: {exc}")
    except FalBatchError as exc:
        return trouble(f"{there}: {exc}")
    return ok(f"{there}, and taken by fal; whether the account has credit shows at a submit")


async def _history(settings: Settings, world: World, ledger: Ledger, probe: Probe) -> Said:
    """Whether the history can be asked, and whether it shows a request of ours: no proof holds without that."""
    now = world.clock()
    control = await _control(settings, world, ledger, now)
    try:
        if control is None:
            await probe.past_requests(_endpoint(settings), start=now - 60.0, end=now)
            delay = _seconds(settings.history_delay)
            why = f"no request of ours of the last 29 days has been over for {delay}, after which it must show"
            return note(f"can be asked, and was not put to the test: {why}")
        sent_at = control.submitted_at + (control.clock_offset_s or 0.0)
        found = await probe.past_requests(
            control.endpoint, start=sent_at - 3600.0, end=sent_at + 3600.0, request_id=control.request_id
        )
    except CallFailed as exc:
        if exc.action is Action.STOP_RUN:
            found_words = f"this key may not ask it, so a lost answer stays in doubt: {exc}"
            return note(found_words, f"use a key with the API scope: {KEYS}")
        return note(f"could not be asked: {exc}")
    except FalBatchError as exc:
        return note(f"not asked: {exc}")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(control.submitted_at))
    if any(request.request_id == control.request_id for request in found):
        return ok(f"can be asked, and shows our request of {when}")
    return trouble(
        f"can be asked, and does not show our request {control.request_id} of {when}: a lost answer stays in doubt",
        "is the key of the account that made it, and does the account keep its requests' payloads?",
    )


async def _control(settings: Settings, world: World, ledger: Ledger, now: float) -> Control | None:
    found: list[Control] = []

    def ask(opened: LedgerCheck) -> Said:
        control = opened.control(
            queue_url=settings.queue_url, since=now - HISTORY_KEPT_S, until=now - settings.history_delay
        )
        found.extend([] if control is None else [control])
        return ok("")

    try:
        await world.run_blocking(partial(ledger.answer, ask, without=ok("")))
    except (Blocked, TimeoutError):
        return None  # the ledger's own checks say what is wrong with it
    return found[0] if found else None


async def _prices(settings: Settings, probe: Probe) -> Said:
    try:
        told = await probe.prices([_endpoint(settings)])
    except FalBatchError as exc:
        return note(f"fal's list is not told to this key ({exc}); estimates use the built-in rules")
    price = next((f": {one.amount:f} {one.currency} per {one.unit}" for one in told if one.amount is not None), "")
    return ok(f"fal's list can be asked, and estimates go by it{price}")


def _endpoint(settings: Settings) -> str:
    from batch.endpoints import DEFAULT_ENDPOINT

    return settings.endpoint or DEFAULT_ENDPOINT
