"""What fal's request history says about attempts whose answer was not seen. Pure: a history in, verdicts out.

The words, exactly:

- *candidate* of an attempt: a request of its endpoint whose id no attempt of the ledger has, sent while the attempt's
  POST was open, give or take SKEW_S.
- *same*: every field that we sent and that is not a file is equal after JSON normalisation. Fields that we did not send
  are ignored. Files may come back rewritten: an equal one is a better match, a different one is none against it.
- *control*: the same query shows a request that the ledger knows, submitted in the same hours. Without one the query
  may have looked at another account, or at nothing. The nearest one also tells what our clock was worth then.
- *absent*: the attempt can have started no more and run no more, and the history has had its delay since; it was asked
  after that; no unknown request of any time has its seed (where it has none: its prompt); no candidate hides its input;
  and a control holds.

Found attempts are adopted, absent ones planned again free of charge, anything else stays in doubt.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch.jobs import Attempt, PastRequest, canonical_json

__all__ = ["HISTORY_BEFORE_S", "HISTORY_KEPT_S", "SKEW_S", "Finding", "Verdict", "judge", "proof_due_at"]

SKEW_S = 120.0
"""Room for clocks that differ after correction, and for the way of a POST. What is adopted must be the same besides, so
a generous one costs nothing but a later proof where a stranger's request of the same seed falls into it."""

HISTORY_BEFORE_S = 3600.0  # the history is asked from an hour before the submit on
CONTROL_HOURS_S = 3600.0  # a control was sent at most this long before or after the attempt
HISTORY_KEPT_S = 29 * 86400.0  # fal keeps payloads 30 days; an older attempt proves nothing any more


class Finding(enum.Enum):
    """What is known of one attempt in doubt."""

    FOUND = "found"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One attempt's finding; `request` only with FOUND, `reason` in words for the ledger and the user."""

    attempt: Attempt
    finding: Finding
    reason: str
    request: PastRequest | None = None


def proof_due_at(attempt: Attempt, history_delay_s: float) -> float:
    """From when on its absence can be proved: it started by the first limit or never, and ended by the second."""
    assert attempt.closed_at is not None, "an attempt in doubt has a time when its POST was over"
    return attempt.closed_at + attempt.start_timeout_s + attempt.run_timeout_s + history_delay_s


def judge(
    attempts: Sequence[Attempt],
    history: Iterable[PastRequest],
    *,
    known: Mapping[str, float],
    file_fields: frozenset[str],
    seed_field: str | None,
    asked_at: float,
    history_delay_s: float,
    clock_offset_s: float = 0.0,
    open_posts: Sequence[Attempt] = (),
) -> tuple[Verdict, ...]:
    """Judge attempts in doubt of one endpoint by its history.

    `history` is the whole answer to one query that began at `asked_at` (our clock) and reached from HISTORY_BEFORE_S
    before the oldest attempt to then. `known` are those ids in it that the ledger's attempts have, each with the time
    of its submit by our clock. `clock_offset_s` is fal's clock minus ours now. `open_posts` are attempts under way now:
    theirs may show in the history before the ledger has their ids, so an attempt whose request could look the same gets
    no verdict this time.
    """
    attempts = [a for a in attempts if not any(_may_be_mistaken(a, post, file_fields) for post in open_posts)]
    requests = list(history)
    strangers = [request for request in requests if request.request_id not in known]
    controls = {a.id: _controls(a, requests, known) for a in attempts}
    offsets = {a.id: _offset_then(a, controls[a.id], known, clock_offset_s) for a in attempts}
    found = _match(attempts, strangers, file_fields=file_fields, offsets=offsets)
    taken = {request.request_id for request in found.values()}
    verdicts = []
    for attempt in attempts:
        if attempt.id in found:
            request = found[attempt.id]
            reason = f"found in fal's history as {request.request_id}"
            verdicts.append(Verdict(attempt=attempt, finding=Finding.FOUND, reason=reason, request=request))
            continue
        doubt = _doubt_of_absence(
            attempt,
            [request for request in strangers if request.request_id not in taken],
            has_control=bool(controls[attempt.id]),
            offset_s=offsets[attempt.id],
            seed_field=seed_field,
            asked_at=asked_at,
            history_delay_s=history_delay_s,
        )
        finding = Finding.UNKNOWN if doubt else Finding.ABSENT
        reason = doubt or "fal's history shows that it was never taken"
        verdicts.append(Verdict(attempt=attempt, finding=finding, reason=reason))
    return tuple(verdicts)


def _doubt_of_absence(
    attempt: Attempt,
    strangers: Sequence[PastRequest],
    *,
    has_control: bool,
    offset_s: float,
    seed_field: str | None,
    asked_at: float,
    history_delay_s: float,
) -> str | None:
    """Why the attempt is not proved absent, in words; None when it is proved."""
    if asked_at - attempt.submitting_at > HISTORY_KEPT_S:
        return "it is older than the 29 days that fal's history proves anything about"
    if asked_at < proof_due_at(attempt, history_delay_s):
        return "it may still start, run, or not show in fal's history yet"
    if any(request.json_input is None and _is_candidate(attempt, request, offset_s) for request in strangers):
        return "the history hides the input of a request that it could be"
    # load-bearing: not only among the candidates. A clock that was wrong at the time makes its request no candidate,
    # and "its seed was never seen" must not become true by that.
    if any(_could_be(attempt, request, seed_field) for request in strangers):
        return (
            "the history shows a request with its seed (or prompt) that differs otherwise, or was sent at another time"
        )
    if not has_control:
        return "the history shows no known request of the same hours, so it may be of another account"
    return None


def _controls(attempt: Attempt, requests: Sequence[PastRequest], known: Mapping[str, float]) -> list[PastRequest]:
    """Requests of ours in the answer that were submitted in the same hours, the nearest first."""
    ours = [request for request in requests if request.request_id in known]
    near = [r for r in ours if abs(known[r.request_id] - attempt.submitting_at) <= CONTROL_HOURS_S]
    return sorted(near, key=lambda r: abs(known[r.request_id] - attempt.submitting_at))


def _offset_then(
    attempt: Attempt, controls: Sequence[PastRequest], known: Mapping[str, float], clock_offset_s: float
) -> float:
    """fal's clock minus ours at the time of the attempt, read off the nearest request that both have a time for: our
    clock may have been set since. Without one, today's."""
    if not controls:
        return clock_offset_s
    return controls[0].sent_at - known[controls[0].request_id]


def _match(
    attempts: Sequence[Attempt],
    strangers: Sequence[PastRequest],
    *,
    file_fields: frozenset[str],
    offsets: Mapping[int, float],
) -> dict[int, PastRequest]:
    """Which attempt is which request. Equal attempts are interchangeable and get theirs in order of time; attempts that
    differ in their files alone are told apart by those, and where that is impossible none of them is adopted. Those
    that say more choose first: their requests would also be the same as an attempt's that leaves fields out."""
    groups: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in sorted(attempts, key=lambda attempt: -len(attempt.body)):
        groups[_said(attempt.body, file_fields)].append(attempt)
    free = sorted((r for r in strangers if r.json_input is not None), key=lambda r: (r.sent_at, r.request_id))
    found: dict[int, PastRequest] = {}
    for group in groups.values():
        for must_equal_files in (True, False):
            open_ones = [attempt for attempt in sorted(group, key=_age) if attempt.id not in found]
            if not must_equal_files and len({canonical_json(attempt.body) for attempt in open_ones}) > 1:
                break  # a rewritten file cannot say which of them it was
            for attempt in open_ones:
                for request in free:
                    if _is_candidate(attempt, request, offsets[attempt.id]) and _is_same(
                        attempt.body, request.json_input or {}, frozenset() if must_equal_files else file_fields
                    ):
                        found[attempt.id] = request
                        free.remove(request)
                        break
    return found


def _is_candidate(attempt: Attempt, request: PastRequest, offset_s: float) -> bool:
    assert attempt.closed_at is not None
    sent_at = request.sent_at - offset_s
    return attempt.submitting_at - SKEW_S <= sent_at <= attempt.closed_at + SKEW_S


def _is_same(body: Mapping[str, Any], json_input: Mapping[str, Any], except_fields: frozenset[str]) -> bool:
    return all(
        name in json_input and _is_equal(json_input[name], value)
        for name, value in body.items()
        if name not in except_fields
    )


def _may_be_mistaken(attempt: Attempt, other: Attempt, file_fields: frozenset[str]) -> bool:
    """Whether the other's request may be the same as the attempt's: no field that both send, files apart, differs."""
    shared = (attempt.body.keys() & other.body.keys()) - file_fields
    is_alike = all(_is_equal(attempt.body[name], other.body[name]) for name in shared)
    return attempt.endpoint == other.endpoint and is_alike


def _could_be(attempt: Attempt, request: PastRequest, seed_field: str | None) -> bool:
    field = seed_field if seed_field is not None and seed_field in attempt.body else "prompt"
    return _is_equal((request.json_input or {}).get(field), attempt.body.get(field))


def _is_equal(one: object, other: object) -> bool:
    try:
        return canonical_json(one) == canonical_json(other)
    except ValueError:  # NaN or Infinity, which a stranger's request may hold, equals nothing
        return False


def _said(body: Mapping[str, Any], file_fields: frozenset[str]) -> str:
    return canonical_json({name: value for name, value in body.items() if name not in file_fields})


def _age(attempt: Attempt) -> tuple[float, int]:
    return attempt.submitting_at, attempt.id
