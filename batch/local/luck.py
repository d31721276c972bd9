"""A fault plan at work: it counts the calls, says what hits which, and remembers what has struck.

Imports only its neighbours. It answers no call: what a hit looks like on the wire, and how fal words a refusal, is
written elsewhere. Counts begin with the queue; a request's own fate hangs on its number in the store, so that it is the
same after a restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from batch.local.faults import FaultPlan, Strike
from batch.local.store import Request

__all__ = ["Luck"]

ROTATED = "webhook.rotated_after"
LOCKED, KEY_REFUSED = "account.locked_after", "account.key_refused_after"


class Luck:
    """One queue's luck. `on_change` is called when the plan was replaced: what was held may be free then."""

    def __init__(self, plan: FaultPlan) -> None:
        self.plan = plan
        self.on_change: Callable[[], None] = lambda: None
        self.calls: Counter[str] = Counter()
        self.accepted = 0
        self.webhooks_delivered = 0
        self._struck: Counter[str] = Counter()
        self._struck_requests: dict[str, set[int]] = {}
        self._results_asked: Counter[int] = Counter()

    def change(self, plan: FaultPlan) -> None:
        """Go on under another plan. All counts go on too."""
        self.plan = plan
        self.on_change()

    def struck(self) -> dict[str, int]:
        """How often each fault has struck: calls, or requests where the fault is drawn for a request."""
        requests = {path: len(numbers) for path, numbers in self._struck_requests.items()}
        return dict(sorted((self._struck + Counter(requests)).items()))

    # --- calls ---

    def call(self, section: str, *, is_refused: bool) -> Strike | None:
        """One more call of that kind: what hits it. One that is refused counts, and nothing else hits it."""
        self.calls[section] += 1
        strike = None if is_refused else self.plan.strike(section, self.calls[section])
        if strike is not None:
            self._struck[strike.fault.kind.path] += 1
        return strike

    def key_is_refused(self) -> bool:
        """Whether fal does not take the key any more."""
        return self._account(KEY_REFUSED)

    def account_is_locked(self) -> bool:
        """Whether the account may not submit any more."""
        return self._account(LOCKED)

    def _account(self, path: str) -> bool:
        after = self.plan.switch(path)
        is_over = after is not None and self.accepted >= after
        self._struck[path] += is_over
        return is_over

    # --- requests ---

    def held_until(self, seq: int, sent_at: float) -> float:
        """When a waiting request may start at the earliest, whoever is free."""
        strike = self.plan.strike("queue", seq)
        if strike is None:
            return sent_at
        self._note(strike, seq)
        return sent_at + strike.fault.number("for")

    def verdict(self, seq: int) -> Strike | None:
        """What fal says instead of making the video."""
        return self._noted(self.plan.strike("verdict", seq), seq)

    def runner_is_lost(self, request: Request) -> str | None:
        """By which failure of its runner this run of a request ends, if it does."""
        strike = self.plan.strike("queue.rerun", request.seq)
        is_hit = strike is not None and request.runs <= strike.fault.number("times")
        hit = self._noted(strike if is_hit else None, request.seq)
        return None if hit is None else hit.pick("types")

    def status_is_unknown(self, request: Request, now: float) -> bool:
        """Whether the status route does not know the request yet."""
        strike = self.plan.strike("status.unknown", request.seq)
        is_early = strike is not None and now < request.sent_at + strike.fault.number("for")
        return self._noted(strike if is_early else None, request.seq) is not None

    def result(self, request: Request, now: float) -> Strike | None:
        """What the result route says instead of the answer of a request that has ended: `gateway_first`, or gone."""
        strike = self.plan.strike("result.gateway_first", request.seq)
        if strike is not None:
            self._results_asked[request.seq] += 1
            if self._results_asked[request.seq] <= strike.fault.number("times"):
                return self._noted(strike, request.seq)
        return self._noted(self._gone(request, now), request.seq)

    def file_is_missing(self, request: Request, now: float) -> bool:
        """Whether the file that the request made is not to be had yet."""
        strike = self.plan.strike("file.missing", request.seq)
        made_at = request.ended_at if request.ended_at is not None else now
        is_early = strike is not None and now < made_at + strike.fault.number("for")
        return self._noted(strike if is_early else None, request.seq) is not None

    def webhook(self, request: Request) -> Strike | None:
        """What happens to the webhook of a request that has ended."""
        return self._noted(self.plan.strike("webhook", request.seq), request.seq)

    def key_is_rotated(self) -> bool:
        """Whether webhooks are signed with the other key."""
        after = self.plan.switch(ROTATED)
        return after is not None and self.webhooks_delivered >= after

    # --- the history ---

    def history_is_refused(self) -> bool:
        """Whether the key may not read it."""
        is_refused = bool(self.plan.switch("history.refused"))
        self._struck["history.refused"] += is_refused
        return is_refused

    def shows(self, request: Request, as_of: float) -> bool:
        """Whether the history of that moment has the request."""
        hidden_by = self._hidden_by(request, as_of)
        if hidden_by is not None:
            self._struck_requests.setdefault(hidden_by, set()).add(request.seq)
        return hidden_by is None

    def _hidden_by(self, request: Request, as_of: float) -> str | None:
        if self.plan.switch("history.other_account"):
            return "history.other_account"
        gone = self._gone(request, as_of)
        if gone is not None and gone.fault.kind.name == "forgotten":
            return gone.fault.kind.path
        late = self.plan.switch("history.late") or 0.0
        shown_from = request.sent_at
        if self.plan.switch("history.only_ended"):
            if request.ended_at is None or request.ended_at > as_of:
                return "history.only_ended"
            shown_from = request.ended_at
        return "history.late" if as_of < shown_from + late else None

    def _gone(self, request: Request, now: float) -> Strike | None:
        strike = self.plan.strike("result.gone", request.seq)
        is_gone = strike is not None and (
            request.ended_at is not None and now >= request.ended_at + strike.fault.number("after")
        )
        return strike if is_gone else None

    def _noted(self, strike: Strike | None, seq: int) -> Strike | None:
        if strike is not None:
            self._note(strike, seq)
        return strike

    def _note(self, strike: Strike, seq: int) -> None:
        self._struck_requests.setdefault(strike.fault.kind.path, set()).add(seq)
