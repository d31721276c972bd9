"""What fal's history proves about attempts in doubt: each word of the definition by its name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from batch.jobs import Attempt, PastRequest, derived_seed
from batch.reconcile import CONTROL_HOURS_S, SKEW_S, Finding, Known, Verdict, judge, proof_due_at, proof_due_at_fal

NOON = 1_800_000_000.0
OPEN_S = 10.0  # how long the POSTs here were open
DELAY_S = 600.0
DUE = NOON + OPEN_S + 3600.0 + 1800.0 + DELAY_S
"""When the absence of an attempt sent at noon can be proved: start limit 3600, run limit 1800, then the delay."""

BODY: Mapping[str, Any] = {"prompt": "waves", "seed": 11, "duration": "5", "image_url": "https://ours/waves.jpg"}
UNSEEDED: Mapping[str, Any] = {name: value for name, value in BODY.items() if name != "seed"}


def attempt(id: int = 1, body: Mapping[str, Any] = BODY, *, at: float = NOON, number: int = 1) -> Attempt:
    return Attempt(
        id=id,
        job_id=id,
        job_key=f"{id:032d}",
        number=number,
        endpoint="video",
        body=body,
        price_micros=100,
        start_timeout_s=3600.0,
        run_timeout_s=1800.0,
        submitting_at=at,
        closed_at=at + OPEN_S,
    )


def past(id: str, json_input: Mapping[str, Any] | None = BODY, *, at: float = NOON + 1, code: int = 200) -> PastRequest:
    return PastRequest(request_id=id, endpoint="video", sent_at=at, status_code=code, json_input=json_input)


SEEDS = (0, 2**31 - 1)
CONTROL = past("control", {"prompt": "another of ours"}, at=NOON + 300)


def judged(
    attempts: Sequence[Attempt] | Attempt,
    *history: PastRequest,
    known: Sequence[str] = ("control",),
    asked_at: float = DUE,
    offset: float = 0.0,
    offset_then: float | None = None,
    known_number: int = 0,  # of the known attempts: submitted before the ones in doubt
    before_s: float = 3600.0,
    until: float | None = None,
    seed_field: str | None = "seed",
    open_posts: Sequence[Attempt] = (),
    given_up: Sequence[Attempt] = (),
) -> dict[int, Verdict]:
    then = offset if offset_then is None else offset_then  # fal's clock minus ours when the known ones were submitted
    verdicts = judge(
        [attempts] if isinstance(attempts, Attempt) else attempts,
        history,
        known={
            request.request_id: Known(known_number, request.sent_at - then)
            for request in history
            if request.request_id in known
        },
        file_fields=frozenset({"image_url", "end_image_url"}),
        seed_field=seed_field,
        seed_range=SEEDS,
        asked_from=NOON - before_s,
        asked_until=asked_at + 1 if until is None else until,
        asked_at=asked_at,
        history_delay_s=DELAY_S,
        clock_offset_s=offset,
        open_posts=open_posts,
        given_up=given_up,
    )
    return {verdict.attempt.id: verdict for verdict in verdicts}


def found(*args: Any, **names: Any) -> str | None:
    """The request that the only attempt was found as."""
    (verdict,) = judged(*args, **names).values()
    assert (verdict.finding is Finding.FOUND) == (verdict.request is not None)
    return None if verdict.request is None else verdict.request.request_id


def finding(*args: Any, **names: Any) -> str:
    (verdict,) = judged(*args, **names).values()
    assert verdict.reason
    return verdict.finding.value


# --- candidates ---


def test_a_request_sent_while_the_post_was_open_is_found_at_once_and_needs_no_control() -> None:
    assert found(attempt(), past("r1"), asked_at=NOON + 20) == "r1"


def test_a_request_that_the_ledger_knows_is_never_a_candidate() -> None:
    assert found(attempt(), past("r1"), known=["r1"], asked_at=NOON + 20) is None


def test_a_known_request_that_ended_500_is_never_adopted_for_the_second_attempt() -> None:
    first, second = past("first", at=NOON - 30, code=500), attempt(id=2, number=2)
    assert found(second, first, known=["first"]) is None
    assert finding(second, first, known=["first"]) == "absent"  # and it is a control besides


def test_a_known_request_does_not_hide_the_one_that_was_lost() -> None:
    assert found(attempt(), past("known", at=NOON), past("lost", at=NOON + 2), known=["known"]) == "lost"


@pytest.mark.parametrize(
    ("sent_at", "is_candidate"),
    [
        (NOON - SKEW_S - 0.1, False),
        (NOON - SKEW_S, True),
        (NOON + OPEN_S + SKEW_S, True),
        (NOON + OPEN_S + SKEW_S + 0.1, False),
    ],
)
def test_a_candidate_was_sent_inside_the_open_time_give_or_take_the_skew(sent_at: float, is_candidate: bool) -> None:
    assert found(attempt(), past("r1", at=sent_at)) == ("r1" if is_candidate else None)


@pytest.mark.parametrize("offset", [-7200.0, 7200.0], ids=["fal-is-behind", "fal-is-ahead"])
def test_times_are_compared_on_one_clock(offset: float) -> None:
    assert found(attempt(), past("r1", at=NOON + offset), offset=offset) == "r1"
    assert found(attempt(), past("r1", at=NOON), offset=offset) is None
    control = replace(CONTROL, sent_at=CONTROL.sent_at + offset)
    assert finding(attempt(), control, offset=offset) == "absent"
    assert finding(attempt(), CONTROL, offset=offset) == "unknown"


# --- same ---


@pytest.mark.parametrize(
    "there",
    [
        {**BODY, "fps": 24, "enable_safety_checker": True},
        {**BODY, "seed": 11.0},
        dict(reversed(BODY.items())),
        {**BODY, "image_url": "https://fal.media/rewritten.jpg"},
        {name: value for name, value in BODY.items() if name != "image_url"},
        {**BODY, "image_url": None},
    ],
    ids=["fields-we-did-not-send", "5-and-5.0", "order", "rewritten-file", "file-left-out", "file-hidden"],
)
def test_the_same_request_is_recognised(there: Mapping[str, Any]) -> None:
    assert found(attempt(), past("r1", there)) == "r1"


@pytest.mark.parametrize(
    "there",
    [
        {**BODY, "prompt": "Waves"},
        {**BODY, "seed": 12},
        {**BODY, "duration": 5},
        {name: value for name, value in BODY.items() if name != "duration"},
        {**BODY, "seed": math.nan},
        {},
    ],
    ids=["prompt", "seed", "text-and-number", "field-missing", "not-a-number", "empty"],
)
def test_another_request_is_not_taken_for_ours(there: Mapping[str, Any]) -> None:
    assert found(attempt(), past("r1", there)) is None


def test_nested_values_are_compared_as_json() -> None:
    body = {**BODY, "loras": [{"path": "x", "scale": 1.0}], "size": {"width": 640, "height": 480}}
    there = {**BODY, "loras": [{"scale": 1, "path": "x"}], "size": {"height": 480.0, "width": 640}}
    assert found(attempt(body=body), past("r1", there)) == "r1"


def test_one_request_is_one_attempts_only() -> None:
    verdicts = judged([attempt(1), attempt(2)], past("r1"), CONTROL)
    assert [v.finding.value for v in verdicts.values()] == ["found", "absent"]


def test_two_equal_takes_are_assigned_in_order_of_time() -> None:
    early, late = attempt(2, UNSEEDED, at=NOON), attempt(1, UNSEEDED, at=NOON + 5)
    verdicts = judged([late, early], past("r2", UNSEEDED, at=NOON + 6), past("r1", UNSEEDED, at=NOON + 1))
    assert {id: v.request.request_id for id, v in verdicts.items() if v.request} == {2: "r1", 1: "r2"}


def test_attempts_that_differ_in_their_files_alone_are_told_apart_by_them() -> None:
    sea, sky = (
        attempt(1, {**BODY, "image_url": "https://ours/sea"}),
        attempt(2, {**BODY, "image_url": "https://ours/sky"}),
    )
    verdicts = judged([sea, sky], past("of sky", sky.body, at=NOON + 1), past("of sea", sea.body, at=NOON + 2))
    assert {id: v.request.request_id for id, v in verdicts.items() if v.request} == {1: "of sea", 2: "of sky"}


def test_files_that_come_back_rewritten_tell_nobody_apart_and_nobody_is_adopted() -> None:
    sea, sky = (
        attempt(1, {**BODY, "image_url": "https://ours/sea"}),
        attempt(2, {**BODY, "image_url": "https://ours/sky"}),
    )
    rewritten = past("r1", {**BODY, "image_url": "https://fal.media/1"})
    verdicts = judged([sea, sky], rewritten, CONTROL)
    assert [v.finding.value for v in verdicts.values()] == ["unknown", "unknown"]


def test_the_last_one_left_is_adopted_with_a_rewritten_file() -> None:
    sea, sky = (
        attempt(1, {**BODY, "image_url": "https://ours/sea"}),
        attempt(2, {**BODY, "image_url": "https://ours/sky"}),
    )
    rewritten = past("r2", {**BODY, "image_url": "https://fal.media/1"})
    verdicts = judged([sea, sky], past("r1", sea.body), rewritten)
    assert {id: v.request.request_id for id, v in verdicts.items() if v.request} == {1: "r1", 2: "r2"}


def test_an_equal_file_is_a_better_match_than_an_earlier_request() -> None:
    other = past("other", {**BODY, "image_url": "https://ours/other.jpg"}, at=NOON)
    assert found(attempt(), other, past("ours", at=NOON + 5)) == "ours"


def test_an_attempt_that_leaves_a_field_out_does_not_take_the_request_of_one_that_says_it() -> None:
    plain, fixed = attempt(1, BODY), attempt(2, {**BODY, "camera_fixed": True}, at=NOON + 1)
    verdicts = judged([plain, fixed], past("r1", fixed.body, at=NOON + 2), CONTROL)
    assert (verdicts[1].finding.value, verdicts[2].finding.value) == ("absent", "found")


@pytest.mark.parametrize(
    ("body", "is_judged"),
    [
        (BODY, False),
        ({**BODY, "image_url": "https://ours/another.jpg"}, False),
        ({**BODY, "camera_fixed": True}, False),
        ({**BODY, "seed": 12}, True),
        ({**BODY, "prompt": "hills"}, True),
    ],
    ids=["equal", "other-file", "more-fields", "other-seed", "other-prompt"],
)
def test_nothing_is_decided_while_a_post_is_open_whose_request_could_look_the_same(
    body: Mapping[str, Any], is_judged: bool
) -> None:
    posting = replace(attempt(9, body, at=NOON + 5), closed_at=None)
    verdicts = judged(attempt(), past("perhaps its", body, at=NOON + 5), CONTROL, open_posts=[posting])
    assert is_judged == (1 in verdicts)


# --- absent ---


def test_an_attempt_is_absent_when_all_the_proof_is_there() -> None:
    assert finding(attempt(), CONTROL) == "absent"


def test_the_proof_is_due_when_both_limits_and_the_delay_are_over() -> None:
    assert proof_due_at(attempt(), DELAY_S) == DUE


@pytest.mark.parametrize(("asked_at", "expected"), [(DUE - 0.1, "unknown"), (DUE, "absent")])
def test_absence_is_proved_only_by_a_question_asked_after_both_times_and_the_delay(
    asked_at: float, expected: str
) -> None:
    assert finding(attempt(), CONTROL, asked_at=asked_at) == expected


@pytest.mark.parametrize(
    "there",
    [
        {**BODY, "duration": "6"},
        {**BODY, "prompt": "quite another"},
        {"seed": 11},
    ],
    ids=["one-field-differs", "prompt-differs", "seed-alone"],
)
def test_a_candidate_of_the_same_seed_leaves_it_in_doubt(there: Mapping[str, Any]) -> None:
    assert finding(attempt(), past("r1", there), CONTROL) == "unknown"


def test_a_candidate_of_another_seed_and_the_same_prompt_does_not() -> None:
    assert finding(attempt(), past("r1", {**BODY, "seed": 12}), CONTROL) == "absent"


@pytest.mark.parametrize("seed_field", [None, "seed"])
def test_without_a_seed_a_candidate_of_the_same_prompt_leaves_it_in_doubt(seed_field: str | None) -> None:
    there = {**UNSEEDED, "duration": "6"}
    assert finding(attempt(body=UNSEEDED), past("r1", there), CONTROL, seed_field=seed_field) == "unknown"
    other = {**there, "prompt": "hills"}
    assert finding(attempt(body=UNSEEDED), past("r1", other), CONTROL, seed_field=seed_field) == "absent"


@pytest.mark.parametrize("at", [NOON - 3000, NOON + OPEN_S + SKEW_S + 1, NOON + 5 * 3600])
def test_an_unknown_request_of_the_same_seed_at_any_time_leaves_it_in_doubt(at: float) -> None:
    assert finding(attempt(), past("r1", {**BODY, "duration": "6"}, at=at), CONTROL) == "unknown"
    assert finding(attempt(), past("r1", at=at), CONTROL) == "unknown"


@pytest.mark.parametrize("wrong_by", [-1800.0, -300.0, 300.0, 600.0])
def test_a_clock_that_was_set_since_is_read_off_a_request_of_the_same_hours(wrong_by: float) -> None:
    # Our clock was wrong by `wrong_by` when both were submitted, and is right now: today's offset is 0.
    ours, control = past("r1", at=NOON + 1 - wrong_by), past("control", {"prompt": "x"}, at=NOON + 30 - wrong_by)
    assert found(attempt(), ours, control, offset_then=-wrong_by) == "r1"


def test_it_is_read_off_the_nearest_one_not_off_one_from_before_the_clock_was_set() -> None:
    verdicts = judge(
        [attempt()],
        [past("before", {}, at=NOON - 2000), past("after", {}, at=NOON + 7260), past("ours", at=NOON + 7201)],
        known={"before": Known(0, NOON - 2000), "after": Known(2, NOON + 60)},
        asked_from=NOON - 3600,
        asked_until=DUE + 1,
        file_fields=frozenset(),
        seed_field="seed",
        seed_range=SEEDS,
        asked_at=DUE,
        history_delay_s=DELAY_S,
    )
    assert [verdict.request and verdict.request.request_id for verdict in verdicts] == ["ours"]


def test_a_clock_that_was_set_since_and_no_request_to_read_it_off_proves_nothing() -> None:
    assert finding(attempt(), past("r1", at=NOON + 301)) == "unknown"


def test_a_candidate_without_its_input_leaves_it_in_doubt() -> None:
    assert finding(attempt(), past("r1", None), CONTROL) == "unknown"


def test_a_hidden_input_outside_the_open_time_is_nothing_against_it() -> None:
    assert finding(attempt(), past("r1", None, at=NOON + 3000), CONTROL) == "absent"


def test_without_a_control_it_stays_in_doubt() -> None:
    assert finding(attempt()) == "unknown"
    assert finding(attempt(), past("a stranger's", {"prompt": "x", "seed": 1}, at=NOON + 300)) == "unknown"


@pytest.mark.parametrize(
    ("sent_at", "expected"),
    [
        (NOON - CONTROL_HOURS_S - 1, "unknown"),
        (NOON - CONTROL_HOURS_S, "absent"),
        (NOON + CONTROL_HOURS_S, "absent"),
        (NOON + CONTROL_HOURS_S + 1, "unknown"),
    ],
)
def test_a_control_is_of_the_same_hours(sent_at: float, expected: str) -> None:
    assert finding(attempt(), replace(CONTROL, sent_at=sent_at)) == expected


def test_a_request_just_found_is_no_control_for_another() -> None:
    verdicts = judged([attempt(1), attempt(2, {**BODY, "seed": 5})], past("r1"))
    assert (verdicts[1].finding.value, verdicts[2].finding.value) == ("found", "unknown")


@pytest.mark.parametrize(("age_days", "expected"), [(28.9, "absent"), (29.1, "unknown")])
def test_an_attempt_older_than_twenty_nine_days_stays_in_doubt(age_days: float, expected: str) -> None:
    assert finding(attempt(), CONTROL, asked_at=NOON + age_days * 86400) == expected


def test_an_old_attempt_is_still_found_when_it_shows() -> None:
    assert found(attempt(), past("r1"), asked_at=NOON + 40 * 86400) == "r1"


def test_a_night_of_requests_is_judged_each_by_its_own() -> None:
    bodies = [{**BODY, "seed": 1000 + n} for n in range(300)]
    doubtful = [attempt(n + 1, body, at=NOON + n) for n, body in enumerate(bodies)]
    taken = [past(f"r{n}", bodies[n], at=NOON + n + 2) for n in range(0, 300, 2)]
    others = [past(f"other{n}", {**BODY, "seed": n}, at=NOON + n / 10) for n in range(900)]
    verdicts = judged(doubtful, *others, *reversed(taken), CONTROL, asked_at=DUE + 300)
    for n in range(300):
        expected = (Finding.FOUND, f"r{n}") if n % 2 == 0 else (Finding.ABSENT, None)
        verdict = verdicts[n + 1]
        assert (verdict.finding, verdict.request and verdict.request.request_id) == expected


def test_every_attempt_gets_a_verdict_with_a_reason_in_their_order() -> None:
    attempts = [attempt(id, {**BODY, "seed": id}) for id in (3, 1, 2)]
    verdicts = judged(attempts, CONTROL)
    assert list(verdicts) == [3, 1, 2]
    assert all(verdict.reason for verdict in verdicts.values())


def test_nothing_in_doubt_needs_no_verdict() -> None:
    assert judged([], past("r1"), CONTROL) == {}


def test_an_answer_that_may_not_reach_back_to_the_attempt_proves_nothing() -> None:
    # Our clock was two hours ahead at the submit and was set since: the query began after the request was sent, and the
    # only known request in it was submitted later.
    told = replace(attempt(), clock_offset_s=0.0)
    assert finding(told, CONTROL, known_number=2) == "unknown"
    assert finding(told, CONTROL, known_number=2, before_s=26 * 3600.0) == "absent"
    assert finding(told, CONTROL, known_number=0) == "absent"


def test_an_answer_that_was_cut_off_before_the_attempt_proves_nothing() -> None:
    assert finding(attempt(), CONTROL, until=NOON + 26 * 3600.0) == "absent"  # later than it was asked
    assert finding(attempt(), CONTROL, until=DUE - 1) == "unknown"


@pytest.mark.parametrize("behind", [-28800.0, -10800.0, 7900.0])
def test_two_times_and_a_delay_are_counted_by_fals_clock(behind: float) -> None:
    # Our clock was wrong at the submit and has been set: the last request before says so, today's clock does not agree.
    assert finding(attempt(), CONTROL, offset_then=-behind) == "unknown"


def test_without_a_word_on_our_clock_before_the_submit_nothing_is_proved() -> None:
    assert finding(attempt(), CONTROL, known_number=2, before_s=26 * 3600.0) == "unknown"
    set_since = replace(attempt(), clock_offset_s=10800.0)
    assert finding(set_since, CONTROL, known_number=2, before_s=26 * 3600.0) == "unknown"


# --- fal's clock alone, where nothing tells what ours was worth ---

OVER = NOON + 30.0
"""By fal's clock the POST was over then: an answer that came after it said so."""


def unclocked(body: Mapping[str, Any] = BODY) -> Attempt:
    return replace(attempt(body=body, at=NOON + 7200.0), over_at_fal=OVER)


def by_fal(one: Attempt, *history: PastRequest, after_s: float = 0.0, **names: Any) -> str:
    """The finding at so many seconds after the proof is due by fal's clock."""
    due = proof_due_at_fal(one, DELAY_S)
    assert due == OVER + 3600.0 + 1800.0 + DELAY_S
    return finding(one, *history, asked_at=due + after_s, known_number=2, before_s=26 * 3600.0, **names)


def test_by_fals_clock_alone_it_is_absent_once_both_times_and_the_delay_are_over() -> None:
    assert by_fal(unclocked(), CONTROL) == "absent"
    assert by_fal(unclocked(), CONTROL, after_s=-1.0) == "unknown"


def test_a_date_that_contradicts_every_clock_that_is_known_proves_nothing() -> None:
    one = replace(attempt(), clock_offset_s=0.0, over_at_fal=NOON - 8 * 3600.0)
    assert finding(one, CONTROL, asked_at=NOON + 60.0) == "unknown"
    assert finding(one, CONTROL) == "absent"


def test_by_fals_clock_alone_the_control_is_near_the_moment_it_was_over() -> None:
    far = past("control", {"prompt": "another of ours"}, at=OVER + CONTROL_HOURS_S + 1)
    assert by_fal(unclocked(), far) == "unknown"


@pytest.mark.parametrize(("sent_at", "expected"), [(OVER - 8 * 3600.0, "unknown"), (OVER + SKEW_S + 1, "absent")])
def test_by_fals_clock_alone_every_hidden_input_until_then_may_be_its_own(sent_at: float, expected: str) -> None:
    assert by_fal(unclocked(), CONTROL, past("hidden", None, at=sent_at)) == expected


def test_by_fals_clock_alone_a_hidden_input_from_before_an_earlier_submit_is_not() -> None:
    earlier, hidden = past("earlier", {"prompt": "older"}, at=NOON - 600), past("hidden", None, at=NOON - 900)
    one = unclocked()
    (verdict,) = judge(
        [one],
        [earlier, hidden, CONTROL],
        known={"earlier": Known(0, NOON - 600), "control": Known(2, NOON + 300 + 7200)},
        file_fields=frozenset(),
        seed_field="seed",
        seed_range=SEEDS,
        asked_from=NOON - 26 * 3600.0,
        asked_until=NOON + 26 * 3600.0,
        asked_at=OVER + 6000.0,
        history_delay_s=DELAY_S,
    ).__iter__()
    assert verdict.finding is Finding.ABSENT


def test_a_fingerprint_of_another_time_waits_by_fals_clock_where_ours_is_behind() -> None:
    one = replace(fingerprinted(at=NOON + 7200.0), over_at_fal=OVER)
    there = past("r1", one.body, at=NOON)
    assert found(one, there, asked_at=OVER + DELAY_S - 1) is None
    assert found(one, there, asked_at=OVER + DELAY_S) == "r1"


# --- a seed that we derived: a fingerprint ---


def fingerprinted(id: int = 1, **names: Any) -> Attempt:
    """An attempt with the seed that is derived from its own key."""
    one = attempt(id, **names)
    return replace(one, body={**one.body, "seed": derived_seed(one.job_key, *SEEDS)})


@pytest.mark.parametrize("away_s", [-20_000.0, -3_000.0, 3_000.0, 20_000.0])
def test_the_only_request_with_its_fingerprint_is_its_own_of_whatever_time(away_s: float) -> None:
    one = fingerprinted()
    assert found(one, past("r1", one.body, at=NOON + away_s)) == "r1"


def test_a_fingerprint_of_another_time_waits_until_the_history_has_had_its_delay() -> None:
    """Until then its own request may be missing, and the one that is there be another copy of the program's."""
    one = fingerprinted()
    there = past("r1", one.body, at=NOON - 3_000)
    assert found(one, there, asked_at=NOON + OPEN_S + DELAY_S) is None
    assert finding(one, there, asked_at=NOON + OPEN_S + DELAY_S) == "unknown"


def test_two_requests_with_one_fingerprint_of_another_time_are_nobodys() -> None:
    one = fingerprinted()
    assert finding(one, past("r1", one.body, at=NOON - 3_000), past("r2", one.body, at=NOON + 9_000)) == "unknown"


def test_attempts_of_two_jobs_with_one_fingerprint_do_not_share_a_request_of_another_time() -> None:
    one = fingerprinted()
    other = replace(one, id=2, job_id=2, submitting_at=NOON + 900, closed_at=NOON + 910)
    verdicts = judged([one, other], past("r1", one.body, at=NOON - 3_000))
    assert {verdict.finding.value for verdict in verdicts.values()} == {"unknown"}


def given_up_and_live() -> tuple[Attempt, Attempt]:
    """Of one job, an hour apart by a clock that was wrong both times."""
    one = fingerprinted()
    at = NOON + 3600.0
    return one, replace(one, id=2, number=2, submitting_at=at, closed_at=at + OPEN_S)


def requests_of(*history: PastRequest, asked_at: float = DUE + 3600.0) -> dict[int, str | None]:
    """Which attempt gets which request."""
    given_up, live = given_up_and_live()
    verdicts = judged(live, *history, given_up=[given_up], asked_at=asked_at)
    return {id: verdict.request and verdict.request.request_id for id, verdict in sorted(verdicts.items())}


def test_the_only_request_of_another_time_is_the_live_ones_and_not_that_of_what_was_given_up() -> None:
    """Given to neither, the job would be in doubt for ever; given to the other, the live one might be paid again."""
    body = given_up_and_live()[0].body
    assert requests_of(past("r1", body, at=NOON - 9_000)) == {1: None, 2: "r1"}


def test_where_both_were_taken_each_gets_its_own_by_the_order_of_time() -> None:
    body = given_up_and_live()[0].body
    both = past("r1", body, at=NOON - 9_000), past("r2", body, at=NOON - 8_000)
    assert requests_of(*both) == {1: "r1", 2: "r2"}
    assert requests_of(*both, past("r3", body, at=NOON - 7_000)) == {1: None, 2: None}


def test_what_was_given_up_gets_no_request_that_may_still_turn_out_to_be_the_live_ones() -> None:
    body = given_up_and_live()[0].body
    asked_at = NOON + 3600.0 + OPEN_S + DELAY_S
    assert requests_of(past("r1", body, at=NOON - 9_000), asked_at=asked_at) == {1: None, 2: None}


def test_a_chosen_seed_of_another_time_is_no_fingerprint() -> None:
    assert finding(attempt(), past("r1", at=NOON - 3_000), CONTROL) == "unknown"


def test_a_chosen_seed_in_a_strangers_request_of_another_time_and_prompt_proves_nothing_against_absence() -> None:
    stranger = past("r1", {**BODY, "prompt": "quite another"}, at=NOON - 3_000)
    assert finding(attempt(), stranger, CONTROL) == "absent"
    assert (
        finding(fingerprinted(), past("r1", {"seed": fingerprinted().body["seed"]}, at=NOON - 3_000), CONTROL)
        == "unknown"
    )
    assert finding(attempt(), past("r1", {"seed": 11}, at=NOON - 3_000), CONTROL) == "unknown"  # it hides its prompt


# --- attempts that the user gave up ---


def test_what_is_left_over_may_be_an_attempts_that_was_given_up() -> None:
    verdicts = judged(attempt(2, at=NOON + 1000), past("r1"), past("r2", at=NOON + 1001), given_up=[attempt(1)])
    assert {id: verdict.request and verdict.request.request_id for id, verdict in verdicts.items()} == {
        1: "r1",
        2: "r2",
    }


def test_a_request_that_could_be_either_is_the_live_ones() -> None:
    """Given to the other, the live one could be proved absent and be paid for again."""
    verdicts = judged(attempt(2, at=NOON + 60), past("r1", at=NOON + 61), CONTROL, given_up=[attempt(1)])
    assert {id: verdict.finding.value for id, verdict in verdicts.items()} == {1: "absent", 2: "found"}


def test_an_attempt_that_was_given_up_and_never_taken_is_proved_absent_by_the_same_words() -> None:
    verdicts = judged([], CONTROL, given_up=[attempt(1)])
    assert verdicts[1].finding is Finding.ABSENT
    verdicts = judged([], CONTROL, given_up=[attempt(1)], asked_at=DUE - 1)
    assert verdicts[1].finding is Finding.UNKNOWN
