"""Where a run spends its time: `make profile` runs 2,000 jobs against the cheap queue and prints CPU a job, by part.

    PYTHONPATH=. python benchmarks/profile_run.py [--jobs 2000] [--service 0] [--in-flight 256]

Sampled, so that what is measured runs nearly as it does without: every few milliseconds of CPU each thread's own CPU
clock is read, and what it used is put down to the innermost line of its stack that belongs to a part. What httpx, h11,
anyio and sockets do is put down to who asked them; the event loop's own part is what it does for nobody in particular.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cheap_queue import queue_process
from contestants import WARM_UP_JOBS, fal_batch

EVERY_S = 0.004
FUNCTIONS_SHOWN = 30
PARTS = (
    ("json", ("/json/",)),
    ("ledger", ("/batch/ledger/", "/sqlite3/")),
    ("files", ("/batch/fetch/files.py", "/batch/fetch/containers.py", "/batch/save.py")),
    ("download", ("/batch/fetch/download.py",)),
    (
        "submit",
        ("/batch/fal/client.py:FalClient.submit", "/batch/fal/client.py:_Post", "/batch/fal/client.py:_run_with"),
    ),
    ("questions", ("/batch/fal/wire.py:Wire.ask", "/batch/fal/events.py", "/batch/fal/wire.py:Wire.streamed")),
    ("manifest", ("/batch/manifest/", "/batch/endpoints/", "/batch/views.py", "/batch/pricing.py")),
    ("scheduler", ("/batch/scheduler/", "/batch/retry.py", "/batch/budget.py", "/batch/jobs.py")),
    ("threads", ("_asyncio.py:WorkerThread", "/threading.py", "/batch/line.py:_run_in_thread")),
)
REST = "event loop"


class Sampler:
    """CPU seconds by part and by function, of all threads."""

    def __init__(self) -> None:
        self.by_part: Counter[str] = Counter()
        self.by_function: Counter[tuple[str, str]] = Counter()
        self._used: dict[int, float] = {}
        self._is_taking = False

    @contextmanager
    def sampling(self) -> Iterator[None]:
        self._take(None)
        self.by_part.clear(), self.by_function.clear()
        signal.signal(signal.SIGPROF, lambda number, frame: frame and self._sample(frame))
        signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _sample(self, main_frame: FrameType) -> None:
        """Once at a time: on a slow machine the next signal may come in the middle of the last one's work."""
        if not self._is_taking:
            self._is_taking = True
            self._take(main_frame)
            self._is_taking = False

    def _take(self, main_frame: FrameType | None) -> None:
        frames = sys._current_frames()
        main = threading.main_thread().ident
        for ident, frame in frames.items():
            try:
                used = time.clock_gettime(time.pthread_getcpuclockid(ident))
            except OSError:  # it has just ended
                continue
            spent, self._used[ident] = used - self._used.get(ident, 0.0), used
            if spent > 0:
                self._put_down(main_frame if ident == main and main_frame is not None else frame, spent)

    def _put_down(self, frame: FrameType, spent: float) -> None:
        innermost = frame
        walked: FrameType | None = frame
        while walked is not None:
            code = walked.f_code
            where = f"{code.co_filename}:{code.co_qualname}"
            for part, marks in PARTS:
                if any(mark in where for mark in marks):
                    self.by_part[part] += spent
                    self.by_function[part, _named(innermost, walked)] += spent
                    return
            walked = walked.f_back
        self.by_part[REST] += spent
        self.by_function[REST, _named(innermost, innermost)] += spent


def _named(innermost: FrameType, owner: FrameType) -> str:
    names = [f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_qualname}" for frame in (owner, innermost)]
    return names[0] if innermost is owner else f"{names[0]} > {names[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--service", type=float, default=0.0)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--functions", type=int, default=12, help="how many lines of code to name")
    given = parser.parse_args()
    sampler = Sampler()
    with tempfile.TemporaryDirectory() as folder, queue_process(service_s=given.service) as queue:
        given.url = queue.url
        for name in ("warm-up", "sheet"):
            (Path(folder) / name).mkdir()
        fal_batch(given, Path(folder) / "warm-up", WARM_UP_JOBS)
        queue.counts()
        began = time.monotonic()
        with sampler.sampling():
            fal_batch(given, Path(folder) / "sheet", given.jobs)
        wall_s = time.monotonic() - began
        calls = sum(queue.counts().values()) / given.jobs
    report(sampler, given.jobs, wall_s, calls, given.functions)


def report(sampler: Sampler, jobs: int, wall_s: float, calls: float, functions: int) -> None:
    total = sum(sampler.by_part.values())
    print(
        f"{jobs} jobs, {jobs / wall_s:.0f} a second; each {calls:.1f} requests, {total / jobs * 1000:.2f} ms of CPU\n"
    )
    print(f"{'part':12} {'ms/job':>8} {'share':>7}")
    for part, spent in sampler.by_part.most_common():
        print(f"{part:12} {spent / jobs * 1000:8.3f} {spent / total:7.1%}")
    print("\nthe dearest lines (part, owner > innermost):")
    for (part, name), spent in sampler.by_function.most_common(functions):
        print(f"{spent / jobs * 1000:8.3f}  {part:11} {name}")


if __name__ == "__main__":
    main()
