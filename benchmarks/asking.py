"""How often fal is asked for a job, what that costs of its slots' time, and how soon an end is seen; in virtual time.

    python benchmarks/asking.py [--rounds 1] [--jobs 5000] [--short-jobs 2000] [--json asking.json]

Ours is the whole line against the local queue, with a renderer that copies a ready-made clip and a network that takes
no time: what is counted is requests and waiting, nothing that hangs on the machine. Every round has other service
times (lognormal, sigma 0.5), the same for every case. "requests/job" counts the submit, the questions, the result and
the download; "pace" is the time of a list schedule of the service times over the slots, in the sheet's order,
divided by the time
taken (a luckier order may beat it); "seen after" is from a job's end at fal to our knowing it.

fal-client and fal's JavaScript client are computed in their favour, from what they do (a status at once and then every
0.1 s or 0.5 s, the result, a download; a semaphore of as many as there are slots), as if they had no work of their own.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from line_support import Shot, World, shot  # noqa: E402 - the tests' own world
from side_by_side import Goal, Run, compare, given  # noqa: E402

SIGMA = 0.5
OURS, AGAIN = "fal-batch", "fal-batch, a second night"
FLOOR, FAL_CLIENT, FAL_JS = "every end known at once", "fal-client, 0.1 s", "fal's JavaScript client, 0.5 s"
BEFORE_MIN = 300  # jobs of the night before
PER_JOB = 3  # the submit, the result, the download
GOALS = (
    Goal(measure="requests/job", baseline=FLOOR, at_most=2.0),  # of three, so six
    Goal(measure="pace", baseline=FLOOR, at_least=0.97),
)
AGAINST_FAL_CLIENT = Goal(measure="requests/job", baseline=FAL_CLIENT, at_most=0.05)


def main() -> None:
    args = given(__doc__, rounds=1, jobs=5_000, short_jobs=2_000)
    tables = [
        (30.0, 200, args.jobs, (*GOALS, AGAINST_FAL_CLIENT)),
        (2.0, 64, args.short_jobs, GOALS),
    ]
    for mean_s, slots, jobs, goals in tables:
        name = f"asking_{mean_s:.0f}s"
        compare(
            name,
            f"{jobs:,} jobs of about {mean_s:g} s on {slots} slots of fal",
            {case: _rounds(case, mean_s, slots, jobs) for case in (OURS, AGAIN, FLOOR, FAL_CLIENT, FAL_JS)},
            ours=OURS,
            rounds=args.rounds,
            goals=goals,
            facts={"jobs": jobs, "slots": slots, "service_mean_s": mean_s, "sigma": SIGMA, "clock": "virtual"},
            packages=("trio",),
            out=None if args.json is None else args.json.with_stem(f"{args.json.stem}_{mean_s:.0f}s"),
        )


def _rounds(case: str, mean_s: float, slots: int, jobs: int) -> Run:
    """The case, with other service times in every round."""
    numbers = itertools.count()

    def run() -> Mapping[str, float]:
        times = service_times(jobs, mean_s, seed=next(numbers))
        if case in (OURS, AGAIN):
            return ours(times, slots, before=max(BEFORE_MIN, slots) if case == AGAIN else 0)
        if case == FLOOR:
            return polled(times, slots, None)
        return polled(times, slots, 0.1 if case == FAL_CLIENT else 0.5)

    return run


def service_times(jobs: int, mean_s: float, *, seed: int) -> list[float]:
    rng = random.Random(f"asking {mean_s:g} {seed}")
    return [rng.lognormvariate(math.log(mean_s) - SIGMA**2 / 2, SIGMA) for _ in range(jobs)]


def polled(times: Sequence[float], slots: int, interval_s: float | None) -> dict[str, float]:
    """Who asks every so often, from the submit on, and frees a place when it has seen the end. None: who is told."""
    seen = [t if interval_s is None else math.ceil(t / interval_s) * interval_s for t in times]
    asked = [0 if interval_s is None else math.ceil(t / interval_s) + 1 for t in times]
    return {
        "requests/job": PER_JOB + statistics.mean(asked),
        "pace": list_schedule(times, slots) / list_schedule(seen, slots),
        "seen after, s": statistics.mean(at - t for at, t in zip(seen, times, strict=True)),
    }


def list_schedule(times: Sequence[float], slots: int) -> float:
    """How long it takes where each slot gets the next job the moment it is free."""
    free_at = [0.0] * slots
    for t in times:
        heapq.heapreplace(free_at, free_at[0] + t)
    return max(free_at)


def ours(times: Sequence[float], slots: int, *, before: int) -> dict[str, float]:
    """The whole line in the tests' world. A second night knows the times of one with so many other jobs `before`."""
    folder = Path(tempfile.mkdtemp(prefix="asking-"))
    try:
        world = World(folder, runners=slots)
        world.checks_files = False
        if before:
            known = service_times(before, statistics.mean(times), seed=-1)
            world.run(*_shots("before", known), sheet="before.csv", concurrency=str(slots))
            world.later(8 * 3600)
        ran = world.run(*_shots("s", times), sheet="night.csv", concurrency=str(slots))
        assert ran.exit_code == 0, ran
        asked = sum(ran.calls[call] for call in ("submit", "status", "result", "media"))
        return {
            "requests/job": asked / len(times),
            "pace": list_schedule(times, slots) / ran.took_s,
            "seen after, s": statistics.mean(_late(folder, len(times))),
        }
    finally:
        shutil.rmtree(folder)


def _shots(prefix: str, times: Sequence[float]) -> list[Shot]:
    return [shot(f"{prefix}{number}", seconds) for number, seconds in enumerate(times)]


def _late(folder: Path, newest: int) -> Iterator[float]:
    """From each request's end, as the queue has it, to the ledger's knowing."""
    with closing(sqlite3.connect(folder / "state" / "ledger.db")) as ledger:
        query = "SELECT request_id, ended_at FROM attempt ORDER BY id DESC LIMIT ?"
        seen = dict(ledger.execute(query, (newest,)).fetchall())
    with closing(sqlite3.connect(folder / "queue" / "queue.sqlite3")) as queue:
        for request_id, ended_at in queue.execute("SELECT id, ended_at FROM request"):
            if request_id in seen:
                yield seen[request_id] - ended_at


if __name__ == "__main__":
    main()
