"""`make sim SEED=7` or `make sim SEEDS=1000`: nights that went wrong, on a virtual clock, each from one seed.

The seed draws one or two campaigns that share rows, the options, what goes wrong with which call (in some nights by a
fault plan of the queue's own too), when the program crashes (before any effect), is interrupted, stops at a limit, a
cap or at failures, downloads nothing, calls rows off, submits failed rows again, or gives up what is in doubt (which
may be paid for twice: then both results are saved); whether fal counts more than was estimated; when saved files are
deleted, and when our clock is set. It is started again until every campaign is done. After every life the ledger's
invariants are checked; at the end the ledger and the queue's own count of accepted POSTs must agree, nothing may have
been taken twice but after a verdict that fal does not bill, a retry or a submit that was given up, nothing may be
cancelled that nobody wanted called off, and every video must be there and be the one its row asked for.

`--every-effect` plays a night once for each effect of its first life, and crashes it just before that one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
from invariants import check_ledger
from line_support import (
    HOOK,
    PRICE_MICROS,
    Act,
    Effects,
    Fault,
    Forward,
    Ran,
    Shot,
    World,
    always,
    answer_lost,
    answers,
    bad_gateway,
    bad_gateway_once_accepted,
    cancel_not_taken,
    counts,
    cut_short,
    ends_early,
    gateway_timeout,
    hangs,
    history_empty,
    history_late,
    history_of_the_ended,
    internal_error,
    lost_on_the_way,
    media_gone,
    no_connection,
    on,
    prompt_in,
    read_timeout,
    result_gone,
    runner_lost,
    server_error_once_accepted,
    shot,
    slow,
    status_unknown,
    too_many,
    unavailable,
)

from batch.endpoints import built_in_price
from batch.local import NO_FAULTS, FaultPlan, LocalQueue, drawn_plan

__all__ = ["Night", "drawn", "every_effect", "played"]

LIVES_MAX = 24
LIVES_PATIENT = 16  # then somebody comes back hours later: a clock set in a submit can put its proof off so long
PATIENCE_S = 3 * 3600.0
WITNESS_S = 1_200.0  # by then fal has ended what was given up, and its history shows it
BAD_LIVES = 5  # what goes wrong goes wrong in the first lives; the later ones must then finish the work
CALLS_MAX = 40  # of one kind and life that may go wrong
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # half of a night is waiting for the disk
CLOCK_STEPS_S = (-7200.0, -300.0, -20.0, 20.0, 300.0, 7200.0)

WRONG: Mapping[str, Sequence[Act]] = {
    "submit": (
        answer_lost,
        lost_on_the_way,
        no_connection,
        read_timeout,
        hangs,
        too_many(5),
        bad_gateway,
        bad_gateway_once_accepted,
        server_error_once_accepted,
        cut_short,
        slow(20),
    ),
    "status": (unavailable, too_many(3), status_unknown, no_connection, read_timeout, cut_short),
    "result": (internal_error, runner_lost, gateway_timeout, result_gone, cut_short, no_connection, bad_gateway),
    "cancel": (
        cancel_not_taken,
        answer_lost,
        lost_on_the_way,
        no_connection,
        read_timeout,
        unavailable,
        cut_short,
        status_unknown,
        too_many(3),
        answers(200, {"success": True}, once_accepted=True),
        answers(405, {"detail": "Method Not Allowed"}),
    ),
    "media": (cut_short, ends_early, unavailable, media_gone, no_connection, read_timeout, slow(50)),
    "history": (unavailable, history_empty, history_late(100), no_connection, cut_short),
    "upload": (unavailable, no_connection),
    "token": (unavailable,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What a seed draws: `sheets` by file name, `cap_usd` of the bad lives (None: no cap)."""

    seed: int
    sheets: Mapping[str, tuple[Shot, ...]]
    fault_rate: float
    runners: int
    flags: Mapping[str, str]
    cap_usd: str | None
    clock_is_set: bool
    lists_the_ended: bool
    counts_more: bool
    plan: FaultPlan

    def __str__(self) -> str:
        options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.flags.items())
        rows = " and ".join(str(len(shots)) for shots in self.sheets.values())
        return (
            f"seed {self.seed}: {rows} rows, {self.fault_rate:.0%} wrong, {self.runners} runners, {options}"
            + ("" if self.cap_usd is None else f" --max-cost {self.cap_usd} at first")
            + (", our clock is set" if self.clock_is_set else "")
            + (", the history lists what has ended" if self.lists_the_ended else "")
            + (", fal counts more than was estimated" if self.counts_more else "")
            + ("" if self.plan == NO_FAULTS else f", the queue goes wrong by the plan of seed {self.plan.seed}")
        )


def drawn(seed: int) -> Night:
    """The night of a seed."""
    rng = random.Random(seed)
    first = tuple(shot(f"s{n}", rng.choice((0.2, 3.0, 10.0, 40.0, 90.0))) for n in range(rng.randint(3, 9)))
    sheets = {"shots.csv": first}
    if rng.random() < 0.4:  # some rows are the same jobs, and paid for once in both
        shared = tuple(one for one in first if rng.random() < 0.5)
        sheets["more.csv"] = (*shared, *(shot(f"m{n}", rng.choice((0.2, 10.0))) for n in range(rng.randint(1, 3))))
    return Night(
        seed=seed,
        sheets=sheets,
        fault_rate=rng.choice((0.05, 0.2, 0.4)),
        runners=rng.choice((2, 4, 64)),
        flags={
            "concurrency": rng.choice(("1", "2", "4", "8")),
            "start_timeout": "300s",
            "run_timeout": "100s",
            "history_delay": rng.choice(("120s", "300s")),
            **({"webhook": HOOK} if seed % 3 == 0 else {}),
        },
        cap_usd=f"{rng.randint(1, 5) * PRICE_MICROS / 1e6:.6f}" if rng.random() < 0.2 else None,
        clock_is_set=rng.random() < 0.2,
        lists_the_ended=rng.random() < 0.5,
        counts_more=seed % 10 in (1, 7),
        plan=drawn_plan(seed) if rng.random() < 0.3 else NO_FAULTS,
    )


def played(night: Night, folder: Path, *, crash_before: int | None = None) -> dict[str, Ran]:
    """Live through a night, life after life, and judge it: how the last life of each sheet ended. AssertionError says
    what must not have been. With `crash_before` the first life crashes before that effect, whatever the seed says."""
    world = World(folder, seed=night.seed, runners=night.runners)
    if night.seed % 2:  # in the other half what fal's units cost is not known, and estimates count
        world.unit_price_of = built_in_price
    if "webhook" in night.flags:
        world.hooks.between = _on_their_way(world, random.Random(night.seed + 2))
    told = _Told(world=world, night=night, rng=random.Random(night.seed + 1), crash_before=crash_before)
    ended: dict[str, Ran] = world.play(told.lives)
    _judge(world, ended, told.unwanted)
    return ended


@dataclass(slots=True, kw_only=True)
class _Told:
    """A night as it goes on. `calls_off` is the sheet whose rows are called off in the next life: the one before must
    leave something of it at fal. `unwanted` are all that ever were called off."""

    world: World
    night: Night
    rng: random.Random
    crash_before: int | None = None
    calls_off: str | None = None
    unwanted: set[str] = field(default_factory=set)

    async def lives(self) -> dict[str, Ran]:
        ended: dict[str, Ran] = {}
        self.world.wire.learns = self.night.plan == NO_FAULTS
        async with self.world.queue() as queue:
            for life in range(BAD_LIVES):
                queue.luck.change(self.night.plan)
                await self._bad_life(queue, is_first=life == 0)
                self._delete_files()
                await self._wait()
            queue.luck.change(NO_FAULTS)
            is_unproved = False  # all is in doubt and fal has taken nothing: nothing shows that its history is believed
            for life in range(BAD_LIVES, LIVES_MAX):
                if life == LIVES_PATIENT:
                    await anyio.sleep(PATIENCE_S)
                for name in (name for name in self.night.sheets if name not in ended):
                    ran = await self.world.life(
                        queue,
                        self.night.sheets[name],
                        sheet=name,
                        faults=_always(self.night),
                        give_up=is_unproved and life > LIVES_PATIENT,
                        **self.night.flags,
                    )
                    assert ran is not None, "nothing crashes it any more"
                    is_unproved = ran.exit_code == 5 and not sum(ran.accepted.values())
                    if ran.exit_code in (0, 3):
                        ended[name] = ran
                await self._wait()
                if len(ended) == len(self.night.sheets):
                    return await self._witnessed(queue, ended)
        raise AssertionError(f"not done after {LIVES_MAX} lives: {ran.exit_code} {ran.states} {ran.causes} {ran.stop}")

    async def _bad_life(self, queue: LocalQueue, *, is_first: bool) -> None:
        rng, night, world = self.rng, self.night, self.world
        crash_before = rng.randint(1, 120) if rng.random() < 0.5 else None
        sheet = self.calls_off or rng.choice(tuple(night.sheets))
        cancel = None if self.calls_off is None else self._some_rows(sheet)
        if cancel is not None:
            self.unwanted.update(cancel or (one.name for one in night.sheets[sheet]))
        self.calls_off = sheet if rng.random() < 0.3 else None
        leaves = self.calls_off is not None or rng.random() < 0.3
        asks = "cancel" if cancel is not None else rng.choice(("run",) * 8 + ("retry", "give up"))
        step = (rng.random() * 40, rng.choice(CLOCK_STEPS_S)) if night.clock_is_set and rng.random() < 0.5 else None
        await world.life(
            queue,
            night.sheets[sheet],
            sheet=sheet,
            faults=_faults(night, rng),
            effects=Effects(self.crash_before if is_first and self.crash_before is not None else crash_before),
            interrupt_after=rng.random() * (60 if self.calls_off is None else 15) if leaves else None,
            cancel=cancel,
            retry=() if asks == "retry" else None,
            give_up=asks == "give up",
            clock_step=step,
            **night.flags,
            **({} if night.cap_usd is None else {"max_cost": night.cap_usd}),
            **_bounds(rng),
        )
        if night.clock_is_set and rng.random() < 0.3:
            world.skew += rng.choice(CLOCK_STEPS_S)

    async def _witnessed(self, queue: LocalQueue, ended: dict[str, Ran]) -> dict[str, Ran]:
        """What was given up may still be at fal when all else is done: then the same command, later, tells of it."""
        if any(ran.totals.given_up for ran in ended.values()):
            await anyio.sleep(WITNESS_S)
            for name in ended:
                ran = await self.world.life(
                    queue, self.night.sheets[name], sheet=name, faults=_always(self.night), **self.night.flags
                )
                assert ran is not None and ran.exit_code in (0, 3), "it was done before"
                ended[name] = ran
        return ended

    def _some_rows(self, sheet: str) -> list[str]:
        """The rows of a command that calls off; none named means all of them."""
        return [one.name for one in self.night.sheets[sheet] if self.rng.random() < 0.5]

    def _delete_files(self) -> None:
        """Somebody tidies up: from now on files may be missing until the lives without trouble have brought them. What
        no row wants (the other copy of what was paid for twice) would not be brought."""
        if self.rng.random() < 0.2:
            for path in sorted(self.world.state.glob("outputs/**/*.mp4*")):
                if ".attempt" not in path.name and self.rng.random() < 0.5:
                    path.unlink()
                    self.world.checks_files = False

    async def _wait(self) -> None:
        if self.rng.random() < 0.3:
            await anyio.sleep(self.rng.random() * 900)


def _on_their_way(world: World, rng: random.Random) -> Act:
    """What becomes of webhooks between the queue and the program: lost, twice, late, or with a lie before them."""

    async def act(request: httpx.Request, forward: Forward) -> httpx.Response:
        luck = rng.random()
        if luck < 0.15:
            raise httpx.ConnectError("lost", request=request)
        if luck < 0.3:
            await forward()
        elif luck < 0.45:
            await anyio.sleep(rng.random() * 14)
        elif luck < 0.6:
            lie = request.content.replace(b'"ERROR"', b'"OK"').replace(b"https://", b"https://forged.")
            forged = httpx.Request("POST", request.url, headers=_but_length(request), content=lie + b" ")
            with contextlib.suppress(httpx.TransportError):  # nobody is there
                assert (await world.hooks.bring(forged)).status_code >= 400, "a lie was believed"
        return await forward()

    return act


def _but_length(request: httpx.Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.lower() != "content-length"}


def _bounds(rng: random.Random) -> dict[str, str]:
    """Options of one life that leave work for the next."""
    bounds = {}
    if rng.random() < 0.2:
        bounds["limit"] = str(rng.randint(1, 4))
    if rng.random() < 0.2:
        bounds["fail_on_error"] = rng.choice(("1", "2", "0.3"))
    if rng.random() < 0.2:
        bounds["no_download"] = "yes"
    return bounds


def _faults(night: Night, rng: random.Random) -> list[Fault]:
    return [
        on(call, rng.choice(acts), nth)
        for call, acts in WRONG.items()
        for nth in range(1, CALLS_MAX)
        if rng.random() < night.fault_rate
    ] + _always(night)


def _always(night: Night) -> list[Fault]:
    """What is no fault at all, and goes on to the end."""
    listed = [always("history", history_of_the_ended)] if night.lists_the_ended else []
    counted = [always("result", counts(0.8, 1.0, 1.5, 2.5))] if night.counts_more else []
    return listed + counted


def _judge(world: World, ended: Mapping[str, Ran], unwanted: set[str]) -> None:
    """The promise, from the queue's count, the ledger and the files."""
    check_ledger(world.state)
    known, again = Counter[str](), Counter[str]()
    with sqlite3.connect(world.state / "ledger.db") as ledger:
        query = """SELECT json_extract(job.input, '$.prompt'), attempt.request_id IS NOT NULL,
            attempt.end_event IS 'retryable' OR coalesce(attempt.witness, '') IN ('saved', 'free')
            FROM attempt JOIN job ON job.id = attempt.job_id"""
        for prompt, has_id, was_unbilled in ledger.execute(query):
            known[prompt] += has_id
            again[prompt] += was_unbilled
        query = """SELECT json_extract(job.input, '$.prompt') FROM event JOIN job ON job.id = event.job_id
            WHERE event.event = 'retried'"""
        again.update(prompt for (prompt,) in ledger.execute(query))
    ledger.close()
    accepted_of = {prompt: count for ran in ended.values() for prompt, count in ran.accepted.items()}
    for prompt, accepted in accepted_of.items():
        assert accepted == known[prompt], f"{prompt}: fal took {accepted}, the ledger knows {known[prompt]}"
        assert accepted <= 1 + again[prompt], f"{prompt}: taken {accepted} times, {again[prompt]} of them free or asked"
    for ran in ended.values():
        for name, paths in ran.paths.items():
            assert ran.states[name] != "cancelled" or name in unwanted, f"{name} is cancelled, and nobody wanted that"
            assert (ran.states[name] == "fetched") is bool(paths), f"{name} is {ran.states[name]} with {paths}"
            for path in paths:
                found = prompt_in((world.state / path).read_bytes())
                assert found == name, f"{path} is the video of {found!r}"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, help="replay this one")
    arguments.add_argument("--seeds", type=int, default=300, help="play this many, from --first on")
    arguments.add_argument("--first", type=int, default=0)
    arguments.add_argument("--every-effect", action="store_true", help="crash the first life before each effect")
    options = arguments.parse_args()
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else [options.seed]
    print(f"seeds {seeds[0]} to {seeds[-1]}", flush=True)
    codes, longest, began, nights = Counter[int](), 0.0, time.monotonic(), 0
    for seed in seeds:
        night = drawn(seed)
        if options.seed is not None:
            print(night, flush=True)
        for crash_before in every_effect(night) if options.every_effect else [None]:
            with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
                try:
                    ended = played(night, Path(folder), crash_before=crash_before)
                except BaseException:
                    where = "" if crash_before is None else f" before effect {crash_before}"
                    print(f"FAILED {night}{where}; again with: make sim SEED={seed}", flush=True)
                    raise
            nights += 1
            codes.update(ran.exit_code for ran in ended.values())
            longest = max(longest, *(ran.took_s for ran in ended.values()))
    seconds = time.monotonic() - began
    print(f"{nights} nights, none paid twice, none lost; exit codes {dict(codes)}; in {seconds:.0f} s")
    print(f"longest last life {longest:.0f} virtual seconds")
    return 0


def every_effect(night: Night) -> range:
    """The effects of the night's first life where nothing crashes it: one crash before each of them covers it."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        world = World(Path(folder), seed=night.seed, runners=night.runners)
        effects = Effects()
        name, shots = next(iter(night.sheets.items()))

        async def one_life() -> None:
            async with world.queue() as queue:
                await world.life(queue, shots, sheet=name, effects=effects, **night.flags)

        world.play(one_life)
    return range(1, effects.count + 1)


if __name__ == "__main__":
    sys.exit(main())
