"""A ledger in a temporary folder, rows and jobs by hand, and the ledger's own way to each state."""

from __future__ import annotations

import functools
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch.jobs import Attempt, Job, LocalFile, Outcome, Row, Ticket, job_key
from batch.ledger import Ledger, OpenJob, open_ledger
from batch.ledger.schema import LEDGER_NAME, migrate
from batch.states import State

__all__ = [
    "ENDPOINT",
    "QUEUE",
    "Clock",
    "accept",
    "bring_to",
    "claim",
    "claimable",
    "make_row",
    "make_tables",
    "only_job",
    "opened",
    "result_of",
]

ENDPOINT = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video"
QUEUE = "https://queue.example"
FILE_URL = "https://files.example/out.mp4"


@dataclass
class Clock:
    """A clock that stands until it is set."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def make_tables(folder: Path) -> None:
    """An empty ledger in a folder that has none, as opening it would make it, which takes a tenth of the time of all
    that these tests do. Those of the commands and the power cuts have it made by the program."""
    path = folder / LEDGER_NAME
    if folder.is_dir() and not path.exists():
        path.write_bytes(_tables())


@functools.cache
def _tables() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / LEDGER_NAME
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            migrate(connection)
        return path.read_bytes()


@contextmanager
def opened(
    folder: Path,
    clock: Callable[[], float] | None = None,
    *,
    queue_url: str = QUEUE,
    unpriced_micros: int | None = None,
) -> Iterator[Ledger]:
    """The ledger in `folder`, held."""
    clock = clock or Clock()
    make_tables(folder)
    with open_ledger(
        folder, queue_url=queue_url, command="a test", clock=clock, unpriced_micros=unpriced_micros
    ) as ledger:
        yield ledger


def make_row(
    id: str = "a",
    *,
    prompt: str | None = None,
    position: int = 1,
    take: int = 1,
    price_micros: int | None = 100,
    stem: str | None = None,
    files: tuple[LocalFile, ...] = (),
    endpoint: str = ENDPOINT,
    extra: Mapping[str, Any] | None = None,
) -> Row:
    """A row whose job is told apart by its prompt (the id, where none is given)."""
    input = {"prompt": id if prompt is None else prompt, **(extra or {})}
    key = job_key(endpoint, input, take)
    job = Job(key=key, endpoint=endpoint, input=input, take=take, files=files, price_micros=price_micros)
    address = f"sheet.csv:{position + 1}"
    return Row(id=id, address=address, position=position, number=position, cells={"id": id}, stem=stem or id, job=job)


def claimable(
    ledger: Ledger,
    campaign_id: int,
    *,
    now: float,
    limit: int,
    except_ids: Sequence[int] = (),
    after_id: int = 0,
    only_ids: frozenset[int] | None = None,
) -> list[OpenJob]:
    """What a run would submit now, in its order: what was tried before, then what is fresh."""
    again = ledger.tried(campaign_id, now=now, limit=limit, except_ids=except_ids, only_ids=only_ids)
    if only_ids is not None:
        return again
    return again + ledger.fresh(campaign_id, limit=limit - len(again), after_id=after_id)


def claim(ledger: Ledger, campaign_id: int, *, cap_micros: int | None = None, job: OpenJob | None = None) -> Attempt:
    """Claim the next job (or this one); it must fit."""
    job = job or claimable(ledger, campaign_id, now=1e12, limit=1)[0]
    attempt = ledger.claimed(
        job, campaign_id=campaign_id, body=job.input, start_timeout_s=60.0, run_timeout_s=60.0, cap_micros=cap_micros
    )
    assert attempt is not None
    return attempt


def ticket(request_id: str) -> Ticket:
    base = f"{QUEUE}/{ENDPOINT}/requests/{request_id}"
    return Ticket(request_id=request_id, status_url=f"{base}/status", response_url=base, cancel_url=f"{base}/cancel")


def result_of(*urls: str) -> dict[str, Any]:
    """A result with a file for each URL: one is `video`, more are `images`."""
    if len(urls) == 1:
        return {"video": {"url": urls[0], "content_type": "video/mp4"}, "seed": 7}
    return {"images": [{"url": url} for url in urls], "seed": 7}


def accept(ledger: Ledger, attempt: Attempt, request_id: str | None = None) -> Attempt:
    ledger.accepted(attempt, ticket(request_id or f"request-{attempt.id}"))
    return attempt


def only_job(ledger: Ledger) -> OpenJob:
    return ledger.job(1)


def bring_to(ledger: Ledger, campaign_id: int, state: State) -> Attempt | None:
    """Bring the campaign's next planned job to `state` by the ledger's own methods; its newest attempt."""
    if state is State.PLANNED:
        return None
    attempt = claim(ledger, campaign_id)
    if state is State.SUBMITTING:
        return attempt
    if state is State.WAITING:
        ledger.unsent(attempt, due_at=0.0, cause="connect", message="no connection")
        return attempt
    if state is State.IN_DOUBT:
        ledger.doubted(attempt, cause="reset", message="the connection was reset")
        return attempt
    accept(ledger, attempt)
    if state is State.SUBMITTED:
        return attempt
    if state is State.FAILED:
        ledger.failed(attempt, cause="content_policy", message="refused", is_billed=True)
        return attempt
    if state is State.CANCELLED:
        ledger.cancelled(attempt, is_billed=False, message="cancelled")
        return attempt
    ledger.completed(attempt, Outcome(result={"text": "no file"}))
    if state is State.FETCHED:
        ledger.fetched(attempt.job_id, attempt_id=attempt.id, row=ledger.placement(campaign_id, attempt.job_id).row)
    return attempt
