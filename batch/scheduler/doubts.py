"""Attempts in doubt: when to ask about them, asking, and writing down what `reconcile` makes of the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import anyio

from batch import reconcile
from batch.endpoints import Endpoint
from batch.errors import Action, Blocked, CallFailed
from batch.fal import FalClient
from batch.jobs import Attempt, PastRequest
from batch.ledger import Ledger
from batch.reconcile import Finding, Known, Verdict
from batch.scheduler.options import RunOptions

__all__ = ["Doubts"]

PROOF_PATIENCE_S = 600.0  # how long a run waits for a proof of absence by itself
CLUSTER_GAP_S = 6 * 3600.0  # attempts in doubt that are further apart are asked about one by one
NEIGHBOURS_S = 900.0  # within this, requests of two attempts can be mistaken for each other (POST time, twice the skew)
DATE_NOISE_S = 3.0  # fal's Date tells whole seconds: so much later a proof is due by any reading of it
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
        found: Callable[[], None],
        may_be_told: Callable[[Attempt], bool],
    ) -> None:
        self._may_be_told = may_be_told
        self._found = found
        self._ledger = ledger
        self._fal = fal
        self._campaign_id = campaign_id
        self._endpoint_of = endpoint_of
        self._options = options
        self._clock = clock
        self._posting = posting
        self._wake = wake
        self._doubt = anyio.Event()
        self._judged_at: dict[int, float] = {}  # when the history last answered about an attempt
        self._next_look_at = math.inf
        self._is_at_rest = False
        self.trouble: str | None = None  # why the history could not be asked

    def doubted(self) -> None:
        """A submit has just ended in doubt: ask soon."""
        self._doubt.set()

    def next_answer(self) -> tuple[float, int] | None:
        """When the history can say more, and about how many; None where that is not worth waiting for.

        Twice for each attempt: when it must show if it was taken (a run ends only after that look), and when its
        absence can be proved, if that is soon enough. Where that moment has passed and the history has not answered
        since, it is the next look. A webhook is waited for as long as for the history to show, whether or not that can
        be asked.
        """
        now = self._clock()
        patience = math.inf if self._options.waits_for_proof else PROOF_PATIENCE_S
        moments = []
        for attempt, _ in self._ledger.in_doubt(self._campaign_id):
            moment = self._next_moment(attempt)
            if self._may_be_told(attempt) and attempt.closed_at is not None:
                told_by = attempt.closed_at + self._shows_in_s
                moment = told_by if moment is None and told_by > now else moment
            if moment is not None and now - PROOF_PATIENCE_S < moment <= now + max(patience, self._shows_in_s):
                moments.append(moment)
        if not moments:
            return None
        moment = min(moments)
        if moment <= now:  # it has passed, and the history has not answered since
            moment = self._next_look_at if self._next_look_at < math.inf else now + RECONCILE_FIRST_S
        return moment, len(moments)

    @property
    def _shows_in_s(self) -> float:
        """How long after its POST a request that was taken must show in the history."""
        return self._options.history_delay_s + LOOK_MARGIN_S

    def _next_moment(self, attempt: Attempt) -> float | None:
        """The next time at which the history can say more about the attempt than it has; None when it has said all."""
        assert attempt.closed_at is not None
        judged_at = self._judged_at.get(attempt.id, -math.inf)
        delay_s = self._options.history_delay_s
        proof = reconcile.proof_due_at(attempt, delay_s) + DATE_NOISE_S
        moments = [attempt.closed_at + self._shows_in_s, proof]
        if attempt.over_at_fal is not None and not self._is_clock_trusted(attempt):
            by_fal = (reconcile.shown_at_fal(attempt, delay_s), reconcile.proof_due_at_fal(attempt, delay_s))
            moments = [moment - self._fal.clock_offset_s + DATE_NOISE_S for moment in by_fal if moment is not None]
        return next((moment for moment in moments if moment > judged_at), None)

    def _is_clock_trusted(self, attempt: Attempt) -> bool:
        """Whether our clock was worth at the submit what it is worth now, as far as the attempt itself tells."""
        then, now = attempt.clock_offset_s, self._fal.clock_offset_s
        if then is None or abs(then - now) > reconcile.SKEW_S:
            return False
        assert attempt.closed_at is not None and attempt.over_at_fal is not None
        return attempt.closed_at + now <= attempt.over_at_fal + reconcile.SKEW_S

    async def watch(self) -> None:
        """Ask again and again while anything is in doubt: soon, then ever more rarely, and when it can say more."""
        pause = RECONCILE_FIRST_S
        while True:
            now = self._clock()
            self._doubt = anyio.Event()
            moments = [self._next_moment(attempt) for attempt in self._asked_about()]
            open_moments = [moment for moment in moments if moment is not None]
            due_at = min([moment for moment in open_moments if moment > now], default=math.inf)
            self._next_look_at = min(now + pause, due_at) + 0.5 if open_moments else math.inf
            with anyio.move_on_after(self._next_look_at - now) as waited:
                await self._doubt.wait()
            pause = min(pause * 2, RECONCILE_MAX_S) if waited.cancelled_caught else RECONCILE_FIRST_S
            if waited.cancelled_caught:
                try:
                    await self.reconcile()
                except Blocked as exc:  # the next look tries again; those that follow and save go on
                    self.trouble = str(exc)

    def _asked_about(self) -> list[Attempt]:
        """The attempts in doubt, and those that were given up and that the history can still say something about."""
        since = self._clock() - reconcile.HISTORY_KEPT_S
        sought = [attempt for attempt in self._ledger.sought(self._campaign_id) if attempt.submitting_at > since]
        return [*(attempt for attempt, _ in self._ledger.in_doubt(self._campaign_id)), *sought]

    async def reconcile(self, *, is_at_rest: bool = False) -> None:
        """Look for the attempts in doubt: by the id that a damaged answer showed, then in fal's history. `is_at_rest`
        while no job is on its way: then one that was given up and not submitted again yet can be taken back."""
        self._is_at_rest = is_at_rest
        for attempt, seen_request_id in self._ledger.in_doubt(self._campaign_id):
            if seen_request_id is not None:
                await self._ask_for_seen(attempt, seen_request_id)
        for attempts in self._clusters():
            try:
                await self._ask_history(attempts)
                self.trouble = None
            except CallFailed as exc:
                self.trouble = exc.message
                if exc.action is not Action.REPEAT:  # refused: no later moment of this run will do better
                    self._judged_at.update((attempt.id, math.inf) for attempt in attempts)
        self._wake()

    def _clusters(self) -> list[list[Attempt]]:
        """The attempts that the history can say more about, newest first, those of one endpoint and time together: one
        old doubt must not make the question about a new one a question about a month."""
        clusters: list[list[Attempt]] = []
        for attempt in sorted(self._asked_about(), key=lambda attempt: (attempt.endpoint, attempt.submitting_at)):
            if self._next_moment(attempt) is None:
                continue
            last = clusters[-1][-1] if clusters else None
            is_near = last is not None and attempt.submitting_at - last.submitting_at <= CLUSTER_GAP_S
            if is_near and last is not None and last.endpoint == attempt.endpoint:
                clusters[-1].append(attempt)
            else:
                clusters.append([attempt])
        return sorted(clusters, key=lambda attempts: -attempts[-1].submitting_at)

    async def _ask_for_seen(self, attempt: Attempt, request_id: str) -> None:
        if self._ledger.known_request(request_id) is not None:
            return  # a gateway repeated an old answer: that request is another attempt's
        ticket = self._fal.ticket(attempt.endpoint, request_id)
        try:
            await self._fal.status(attempt.endpoint, ticket)
        except CallFailed:
            return  # the history decides
        if not self._still_open([attempt]) or self._ledger.known_request(request_id) is not None:
            return  # a webhook was quicker
        self._ledger.adopted(attempt, ticket, why=f"the damaged answer named {request_id}, and fal knows it")

    async def _ask_history(self, attempts: list[Attempt]) -> None:
        """Ask about attempts of one endpoint and time, and write down what that proves."""
        endpoint = self._endpoint_of(attempts[0].endpoint)
        asked_at, offset = self._clock(), self._fal.clock_offset_s
        history, asked_from, asked_until = await self._history(attempts, asked_at)
        if abs(self._fal.clock_offset_s - offset) > reconcile.SKEW_S / 2:  # it told fal's time: ask by that
            asked_at = self._clock()
            history, asked_from, asked_until = await self._history(attempts, asked_at)
        # load-bearing: nothing is awaited from here on. A webhook may have settled some of them meanwhile.
        attempts = self._still_open(attempts)
        if not attempts:
            return
        attempts = self._noted_as_over(attempts)
        known = {past.request_id: self._ledger.known_request(past.request_id) for past in history}
        everyone = [*attempts, *self._neighbours(attempts)]
        sought = {attempt.id for attempt in self._ledger.sought()}
        verdicts = reconcile.judge(
            [attempt for attempt in everyone if attempt.id not in sought],
            history,
            known={request_id: Known(*found) for request_id, found in known.items() if found is not None},
            file_fields=frozenset(field.name for field in endpoint.fields if field.is_file and not field.is_loose),
            seed_field=endpoint.seed_field,
            seed_range=(endpoint.seed_min, endpoint.seed_max),
            asked_from=asked_from,
            asked_until=asked_until,
            asked_at=asked_at,
            history_delay_s=self._options.history_delay_s,
            clock_offset_s=self._fal.clock_offset_s,
            open_posts=tuple(self._posting().values()),
            given_up=[attempt for attempt in everyone if attempt.id in sought],
        )
        for verdict in verdicts:
            self._judged_at[verdict.attempt.id] = asked_at
            if verdict.attempt.id in sought:
                self._write_down_witness(verdict)
            else:
                self._write_down(verdict)

    def _noted_as_over(self, attempts: list[Attempt]) -> list[Attempt]:
        """The history's answer came after their POSTs were over, so they were over at its Date: a time into which no
        clock of ours enters."""
        date = self._fal.history_date
        if date is None:
            return attempts
        over_at_fal = date + DATE_NOISE_S
        self._ledger.over([attempt for attempt in attempts if attempt.over_at_fal is None], over_at_fal)
        return [a if a.over_at_fal is not None else replace(a, over_at_fal=over_at_fal) for a in attempts]

    def _still_open(self, attempts: list[Attempt]) -> list[Attempt]:
        """Those of them of which still nothing is known."""
        unknown = {attempt.id for attempt, _ in self._ledger.in_doubt()}
        unknown |= {attempt.id for attempt in self._ledger.sought()}
        return [attempt for attempt in attempts if attempt.id in unknown]

    async def _history(self, attempts: list[Attempt], asked_at: float) -> tuple[list[PastRequest], float, float]:
        """The endpoint's requests around the attempts, from when and to when (our clock). What is ours already is kept
        without its input, so that a night's history fits into memory."""
        first = min(attempts, key=lambda attempt: attempt.submitting_at)
        start = max(first.submitting_at, asked_at - reconcile.HISTORY_KEPT_S) - reconcile.HISTORY_BEFORE_S
        if not self._ledger.has_accepted_before(first, start):
            start = first.submitting_at - reconcile.CLOCK_WRONG_BY_S_MAX
        over = [attempt.over_at_fal for attempt in attempts if attempt.over_at_fal is not None]
        start = min([start, *(at_fal - self._fal.clock_offset_s - reconcile.HISTORY_BEFORE_S for at_fal in over)])
        latest = max(attempt.closed_at or attempt.submitting_at for attempt in attempts)
        end = min(asked_at + 1.0, latest + reconcile.CLOCK_WRONG_BY_S_MAX)
        offset = self._fal.clock_offset_s
        history = []
        async for past in self._fal.past_requests(first.endpoint, start=start + offset, end=end + offset):
            is_ours = self._ledger.known_request(past.request_id) is not None
            history.append(replace(past, json_output=None, json_input=None if is_ours else past.json_input))
        return history, start, end

    def _neighbours(self, attempts: list[Attempt]) -> list[Attempt]:
        """Other attempts in doubt or given up (of other campaigns) that the same requests could belong to: judged
        together, or one would be given what is the other's. Only those of the hours that the answer covers."""
        ours = {attempt.id for attempt in attempts}
        times = [attempt.submitting_at for attempt in attempts]
        since, until = min(times) - NEIGHBOURS_S, max(times) + NEIGHBOURS_S
        return [
            other
            for other in (*(attempt for attempt, _ in self._ledger.in_doubt()), *self._ledger.sought())
            if other.id not in ours and other.endpoint == attempts[0].endpoint and since <= other.submitting_at <= until
        ]

    def _write_down_witness(self, verdict: Verdict) -> None:
        """What became known of an attempt that was given up."""
        attempt = verdict.attempt
        can_be_taken_back = self._ledger.is_not_submitted_again(attempt)
        if verdict.finding is Finding.ABSENT:
            self._ledger.witness_absent(attempt)
        elif verdict.finding is Finding.FOUND and not (can_be_taken_back and not self._is_at_rest):
            assert verdict.request is not None
            ticket = self._fal.ticket(attempt.endpoint, verdict.request.request_id)
            if can_be_taken_back:
                self._ledger.taken_back(attempt, ticket, why=verdict.reason)
            else:
                self._ledger.witness_found(attempt, ticket)

    def _write_down(self, verdict: Verdict) -> None:
        if verdict.finding is Finding.FOUND:
            assert verdict.request is not None
            ticket = self._fal.ticket(verdict.attempt.endpoint, verdict.request.request_id)
            self._ledger.adopted(verdict.attempt, ticket, why=verdict.reason)
            self._found()
        elif verdict.finding is Finding.ABSENT:
            self._ledger.proved_absent(verdict.attempt, why=verdict.reason)
        else:
            self._ledger.still_in_doubt(verdict.attempt, why=verdict.reason)
