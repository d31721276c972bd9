"""Attempts in doubt: when to ask about them, asking, and writing down what `reconcile` makes of the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import anyio

from batch import reconcile
from batch.endpoints import Endpoint
from batch.errors import Action, CallFailed
from batch.fal import FalClient
from batch.jobs import Attempt, PastRequest, canonical_json
from batch.ledger import Ledger
from batch.reconcile import Finding, Verdict
from batch.scheduler.options import RunOptions

__all__ = ["Doubts"]

PROOF_PATIENCE_S = 600.0  # how long a run waits for a proof of absence by itself
LOOK_MARGIN_S = 30.0  # beyond the history's delay: the run of a short job
RECONCILE_FIRST_S, RECONCILE_MAX_S = 5.0, 300.0


class Doubts:
    """The attempts in doubt of one campaign. `posting` gives the attempts whose POST is open at the moment."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        fal: FalClient,
        campaign_id: int,
        endpoint_of: Callable[[str], Endpoint],
        options: RunOptions,
        clock: Callable[[], float],
        posting: Callable[[], Mapping[int, Attempt]],
        wake: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._fal = fal
        self._campaign_id = campaign_id
        self._endpoint_of = endpoint_of
        self._options = options
        self._clock = clock
        self._posting = posting
        self._wake = wake
        self._doubt = anyio.Event()
        self._judged_at: dict[int, float] = {}  # when the history was last asked about an attempt
        self.trouble: str | None = None  # why the history could not be asked

    def doubted(self) -> None:
        """A submit has just ended in doubt: ask soon."""
        self._doubt.set()

    def next_answer(self) -> tuple[float, int] | None:
        """When the history can say more, and about how many; None where that is not worth waiting for.

        Twice for each attempt: when it must show if it was taken (a run ends only after that look), and when its
        absence can be proved, if that is soon enough.
        """
        now = self._clock()
        patience = math.inf if self._options.waits_for_proof else PROOF_PATIENCE_S
        moments = []
        for attempt, _ in self._ledger.in_doubt(self._campaign_id):
            judged_at = self._judged_at.get(attempt.id, -math.inf)
            shows_by = (attempt.closed_at or now) + self._options.history_delay_s + LOOK_MARGIN_S
            proof = self._proof_of(attempt)
            if shows_by > judged_at:
                moments.append(shows_by)
            elif proof > judged_at and proof <= now + patience:
                moments.append(proof)
        soon = [moment for moment in moments if moment > now - PROOF_PATIENCE_S]  # else the history does not answer
        return (min(soon), len(soon)) if soon else None

    def _proof_of(self, attempt: Attempt) -> float:
        return reconcile.proof_due_at(attempt, self._options.history_delay_s)

    async def watch(self) -> None:
        pause = RECONCILE_FIRST_S
        while True:
            now = self._clock()
            doubtful = [attempt for attempt, _ in self._ledger.in_doubt(self._campaign_id)]
            answer = self.next_answer()
            due = [answer[0] - now] if answer is not None and answer[0] > now else []
            self._doubt = anyio.Event()
            with anyio.move_on_after(min([pause, *due]) + 0.5 if doubtful else math.inf) as waited:
                await self._doubt.wait()
            pause = min(pause * 2, RECONCILE_MAX_S) if waited.cancelled_caught else RECONCILE_FIRST_S
            if waited.cancelled_caught:
                await self.reconcile()

    async def reconcile(self) -> None:
        """Look for the attempts in doubt: by the id that a damaged answer showed, then in fal's history."""
        doubtful = self._ledger.in_doubt(self._campaign_id)
        for attempt, seen_request_id in doubtful:
            if seen_request_id is not None:
                await self._ask_for_seen(attempt, seen_request_id)
        by_endpoint: dict[str, list[Attempt]] = {}
        for attempt, _ in self._ledger.in_doubt(self._campaign_id):
            by_endpoint.setdefault(attempt.endpoint, []).append(attempt)
        for endpoint_id, attempts in by_endpoint.items():
            try:
                await self._ask_history(endpoint_id, attempts)
                self.trouble = None
            except CallFailed as exc:
                self.trouble = exc.message
                if exc.action is not Action.REPEAT:  # refused: no later moment of this run will do better
                    self._judged_at.update((attempt.id, math.inf) for attempt in attempts)
        self._wake()

    async def _ask_for_seen(self, attempt: Attempt, request_id: str) -> None:
        ticket = self._fal.ticket(attempt.endpoint, request_id)
        try:
            await self._fal.status(attempt.endpoint, ticket)
        except CallFailed:
            return  # the history decides
        self._ledger.adopted(attempt, ticket, why=f"the damaged answer named {request_id}, and fal knows it")

    async def _ask_history(self, endpoint_id: str, attempts: list[Attempt]) -> None:
        endpoint = self._endpoint_of(endpoint_id)
        asked_at, offset = self._clock(), self._fal.clock_offset_s
        history = await self._history(endpoint_id, attempts, asked_at)
        if abs(self._fal.clock_offset_s - offset) > reconcile.SKEW_S / 2:  # it told fal's time: ask by that
            asked_at = self._clock()
            history = await self._history(endpoint_id, attempts, asked_at)
        # load-bearing: a POST that is open now may show in the history before its answer is in the ledger, so an
        # attempt in doubt that says the same is not judged while it is.
        open_bodies = {canonical_json(posting.body) for posting in self._posting().values()}
        judged = [attempt for attempt in attempts if canonical_json(attempt.body) not in open_bodies]
        verdicts = reconcile.judge(
            judged,
            history,
            known_ids=self._ledger.known_request_ids(past.request_id for past in history),
            file_fields=frozenset(field.name for field in endpoint.fields if field.is_file),
            seed_field=endpoint.seed_field,
            asked_at=asked_at,
            history_delay_s=self._options.history_delay_s,
            clock_offset_s=self._fal.clock_offset_s,
        )
        self._write_down(endpoint_id, verdicts, asked_at)

    async def _history(self, endpoint_id: str, attempts: list[Attempt], asked_at: float) -> list[PastRequest]:
        """The endpoint's requests from an hour before the oldest attempt to now, by fal's clock as far as it is known."""
        offset = self._fal.clock_offset_s
        start = min(attempt.submitting_at for attempt in attempts) + offset - reconcile.HISTORY_BEFORE_S
        pages = self._fal.past_requests(endpoint_id, start=start, end=asked_at + offset + 1.0)
        return [replace(past, json_output=None) async for past in pages]

    def _write_down(self, endpoint_id: str, verdicts: tuple[Verdict, ...], asked_at: float) -> None:
        for verdict in verdicts:
            self._judged_at[verdict.attempt.id] = asked_at
            if verdict.finding is Finding.FOUND:
                assert verdict.request is not None
                ticket = self._fal.ticket(endpoint_id, verdict.request.request_id)
                self._ledger.adopted(verdict.attempt, ticket, why=verdict.reason)
            elif verdict.finding is Finding.ABSENT:
                self._ledger.proved_absent(verdict.attempt, why=verdict.reason)
            else:
                self._ledger.still_in_doubt(verdict.attempt, why=verdict.reason)
