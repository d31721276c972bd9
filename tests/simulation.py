"""`make sim SEED=7` or `make sim SEEDS=1000`: nights that went wrong, on a virtual clock, each from one seed.

The seed draws the sheet, the options, what goes wrong with which call (in some nights by a fault plan of the queue's
own too), when the program crashes (before any effect), is interrupted, stops at a limit or at failures, downloads
nothing, calls rows off, or gives up what is in doubt (which may be paid for twice: then both results are saved). It is
started again until everything is done. After every life the ledger's invariants are checked; at the end the ledger and
the queue's own count of accepted POSTs must agree, nothing may have been taken twice but after a verdict that fal does
not bill or a submit that was given up, nothing may be cancelled that nobody wanted called off, and every video must be
the one its row asked for.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
from line_support import (
    Act,
    Effects,
    Fault,
    Ran,
    Shot,
    World,
    answer_lost,
    answers,
    bad_gateway,
    bad_gateway_once_accepted,
    cancel_not_taken,
    cut_short,
    ends_early,
    gateway_timeout,
    hangs,
    history_empty,
    history_late,
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

from batch.local import NO_FAULTS, FaultPlan, drawn_plan

__all__ = ["Night", "drawn", "played"]

LIVES_MAX = 14
BAD_LIVES = 4  # what goes wrong goes wrong in the first lives; the later ones must then finish the work
CALLS_MAX = 40  # of one kind and life that may go wrong

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
    """What a seed draws."""

    seed: int
    shots: tuple[Shot, ...]
    fault_rate: float
    runners: int
    flags: Mapping[str, str]
    plan: FaultPlan

    def __str__(self) -> str:
        options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.flags.items())
        return (
            f"seed {self.seed}: {len(self.shots)} rows, {self.fault_rate:.0%} wrong, {self.runners} runners, {options}"
            + ("" if self.plan == NO_FAULTS else f", the queue goes wrong by the plan of seed {self.plan.seed}")
        )


def drawn(seed: int) -> Night:
    """The night of a seed."""
    rng = random.Random(seed)
    shots = tuple(shot(f"s{n}", rng.choice((0.2, 3.0, 10.0, 40.0))) for n in range(rng.randint(3, 9)))
    return Night(
        seed=seed,
        shots=shots,
        fault_rate=rng.choice((0.05, 0.2, 0.4)),
        runners=rng.choice((2, 4, 64)),
        flags={
            "concurrency": rng.choice(("1", "2", "4", "8")),
            "start_timeout": "300s",
            "run_timeout": "100s",
            "history_delay": rng.choice(("120s", "300s")),
        },
        plan=drawn_plan(seed) if rng.random() < 0.3 else NO_FAULTS,
    )


def played(night: Night, folder: Path) -> Ran:
    """Live through a night, life after life, and judge it. AssertionError says what must not have been."""
    world = World(folder, seed=night.seed, runners=night.runners)
    rng = random.Random(night.seed + 1)
    ran = world.play(lambda: _lives(world, night, rng))
    assert isinstance(ran, Ran), f"not done after {LIVES_MAX} lives"
    _judge(world, ran)
    return ran


async def _lives(world: World, night: Night, rng: random.Random) -> Ran | None:
    ran: Ran | None = None
    async with world.queue() as queue:
        calls_off = False
        for life in range(LIVES_MAX):
            is_bad = life < BAD_LIVES
            crash_before = rng.randint(1, 120) if is_bad and rng.random() < 0.5 else None
            cancel = _some_rows(night, rng) if calls_off else None
            calls_off = is_bad and rng.random() < 0.3  # in the next life: this one must leave something at fal
            leaves = is_bad and rng.random() < 0.3
            queue.luck.change(night.plan if is_bad else NO_FAULTS)
            world.wire.learns = night.plan == NO_FAULTS
            ran = await world.life(
                queue,
                night.shots,
                faults=_faults(night, rng) if is_bad else (),
                effects=Effects(crash_before),
                interrupt_after=rng.random() * (15 if calls_off else 60) if leaves or calls_off else None,
                cancel=cancel,
                give_up=is_bad and cancel is None and rng.random() < 0.1,
                **night.flags,
                **(_bounds(rng) if is_bad else {}),
            )
            if rng.random() < 0.3:
                await anyio.sleep(rng.random() * 900)
            if not is_bad and cancel is None and ran is not None and ran.exit_code in (0, 3):
                break
    return ran


def _some_rows(night: Night, rng: random.Random) -> list[str]:
    """The rows of a command that calls off; none named means all of them."""
    return [one.name for one in night.shots if rng.random() < 0.5]


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
    ]


def _judge(world: World, ran: Ran) -> None:
    """The promise, from the queue's count, the ledger and the files."""
    assert ran.exit_code in (0, 3), f"ended with {ran.exit_code}: {ran.states} {ran.causes} {ran.stop}"
    known, unbilled = Counter[str](), Counter[str]()
    called_off: dict[str, tuple[bool, bool]] = {}
    with sqlite3.connect(world.state / "ledger.db") as ledger:
        query = """SELECT json_extract(job.input, '$.prompt'), attempt.request_id IS NOT NULL,
            attempt.end_event IS 'retryable' OR coalesce(attempt.witness, '') IN ('saved', 'free'),
            job.state = 'cancelled', attempt.cancel_asked_at IS NOT NULL
            FROM attempt JOIN job ON job.id = attempt.job_id ORDER BY attempt.id"""
        for prompt, has_id, was_unbilled, is_cancelled, was_wanted in ledger.execute(query):
            known[prompt] += has_id
            unbilled[prompt] += was_unbilled
            called_off[prompt] = bool(is_cancelled), bool(was_wanted)  # of its last attempt
    ledger.close()
    for prompt, accepted in ran.accepted.items():
        assert accepted == known[prompt], f"{prompt}: fal took {accepted}, the ledger knows {known[prompt]}"
        assert accepted <= 1 + unbilled[prompt], f"{prompt}: taken {accepted} times, {unbilled[prompt]} of them free"
    for prompt, (is_cancelled, was_wanted) in called_off.items():
        assert was_wanted or not is_cancelled, f"{prompt} is cancelled, and nobody wanted that"
    for name, paths in ran.paths.items():
        assert (ran.states[name] == "fetched") is bool(paths), f"{name} is {ran.states[name]} with {paths}"
        for path in paths:
            found = prompt_in((world.state / path).read_bytes())
            assert found == name, f"{path} is the video of {found!r}"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, help="replay this one")
    arguments.add_argument("--seeds", type=int, default=300, help="play this many, from --first on")
    arguments.add_argument("--first", type=int, default=0)
    options = arguments.parse_args()
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else [options.seed]
    print(f"seeds {seeds[0]} to {seeds[-1]}", flush=True)
    codes, longest, began = Counter[int](), 0.0, time.monotonic()
    for seed in seeds:
        night = drawn(seed)
        if options.seed is not None:
            print(night, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            try:
                ran = played(night, Path(folder))
            except BaseException:
                print(f"FAILED {night}; again with: make sim SEED={seed}", flush=True)
                raise
        codes[ran.exit_code] += 1
        longest = max(longest, ran.took_s)
    seconds = time.monotonic() - began
    print(f"{len(seeds)} nights, none paid twice, none lost; exit codes {dict(codes)}; in {seconds:.0f} s")
    print(f"longest last life {longest:.0f} virtual seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
