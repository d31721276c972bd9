"""What the whole line does when things happen to it, as tables: shots and their faults in, states and POSTs out.

Time is virtual and the queue is the real local one, so "accepted" is fal's own count and not the program's opinion.
"""

from __future__ import annotations

import copy
import json
import random
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from line_support import (
    PRICE_MICROS,
    SHORT_TIMES,
    Act,
    Fault,
    Forward,
    Ran,
    Shot,
    World,
    always,
    answer_lost,
    answers,
    bad_gateway,
    bad_gateway_once_accepted,
    clip_of,
    content_policy,
    cut_short,
    ends_early,
    gateway_timeout,
    hangs,
    history_empty,
    history_late,
    history_of_no_output,
    history_refused,
    history_without,
    internal_error,
    invalid_input,
    key_refused,
    locked,
    lost_on_the_way,
    media_gone,
    no_connection,
    on,
    prompt_in,
    read_timeout,
    result_gone,
    result_gone_410,
    runner_lost,
    server_error_once_accepted,
    shot,
    shots,
    slow,
    status_unknown,
    too_many,
    typed,
    unavailable,
)
from local_support import picture

from batch.endpoints import DEFAULT_ENDPOINT, load
from batch.scheduler import RunOptions, Stop, StopKind
from batch.scheduler.gate import Gate

HOUR = 3600.0
PINNED = "someone/still-to-video"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def pin(world: World, document: Mapping[str, Any]) -> None:
    """Have this document for an endpoint of somebody's that no rule prices."""
    path = world.state / "endpoints" / (PINNED.replace("/", "__") + ".json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document).replace(DEFAULT_ENDPOINT, PINNED))


def all_fetched(names: str) -> dict[str, tuple[str, int]]:
    """Every shot saved, and each taken by fal exactly once."""
    return dict.fromkeys(names.split(), ("fetched", 1))


def is_saved_right(world: World, ran: Ran) -> bool:
    """Whether every saved file is the video of its own row."""
    files = [(name, path) for name, paths in ran.paths.items() for path in paths]
    return all(prompt_in((world.state / path).read_bytes()) == name for name, path in files)


# --- all goes well ---


def test_a_sheet_becomes_files_and_each_row_is_paid_for_once(world: World) -> None:
    ran = world.run(*shots("a b c d e", 10))

    assert ran.table == all_fetched("a b c d e")
    assert (ran.exit_code, ran.stop) == (0, None)
    assert set(ran.cost.values()) == {PRICE_MICROS}
    assert ran.paths["c"] == ("outputs/shots/c.mp4",)
    assert is_saved_right(world, ran)
    sidecar = json.loads((world.state / "outputs/shots/c.mp4.json").read_text())
    assert (sidecar["row"], sidecar["input"]["prompt"], sidecar["attempt"]) == ("c", "c", 1)
    assert not (world.state / "outputs/.parts").exists()


def test_one_picture_is_uploaded_once_for_all_rows(world: World) -> None:
    ran = world.run(*shots("a b c d e"))
    assert (ran.calls["token"], ran.calls["upload"]) == (1, 1)


def test_a_finished_campaign_makes_no_request(world: World) -> None:
    world.run(*shots("a b c"))
    ran = world.again()
    assert ran.exit_code == 0
    assert not ran.calls


def test_rows_with_equal_input_share_one_job_and_each_has_its_file(world: World) -> None:
    ran = world.run(shot("a"), shot("b", prompt="a"), shot("c"))

    assert (ran.exit_code, ran.accepted) == (0, {"a": 1, "c": 1})
    assert ran.paths["b"] == ("outputs/shots/b.mp4",)
    first, second = (world.state / ran.paths[name][0] for name in "ab")
    assert first.samefile(second)


def test_takes_of_a_row_are_jobs_of_their_own(world: World) -> None:
    ran = world.run(shot("a", takes="3"), shot("b", takes="1"))
    assert (ran.exit_code, ran.accepted) == (0, {"a": 3, "b": 1})
    assert len({path for paths in ran.paths.values() for path in paths}) == 4


# --- how many at once ---


def test_never_more_than_the_window_is_at_fal(world: World) -> None:
    ran = world.run(*shots(" ".join(f"s{n:02}" for n in range(30))), concurrency="4")
    assert ran.exit_code == 0
    # Four meant to run, a quarter more that may wait, and as many again for those that have probably ended unseen.
    assert 5 <= ran.at_fal_max <= 6


def test_downloads_have_a_limit_of_their_own(world: World) -> None:
    table = [shot(f"s{n:02}", 5, always("media", slow(100))) for n in range(20)]
    ran = world.run(*table, concurrency="16")
    assert ran.exit_code == 0
    assert (ran.at_fal_max, ran.downloads_max) == (20, 6)


def test_a_job_gives_its_slot_back_when_fal_is_done_and_not_after_its_download(world: World) -> None:
    table = [
        shot("a", 10, on("media", slow(110))),
        shot("b", 10, on("media", slow(110))),
        shot("c", 10),
        shot("d", 10),
    ]
    ran = world.run(*table, concurrency="1")
    assert ran.exit_code == 0
    assert ran.at_fal_max == 2
    last_submit = max(ran.sent_at["c"][0], ran.sent_at["d"][0])
    assert last_submit < 20, "the third and fourth waited for the downloads of the first and second"
    assert max(ran.done_at["c"], ran.done_at["d"]) < min(ran.done_at["a"], ran.done_at["b"])


# --- a submit whose answer is not seen ---


@pytest.mark.parametrize(
    ("act", "asks_history"),
    [
        (answer_lost, True),
        (read_timeout, True),
        (hangs, True),
        (bad_gateway_once_accepted, True),
        (server_error_once_accepted, True),
        (cut_short, False),
    ],
)
def test_a_lost_answer_is_found_at_fal_and_never_sent_again(world: World, act: Act, asks_history: bool) -> None:
    ran = world.run(shot("a", 100), shot("b", 100, on("submit", act)), shot("c", 100))

    assert ran.table == all_fetched("a b c")
    assert ran.sent == {"a": 1, "b": 1, "c": 1}
    assert (ran.exit_code, ran.cost["b"]) == (0, PRICE_MICROS)
    assert (ran.calls["history"] > 0) is asks_history
    assert is_saved_right(world, ran)


def test_every_answer_lost_is_every_request_found(world: World) -> None:
    ran = world.run(*shots("a b c d e f", 30), faults=[always("submit", answer_lost)])
    assert ran.table == all_fetched("a b c d e f")
    assert ran.exit_code == 0
    assert is_saved_right(world, ran)


def test_a_submit_that_never_arrived_is_sent_again_only_after_the_proof(world: World) -> None:
    ran = world.run(shot("a"), shot("b", 10, on("submit", lost_on_the_way)), **SHORT_TIMES)

    assert ran.table == all_fetched("a b")
    assert (ran.exit_code, ran.sent["b"]) == (0, 2)
    first, second = ran.sent_at["b"]
    assert second - first >= 60 + 60, "it could still have started, or run"
    assert ran.cost["b"] == PRICE_MICROS


def test_the_history_delay_belongs_to_the_proof(world: World) -> None:
    times = {**SHORT_TIMES, "history_delay": "300s"}
    ran = world.run(shot("a"), shot("b", 10, on("submit", lost_on_the_way)), **times)
    assert ran.table == all_fetched("a b")
    assert ran.sent_at["b"][1] - ran.sent_at["b"][0] >= 60 + 60 + 300


def test_that_a_run_waits_for_a_proof_is_said_when_nothing_else_is_left(world: World) -> None:
    """Not while the lost answer holds the next submit, which is minutes before anybody asks why nothing happens."""
    lost = [shot(name, 10, on("submit", lost_on_the_way)) for name in "cde"]
    ran = world.run(shot("a", 1), *lost, shot("b", 120), concurrency="1")
    (said,) = [line for line in ran.said if "in doubt: " in line]
    (left_s,) = re.findall(r"can say more in (\d+) s$", said)
    assert 120 < ran.done_at["b"] - ran.sent_at["b"][0] < 180
    assert abs(ran.sent_at["c"][0] + 630 - ran.done_at["b"] - int(left_s)) < 10, said


def test_a_proof_that_is_far_off_is_left_to_the_next_run(world: World) -> None:
    ran = world.run(shot("a"), shot("b", 10, on("submit", lost_on_the_way)))
    assert ran.table == {"a": ("fetched", 1), "b": ("in_doubt", 0)}
    assert (ran.exit_code, ran.sent["b"]) == (5, 1)
    assert ran.took_s < 700, "until the history must show it if it was taken, and no longer"

    too_early = world.again()
    assert (too_early.exit_code, too_early.sent) == (5, {})

    world.later(2 * HOUR + 600)
    ran = world.again()
    assert ran.table == all_fetched("a b")
    assert ran.exit_code == 0


def test_with_wait_a_run_waits_for_the_proof_however_long_it_takes(world: World) -> None:
    ran = world.run(shot("a"), shot("b", 10, on("submit", lost_on_the_way)), wait="yes")
    assert ran.table == all_fetched("a b")
    assert ran.sent_at["b"][1] >= 2 * HOUR + 600


def test_a_history_that_is_late_finds_the_request_later(world: World) -> None:
    ran = world.run(
        shot("a"),
        shot("b", 10, on("submit", answer_lost)),
        faults=[always("history", history_late(400))],
        **{**SHORT_TIMES, "history_delay": "450s"},
    )
    assert ran.table == all_fetched("a b")
    assert (ran.exit_code, ran.sent["b"]) == (0, 1)


@pytest.mark.parametrize("act", [answer_lost, lost_on_the_way])
def test_where_the_history_is_refused_a_job_stays_in_doubt(world: World, act: Act) -> None:
    refused = [always("history", history_refused)]
    ran = world.run(shot("a"), shot("b", 10, on("submit", act)), faults=refused, **SHORT_TIMES)
    assert ran.states == {"a": "fetched", "b": "in_doubt"}
    assert (ran.exit_code, ran.sent["b"]) == (5, 1)
    assert any("history" in note for note in ran.notes)
    assert ran.totals.in_doubt_micros == PRICE_MICROS

    world.later(5 * HOUR)
    ran = world.again(faults=refused, **SHORT_TIMES)
    assert (ran.exit_code, ran.sent) == (5, {})


def test_where_the_history_shows_nothing_of_ours_a_job_stays_in_doubt(world: World) -> None:
    ran = world.run(shot("a", 10, on("submit", lost_on_the_way)), **SHORT_TIMES)
    assert (ran.exit_code, ran.states["a"], ran.sent["a"]) == (5, "in_doubt", 1)

    world.later(5 * HOUR)
    ran = world.again(**SHORT_TIMES)
    assert (ran.exit_code, ran.states["a"], ran.sent) == (5, "in_doubt", {})


def test_a_history_that_does_not_answer_leaves_the_job_in_doubt_and_the_run_ends(world: World) -> None:
    broken = [always("history", unavailable)]
    ran = world.run(shot("a"), shot("b", 10, on("submit", answer_lost)), faults=broken)
    assert (ran.exit_code, ran.states["b"], ran.sent["b"]) == (5, "in_doubt", 1)
    assert ran.took_s < 1500
    assert len(ran.said) < 20, "a line now and then, not one a second"
    assert ran.calls["history"] < 30

    ran = world.again()
    assert ran.table == all_fetched("a b")
    assert ran.exit_code == 0


def test_a_history_that_is_away_when_the_proof_is_due_is_asked_again(world: World) -> None:
    ran = world.run(shot("a"), shot("b", 10, on("submit", lost_on_the_way)), interrupt_after=15, **SHORT_TIMES)
    assert ran.states == {"a": "fetched", "b": "in_doubt"}

    world.later(200)
    ran = world.again(faults=[on("history", unavailable, 1, 2)], **SHORT_TIMES)
    assert ran.table == all_fetched("a b")
    assert (ran.exit_code, ran.calls["history"]) == (0, 3)


def test_an_empty_history_of_another_account_proves_nothing(world: World) -> None:
    empty = [always("history", history_empty)]
    ran = world.run(shot("a"), shot("b", 10, on("submit", answer_lost)), faults=empty, **SHORT_TIMES)
    assert (ran.exit_code, ran.states["b"], ran.sent["b"]) == (5, "in_doubt", 1)

    ran = world.again(**SHORT_TIMES)  # the right account again
    assert ran.table == all_fetched("a b")
    assert ran.exit_code == 0


def test_a_run_that_sees_a_stranger_with_its_seed_sends_nothing_again(world: World) -> None:
    """The history shows the request with a prompt that is not ours: nobody can say what it is."""

    def otherwise(item: dict[str, object]) -> dict[str, object]:
        sent = item["json_input"]
        assert isinstance(sent, dict)
        return {**item, "json_input": {**sent, "prompt": "else"}} if sent["prompt"] == "b" else item

    async def changed(request, forward):  # type: ignore[no-untyped-def]
        import httpx

        response = await forward()
        body = json.loads(await response.aread())
        body["items"] = [otherwise(item) for item in body["items"]]
        return httpx.Response(200, json=body, request=request)

    ran = world.run(
        shot("a"), shot("b", 10, on("submit", answer_lost)), faults=[always("history", changed)], **SHORT_TIMES
    )
    assert (ran.exit_code, ran.states["b"], ran.sent["b"]) == (5, "in_doubt", 1)


def test_a_known_request_that_failed_is_not_taken_for_the_second_attempt(world: World) -> None:
    table = [shot("a", 60), shot("b", 10, on("result", internal_error), on("submit", lost_on_the_way, 2))]
    ran = world.run(*table, **SHORT_TIMES)
    assert ran.table == {"a": ("fetched", 1), "b": ("fetched", 2)}
    assert (ran.exit_code, ran.sent["b"], ran.cost["b"]) == (0, 3, PRICE_MICROS)


def test_a_second_attempt_whose_answer_is_lost_is_found_too(world: World) -> None:
    ran = world.run(shot("a"), shot("b", 10, on("result", internal_error), on("submit", answer_lost, 2)))
    assert ran.table == {"a": ("fetched", 1), "b": ("fetched", 2)}
    assert (ran.exit_code, ran.sent["b"]) == (0, 2)


def test_two_equal_takes_without_a_seed_are_both_found(world: World) -> None:
    document = copy.deepcopy(dict(load(DEFAULT_ENDPOINT).document))
    for schema in document["components"]["schemas"].values():
        if "Input" in schema.get("title", ""):
            del schema["properties"]["seed"]
    pin(world, document)
    ran = world.run(shot("a", 60, on("submit", answer_lost, 1, 2), takes="2", endpoint=PINNED))
    assert ran.states == {"a": "fetched", "a#2": "fetched"}
    assert (ran.exit_code, ran.accepted, ran.sent) == (0, {"a": 2}, {"a": 2})
    assert len(set(ran.paths.values())) == 2


# --- a submit that does not get through ---


def test_connect_errors_hold_all_submits_together_and_burn_no_row(world: World) -> None:
    table = shots(" ".join(f"s{n:02}" for n in range(20)))
    ran = world.run(*table, faults=[on("submit", no_connection, 2, 25)])
    assert ran.table == all_fetched(" ".join(one.name for one in table))
    assert ran.exit_code == 0
    assert set(ran.cost.values()) == {PRICE_MICROS}
    refused_at = sorted(at for times in ran.sent_at.values() for at in times)[1:25]
    first, second, third = sorted({round(at, 3) for at in refused_at})  # nine, a pause, nine, a longer pause, six
    assert 0.5 <= second - first <= 1.5, "ten at once are one failure"
    assert 1 <= third - second <= 3


def test_the_first_submit_goes_alone_until_fal_has_taken_one(world: World) -> None:
    ran = world.run(*shots("a b c d e"), faults=[on("submit", no_connection, 1, 3)])
    assert (ran.exit_code, ran.accepted) == (0, dict.fromkeys("abcde", 1))
    sent_at = sorted(at for times in ran.sent_at.values() for at in times)
    assert len(set(sent_at[:4])) == 4, "one at a time, each after the pause of the one before"
    assert len(set(sent_at[3:-3])) == 1, "then the others at once; those that were refused later"


def test_a_429_is_asked_again_after_its_own_time(world: World) -> None:
    ran = world.run(shot("a", 10, on("submit", too_many(45))))
    assert ran.table == all_fetched("a")
    first, second = ran.sent_at["a"]
    assert second - first >= 45


def test_an_outage_of_ten_minutes_stops_the_run_and_leaves_the_rows_as_they_were(world: World) -> None:
    ran = world.run(*shots("a b c d"), faults=[always("submit", no_connection)])
    assert (ran.exit_code, ran.stop, ran.accepted) == (4, "connect", {})
    assert set(ran.states.values()) <= {"planned", "waiting"}
    assert 600 <= ran.took_s < 900
    assert ran.totals.exposure_micros == 0

    ran = world.again()
    assert ran.table == all_fetched("a b c d")
    assert ran.exit_code == 0


def test_an_outage_that_ends_in_time_is_only_a_delay(world: World) -> None:
    ran = world.run(*shots("a b"), faults=[on("submit", no_connection, 1, 12)])
    assert ran.table == all_fetched("a b")
    assert (ran.exit_code, ran.stop) == (0, None)


@pytest.mark.parametrize(("act", "cause"), [(locked, "account_locked"), (key_refused, "key_refused")])
def test_account_trouble_stops_submits_and_what_was_accepted_is_saved(world: World, act: Act, cause: str) -> None:
    table = [shot("a", 5), shot("b", 60), shot("c", 5), *shots("d e f g h")]
    ran = world.run(*table, faults=[on("submit", act, 4, 1e9)], concurrency="1")
    assert ran.table == {
        **all_fetched("a b c"),
        **dict.fromkeys("defgh", ("planned", 0)),
    }
    assert (ran.exit_code, ran.stop) == (4, cause)
    assert ran.calls["submit"] == 4, "after the first refusal nothing is submitted"
    assert ran.totals.exposure_micros == 3 * PRICE_MICROS

    ran = world.again()
    assert ran.table == all_fetched("a b c d e f g h")
    assert (ran.exit_code, sorted(ran.sent)) == (0, list("defgh"))


@pytest.mark.parametrize("act", [locked, key_refused])
def test_account_trouble_at_the_status_stops_the_run_and_loses_nothing(world: World, act: Act) -> None:
    ran = world.run(*shots("a b c d", 30), faults=[on("status", act, 5, 1e9)], concurrency="1")
    assert (ran.exit_code, sum(ran.accepted.values())) == (4, 2)
    assert "failed" not in ran.states.values()

    ran = world.again()
    assert ran.table == all_fetched("a b c d")
    assert ran.exit_code == 0


def test_a_job_whose_upload_ends_after_the_refusal_is_not_submitted(world: World) -> None:
    for name in "bcd":
        (world.folder / f"{name}.jpg").write_bytes(picture(colour=f"#{ord(name):02x}4060"))
    table = [shot("a"), *(shot(name, image_url=f"{name}.jpg") for name in "bcd")]
    ran = world.run(*table, faults=[on("submit", locked), on("upload", slow(5), 2, 4)])
    assert (ran.exit_code, ran.stop) == (4, "account_locked")
    assert ran.calls["upload"] > 1, "others were on their way"
    assert (ran.calls["submit"], set(ran.states.values())) == (1, {"planned"})


def test_a_refused_upload_stops_the_run_before_any_submit(world: World) -> None:
    ran = world.run(*shots("a b"), faults=[always("token", key_refused)])
    assert (ran.exit_code, ran.calls["submit"]) == (4, 0)
    assert set(ran.states.values()) == {"planned"}


def test_an_upload_that_does_not_work_at_first_is_tried_again(world: World) -> None:
    ran = world.run(*shots("a b"), faults=[on("token", unavailable), on("upload", read_timeout, 1, 2)])
    assert ran.table == all_fetched("a b")
    assert ran.exit_code == 0


# --- fal's verdicts ---


@pytest.mark.parametrize(
    ("act", "cause", "cost"),
    [(content_policy, "content_policy_violation", PRICE_MICROS), (invalid_input, "one_of", 0)],
)
def test_a_422_fails_its_own_row_alone(world: World, act: Act, cause: str, cost: int) -> None:
    ran = world.run(shot("a"), shot("b", 10, on("result", act)), shot("c"))
    assert ran.table == {"a": ("fetched", 1), "b": ("failed", 1), "c": ("fetched", 1)}
    assert (ran.exit_code, ran.causes, ran.cost["b"]) == (3, {"b": cause}, cost)

    ran = world.again()
    assert (ran.exit_code, ran.sent) == (3, {}), "only `retry` leads out of failed"


@pytest.mark.parametrize("act", [internal_error, runner_lost])
def test_an_unbilled_verdict_gets_new_attempts_and_three_are_enough(world: World, act: Act) -> None:
    table = [shot("a"), shot("b", 10, on("result", act)), shot("c", 10, always("result", act))]
    ran = world.run(*table)
    assert ran.table == {"a": ("fetched", 1), "b": ("fetched", 2), "c": ("failed", 3)}
    assert (ran.exit_code, ran.cost) == (3, {"a": PRICE_MICROS, "b": PRICE_MICROS, "c": 0})


def test_a_partner_outage_is_given_more_time_and_one_attempt_more(world: World) -> None:
    act = typed(500, "downstream_service_error", "the partner's service failed")
    ran = world.run(shot("a", 10, on("result", act, 1, 3)), shot("b", 10, always("result", act)))
    assert ran.table == {"a": ("fetched", 4), "b": ("failed", 4)}
    assert ran.took_s > 30


@pytest.mark.parametrize("act", [bad_gateway, unavailable, gateway_timeout, no_connection, cut_short])
def test_what_a_gateway_says_of_a_result_is_asked_again_and_never_submitted_again(world: World, act: Act) -> None:
    ran = world.run(shot("a"), shot("b", 10, on("result", act, 1, 4)))
    assert ran.table == all_fetched("a b")
    assert (ran.exit_code, ran.sent["b"]) == (0, 1)


def test_a_result_that_cannot_be_had_is_paid_fetch_later(world: World) -> None:
    ran = world.run(shot("a"), shot("b", 10, always("result", gateway_timeout)))
    assert ran.table == {"a": ("fetched", 1), "b": ("submitted", 1)}
    assert (ran.exit_code, ran.totals.paid_fetch_later) == (4, 1)
    assert 600 <= ran.took_s < 700, "asked for ten more minutes"

    ran = world.again()
    assert (ran.states, ran.exit_code) == ({"a": "fetched", "b": "fetched"}, 0)
    assert set(ran.sent) <= {"a"}, "which may have waited for its turn behind the other"
    assert ran.took_s < 1, "a new run looks at once at what the last one put off"


def test_a_status_unknown_in_the_first_seconds_is_harmless(world: World) -> None:
    ran = world.run(shot("a", 10, on("status", status_unknown, 1, 3)), shot("b"))
    assert ran.table == all_fetched("a b")
    assert (ran.exit_code, ran.calls["history"]) == (0, 0)


def test_a_status_that_stays_unknown_leads_to_the_result_itself(world: World) -> None:
    ran = world.run(shot("a", 10, always("status", status_unknown)), shot("b"))
    assert ran.table == all_fetched("a b")
    assert ran.exit_code == 0


@pytest.mark.parametrize("act", [unavailable, read_timeout, too_many(5), no_connection, cut_short])
def test_status_questions_that_fail_change_nothing(world: World, act: Act) -> None:
    ran = world.run(shot("a", 20, on("status", act, 2, 5)), shot("b"))
    assert ran.table == all_fetched("a b")
    assert ran.exit_code == 0


@pytest.mark.parametrize("of_the_input", ["http://my.example.com/cat.jpg", None])
def test_a_picture_that_the_model_tells_back_is_no_file_of_the_result(world: World, of_the_input: str | None) -> None:
    """A link that is plain http beside fal's own file, or the very URL that was sent."""

    async def echo(request: httpx.Request, forward: Forward) -> httpx.Response:
        response = await forward()
        body = json.loads(await response.aread())
        (sent,) = sqlite3.connect(world.state / "ledger.db").execute("SELECT body FROM attempt").fetchone()
        body["image"] = {"url": of_the_input or json.loads(sent)["image_url"], "content_type": "image/jpeg"}
        return httpx.Response(200, json=body, headers={"date": response.headers["date"]}, request=request)

    ran = world.run(shot("a", 5, always("result", echo)))
    assert (ran.exit_code, ran.states) == (0, {"a": "fetched"})
    assert [Path(path).name for path in ran.paths["a"]] == ["a.mp4"]


@pytest.mark.parametrize("act", [result_gone, result_gone_410])
def test_an_expired_result_is_taken_from_the_history(world: World, act: Act) -> None:
    ran = world.run(shot("a", 10, always("result", act)), shot("b"))
    assert ran.table == all_fetched("a b")
    assert ran.exit_code == 0
    assert ran.calls["history"] == 1
    assert is_saved_right(world, ran)


def test_words_are_taken_from_the_history_too_and_saved_as_a_file(world: World) -> None:
    document = json.loads(json.dumps(load(DEFAULT_ENDPOINT).document))
    for schema in document["components"]["schemas"].values():
        if "Output" in schema.get("title", ""):
            schema["properties"], schema["required"] = {"text": {"type": "string"}}, ["text"]
    pin(world, document)
    ran = world.run(
        shot("a", 10, always("result", result_gone), endpoint=PINNED), shot("b", endpoint=PINNED), shot("c")
    )
    assert ran.table == all_fetched("a b c")
    assert (ran.exit_code, ran.calls["history"]) == (0, 1)
    assert {name: ran.paths[name] for name in "abc"} == {
        "a": ("outputs/shots/a.json",), "b": ("outputs/shots/b.json",), "c": ("outputs/shots/c.mp4",),
    }  # fmt: skip
    assert {type(json.loads((world.state / ran.paths[name][0]).read_text())["text"]) for name in "ab"} == {str}


def test_an_expired_result_that_the_history_lost_too_fails_after_a_day_and_stays_paid(world: World) -> None:
    lost = [always("history", history_without("a")), always("result", result_gone, of="a")]
    ran = world.run(*shots("a b"), faults=lost)
    assert ran.table == {"a": ("submitted", 1), "b": ("fetched", 1)}
    assert (ran.exit_code, ran.totals.paid_fetch_later, ran.sent["a"]) == (4, 1, 1)
    assert ran.calls["history"] >= 5, "a history may be late, so it is asked more than once"

    world.later(25 * HOUR)
    ran = world.again(faults=lost)
    assert (ran.states["a"], ran.exit_code, ran.sent) == ("failed", 3, {})
    assert (ran.causes, ran.cost["a"]) == ({"a": "result_expired"}, PRICE_MICROS)


UNKNOWN = (
    always("status", status_unknown, of="a"),
    always("result", result_gone, of="a"),
    always("history", history_without("a")),
)
"""fal knows nothing of the request of `a`."""


def test_a_request_that_fal_no_longer_knows_is_lost_after_a_day_of_asking_and_stays_paid(world: World) -> None:
    ran = world.run(*shots("a b"), faults=UNKNOWN)
    assert ran.table == {"a": ("submitted", 1), "b": ("fetched", 1)}
    assert (ran.exit_code, ran.sent["a"]) == (4, 1)
    assert 500 < ran.took_s < 900, "it is asked for ten minutes"
    (note,) = ran.notes
    assert note.startswith("1 is paid for and gone at fal; each run asks again, and after a day of that (from ")

    world.later(HOUR)
    ran = world.again(faults=UNKNOWN)
    assert (ran.states["a"], ran.exit_code, ran.sent) == ("submitted", 4, {})
    assert ran.took_s < 60, "and not for ten minutes again"
    assert len(ran.notes) == 1
    assert ran.calls["history"] == 1

    world.later(24 * HOUR)
    ran = world.again(faults=UNKNOWN)
    assert (ran.states["a"], ran.exit_code, ran.sent, ran.notes) == ("failed", 3, {}, ())
    assert (ran.causes, ran.cost["a"]) == ({"a": "gone"}, PRICE_MICROS)
    assert ran.totals.settled_micros == 2 * PRICE_MICROS, "it was paid for"

    ran = world.again()
    assert (ran.states["a"], ran.exit_code, ran.sent) == ("failed", 3, {}), "only a retry pays again"
    ran = world.again(retry=["a"])
    assert (ran.states["a"], ran.exit_code, ran.sent) == ("fetched", 0, {"a": 1})
    assert ran.cost["a"] == 2 * PRICE_MICROS


def test_a_request_that_only_the_history_still_names_is_lost_after_a_day_too(world: World) -> None:
    nothing_of_it = always("history", history_of_no_output("a"))
    faults = (*UNKNOWN[:2], nothing_of_it)
    assert world.run(shot("a"), faults=faults).states == {"a": "submitted"}
    world.later(25 * HOUR)
    ran = world.again(faults=faults)
    assert (ran.states, ran.causes, ran.exit_code) == ({"a": "failed"}, {"a": "gone"}, 3)


def test_a_request_is_not_called_lost_while_nothing_shows_that_the_history_can_be_believed(world: World) -> None:
    blind = (*UNKNOWN[:2], always("history", history_empty))
    world.run(*shots("a b"), faults=blind)
    for _ in range(2):
        world.later(25 * HOUR)
        ran = world.again(faults=blind)
        assert (ran.states["a"], ran.exit_code, ran.sent) == ("submitted", 4, {})
        assert ran.took_s < 60
    ran = world.again()
    assert (ran.states["a"], ran.exit_code, ran.sent) == ("fetched", 0, {})


def test_the_day_of_asking_is_of_fals_clock_and_starts_when_it_was_gone_first(world: World) -> None:
    world.run(*shots("a b"), interrupt_after=5.0)
    world.later(48 * HOUR)
    ran = world.again(faults=UNKNOWN)
    assert (ran.states["a"], ran.exit_code) == ("submitted", 4), "two days old, and gone for ten minutes"
    world.later(23 * HOUR)
    assert world.again(faults=UNKNOWN).states["a"] == "submitted"
    world.later(HOUR)
    assert world.again(faults=UNKNOWN).states["a"] == "failed"


def test_a_request_that_fal_knows_again_starts_its_day_anew(world: World) -> None:
    world.run(*shots("a b"), faults=UNKNOWN)
    world.later(23 * HOUR)
    known = (always("result", unavailable, of="a"), always("status", answers(202, {"status": "IN_PROGRESS"}), of="a"))
    assert world.again(faults=known, max_duration="60").states["a"] == "submitted"
    world.later(2 * HOUR)
    assert world.again(faults=UNKNOWN).states["a"] == "submitted"
    ran = world.again()
    assert ran.table == all_fetched("a b")


def test_a_file_that_was_gone_for_ten_minutes_is_asked_for_once_in_the_next_run(world: World) -> None:
    gone = [always("media", media_gone, of="a")]
    world.run(*shots("a b"), faults=gone)
    world.later(60.0)
    ran = world.again(faults=gone)
    assert (ran.states["a"], ran.exit_code, ran.calls["media"]) == ("completed", 4, 1)
    assert ran.took_s < 60


def test_a_result_without_a_file_is_asked_for_again_and_then_fails(world: World) -> None:
    nothing = answers(200, {"seed": 1})
    gone = [always("history", history_without("a"))]
    ran = world.run(shot("a", 10, always("result", nothing)), shot("b", 10), faults=gone)
    assert ran.table == {"a": ("failed", 1), "b": ("fetched", 1)}
    assert (ran.exit_code, ran.causes, ran.cost["a"]) == (3, {"a": "no_file"}, PRICE_MICROS)


def test_a_result_that_has_its_file_at_the_second_look_is_saved(world: World) -> None:
    gone = [always("history", history_empty)]
    ran = world.run(shot("a", 10, on("result", answers(200, {"seed": 1}))), shot("b", 10), faults=gone)
    assert ran.table == all_fetched("a b")
    assert ran.exit_code == 0


# --- files ---


@pytest.mark.parametrize("act", [cut_short, ends_early, unavailable, no_connection, read_timeout])
def test_a_broken_download_is_done_again_until_it_is_whole(world: World, act: Act) -> None:
    ran = world.run(shot("a", 10, on("media", act, 1, 3)), shot("b"))
    assert ran.table == all_fetched("a b")
    assert (ran.exit_code, ran.calls["media"]) == (0, 5)
    assert is_saved_right(world, ran)


def test_a_file_that_is_gone_for_good_fails_its_row_after_a_day_of_asking_fal_for_another(world: World) -> None:
    gone = [always("media", media_gone, of="a")]
    ran = world.run(*shots("a b"), faults=gone)
    assert ran.table == {"a": ("completed", 1), "b": ("fetched", 1)}
    assert (ran.exit_code, ran.totals.paid_fetch_later) == (4, 1)
    assert ran.calls["media"] >= 5 + 1
    assert ran.calls["result"] > 2, "the result was asked for a fresh URL"
    assert ran.calls["history"] > 0, "and so was the history"

    world.later(25 * HOUR)
    ran = world.again(faults=gone)
    assert (ran.states["a"], ran.exit_code, ran.sent) == ("failed", 3, {})
    assert (ran.causes, ran.cost["a"]) == ({"a": "file_gone"}, PRICE_MICROS)


def test_a_file_that_comes_back_is_saved(world: World) -> None:
    ran = world.run(shot("a", 10, on("media", media_gone, 1, 4)), shot("b"))
    assert ran.table == all_fetched("a b")
    assert ran.exit_code == 0


def test_a_file_that_cannot_be_had_today_is_left_for_the_next_run(world: World) -> None:
    ran = world.run(shot("a", 10, always("media", unavailable)), shot("b"))
    assert ran.table == {"a": ("completed", 1), "b": ("fetched", 1)}
    assert (ran.exit_code, ran.totals.paid_fetch_later) == (4, 1)

    ran = world.again()
    assert (ran.states, ran.exit_code) == ({"a": "fetched", "b": "fetched"}, 0)
    assert set(ran.sent) <= {"a"}, "which may have waited for its turn behind the other"


# --- bounds the user sets ---


def test_a_limit_submits_exactly_so_many_and_the_next_run_goes_on(world: World) -> None:
    table = shots("a b c d e f g h")
    ran = world.run(*table, limit="3")
    assert (ran.exit_code, ran.stop) == (4, "limit")
    assert (sum(ran.accepted.values()), ran.totals.fetched, ran.totals.not_started) == (3, 3, 5)

    ran = world.again(limit="3")
    assert (ran.exit_code, sum(ran.accepted.values()), ran.totals.fetched) == (4, 6, 6)

    ran = world.again(limit="3")
    assert ran.table == all_fetched("a b c d e f g h")
    assert ran.exit_code == 0


def test_a_submit_that_reached_nobody_does_not_count_under_the_limit(world: World) -> None:
    ran = world.run(*shots("a b c d"), limit="2", faults=[on("submit", no_connection, 1, 3)])
    assert sum(ran.accepted.values()) == 2


def test_new_attempts_count_under_the_limit(world: World) -> None:
    table = [shot("a", 10, on("result", internal_error)), *shots("b c d")]
    ran = world.run(*table, limit="2", concurrency="1")
    assert sum(ran.accepted.values()) == 2
    assert ran.exit_code == 4


@pytest.mark.parametrize(("micros", "bought"), [(3 * PRICE_MICROS, 3), (3 * PRICE_MICROS - 1, 2)])
def test_a_cap_holds_to_the_micro_dollar(world: World, micros: int, bought: int) -> None:
    ran = world.run(*shots("a b c d e f"), max_cost=f"{micros / 1e6:.6f}")
    assert (ran.exit_code, ran.stop) == (4, "cap")
    assert sum(ran.accepted.values()) == bought
    assert ran.totals.settled_micros == bought * PRICE_MICROS <= micros

    ran = world.again(max_cost=f"{micros / 1e6:.6f}")
    assert (ran.exit_code, ran.sent) == (4, {})

    ran = world.again(max_cost="1")
    assert ran.table == all_fetched("a b c d e f")
    assert ran.exit_code == 0


def test_a_job_in_doubt_counts_against_the_cap(world: World) -> None:
    cap = f"{2 * PRICE_MICROS / 1e6:.6f}"
    table = [shot("a", 10, on("submit", answer_lost)), *shots("b c")]
    ran = world.run(*table, max_cost=cap, faults=[always("history", history_refused)])
    assert sum(ran.accepted.values()) == 2
    assert (ran.totals.in_doubt, ran.totals.fetched, ran.totals.not_started) == (1, 1, 1)


@pytest.mark.parametrize(
    ("first", "paid"),
    [((), 2), ((always("result", content_policy),), 2), ((always("result", invalid_input),), 1)],
    ids=["done", "failed and billed", "failed for nothing"],
)
def test_what_was_submitted_without_a_price_counts_under_a_later_cap(
    world: World, first: tuple[Fault, ...], paid: int
) -> None:
    pin(world, load(DEFAULT_ENDPOINT).document)
    table = [shot("a", 10, *first, endpoint=PINNED), *(shot(name, endpoint=PINNED) for name in "bcdef")]
    world.run(*table, limit="2", concurrency="1")

    ran = world.again(max_cost="2.00")
    assert (ran.stop, ran.sent) == ("cap", {}), "nobody knows what is left of it"

    ran = world.again(price="0.50", max_cost="2.00")
    assert (ran.stop, len(ran.sent)) == ("cap", 4 - paid)
    assert ran.totals.exposure_micros == 2_000_000


def test_a_job_in_doubt_that_had_no_price_is_retried_under_a_cap_at_the_price_told_since(world: World) -> None:
    pin(world, load(DEFAULT_ENDPOINT).document)
    no_history = [always("history", history_refused)]
    ran = world.run(shot("a", 10, on("submit", answer_lost), endpoint=PINNED), faults=no_history)
    assert ran.exit_code == 5
    flags = {"price": "0.50", "faults": no_history, "give_up": True}
    ran = world.again(max_cost="0.99", **flags)
    assert (ran.stop, ran.sent) == ("cap", {}), "the one that was given up counts"
    ran = world.again(max_cost="1.00", **flags)
    assert (ran.states["a"], ran.accepted["a"], ran.totals.exposure_micros) == ("fetched", 2, 1_000_000)


def test_a_job_that_had_no_price_is_submitted_under_a_cap_once_its_absence_is_proved(world: World) -> None:
    pin(world, load(DEFAULT_ENDPOINT).document)
    table = [shot("a", 10, on("submit", lost_on_the_way), endpoint=PINNED), shot("b", 10, endpoint=PINNED)]
    ran = world.run(*table, interrupt_after=30, **SHORT_TIMES)
    assert ran.states == {"a": "in_doubt", "b": "fetched"}
    ran = world.again(price="0.50", max_cost="1.00", **SHORT_TIMES)
    assert (ran.states["a"], ran.accepted["a"], ran.exit_code) == ("fetched", 1, 0)


def test_a_job_at_fal_that_had_no_price_gets_its_new_attempt_under_a_cap(world: World) -> None:
    pin(world, load(DEFAULT_ENDPOINT).document)
    table = [shot("a", 60, on("result", internal_error), endpoint=PINNED)]

    async def story() -> Ran | None:
        async with world.queue() as queue:
            await world.life(queue, table, interrupt_after=10)
            return await world.life(queue, table, price="0.50", max_cost="0.50", faults_go_on=True)

    ran = world.play(story)
    assert (ran.states["a"], ran.accepted["a"], ran.totals.exposure_micros) == ("fetched", 2, 500_000)


def test_what_fal_does_not_bill_does_not_fill_the_cap(world: World) -> None:
    cap = f"{2 * PRICE_MICROS / 1e6:.6f}"
    table = [shot("a", 5, on("result", invalid_input)), shot("b", 60), shot("c", 5)]
    ran = world.run(*table, max_cost=cap, concurrency="1")
    assert ran.table == {"a": ("failed", 1), "b": ("fetched", 1), "c": ("fetched", 1)}
    assert ran.totals.settled_micros == 2 * PRICE_MICROS


# --- fal is not to be reached ---


def of_silence(ran: Ran) -> list[str]:
    return [line for line in ran.said if "answer" in line]


@pytest.mark.parametrize("act", [no_connection, unavailable], ids=["no connection", "a gateway"])
def test_that_fal_does_not_answer_is_said_once_for_all_jobs_and_that_it_does_again(world: World, act: Act) -> None:
    ran = world.run(*shots("a b c d", 60), faults=[on("status", act, 1, 60)])
    assert (ran.table, ran.exit_code) == (all_fetched("a b c d"), 0)
    began, ended = of_silence(ran)
    assert began.startswith("fal does not answer (status: ") and began.endswith("); asking again")
    assert ended == "fal answers again"


def test_every_silence_is_said(world: World) -> None:
    ran = world.run(shot("a", 500), faults=[on("status", no_connection, 2, 4), on("status", no_connection, 8, 10)])
    assert [line.partition(" (")[0] for line in of_silence(ran)] == 2 * ["fal does not answer", "fal answers again"]


@pytest.mark.parametrize(
    "fault",
    [on("status", no_connection, 2), always("status", status_unknown), on("status", too_many(3), 1, 5)],
    ids=["one blip", "not known yet", "too many questions"],
)
def test_what_is_no_silence_is_not_called_one(world: World, fault: Fault) -> None:
    ran = world.run(shot("a", 60), faults=[fault])
    assert (ran.states["a"], of_silence(ran)) == ("fetched", [])


# --- files that somebody deleted ---


def test_a_file_that_was_deleted_is_had_again_for_nothing(world: World) -> None:
    ran = world.run(*shots("a b c", 5))
    kept, gone = world.state / ran.paths["a"][0], world.state / ran.paths["b"][0]
    world.checks_files = False
    gone.unlink()
    ran = world.again(no_download="yes")
    assert (ran.calls.total(), gone.exists()) == (0, False)

    ran = world.again()
    assert (ran.exit_code, ran.calls) == (0, {"media": 1})
    assert prompt_in(gone.read_bytes()) == "b"
    assert ran.notes == ("files that were not where they had been saved and are back: 1",)

    gone.unlink()
    kept.write_bytes(b"edited")
    ran = world.again(faults=[always("media", media_gone)])
    assert (ran.exit_code, gone.exists(), kept.read_bytes()) == (4, False, b"edited")
    assert [note.partition(":")[0] for note in ran.notes] == [
        "not where they were saved, and not to be had",
        "not as they were saved, and left alone",
    ]
    kept.write_bytes(clip_of("a"))
    world.checks_files = True
    assert world.again().exit_code == 0


# --- a retry submits what it names ---


def test_a_retry_submits_the_failed_jobs_and_nothing_that_was_only_planned(world: World) -> None:
    ran = world.run(shot("b", 10, always("result", content_policy)), *shots("c d e"), limit="2", concurrency="1")
    assert (ran.states["b"], ran.totals.not_started) == ("failed", 2)

    ran = world.again(retry=())
    assert ran.sent == {"b": 1}
    assert (ran.states["b"], ran.totals.not_started, ran.exit_code) == ("fetched", 2, 4)

    ran = world.again()
    assert (ran.sent, ran.exit_code) == ({"d": 1, "e": 1}, 0)


def test_a_retry_of_some_rows_leaves_the_others_failed(world: World) -> None:
    world.run(*failing("a b c"))
    ran = world.again(retry=["b"])
    assert (ran.sent, ran.exit_code) == ({"b": 1}, 3)
    assert ran.states == {"a": "failed", "b": "fetched", "c": "failed"}


def test_a_retry_follows_what_is_at_fal_and_submits_none_of_it_again(world: World) -> None:
    """Those at fal end without a charge while the retry goes on: their new attempts are the next run's."""
    table = [*failing("bad"), shot("long", 100, always("result", internal_error)), shot("well", 100)]

    async def story() -> Ran | None:
        async with world.queue() as queue:
            await world.life(queue, table, interrupt_after=30)
            calm = [shot("bad", 10), *table[1:]]
            return await world.life(queue, calm, retry=())

    ran = world.play(story)
    assert (ran.sent, ran.states) == ({"bad": 1}, {"bad": "fetched", "long": "waiting", "well": "fetched"})
    assert (ran.totals.waiting, ran.exit_code) == (1, 4)
    assert ran.took_s < 300, "it does not wait for what it may not submit"

    ran = world.again()
    assert ran.sent["long"] == 1


def test_a_retried_job_that_did_not_get_through_is_tried_again_in_the_same_run(world: World) -> None:
    world.run(*failing("a b"), *shots("c d"), limit="2")
    ran = world.again(retry=["a"], faults=[on("submit", no_connection, 1, 3), on("result", internal_error, of="a")])
    assert ran.states == {"a": "fetched", "b": "failed", "c": "planned", "d": "planned"}
    assert set(ran.sent) == {"a"}


def test_a_retry_of_what_is_in_doubt_submits_that_and_nothing_else(world: World) -> None:
    no_history = [always("history", history_refused)]
    lost = on("submit", answer_lost)
    ran = world.run(shot("a", 5, lost), *failing("b"), *shots("c d"), limit="2", concurrency="1", faults=no_history)
    assert ran.states == {"a": "in_doubt", "b": "failed", "c": "planned", "d": "planned"}
    ran = world.again(give_up=True, retry=["a"], faults=no_history)
    assert ran.sent == {"a": 1}
    assert ran.states == {"a": "fetched", "b": "failed", "c": "planned", "d": "planned"}


def failing(names: str, act: Act = content_policy) -> list[Shot]:
    return [shot(name, 10, always("result", act)) for name in names.split()]


def test_after_so_many_failures_nothing_is_submitted_and_what_is_at_fal_is_saved(world: World) -> None:
    table = [shot("d", 60), *failing("a b c"), *shots("e f g h i j k l")]
    ran = world.run(*table, concurrency="1", fail_on_error="3")
    assert (ran.stop, ran.exit_code) == ("fail_on_error", 4)
    assert ran.totals.failed == 3
    assert ran.table["d"] == ("fetched", 1)
    assert ran.totals.not_started == 12 - sum(ran.accepted.values()) >= 6

    ran = world.again(fail_on_error="1")
    assert (ran.stop, ran.exit_code, ran.totals.fetched) == (None, 3, 9), "those of an earlier run do not count"


@pytest.mark.parametrize(
    ("bad", "good", "bound", "stops"),
    [
        (9, 30, "0.1", True),  # the tenth ends well, and nine of ten is too much
        (1, 30, "0.1", True),
        (1, 30, "0.2", False),
        (2, 7, "0.1", False),  # nine ended: not judged
        (4, 30, "4", True),
        (4, 30, "5", False),
    ],
)
def test_a_share_of_failures_is_judged_from_ten_ended_jobs_on(
    world: World, bad: int, good: int, bound: str, stops: bool
) -> None:
    table = failing(" ".join(f"bad{n}" for n in range(bad)))
    table += shots(" ".join(f"good{n:02}" for n in range(good)), 10)
    ran = world.run(*table, concurrency="1", fail_on_error=bound)
    assert (ran.stop == "fail_on_error") is stops
    assert (ran.totals.not_started > 0) is stops
    assert stops is (ran.totals.fetched < good)


def test_a_run_that_has_nothing_left_to_submit_just_ends(world: World) -> None:
    ran = world.run(*failing("a b"), fail_on_error="2")
    assert (ran.exit_code, ran.totals.failed) == (3, 2)


@pytest.mark.parametrize(
    "act",
    [answers(499, {"detail": "x", "error_type": "client_cancelled"}), result_gone, gateway_timeout],
    ids=["cancelled", "from the history", "paid, fetch later"],
)
def test_what_did_not_fail_for_good_is_no_failure(world: World, act: Act) -> None:
    ran = world.run(*failing("a b c", act), *shots("d e f g h i"), concurrency="1", fail_on_error="1")
    assert (ran.stop, ran.totals.not_started) == (None, 0)


def test_an_attempt_that_is_made_again_is_no_failure_and_the_last_one_is(world: World) -> None:
    again = [shot("a", 10, on("result", internal_error, 1, 2)), *shots("b c d e")]
    ran = world.run(*again, concurrency="1", fail_on_error="1")
    assert (ran.stop, ran.totals.fetched) == (None, 5)

    never = [*failing("f", internal_error), *shots(" ".join(f"g{n:02}" for n in range(30)))]
    ran = world.run(*never, concurrency="1", fail_on_error="1")
    assert (ran.stop, ran.states["f"]) == ("fail_on_error", "failed")


def test_a_job_refused_at_the_submit_is_a_failure(world: World) -> None:
    refused = on("submit", answers(422, {"detail": "no"}))
    ran = world.run(shot("a", 10, refused), *shots("b c d e f g h"), concurrency="1", fail_on_error="1")
    assert (ran.stop, ran.causes["a"]) == ("fail_on_error", "invalid_input")
    assert ran.totals.not_started > 0


def test_a_result_without_its_file_is_one_job_that_failed(world: World) -> None:
    """It had ended well before: counted twice, a share of all of them could not be reached."""
    table = failing(" ".join(f"s{n:02}" for n in range(40)), answers(200, {"seed": 1}))
    ran = world.run(*table, concurrency="1", fail_on_error="0.8", faults=[always("history", history_empty)])
    assert (ran.stop, ran.causes["s00"]) == ("fail_on_error", "no_file")
    assert ran.totals.not_started > 0


def test_the_end_says_how_many_failed_of_what_and_how_to_go_on() -> None:
    options = RunOptions(concurrency=1, fail_on_error=0.5)
    gate = Gate(
        options=options,
        clock=lambda: 0.0,
        rng=random.Random(0),
        wake=lambda: None,
        say=lambda words: None,
        unseen=lambda: 0.0,
    )
    for number, cause in enumerate(["policy", "policy", "one_of", "policy", "policy"]):
        gate.completed(number)
        gate.failed(100 + number, cause)
    message = (
        "5 of the 10 jobs that ended in this run failed, 4 of them with policy; the same command goes on with the rest"
    )
    assert gate.stop == Stop(kind=StopKind.FAILURES, cause="fail_on_error", message=message)


# --- without downloads ---


def test_without_downloads_results_are_left_at_fal_and_a_later_run_saves_them(world: World) -> None:
    table = [shot("a", 10, on("result", bad_gateway, 1, 4)), shot("b", 10, always("media", unavailable)), shot("c")]
    ran = world.run(*table, shot("same", prompt="c"), no_download="yes")
    assert set(ran.states.values()) == {"completed"}
    assert (ran.calls["media"], ran.paths["a"]) == (0, ())
    assert ran.totals.settled_micros == 3 * PRICE_MICROS
    assert ran.took_s < 120, "it waits for the results, and for nothing else"

    ran = world.again(no_download="yes")
    assert (set(ran.states.values()), dict(ran.calls), ran.took_s) == ({"completed"}, {}, 0.0)

    ran = world.again()
    assert set(ran.table.items()) == {("a", ("fetched", 1)), ("b", ("fetched", 1)), ("c", ("fetched", 1)),
                                      ("same", ("fetched", 0))}  # fmt: skip
    assert (ran.exit_code, set(ran.calls)) == (0, {"media"})
    assert (world.state / ran.paths["same"][0]).samefile(world.state / ran.paths["c"][0])


def test_without_downloads_a_result_that_cannot_be_had_is_still_asked_for(world: World) -> None:
    ran = world.run(shot("a", 10, always("result", gateway_timeout)), shot("b"), no_download="yes")
    assert (ran.states, ran.exit_code) == ({"a": "submitted", "b": "completed"}, 4)
    assert 600 <= ran.took_s < 700


def test_without_downloads_what_an_earlier_run_could_not_save_is_left_alone(world: World) -> None:
    world.run(shot("a", 10, always("media", unavailable)), shot("b"))
    ran = world.again(no_download="yes")
    assert (ran.states, dict(ran.calls)) == ({"a": "completed", "b": "fetched"}, {})


def test_without_downloads_no_row_is_given_its_name_for_a_file_either(world: World) -> None:
    world.run(shot("a"))
    ran = world.run(shot("a"), shot("same", prompt="a"), no_download="yes")
    assert (ran.states["same"], ran.paths["same"], dict(ran.calls)) == ("fetched", (), {})
    assert len(world.again().paths["same"]) == 1


# --- leaving and coming back ---


@pytest.mark.parametrize("after_s", [0.0, 0.5, 5.0, 11.0, 25.0])
def test_an_interrupted_run_leaves_soon_and_the_same_command_finishes_it(world: World, after_s: float) -> None:
    table = [shot("a", 10, on("media", slow(90))), *shots("b c d e", 10), shot("f", 10, on("submit", slow(4)))]
    ran = world.run(*table, interrupt_after=after_s, concurrency="4")
    assert (ran.exit_code, ran.stop) == (130, "interrupted")
    assert ran.took_s <= after_s + 10

    world.later(60)
    ran = world.again()
    assert ran.table == all_fetched("a b c d e f")
    assert ran.exit_code == 0
    assert is_saved_right(world, ran)


def test_a_submit_that_hangs_at_the_interrupt_has_five_seconds_and_is_then_in_doubt(world: World) -> None:
    ran = world.run(shot("a"), shot("b", 10, on("submit", hangs)), interrupt_after=20)
    assert ran.exit_code == 130
    assert (ran.states["b"], ran.accepted["b"]) == ("in_doubt", 1)
    assert ran.took_s == pytest.approx(25, abs=1)

    ran = world.again()
    assert (ran.states, ran.exit_code) == ({"a": "fetched", "b": "fetched"}, 0)
    assert set(ran.sent) <= {"a"}, "which may have waited for its turn behind the other"


def test_a_submit_answered_after_the_interrupt_is_accepted_all_the_same(world: World) -> None:
    ran = world.run(shot("a", 10, on("submit", slow(4))), interrupt_after=1)
    assert (ran.exit_code, ran.states["a"], ran.accepted) == (130, "submitted", {"a": 1})


# --- manifests that change, campaigns that meet ---


def test_what_no_row_wants_any_more_is_followed_and_saved_aside_and_the_rest_never_submitted(world: World) -> None:
    first = world.run(shot("a", 100), shot("b", 100), shot("c"), shot("d"), concurrency="1", interrupt_after=10)
    assert sorted(first.accepted) == ["a", "b"]

    ran = world.run(shot("b", 100), shot("e"))
    assert ran.states == {"b": "fetched", "e": "fetched"}
    assert ran.accepted == {"a": 1, "b": 1, "e": 1}, "c and d belong to the sheet of yesterday"
    assert ran.exit_code == 0
    outputs = world.state / "outputs/shots"
    assert prompt_in((outputs / "_superseded/a.mp4").read_bytes()) == "a"
    assert not (outputs / "a.mp4").exists()

    ran = world.again()
    assert (ran.exit_code, dict(ran.calls)) == (0, {})


def test_a_changed_cell_makes_exactly_its_own_job_new(world: World) -> None:
    world.run(*shots("a b c"))
    ran = world.run(shot("a"), shot("b", prompt="b, but at night"), shot("c"))
    assert ran.sent == {"b, but at night": 1}
    assert ran.exit_code == 0
    saved = {prompt_in(path.read_bytes()) for path in (world.state / "outputs/shots").glob("*.mp4")}
    assert saved == {"a", "b", "c", "b, but at night"}, "what stands under a name is never replaced"


def test_a_superseded_job_in_doubt_is_settled_and_a_lost_one_not_submitted_again(world: World) -> None:
    table = [shot("a", 10, on("submit", answer_lost)), shot("b", 10, on("submit", lost_on_the_way)), shot("c")]
    ran = world.run(*table, faults=[always("history", history_refused)])
    assert (ran.exit_code, ran.totals.in_doubt) == (5, 2)

    world.later(3 * HOUR)
    ran = world.run(shot("c"), shot("d"))
    assert ran.states == {"c": "fetched", "d": "fetched"}
    assert ran.accepted == {"a": 1, "c": 1, "d": 1}
    assert ran.exit_code == 0
    assert prompt_in((world.state / "outputs/shots/_superseded/a.mp4").read_bytes()) == "a"


def test_two_campaigns_that_share_a_job_pay_for_it_once(world: World) -> None:
    first = world.run(*shots("a b"), sheet="one.csv")
    second = world.run(*shots("b c"), sheet="two.csv")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert second.accepted == {"a": 1, "b": 1, "c": 1}
    assert second.totals.settled_micros == PRICE_MICROS, "the first campaign has paid for b"
    ours, theirs = world.state / second.paths["b"][0], world.state / first.paths["b"][0]
    assert ours.relative_to(world.state).as_posix() == "outputs/two/b.mp4"
    assert ours.samefile(theirs)


def test_a_job_shared_while_it_is_under_way_is_followed_by_the_campaign_that_runs(world: World) -> None:
    world.run(*shots("a b", 100), sheet="one.csv", interrupt_after=5)
    second = world.run(*shots("b c", 100), sheet="two.csv")
    assert second.table == all_fetched("b c")
    assert second.accepted == {"a": 1, "b": 1, "c": 1}

    first = world.run(*shots("a b", 100), sheet="one.csv")
    assert first.table == all_fetched("a b")
    assert (first.exit_code, first.sent) == (0, {})
    assert (world.state / first.paths["b"][0]).samefile(world.state / second.paths["b"][0])


# --- how much is asked ---


def test_status_questions_come_when_the_answer_is_likely_to_have_changed(tmp_path: Path) -> None:
    rng = random.Random(5)
    table = [Shot(f"s{n:03}", rng.lognormvariate(0.57, 0.5)) for n in range(200)]  # mean 2 s
    ran = World(tmp_path, runners=8).run(*table, concurrency="8")
    assert ran.exit_code == 0
    per_job = ran.calls["status"] / len(table)
    assert per_job <= 3, f"{per_job:.1f} status questions a job"
    assert ran.calls["submit"] == ran.calls["result"] == ran.calls["media"] == 200
    at_best_s = sum(one.delay_s for one in table) / 8
    assert ran.took_s <= 1.2 * at_best_s, f"{ran.took_s:.0f} s where {at_best_s:.0f} s would be ideal"
