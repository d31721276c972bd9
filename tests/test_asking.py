"""When fal is asked where a job stands: what is learned, how long the next question waits, and whole runs of it."""

from __future__ import annotations

import heapq
import itertools
import math
import random
import sqlite3
import statistics
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from ledger_support import ENDPOINT, accept, claim, make_row, opened
from line_support import PRICE_MICROS, Shot, World, always, shot, slow

from batch import asking
from batch.asking import BEYOND_LAST, RUNS_KEPT, SCOUTS, WAIT_MAX_S, WAIT_MIN_S, Like, Pace, Sight, Took, like
from batch.jobs import Outcome


def known(*runs_s: float, pace: Pace | None = None) -> Like:
    found = Like(pace or Pace())
    for ran_s in runs_s:
        found.add(ran_s)
    return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- how long the next question waits ---


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("elapsed", [0.0, 0.001, 1.0, 30.0, 1e3, 1e9])
@pytest.mark.parametrize("runs", [(), (1.0,), tuple(range(1, 201)), (40.0,) * 50, (1e9,) * 5])
def test_a_wait_is_no_shorter_and_no_longer_than_its_bounds(
    runs: tuple[float, ...], elapsed: float, is_last: bool
) -> None:
    wait = known(*runs).wait_s(Sight(), elapsed, is_last=is_last)
    assert WAIT_MIN_S <= wait <= WAIT_MAX_S


def test_no_wait_is_nothing_whatever_was_seen_and_whenever_it_is_asked() -> None:
    """Questions follow each other as the run asks them: by the moments of a clock, which are coarser than seconds since
    the request was accepted."""
    rng = random.Random(2)
    for _ in range(500):
        found = known(*(rng.lognormvariate(3.0, 1.0) for _ in range(rng.choice((0, 1, 6, 50)))))
        since = rng.random() * 10 ** rng.randint(0, 9)
        sight, now = found.begin(), since + rng.choice((0.0, rng.random(), rng.random() * 1e3))
        for _ in range(12):
            usual = found.wait_s(sight, now - since, is_last=rng.random() < 0.5)
            net = found.net_wait_s(sight, now - since)
            assert min(usual, net) >= WAIT_MIN_S, (since, now, sight)
            now += rng.choice((usual, net, net))
            place = rng.choice((None, rng.randint(0, 300)))
            found.still_open(sight, now - since, is_running=rng.random() < 0.3, position=place)


@pytest.mark.parametrize("beyond_s", [-0.1, -1e-9, -1e-12, 0.0, 1e-12, 0.1])
def test_a_net_that_is_all_but_due_is_due(beyond_s: float) -> None:
    """Whoever waits until a moment may find that a rounding has left 1e-15 seconds of it."""
    found, late = known(20.0, 40.0), 40.0 * asking.NET_FACTOR + asking.NET_MIN_S
    assert found.net_wait_s(Sight(), late + beyond_s) == pytest.approx(late / 2, abs=0.1)
    assert found.net_wait_s(Sight(), late - 1.0) == 1.0


def test_the_first_question_comes_when_half_are_done_and_at_the_end_of_a_run_when_a_quarter_is() -> None:
    found = known(*range(4, 24))
    assert (found.wait_s(Sight(), 0.0, is_last=False), found.wait_s(Sight(), 0.0, is_last=True)) == (14.0, 9.0)


def test_the_next_question_goes_by_the_runs_that_were_longer_than_this_one_is() -> None:
    found = known(*range(1, 41))
    assert found.wait_s(Sight(), 20.0, is_last=False) == 31.0 - 20.0
    assert found.wait_s(Sight(), 20.0, is_last=True) == 26.0 - 20.0


def test_a_job_that_outruns_the_others_is_asked_about_in_shares_of_its_time() -> None:
    found = known(*[10.0] * 50)
    assert found.wait_s(Sight(), 30.0, is_last=False) == 10.0
    assert found.wait_s(Sight(), 30.0, is_last=True) == 30.0 * BEYOND_LAST


def test_nothing_is_known_yet_and_a_few_find_out_for_the_others() -> None:
    found = known()
    sights = [found.begin() for _ in range(SCOUTS + 5)]
    waits = [found.wait_s(sight, 20.0, is_last=False) for sight in sights]
    assert waits == [20.0 * BEYOND_LAST] * SCOUTS + [20.0] * 5
    for _ in range(asking.RUNS_MIN):
        found.add(30.0)
    assert {found.wait_s(sight, 20.0, is_last=False) for sight in sights} == {10.0}


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0])
def test_with_what_is_learned_a_job_takes_few_questions(sigma: float) -> None:
    rng = random.Random(5)
    found = known(*(rng.lognormvariate(3.0, sigma) for _ in range(200)))
    asked = []
    for _ in range(200):
        runs, at, count = rng.lognormvariate(3.0, sigma), 0.0, 0
        while at < runs:
            at += found.wait_s(Sight(), at, is_last=False)
            count += 1
        asked.append(count)
    assert statistics.mean(asked) < 3
    assert max(asked) < 12


# --- what a question tells ---


def test_waits_that_are_learned_from_their_own_answers_do_not_grow() -> None:
    """A job that ended between two questions was not as long as the time of the second one."""
    rng, found = random.Random(1), known()
    truth = [rng.lognormvariate(3.0, 0.5) for _ in range(3_000)]
    learned = []
    for runs in truth:
        sight, at = found.begin(), 0.0
        while True:
            at += found.wait_s(sight, at, is_last=False)
            if at >= runs:
                break
            found.still_open(sight, at, is_running=True, position=None)
        learned.append(found.ended(sight, at, None, rng).ran_s)
    assert statistics.median(learned[-500:]) == pytest.approx(statistics.median(truth), rel=0.15)


def test_where_fal_says_how_long_it_ran_that_is_what_is_learned() -> None:
    found, sight = known(), Sight()
    found.still_open(sight, 40.0, is_running=False, position=None)
    took = found.ended(sight, 100.0, 30.0, random.Random(0))
    assert took.ran_s == pytest.approx(30.0)
    assert 10.0 <= took.waited_s <= 70.0  # it was in the queue at 40 s: it ended at 70 s or later


@pytest.mark.parametrize("ran_s", [-1.0, 0.0, 1e9])
def test_what_fal_says_is_believed_within_what_was_seen(ran_s: float) -> None:
    found, sight = known(), Sight()
    found.still_open(sight, 40.0, is_running=True, position=None)
    took = found.ended(sight, 100.0, ran_s, random.Random(0))
    assert (took.waited_s >= 0, took.ran_s >= 0, 40.0 <= took.waited_s + took.ran_s <= 100.0) == (True, True, True)


def test_runs_are_sorted_and_the_oldest_are_forgotten() -> None:
    found, added = known(), [float(n * 7919 % 1009) for n in range(3 * RUNS_KEPT)]
    for ran_s in added:
        found.add(ran_s)
        assert all(a <= b for a, b in itertools.pairwise(found._sorted))
    assert found._sorted == sorted(added[-RUNS_KEPT:])


def test_the_share_that_has_ended_unseen_grows_from_the_last_question_on() -> None:
    found, sight = known(*range(1, 101)), Sight()
    assert [found.ended_share(sight, at) for at in (0.0, 25.0, 100.0)] == [0.0, 0.25, 1.0]
    found.still_open(sight, 50.0, is_running=True, position=None)
    sight.ran_by = 0.0
    assert [found.ended_share(sight, at) for at in (50.0, 75.0, 100.0, 500.0)] == [0.0, 0.5, 1.0, 1.0]
    assert known().ended_share(Sight(), 100.0) == 0.0


# --- the queue ---


def test_a_place_in_the_queue_tells_when_a_turn_comes() -> None:
    found, first, second = known(*[30.0] * 50), Sight(), Sight()
    found.still_open(first, 10.0, is_running=False, position=30)
    found.still_open(first, 20.0, is_running=False, position=25)  # two seconds a place
    assert found.wait_s(first, 20.0, is_last=False) == 26 * 2.0 + 30.0
    found.still_open(second, 5.0, is_running=False, position=9)  # another one, asked about for the first time
    assert found.wait_s(second, 5.0, is_last=False) == 10 * 2.0 + 30.0
    assert (found.has_started(second, 5.0), found.has_started(second, 25.5)) == (False, True)


def test_only_half_of_a_long_time_in_the_queue_is_believed_in() -> None:
    found, sight = known(*[30.0] * 50), Sight()
    found.still_open(sight, 10.0, is_running=False, position=290)
    found.still_open(sight, 20.0, is_running=False, position=280)
    assert found.wait_s(sight, 20.0, is_last=False) == asking.LATE_MAX_S + (281.0 + 30.0) / 2
    found.still_open(sight, 1020.0, is_running=False, position=280)  # stuck
    assert found.wait_s(sight, 1020.0, is_last=False) == WAIT_MAX_S


def test_a_queue_that_has_not_been_seen_to_move_has_no_pace() -> None:
    pace = Pace()
    pace.moved(0, 100.0)
    assert pace.seconds_a_place is None
    pace.moved(10, 5.0)
    pace.moved(-7, 5.0)  # put back: says nothing
    assert pace.seconds_a_place == pytest.approx((100.0 * asking.PACE_KEPT + 5.0) / 10)


def test_what_others_waited_is_not_taken_for_work() -> None:
    found, rng = known(), random.Random(0)
    for _ in range(10):
        sight = found.begin()
        found.still_open(sight, 59.0, is_running=False, position=None)
        found.still_open(sight, 61.0, is_running=True, position=None)
        found.still_open(sight, 89.0, is_running=True, position=None)
        found.ended(sight, 91.0, None, rng)
    assert 85.0 <= found.wait_s(found.begin(), 0.0, is_last=False) <= 95.0
    running = Sight(ran_by=0.0)  # this one had no queue before it
    assert 25.0 <= found.wait_s(running, 0.0, is_last=False) <= 32.0


# --- what earlier runs tell ---


def test_earlier_runs_of_the_same_price_are_gone_by_and_else_all_by_their_prices() -> None:
    seen = [(40.0, 200)] * 6 + [(20.0, 100)] * 4
    assert like(seen, 200, Pace())._sorted == [40.0] * 6
    assert like(seen, 100, Pace())._sorted == [20.0] * 10
    assert like(seen, 400, Pace())._sorted == [80.0] * 10
    assert like(seen, None, Pace())._sorted == [20.0] * 4 + [40.0] * 6
    assert not like([], 100, Pace()).is_known


def test_earlier_runs_are_soon_outnumbered() -> None:
    found = like([(150.0, 1)] * 200, 1, Pace())
    for _ in range(30):
        found.add(30.0)
    assert found.wait_s(Sight(), 0.0, is_last=False) == 30.0


def test_the_ledger_keeps_how_long_a_watched_job_took(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        campaign_id = ledger.campaign("shots", tmp_path / "shots.csv")
        ledger.plan(campaign_id, [make_row(name) for name in "abc"])
        for took in (Took(waited_s=1.0, ran_s=30.0), None, Took(waited_s=0.0, ran_s=40.0)):
            attempt = accept(ledger, claim(ledger, campaign_id))
            ledger.completed(attempt, Outcome(result={"text": "x"}), took=took)
        assert ledger.durations(ENDPOINT) == [
            (Took(waited_s=0.0, ran_s=40.0), 100),
            (Took(waited_s=1.0, ran_s=30.0), 100),
        ]
        assert ledger.durations("another/endpoint") == []


# --- whole runs ---


def varied(count: int, mean_s: float = 30.0, seed: int = 1, prefix: str = "s") -> list[Shot]:
    rng = random.Random(seed)
    return [shot(f"{prefix}{n:03}", rng.lognormvariate(math.log(mean_s) - 0.125, 0.5)) for n in range(count)]


def best_s(table: Sequence[Shot], slots: int) -> float:
    """How long it takes where each slot gets the next one as soon as it is free."""
    free_at = [0.0] * slots
    for one in table:
        heapq.heapreplace(free_at, free_at[0] + one.delay_s)
    return max(free_at)


def kept(world: World) -> list[tuple[float, float]]:
    with closing(sqlite3.connect(world.state / "ledger.db")) as db:
        return db.execute("SELECT waited_s, ran_s FROM attempt WHERE ran_s IS NOT NULL ORDER BY id").fetchall()


def test_rare_questions_leave_no_slot_idle(tmp_path: Path) -> None:
    world = World(tmp_path, runners=12)
    world.run(*varied(40, prefix="before", seed=2), concurrency="12")
    table = varied(120)
    ran = world.run(*table, sheet="night.csv", concurrency="12")
    assert ran.exit_code == 0
    assert ran.calls["status"] < 3 * len(table)
    assert best_s(table, 12) / ran.took_s > 0.94


def test_no_more_than_half_again_as_many_as_are_meant_to_run_are_at_fal(tmp_path: Path) -> None:
    world = World(tmp_path, runners=4)
    ran = world.run(*varied(40), concurrency="4", limit="30")
    assert ran.at_fal_max <= 6
    assert sum(ran.sent.values()) == 30


def test_a_run_of_a_few_sees_each_end_soon(world: World) -> None:
    table = varied(8)
    ran = world.run(*table)
    assert all(ran.done_at[one.name] <= one.delay_s * 1.11 + 0.25 for one in table)


def test_what_waits_in_a_long_queue_is_asked_about_rarely(tmp_path: Path) -> None:
    world = World(tmp_path, runners=2)
    world.run(*varied(10, prefix="before", seed=2), concurrency="2")
    ran = world.run(*varied(60), sheet="night.csv", concurrency="40")  # of which two run at a time
    assert ran.exit_code == 0
    assert ran.took_s > 60 * 30 / 2 * 0.8
    assert ran.calls["status"] < 6 * 60


def test_a_question_that_hangs_delays_no_other(world: World) -> None:
    table = [shot("slow", 20, always("status", slow(50))), *(shot(f"s{n}", 20) for n in range(20))]
    ran = world.run(*table, concurrency="30")
    assert ran.exit_code == 0
    assert max(ran.done_at[f"s{n}"] for n in range(20)) <= 20 * 1.34 + 1 < ran.done_at["slow"]


def test_tomorrows_run_knows_what_was_seen_today(world: World) -> None:
    first = world.run(*varied(40), concurrency="20")
    world.later(12 * 3600)
    second = world.run(*varied(40, prefix="next", seed=2), sheet="next.csv", concurrency="20")
    assert second.calls["status"] < first.calls["status"] / 2


def test_a_job_that_was_left_alone_for_hours_teaches_nothing(world: World) -> None:
    table = varied(12)
    world.run(*table, concurrency="12", interrupt_after=25)
    seen = kept(world)
    world.later(5 * 3600)
    ran = world.again()
    assert (ran.exit_code, kept(world)) == (0, seen)
    assert all(ran_s <= 25 for _, ran_s in seen)


def test_what_is_kept_is_how_long_fal_worked_and_not_when_we_asked(world: World) -> None:
    table = varied(40)
    ran = world.run(*table, concurrency="10")
    assert ran.accepted == dict.fromkeys(ran.states, 1)
    runs = sorted(ran_s for _, ran_s in kept(world))
    assert runs == pytest.approx(sorted(one.delay_s for one in table), abs=0.01)


def test_jobs_of_another_price_are_timed_by_what_they_cost(world: World) -> None:
    """Twice the price is about twice the time: known before the first of them has ended."""
    assert PRICE_MICROS > 0
    world.run(*varied(20), concurrency="20")
    long = [shot(f"long{n}", 60, duration="4") for n in range(20)]
    ran = world.run(*long, sheet="long.csv", concurrency="20")
    assert ran.calls["status"] < 6 * 20
