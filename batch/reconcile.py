"""What fal's request history says about attempts whose answer was not seen. Pure: a history in, verdicts out.

The words, exactly:

- *candidate* of an attempt: a request of its endpoint whose id no attempt of the ledger has, sent while the attempt's
  POST was open, give or take SKEW_S.
- *same*: every field that we sent and that is not a file is equal after JSON normalisation. Fields that we did not send
  are ignored. Files may come back rewritten: an equal one is a better match, a different one is none against it.
- *control*: the same query shows a request that the ledger knows, from the same hours. Without one the query may have
  looked at another account, or at nothing.
- *absent*: the attempt can have started no more and run no more, and the history has had its delay since; it was asked
  after that; no candidate has its seed (where it has none: its prompt); none hides its input; and a control holds.

Found attempts are adopted, absent ones planned again free of charge, anything else stays in doubt.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch.jobs import Attempt, PastRequest, canonical_json

__all__ = ["HISTORY_BEFORE_S", "SKEW_S", "Finding", "Verdict", "absent_from", "judge", "proof_due_at"]

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
    known_ids: frozenset[str],
    file_fields: frozenset[str],
    seed_field: str | None,
    asked_at: float,
    history_delay_s: float,
    clock_offset_s: float = 0.0,
    open_posts: Sequence[Attempt] = (),
) -> tuple[Verdict, ...]:
    """Judge attempts in doubt of one endpoint by its history.

    `history` is the whole answer to one query that began at `asked_at` (our clock) and reached from HISTORY_BEFORE_S
    before the oldest attempt to then. `known_ids` are those ids in it that the ledger's attempts have.
    `clock_offset_s` is fal's clock minus ours. `open_posts` are attempts that are under way now: theirs may show in the
    history before the ledger has their ids, so an attempt whose request could look the same gets no verdict this time.
    """
    attempts = [a for a in attempts if not any(_may_be_mistaken(a, post, file_fields) for post in open_posts)]
    requests = list(history)
    strangers = [request for request in requests if request.request_id not in known_ids]
    found = _match(attempts, strangers, file_fields=file_fields, clock_offset_s=clock_offset_s)
    taken = {request.request_id for request in found.values()}
    verdicts = []
    for attempt in attempts:
        if attempt.id in found:
            request = found[attempt.id]
            reason = f"found in fal's history as {request.request_id}"
            verdicts.append(Verdict(attempt=attempt, finding=Finding.FOUND, reason=reason, request=request))
            continue
        doubt = absent_from(
            attempt,
            [r for r in strangers if r.request_id not in taken and _is_candidate(attempt, r, clock_offset_s)],
            controls=[r for r in requests if r.request_id in known_ids],
            seed_field=seed_field,
            asked_at=asked_at,
            history_delay_s=history_delay_s,
            clock_offset_s=clock_offset_s,
        )
        finding = Finding.UNKNOWN if doubt else Finding.ABSENT
        reason = doubt or "fal's history shows that it was never taken"
        verdicts.append(Verdict(attempt=attempt, finding=finding, reason=reason))
    return tuple(verdicts)


def absent_from(
    attempt: Attempt,
    candidates: Sequence[PastRequest],
    *,
    controls: Sequence[PastRequest],
    seed_field: str | None,
    asked_at: float,
    history_delay_s: float,
    clock_offset_s: float = 0.0,
) -> str | None:
    """Why the attempt is not proved absent, in words; None when it is proved."""
    if asked_at - attempt.submitting_at > HISTORY_KEPT_S:
        return "it is older than the 29 days that fal's history proves anything about"
    if asked_at < proof_due_at(attempt, history_delay_s):
        return "it may still start, run, or not show in fal's history yet"
    if any(request.json_input is None for request in candidates):
        return "the history hides the input of a request that it could be"
    if any(_could_be(attempt, request, seed_field) for request in candidates):
        return "the history shows a request with its seed (or prompt) that differs otherwise, or several alike"
    if not any(_is_control(attempt, request, clock_offset_s) for request in controls):
        return "the history shows no known request of the same hours, so it may be of another account"
    return None


def _match(
    attempts: Sequence[Attempt],
    strangers: Sequence[PastRequest],
    *,
    file_fields: frozenset[str],
    clock_offset_s: float,
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
                    if _is_candidate(attempt, request, clock_offset_s) and _is_same(
                        attempt.body, request.json_input or {}, frozenset() if must_equal_files else file_fields
                    ):
                        found[attempt.id] = request
                        free.remove(request)
                        break
    return found


def _is_candidate(attempt: Attempt, request: PastRequest, clock_offset_s: float) -> bool:
    assert attempt.closed_at is not None
    sent_at = request.sent_at - clock_offset_s
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


def _is_control(attempt: Attempt, request: PastRequest, clock_offset_s: float) -> bool:
    assert attempt.closed_at is not None
    sent_at = request.sent_at - clock_offset_s
    return attempt.submitting_at - CONTROL_HOURS_S <= sent_at <= attempt.closed_at + CONTROL_HOURS_S


def _said(body: Mapping[str, Any], file_fields: frozenset[str]) -> str:
    return canonical_json({name: value for name, value in body.items() if name not in file_fields})


def _age(attempt: Attempt) -> tuple[float, int]:
    return attempt.submitting_at, attempt.id
