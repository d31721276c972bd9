"""What fal's webhooks tell of attempts: notes them, wakes who waits, and says how far they can be relied on.

Only deliveries whose secret and signature hold come here. One does what a poll could have done and nothing else: it
ends a wait, gives an attempt in doubt its request, or shows that one that was given up had been taken. Nothing is
submitted for it.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from batch.fal import FalClient
from batch.fal.webhook import Address, Delivery, Receipt, delivery_address
from batch.jobs import Attempt
from batch.ledger import Ledger, Standing
from batch.states import State

__all__ = ["Deliveries"]

COME_MAX = 500  # deliveries that no follower has read yet; what is dropped is found by asking
NOT_COME_AFTER_S = 60.0  # since the first job that was complete without one


class Deliveries:
    """The webhooks of one run. `base` is the address that the user gave, None where there are none, and `secret` the
    ledger's; `is_live` tells whether a job is on its way in this run, `wake` is told when one has come to be followed
    that nobody follows, `found` that fal answers."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        fal: FalClient,
        base: str | None,
        secret: str,
        is_live: Callable[[int], bool],
        wake: Callable[[], None],
        found: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self.base = base
        self._secret = secret
        self._ledger = ledger
        self._fal = fal
        self._is_live = is_live
        self._wake = wake
        self._found = found
        self._say = say
        self._come: dict[int, Delivery] = {}  # by attempt: not read by its follower yet
        self._bells: dict[int, anyio.Event] = {}  # of followers that wait
        self._has_come = False
        self._is_working = False  # the last that is known of them
        self._missed_since: float | None = None
        self._said: set[str] = set()
        self._strange: list[str] = []  # what was delivered and fits nothing
        self._adopted: set[str] = set()  # request_ids that only webhooks have told
        self._user_id: str | None = None  # whom fal delivers for: known by a request that our own submit was told

    def address(self, attempt: Attempt) -> str | None:
        """Where fal is asked to deliver what becomes of the attempt. It holds a secret: for the submit alone."""
        return None if self.base is None else delivery_address(self.base, attempt, self._secret)

    # --- what comes in ---

    def receive(self, address: Address, delivery: Delivery) -> Receipt:
        """Note one. Blocked when the ledger cannot be written."""
        standing = self._ledger.standing(address.attempt_id)
        if standing is None or standing.attempt.job_key != address.job_key:
            return Receipt.STRANGE
        known = self._ledger.known_request(delivery.request_id)
        if known is not None and delivery.request_id not in self._adopted:
            self._user_id = self._user_id or delivery.user_id
        if delivery.user_id != (self._user_id or delivery.user_id):
            self._say_once("user", "a webhook of another fal account was refused: has an address of ours been read?")
            return Receipt.STRANGE
        if not self._has_come:
            self._say("fal's webhooks come in: a status is asked for only now and then")
        self._has_come = self._is_working = True
        if known is None:
            return self._place(standing, delivery)
        # Equal attempts in doubt may have been given each other's requests: the result is for whoever has this one.
        is_own = known[0] == address.attempt_id
        self._tell(known[0], delivery if is_own else Delivery(request_id=delivery.request_id))
        return Receipt.TAKEN

    def post_over(self, attempt: Attempt) -> None:
        """The attempt's POST gave no ticket. A delivery may have come while it was open."""
        delivery = self._come.pop(attempt.id, None)
        standing = self._ledger.standing(attempt.id)
        if delivery is not None and standing is not None:
            self._place(standing, delivery)

    def _place(self, standing: Standing, delivery: Delivery) -> Receipt:
        """A request that the ledger does not know, delivered for this attempt."""
        attempt = standing.attempt
        if standing.is_live and standing.state is State.SUBMITTING:
            self._come[attempt.id] = delivery  # its answer is still to come, and says more
            return Receipt.TAKEN
        if standing.is_live and standing.state is State.IN_DOUBT:
            why = f"fal's webhook named it: {delivery.request_id}"
            self._ledger.adopted(attempt, self._fal.ticket(attempt.endpoint, delivery.request_id), why=why)
            self._adopted.add(delivery.request_id)
            self._found()
            # Its result is asked of fal with our key, which no other account's request answers: an address that
            # somebody has read lets them have fal deliver one of theirs.
            self._tell(attempt.id, Delivery(request_id=delivery.request_id))
            self._wake()
            return Receipt.TAKEN
        if standing.is_sought or (standing.is_not_taken and self._ledger.is_not_submitted_again(attempt)):
            return self._witness(attempt, delivery)
        ended = standing.ended_by or "accepted under another id"
        strange = (
            f"fal delivered {delivery.request_id} for an attempt that was {ended.replace('_', ' ')} (job "
            f"{attempt.job_key}, attempt {attempt.number}): it may be paid for twice; look at fal's history"
        )
        if strange not in self._strange:
            self._strange.append(strange)
            self._say(strange)
        return Receipt.STRANGE

    def _witness(self, attempt: Attempt, delivery: Delivery) -> Receipt:
        """An attempt that was given up had been taken: taken back if its job has not gone on without it, else paid
        twice. A job that is just on its way to a submit may be either in a moment."""
        ticket = self._fal.ticket(attempt.endpoint, delivery.request_id)
        if not self._ledger.is_not_submitted_again(attempt):
            self._ledger.witness_found(attempt, ticket)
            return Receipt.TAKEN
        if self._is_live(attempt.job_id):
            return Receipt.LATER
        self._ledger.taken_back(attempt, ticket, why=f"fal's webhook named it: {delivery.request_id}")
        self._adopted.add(delivery.request_id)
        self._tell(attempt.id, Delivery(request_id=delivery.request_id))
        self._wake()
        return Receipt.TAKEN

    def _tell(self, attempt_id: int, delivery: Delivery) -> None:
        """Tell the attempt's follower, now or when it looks. A duplicate tells nobody."""
        standing = self._ledger.standing(attempt_id)
        assert standing is not None, "the ledger knows the request by it"
        if not standing.is_live or standing.state is not State.SUBMITTED:
            return
        if len(self._come) >= COME_MAX:
            self._come.pop(next(iter(self._come)))
        self._come[attempt_id] = delivery
        if attempt_id in self._bells:
            self._bells[attempt_id].set()

    # --- what followers ask ---

    async def wait(self, attempt: Attempt, usual_s: float, net_s: float) -> None:
        """Wait until the attempt is to be asked about, or until its delivery is there: `usual_s`, or `net_s` while
        webhooks come and this attempt asked for one."""
        began = anyio.current_time()
        while attempt.id not in self._come:
            left = began + (net_s if self.is_relied_on(attempt) else usual_s) - anyio.current_time()
            if left <= 0:
                return
            self._bells[attempt.id] = bell = anyio.Event()
            try:
                with anyio.move_on_after(left):
                    await bell.wait()
            finally:
                del self._bells[attempt.id]

    def taken(self, attempt: Attempt, request_id: str) -> Delivery | None:
        """What was delivered about the attempt's request, once."""
        delivery = self._come.pop(attempt.id, None)
        if delivery is None or delivery.request_id == request_id:
            return delivery
        self._say_once(
            "strange", f"fal delivered {delivery.request_id} for an attempt that it accepted as {request_id}"
        )
        return None

    def is_relied_on(self, attempt: Attempt) -> bool:
        """Whether webhooks come, and one about the attempt is expected."""
        return self._is_working and attempt.webhook == self.base

    def may_come(self, attempt: Attempt) -> bool:
        """Whether one about the attempt is to be hoped for: it asked for one, and they are not known to stay away."""
        is_hoped_for = self._is_working or (self._missed_since is None and not self._has_come)
        return self.base is not None and attempt.webhook == self.base and is_hoped_for

    def missed(self, attempt: Attempt) -> None:
        """fal calls the attempt complete, and nothing was delivered: until something is, followers ask as without
        webhooks."""
        if self.base is None or attempt.webhook != self.base:
            return
        now = anyio.current_time()
        if self._is_working:
            self._is_working = False
            self._say_once("missed", "a job was complete and its webhook had not come: asking until the next one comes")
            for bell in self._bells.values():
                bell.set()
        elif not self._has_come:
            if self._missed_since is None:
                self._missed_since = now
            elif now - self._missed_since > NOT_COME_AFTER_S:
                self._say_once("none", f"jobs are complete and no webhook has come: {self._reachable}")

    @property
    def notes(self) -> list[str]:
        """For the end of a run."""
        if self._missed_since is None or self._has_come:
            return self._strange
        return [*self._strange, f"not one webhook came: {self._reachable}"]

    @property
    def _reachable(self) -> str:
        return f"is {self.base} reachable from the internet, and led to --webhook-listen?"

    def _say_once(self, what: str, message: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._say(message)
