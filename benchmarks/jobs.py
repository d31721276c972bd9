"""CPU a job and jobs a second, beside what people use today and beside the floor, against one cheap queue.

    PYTHONPATH=. python benchmarks/jobs.py [--jobs 1000] [--in-flight 256] [--service 2.0] [--rounds 3]

Twice: with a queue that needs two seconds for each job, where the CPU is what counts, and with one that needs none,
where the pace is. The floor is a bare aiohttp loop that makes the same requests as fal-batch, as often, its POSTs on
connections of their own; it keeps no ledger, checks no file and syncs nothing to the disk.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import contestants
from cheap_queue import Queue, queue_process
from side_by_side import RESULTS, Goal, Run, compare, given

THEIRS = "fal-client async"
NAMES = (contestants.OURS, THEIRS, "fal-client threads", "parallel + curl", contestants.FLOOR)
CPU, PACE, CALLS = "cpu ms/job", "jobs/s", "requests/job"


def measured(queue: Queue, name: str, options: Any, service_s: float, ours: dict[str, float]) -> dict[str, float]:
    """One run of one contestant. What ours asked for last is what the floor asks for too."""
    queue.serves_in(service_s)
    queue.counts()
    found = contestants.run(
        name,
        url=queue.url,
        jobs=options.jobs,
        in_flight=options.in_flight,
        service_s=service_s,
        asks=max(1, round(ours.get("status", 1.0))),
        streams=ours.get("stream", 0.0) > 0.5,
    )
    jobs = options.jobs + contestants.WARM_UP_JOBS
    counts = {kind: count / jobs for kind, count in queue.counts().items()}
    if name == contestants.OURS:
        ours.update(counts)
    return {**found, CALLS: sum(counts.values())}


def part(queue: Queue, options: Any, service_s: float, goals: list[Goal], title: str, out: Path) -> None:
    """One of the two tables."""
    ours: dict[str, float] = {}
    absent = {name: why for name in NAMES if (why := contestants.missing(name))}
    cases: dict[str, Run] = {
        name: partial(measured, queue, name, options, service_s, ours) for name in NAMES if name not in absent
    }
    compare(
        out.stem,
        title,
        cases,
        ours=contestants.OURS,
        rounds=options.rounds,
        goals=goals,
        left_out=absent,
        facts={"jobs": options.jobs, "in_flight": options.in_flight, "service_s": service_s},
        packages=("fal-client", "httpx", "httptools", "anyio", "aiohttp"),
        out=out,
    )


def main() -> None:
    options = given(__doc__, rounds=3, jobs=1000, in_flight=256, service=2.0)
    folder = options.json or RESULTS
    slow_goals = [
        Goal(measure=CPU, baseline=THEIRS, at_most=1 / 10),
        Goal(measure=CPU, baseline=contestants.FLOOR, at_most=2.5),
    ]
    quick_goals = [
        Goal(measure=PACE, baseline=THEIRS, at_least=8),
        Goal(measure=CPU, baseline=contestants.FLOOR, at_most=2.5),
    ]
    sizes = f"{options.jobs} jobs, {options.in_flight} in flight"
    with queue_process() as queue:
        slow_title = f"{sizes}, {options.service:g} s each"
        part(queue, options, options.service, slow_goals, slow_title, folder / "jobs_slow.json")
        part(queue, options, 0.0, quick_goals, f"{sizes}, no time at all", folder / "jobs_quick.json")


if __name__ == "__main__":
    main()
