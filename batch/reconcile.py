"""What fal's request history says about attempts whose answer was not seen. Pure: a history in, verdicts out.

The words, exactly:

- *candidate* of an attempt: a request of its endpoint whose id no attempt of the ledger has, sent while the attempt's
  POST was open, give or take SKEW_S.
- *same*: every field that we sent and that is not a file is equal after JSON normalisation. Fields that we did not send
  are ignored. Files may come back rewritten: an equal one is a better match, a different one is none against it.
- *fingerprint*: a seed that we derived from what the job wants. Nobody else asks for it, so the one request that is the
  same and has it is the attempt's, whatever our clock said, once the history has had its delay.
- *control*: the same query shows a request that the ledger knows, submitted in the same hours. Without one the query
  may have looked at another account, or at nothing. The nearest one also tells what our clock was worth then, and one
  that was submitted before the attempt shows that the answer reaches back to it.
- *absent*: the attempt can have started no more and run no more, and the history has had its delay since; it was asked
  after that; no unknown request of any time has its seed (where that is no fingerprint: its seed and prompt); no
  candidate hides its input; and a control holds.

Found attempts are adopted, absent ones planned again free of charge, anything else stays in doubt. Attempts that the
user gave up are judged beside them, by the same words and behind them: a request that could be either's is the live
one's.
"""

from __future__ import annotations

import bisect
import contextlib
import enum
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from batch.jobs import Attempt, PastRequest, canonical_json, derived_seed

__all__ = [
    "CLOCK_WRONG_BY_S_MAX",
    "HISTORY_BEFORE_S",
    "HISTORY_KEPT_S",
    "SKEW_S",
    "Finding",
    "Known",
    "Verdict",
    "judge",
    "proof_due_at",
    "proof_due_at_fal",
    "shown_at_fal",
]

SKEW_S = 120.0
"""Room for clocks that differ after correction, and for the way of a POST. What is adopted must be the same besides, so
a generous one costs nothing but a later proof where a stranger's request of the same seed falls into it."""

HISTORY_BEFORE_S = 3600.0  # the history is asked from an hour before the submit on
CLOCK_WRONG_BY_S_MAX = 26 * 3600.0  # a clock in the wrong time zone, at the worst
CONTROL_HOURS_S = 3600.0  # a control was sent at most this long before or after the attempt
HISTORY_KEPT_S = 29 * 86400.0  # fal keeps payloads 30 days; an older attempt proves nothing any more


class Known(NamedTuple):
    """An attempt whose request_id the ledger has: its number (they are numbered in the order of their submits) and when
    it was submitted, by our clock of then."""

    attempt_id: int
    submitted_at: float


_Numbered = tuple[int, float, float]
"""A known request in the history: its attempt's id, fal's clock minus ours at its submit, and when it was sent (fal's
clock)."""


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
    """From when on (by our clock of then) its absence can be proved: it started by the first limit or never, and ended
    by the second."""
    assert attempt.closed_at is not None, "an attempt in doubt has a time when its POST was over"
    return attempt.closed_at + attempt.start_timeout_s + attempt.run_timeout_s + history_delay_s


def shown_at_fal(attempt: Attempt, history_delay_s: float) -> float | None:
    """From when on, by fal's clock, the history shows the attempt's request, if fal took it; None until fal has told a
    time at which its POST was over."""
    return None if attempt.over_at_fal is None else attempt.over_at_fal + history_delay_s


def proof_due_at_fal(attempt: Attempt, history_delay_s: float) -> float | None:
    """`proof_due_at` by fal's clock alone: later than that one, and right whatever our clock said."""
    over = attempt.over_at_fal
    return None if over is None else over + attempt.start_timeout_s + attempt.run_timeout_s + history_delay_s


def judge(
    attempts: Sequence[Attempt],
    history: Iterable[PastRequest],
    *,
    known: Mapping[str, Known],
    file_fields: frozenset[str],
    seed_field: str | None,
    seed_range: tuple[int, int],
    asked_from: float,
    asked_until: float,
    asked_at: float,
    history_delay_s: float,
    clock_offset_s: float = 0.0,
    open_posts: Sequence[Attempt] = (),
    given_up: Sequence[Attempt] = (),
) -> tuple[Verdict, ...]:
    """Judge attempts in doubt of one endpoint by its history.

    `history` is the whole answer to one query that began at `asked_at` and reached from `asked_from` to `asked_until`
    (our clock of today). `seed_range` bounds a derived seed. `known` are those ids in it that the ledger's attempts
    have. `clock_offset_s` is fal's clock minus ours now. `open_posts` are attempts under way now: theirs may show in
    the history before the ledger has their ids, so an attempt whose request could look the same gets no verdict yet.
    `given_up` are attempts that the user gave up on: what is left over may be theirs.
    """

    def is_apart(attempt: Attempt) -> bool:
        return not any(_may_be_mistaken(attempt, post, file_fields) for post in open_posts)

    attempts, given_up = list(filter(is_apart, attempts)), list(filter(is_apart, given_up))
    requests = list(history)
    strangers = sorted((r for r in requests if r.request_id not in known), key=lambda r: (r.sent_at, r.request_id))
    ours = sorted((known[r.request_id].submitted_at, r.sent_at) for r in requests if r.request_id in known)
    by_number = sorted(
        (known[r.request_id].attempt_id, r.sent_at - known[r.request_id].submitted_at, r.sent_at)
        for r in requests
        if r.request_id in known
    )
    everyone = [*attempts, *given_up]
    now_at_fal = asked_at + clock_offset_s
    controls = {a.id: _control(a, ours) for a in everyone}
    windows = {a.id: _window(a, controls[a.id], clock_offset_s) for a in everyone}
    found: dict[int, PastRequest] = {}
    left = strangers
    for group in (attempts, given_up):
        found |= _match(group, left, file_fields=file_fields, windows=windows)
        left = _untaken(left, found)
    late = [a for a in everyone if a.id not in found and _must_show(a, asked_at, now_at_fal, history_delay_s)]
    late = [a for a in late if seed_field is not None and _is_fingerprint(a, seed_field, seed_range)]
    found |= _match_by_fingerprint(late, left, everyone, file_fields)
    left = _untaken(left, found)
    hidden_at = [request.sent_at for request in left if request.json_input is None]
    shown, times = _shown(left, seed_field), [request.sent_at for request in left]
    verdicts = []
    for attempt in everyone:
        if attempt.id in found:
            request = found[attempt.id]
            reason = f"found in fal's history as {request.request_id}"
            verdicts.append(Verdict(attempt=attempt, finding=Finding.FOUND, reason=reason, request=request))
            continue
        start, end = windows[attempt.id]
        offset = _offset_then(attempt, by_number, clock_offset_s)
        has_control = controls[attempt.id] is not None
        if offset is None and attempt.over_at_fal is not None:  # nothing tells what our clock was worth: fal's alone
            start = _sent_before(attempt, by_number, asked_from + clock_offset_s)
            end = attempt.over_at_fal + SKEW_S
            has_control = any(abs(sent_at - attempt.over_at_fal) <= CONTROL_HOURS_S for _, _, sent_at in by_number)
        doubt = _doubt_of_absence(
            is_hidden=any(start <= sent_at <= end for sent_at in hidden_at),
            is_shown=_may_be_among(
                shown,
                left[bisect.bisect_left(times, start) : bisect.bisect_right(times, end)],
                attempt,
                seed_field,
                seed_range,
            ),
            is_due=_is_due(attempt, offset, now_at_fal, history_delay_s),
            is_covered=_is_covered(attempt, by_number, asked_from, asked_until, asked_at),
            has_control=has_control,
            is_old=asked_at - attempt.submitting_at > HISTORY_KEPT_S,
        )
        finding = Finding.UNKNOWN if doubt else Finding.ABSENT
        reason = doubt or "fal's history shows that it was never taken"
        verdicts.append(Verdict(attempt=attempt, finding=finding, reason=reason))
    return tuple(verdicts)


def _untaken(strangers: Sequence[PastRequest], found: Mapping[int, PastRequest]) -> list[PastRequest]:
    taken = {request.request_id for request in found.values()}
    return [request for request in strangers if request.request_id not in taken]


def _must_show(attempt: Attempt, asked_at: float, now_at_fal: float, history_delay_s: float) -> bool:
    """Whether the history shows the attempt's request by now, if fal took it: by our clock with the skew's room, or by
    fal's."""
    assert attempt.closed_at is not None, "an attempt in doubt has a time when its POST was over"
    shown_at = shown_at_fal(attempt, history_delay_s)
    return asked_at >= attempt.closed_at + history_delay_s + SKEW_S or (shown_at is not None and now_at_fal >= shown_at)


def _match_by_fingerprint(
    attempts: Sequence[Attempt],
    strangers: Sequence[PastRequest],
    everyone: Sequence[Attempt],
    file_fields: frozenset[str],
) -> dict[int, PastRequest]:
    """Attempts with a fingerprint whose request lies outside their time: our clock was set. Equal ones of one job, of
    which the user has given up all but the last, get theirs from the last on: what could be either's is the live one's.
    Nothing is matched where those of several jobs are equal, or where there are more requests than attempts."""
    found = {}
    for attempt in attempts:
        same = [request for request in strangers if _is_same(attempt.body, request.json_input, file_fields)]
        equal = [other for other in everyone if _said(other.body, file_fields) == _said(attempt.body, file_fields)]
        is_one_job = all(other.job_id == attempt.job_id for other in equal)
        later = sum(other.id > attempt.id for other in equal)
        if is_one_job and later < len(same) <= len(equal):
            found[attempt.id] = same[-1 - later]
    return found


def _is_fingerprint(attempt: Attempt, seed_field: str, seed_range: tuple[int, int]) -> bool:
    """Whether the seed that was sent is the one we derive; one that a user chose may stand in many requests."""
    seed = attempt.body.get(seed_field)
    return isinstance(seed, int) and seed == derived_seed(attempt.job_key, *seed_range)


def _shown(strangers: Iterable[PastRequest], seed_field: str | None) -> frozenset[tuple[str | None, str | None]]:
    """What requests that nobody could place have as their seed and prompt: the seed alone, the prompt alone, and both;
    `null` stands for one that a request leaves out."""
    shown: set[tuple[str | None, str | None]] = set()
    for request in strangers:
        seed = None if seed_field is None else _text_of(request, seed_field)
        prompt = _text_of(request, "prompt")
        shown |= {(seed, None), (None, prompt), (seed, prompt)}
    return frozenset(shown)


def _may_be_among(
    shown: frozenset[tuple[str | None, str | None]],
    candidates: Sequence[PastRequest],
    attempt: Attempt,
    seed_field: str | None,
    seed_range: tuple[int, int],
) -> bool:
    """Whether one of the requests that nobody could place may be the attempt's.

    load-bearing: `shown` is of any time, not only of the candidates'. A clock that was wrong at the time makes the
    attempt's request no candidate, and "its seed was never seen" must not become true by that.
    """
    prompt = canonical_json(attempt.body.get("prompt"))
    if seed_field is None or seed_field not in attempt.body:
        return (None, prompt) in shown
    seed = canonical_json(attempt.body[seed_field])
    if _is_fingerprint(attempt, seed_field, seed_range):
        return (seed, None) in shown
    if any(_text_of(candidate, seed_field) == seed for candidate in candidates):
        return True
    return (seed, prompt) in shown or (seed, "null") in shown  # a seed that a user chose may stand in many requests


def _text_of(request: PastRequest, name: str) -> str | None:
    with contextlib.suppress(ValueError):  # as in `_is_equal`
        return canonical_json((request.json_input or {}).get(name))
    return None


def _doubt_of_absence(
    *, is_old: bool, is_due: bool | None, is_hidden: bool, is_shown: bool, is_covered: bool, has_control: bool
) -> str | None:
    """Why an attempt is not proved absent, in words; None when it is proved."""
    if is_old:
        return "it is older than the 29 days that fal's history proves anything about"
    if is_due is None:
        return "our clock was set around its time, or nothing tells what it was worth then"
    if not is_due:
        return "it may still start, run, or not show in fal's history yet"
    if is_hidden:
        return "the history hides the input of a request that it could be"
    if is_shown:
        return "the history shows a request with its seed (or prompt) that differs otherwise, or of another time"
    if not has_control:
        return "the history shows no known request of the same hours, so it may be of another account"
    if not is_covered:
        return "the history's answer may not reach to its time"
    return None


def _sent_before(attempt: Attempt, by_number: Sequence[_Numbered], asked_from_at_fal: float) -> float:
    """A moment by fal's clock before which the attempt was not sent: attempts are numbered in the order of their
    submits."""
    sent_at = [sent_at for id, _, sent_at in by_number if id < attempt.id]
    return max(sent_at) - SKEW_S if sent_at else asked_from_at_fal


def _offset_then(attempt: Attempt, by_number: Sequence[_Numbered], clock_offset_s: float) -> float | None:
    """fal's clock minus ours when the attempt was submitted; None where nothing tells it for certain.

    Attempts are numbered in the order of their submits, whatever our clock said. So the clock was the same if what
    fal's Date told before the claim, the last known request before it, and the first one after it (else what the Date
    tells now) all say so.
    """
    place = bisect.bisect(by_number, (attempt.id, -math.inf, -math.inf))
    told = [by_number[place][1] if place < len(by_number) else clock_offset_s]
    told += [] if attempt.clock_offset_s is None else [attempt.clock_offset_s]
    told += [by_number[place - 1][1]] if place else []
    is_known_before = len(told) > 1
    return max(told) if is_known_before and max(told) - min(told) <= SKEW_S else None


def _is_due(attempt: Attempt, offset_s: float | None, now_at_fal: float, history_delay_s: float) -> bool | None:
    """Whether, by fal's clock, the attempt can start and run no more and the history has had its delay, counted by our
    clock of then or from what fal told; None where nothing tells."""
    by_fal = proof_due_at_fal(attempt, history_delay_s)
    by_ours = None if offset_s is None else proof_due_at(attempt, history_delay_s) + offset_s
    if by_ours is not None and by_fal is not None and by_fal < by_ours - SKEW_S:
        return now_at_fal >= by_ours  # a Date that contradicts all we know of the clocks was none of fal's
    moments = [moment for moment in (by_fal, by_ours) if moment is not None]
    return now_at_fal >= min(moments) if moments else None


def _is_covered(
    attempt: Attempt, by_number: Sequence[_Numbered], asked_from: float, asked_until: float, asked_at: float
) -> bool:
    """Whether the answer reaches to the attempt by fal's own time, not by a clock of ours that may have been hours off:
    it shows requests that were submitted earlier and later, or goes more than a day back, and up to now."""
    is_back = bool(by_number) and by_number[0][0] < attempt.id
    is_forth = bool(by_number) and by_number[-1][0] > attempt.id
    goes_back = asked_from <= attempt.submitting_at - CLOCK_WRONG_BY_S_MAX
    return (is_back or goes_back) and (is_forth or asked_until >= asked_at)


def _control(attempt: Attempt, ours: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Of the requests of ours in the answer (submitted by our clock, sent by fal's; ascending) the nearest of the same
    hours."""
    place = bisect.bisect(ours, (attempt.submitting_at, math.inf))
    near = [one for one in ours[max(0, place - 1) : place + 1] if _distance(attempt, one) <= CONTROL_HOURS_S]
    return min(near, key=lambda one: _distance(attempt, one), default=None)


def _distance(attempt: Attempt, ours: tuple[float, float]) -> float:
    return abs(ours[0] - attempt.submitting_at)


def _window(attempt: Attempt, control: tuple[float, float] | None, clock_offset_s: float) -> tuple[float, float]:
    """From when to when, by fal's clock, a request of the attempt was sent. What our clock was worth at the time is
    read off the control, because it may have been set since; without one, today's offset has to do."""
    assert attempt.closed_at is not None
    offset = clock_offset_s if control is None else control[1] - control[0]
    return attempt.submitting_at + offset - SKEW_S, attempt.closed_at + offset + SKEW_S


def _match(
    attempts: Sequence[Attempt],
    strangers: Sequence[PastRequest],
    *,
    file_fields: frozenset[str],
    windows: Mapping[int, tuple[float, float]],
) -> dict[int, PastRequest]:
    """Which attempt is which request. Equal attempts are interchangeable and get theirs in order of time; attempts that
    differ in their files alone are told apart by those, and where that is impossible none of them is adopted. Those
    that say more choose first: their requests would also be the same as an attempt's that leaves fields out."""
    groups: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in sorted(attempts, key=lambda attempt: -len(attempt.body)):
        groups[_said(attempt.body, file_fields)].append(attempt)
    times = [request.sent_at for request in strangers]
    found: dict[int, PastRequest] = {}
    taken: set[str] = set()
    for group in groups.values():
        for must_equal_files in (True, False):
            open_ones = [attempt for attempt in sorted(group, key=_age) if attempt.id not in found]
            if not must_equal_files and len({canonical_json(attempt.body) for attempt in open_ones}) > 1:
                break  # a rewritten file cannot say which of them it was
            for attempt in open_ones:
                start, end = windows[attempt.id]
                for request in strangers[bisect.bisect_left(times, start) : bisect.bisect_right(times, end)]:
                    if request.request_id not in taken and _is_same(
                        attempt.body, request.json_input, frozenset() if must_equal_files else file_fields
                    ):
                        found[attempt.id] = request
                        taken.add(request.request_id)
                        break
    return found


def _is_same(body: Mapping[str, Any], json_input: Mapping[str, Any] | None, except_fields: frozenset[str]) -> bool:
    return json_input is not None and all(
        name in json_input and _is_equal(json_input[name], value)
        for name, value in body.items()
        if name not in except_fields
    )


def _may_be_mistaken(attempt: Attempt, other: Attempt, file_fields: frozenset[str]) -> bool:
    """Whether the other's request may be the same as the attempt's: no field that both send, files apart, differs."""
    shared = (attempt.body.keys() & other.body.keys()) - file_fields
    is_alike = all(_is_equal(attempt.body[name], other.body[name]) for name in shared)
    return attempt.endpoint == other.endpoint and is_alike


def _is_equal(one: object, other: object) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one == other
    try:
        return canonical_json(one) == canonical_json(other)
    except ValueError:  # NaN or Infinity, which a stranger's request may hold, equals nothing
        return False


def _said(body: Mapping[str, Any], file_fields: frozenset[str]) -> str:
    return canonical_json({name: value for name, value in body.items() if name not in file_fields})


def _age(attempt: Attempt) -> tuple[float, int]:
    return attempt.submitting_at, attempt.id
