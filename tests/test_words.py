"""What people are told: plans, ends of runs, and progress, as text."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch.cli.progress import Bar, Hourly, Quiet, progress_for
from batch.cli.words import count_of, duration, end_lines, job_line, plan_lines, question, status_lines
from batch.ledger import CampaignTotals, JobLine, Planned, Superseded
from batch.run import RunReport
from batch.scheduler import Ending, Stop, StopKind
from batch.settings import Settings, load_settings
from batch.states import State
from batch.views import Duplicate, Quote, SampleRequest, StatusReport

SETTINGS = load_settings({}, environ={}, cwd=Path("/nowhere"))
PLANNED = Planned(
    sheet_rows=10,
    rows=10,
    jobs=9,
    new=3,
    changed=2,
    done=1,
    under_way=1,
    failed=1,
    cancelled=0,
    elsewhere=1,
    to_submit=6,
    to_submit_by_endpoint={"fal-ai/x": 6},
    superseded=Superseded(dropped=1200, followed=2),
    affordable=4,
    estimate_micros=3_000_000,
    price_min_micros=400_000,
    price_max_micros=600_000,
    unpriced=0,
)
QUOTE = Quote(
    campaign="shots",
    planned=PLANNED,
    carried=("mood",),
    notes=("read as Windows-1252",),
    submits=4,
    estimate_micros=2_000_000,
    cap_micros=5_000_000,
    used_micros=3_000_000,
    seconds=3 * 3600 + 600,
    is_first=False,
    unit="row",
    combinations=1,
)
TOTALS = CampaignTotals(
    rows=10,
    fetched=4,
    paid_fetch_later=0,
    failed=0,
    cancelled=0,
    in_doubt=0,
    in_flight=0,
    waiting=0,
    not_started=6,
    failed_by_cause={},
    waiting_by_cause={},
    paid_fetch_later_by_cause={},
    completed=0,
    superseded_open=0,
    superseded_completed=0,
    superseded_in_doubt=0,
    to_submit_micros=3_000_001,
    to_submit_unpriced=0,
    settled_micros=2_000_000,
    settled_told_micros=0,
    reserved_micros=0,
    in_doubt_micros=0,
    unpriced_attempts=0,
    given_up=0,
    given_up_micros=0,
    paid_twice=0,
    paid_twice_micros=0,
)


def ended(stop: Stop | None, code: int, totals: CampaignTotals = TOTALS) -> RunReport:
    status = StatusReport(
        campaign="shots", totals=totals, outputs=Path("state/outputs/shots"), doubts=(), failures=(), at_work=None
    )
    ending = Ending(stop=stop, submitted=4, without_file=0, notes=())
    return RunReport(status=status, planned=PLANNED, ending=ending, exit_code=code)


# --- where it stands ---


@pytest.mark.parametrize(
    ("manifest", "flags", "is_rehearsal", "command"),
    [
        ("shots.csv", {}, False, "fal-batch jobs shots.csv --only failed"),
        (
            "my shots.csv",
            {"state": "st"},
            True,
            "fal-batch jobs 'my shots.csv' --state st --local --campaign shots --only failed",
        ),
        ("in/autumn.yaml", {}, False, "fal-batch jobs in/autumn.yaml --campaign shots --only failed"),
        (None, {}, False, "fal-batch jobs MANIFEST --only failed"),
    ],
)
def test_where_the_other_failures_are_is_said_as_it_is_typed(
    manifest: str | None, flags: dict[str, str], is_rehearsal: bool, command: str
) -> None:
    report = ended(None, 3, replace(TOTALS, failed=9, failed_by_cause={"content_policy": 9})).status
    report = replace(report, manifest=None if manifest is None else Path(manifest))
    told = status_lines(report, is_rehearsal=is_rehearsal, flags=flags)
    assert f"    … and 9 more (`{command}`)" in told


def test_a_command_that_may_pay_twice_is_not_told_with_a_yes_in_it() -> None:
    report = ended(None, 5, replace(TOTALS, in_doubt=1))
    told = end_lines(report, Path("shots.csv"), {"yes": "yes"}, is_rehearsal=False)
    assert told[-2:] == [
        "to look again: fal-batch run shots.csv --yes",
        "to submit them again and perhaps pay twice: fal-batch retry shots.csv --in-doubt",
    ]


def test_a_job_that_a_stop_kept_back_is_told_so() -> None:
    report = ended(None, 4, replace(TOTALS, waiting=1, waiting_by_cause={"stopped": 1})).status
    told = "  waiting to be tried again: 1 stopped (the run was told to stop before it was sent)"
    assert told in status_lines(report, is_rehearsal=False)


# --- a plan ---


def test_a_plan_says_each_count_once_and_leaves_out_what_is_nothing() -> None:
    assert plan_lines(QUOTE, SETTINGS) == [
        "shots: 10 rows, 9 jobs, 6 to submit",
        "  new          3",
        "  changed      2  their rows asked for something else before",
        "  left over    1  from an earlier run that did not come to them",
        "  under way    1  at fal, in doubt, or paid and not saved yet",
        "  done         1",
        "  failed       1  `fal-batch retry` tries them again",
        "  duplicates   1  ask for the same as another row: made once, saved for each",
        "  elsewhere    1  wanted by another campaign before: not paid for again",
        "  superseded   1,202  wanted before and no longer: 1,200 not submitted any more, "
        "2 at fal or in doubt, followed to the end",
        "  not sent     mood: carried along to the results",
        "  price        $0.4000 to $0.6000 a job, up to $3.00 in all",
        "  cap          $5.00, $3.00 of it used: 4 of them fit",
        "  time         about 3 h 10 min with 8 at once, going by the jobs done so far",
        "  note         read as Windows-1252",
    ]


def test_a_plan_with_nothing_to_do_is_short() -> None:
    done = replace(
        PLANNED,
        sheet_rows=1,
        rows=1,
        jobs=1,
        new=0,
        changed=0,
        under_way=0,
        failed=0,
        elsewhere=0,
        to_submit=0,
        superseded=Superseded(),
        affordable=0,
    )
    quote = replace(QUOTE, planned=done, carried=(), notes=(), submits=0, cap_micros=None, seconds=None)
    assert plan_lines(quote, SETTINGS) == ["shots: 1 row, 1 job, 0 to submit", "  done         1"]


@pytest.mark.parametrize(
    ("unit", "sheet_rows", "combinations", "rows", "words"),
    [
        ("row", 10, 1, 10, "10 rows"),
        ("row", 1, 1, 3, "1 row x 3 takes = 3 rows"),
        ("picture", 355, 6, 2130, "355 pictures x 6 combinations = 2,130 rows"),
        ("picture", 355, 6, 4260, "355 pictures x 6 combinations x 2 takes = 4,260 rows"),
        ("row", 10, 1, 13, "10 rows, with their takes 13 rows"),
    ],
)
def test_a_plan_says_how_its_rows_come_together(
    unit: str, sheet_rows: int, combinations: int, rows: int, words: str
) -> None:
    planned = replace(PLANNED, sheet_rows=sheet_rows, rows=rows)
    quote = replace(QUOTE, planned=planned, unit=unit, combinations=combinations)
    assert plan_lines(quote, SETTINGS)[0] == f"shots: {words}, 9 jobs, 6 to submit"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"affordable": 0}, "  cap          $5.00, $3.00 of it used: not one of them fits"),
        ({"affordable": 6}, "  cap          $5.00, $3.00 of it used: all fit"),
        ({"price_min_micros": 600_000}, "  price        $0.6000 a job, up to $3.00 in all"),
        (
            {"price_min_micros": None, "price_max_micros": None, "unpriced": 6, "estimate_micros": 0},
            "  price        that of 6 jobs is not known (--price says one)",
        ),
    ],
)
def test_a_plan_says_what_money_can_do(changes: dict[str, Any], line: str) -> None:
    assert line in plan_lines(replace(QUOTE, planned=replace(PLANNED, **changes)), SETTINGS)


def test_a_request_is_shown_as_it_would_be_sent() -> None:
    request = SampleRequest(
        address="shots.csv:2",
        row_id="cat",
        endpoint="fal-ai/x",
        body={"prompt": "a cät", "duration": 5},
        defaults={"resolution": "1080p", "camera_fixed": False},
        price_micros=48_000,
    )
    duplicate = Duplicate(address="shots.csv:9", row_id="dog", first="shots.csv:2 cat")
    lines = plan_lines(replace(QUOTE, requests=(request,), duplicates=(duplicate,)), SETTINGS)
    assert "               shots.csv:9 dog asks for the same as shots.csv:2 cat" in lines
    assert lines[-7:] == [
        "the first request:",
        "  shots.csv:2 cat -> fal-ai/x, up to $0.0480",
        "    {",
        '      "prompt": "a cät",',
        '      "duration": 5',
        "    }",
        "    left to fal: resolution 1080p, camera_fixed false",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (89, "89 s"),
        (100, "2 min"),
        (3600, "60 min"),
        (7200, "2 h"),
        (11_400, "3 h 10 min"),
        (200_000, "2 days 7 h"),
        (172_800, "2 days"),
    ],
)
def test_a_time_is_told_in_two_units_at_the_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_one_is_not_many() -> None:
    assert (count_of(1, "row"), count_of(0, "row"), count_of(1118, "row")) == ("1 row", "0 rows", "1,118 rows")


# --- the end of a run ---


def test_after_a_cap_the_command_to_go_on_has_room_for_all_that_is_left() -> None:
    stop = Stop(kind=StopKind.CAP, cause="cap", message="the cap of $2.00 has no room")
    lines = end_lines(ended(stop, 4), Path("shots.csv"), {"max_cost": "2", "yes": "yes"}, is_rehearsal=False)
    assert lines[0] == "stopped: the cap of $2.00 has no room"
    assert lines[-1] == "to go on with all that is left: fal-batch run shots.csv --max-cost 5.01 --yes"


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        (0, []),
        (3, []),
        (4, ["to go on: fal-batch run shots.csv -j"]),
        (5, ["to look again: fal-batch run", "to submit them again and perhaps pay twice: fal-batch retry"]),
        (130, ["to go on: fal-batch run"]),
    ],
)
def test_the_end_of_a_run_names_the_command_to_go_on_with(code: int, lines: list[str]) -> None:
    told = end_lines(ended(None, code), Path("shots.csv"), {"concurrency": "4"}, is_rehearsal=False)
    told = [line.replace("--concurrency 4", "-j") for line in told if line.startswith("to ")]
    assert len(told) == len(lines)
    assert all(line.startswith(expected) for line, expected in zip(told, lines, strict=True))


@pytest.mark.parametrize(
    ("counts", "code", "last"),
    [
        ({"failed": 2}, 3, "to try the failed ones again, and pay for that: fal-batch retry shots.csv --state there"),
        ({"cancelled": 2}, 3, "to have the cancelled ones made after all: fal-batch retry shots.csv --state there"),
        (
            {"in_flight": 1},
            130,
            "1 job goes on at fal meanwhile, and will be billed; to call off: fal-batch cancel shots.csv --state there",
        ),
        (
            {"in_flight": 3},
            4,
            "3 jobs go on at fal meanwhile, and will be billed; to call off: fal-batch cancel shots.csv --state there",
        ),
        ({}, 0, "  files: state/outputs/shots"),
    ],
)
def test_the_end_of_a_run_says_what_can_be_done_about_what_is_left(
    counts: dict[str, int], code: int, last: str
) -> None:
    report = ended(None, code, replace(TOTALS, **counts))
    assert end_lines(report, Path("shots.csv"), {"state": "there"}, is_rehearsal=False)[-1] == last


def test_a_rehearsal_asks_nobody_to_pay() -> None:
    report = ended(None, 3, replace(TOTALS, failed=2))
    last = end_lines(report, Path("shots.csv"), {"local": "yes"}, is_rehearsal=True)[-1]
    assert last == "to try the failed ones again: fal-batch retry shots.csv --local"


def test_without_downloads_the_end_of_a_run_says_how_to_fetch_the_files() -> None:
    report = ended(None, 0, replace(TOTALS, completed=6, paid_fetch_later=6))
    lines = end_lines(report, Path("shots.csv"), {"no_download": "yes", "yes": "yes"}, is_rehearsal=False)
    assert lines[-1] == "to fetch the files: fal-batch run shots.csv --yes"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Submit 4 jobs for up to $2.00?"),
        ({"unpriced": 1}, "Submit 4 jobs for up to $2.00 and more?"),
        ({"unpriced": 6, "price_max_micros": None}, "Submit 4 jobs for a price that is not known?"),
    ],
)
def test_a_person_is_asked_about_what_is_known_of_the_price(changes: dict[str, Any], words: str) -> None:
    assert question(replace(QUOTE, planned=replace(PLANNED, **changes))) == words


def test_a_retry_says_what_it_takes_and_what_it_leaves_alone() -> None:
    planned = replace(PLANNED, new=0, changed=0, to_submit=2, failed=0)
    lines = plan_lines(replace(QUOTE, planned=planned, retried=2, rest=5), SETTINGS)
    assert lines[:3] == [
        "shots: 10 rows, 9 jobs, 2 to submit",
        "  retried      2",
        "  under way    1  at fal, in doubt, or paid and not saved yet",
    ]
    assert "  left alone   5  a retry submits nothing else; `fal-batch run` does them" in lines


def test_what_may_be_paid_for_twice_is_asked_so() -> None:
    quote = replace(QUOTE, retried=4, in_doubt=4)
    told = "and PERHAPS PAY TWICE for what fal has taken already?"
    assert question(quote) == f"Submit the 4 jobs in doubt again for up to $2.00, {told}"
    assert question(replace(quote, submits=1)) == f"Submit the job in doubt again for up to $2.00, {told}"
    assert "  retried      4  in doubt: what fal has taken already is paid for twice" in plan_lines(quote, SETTINGS)


# --- one row ---


@pytest.mark.parametrize(
    ("state", "facts", "what"),
    [
        (State.FETCHED, {"paths": ("a.mp4", "b.mp4")}, "a.mp4, b.mp4"),
        (State.FAILED, {"cause": "too_large", "message": "fal answered 413"}, "too_large: fal answered 413"),
        (State.SUBMITTED, {"fal_status": "IN_QUEUE", "request_id": "r-1"}, "IN_QUEUE, r-1"),
        (State.COMPLETED, {"request_id": "r-1", "cause": "download", "message": "cut"}, "r-1, download: cut"),
        (State.WAITING, {"cause": "connect", "message": "refused"}, "connect: refused"),
        (State.PLANNED, {"cause": "x", "message": "y"}, ""),
    ],
)
def test_a_row_is_told_with_what_matters_where_it_stands(state: State, facts: dict[str, Any], what: str) -> None:
    line = JobLine(
        **{
            "address": "shots.csv:2",
            "row_id": "cat",
            "take": 2,
            "stem": "cat-2",
            "key": "k",
            "endpoint": "e",
            "state": state,
            "fal_status": None,
            "cause": None,
            "message": None,
            "due_at": 0.0,
            "seed": 1,
            "request_id": None,
            "attempts": 1,
            "cost_micros": 50_000,
            "cost_source": "fal",
            "submitted_at": None,
            "finished_at": None,
            "paths": (),
            "urls": (),
            **facts,
        }
    )
    told = job_line(line)
    assert told.startswith(f"{state.value:<10} shots.csv:2          cat-2                  $0.0500")
    assert told.partition("$0.0500")[2].strip() == what


# --- progress ---


def settings(**flags: str) -> Settings:
    return load_settings(flags, environ={}, cwd=Path("/nowhere"))


@pytest.mark.parametrize(
    ("flags", "is_terminal", "kind"),
    [({}, True, Bar), ({}, False, Hourly), ({"quiet": "yes"}, True, Quiet), ({"quiet": "yes"}, False, Quiet)],
)
def test_a_bar_is_for_a_terminal_and_lines_are_for_a_log(
    flags: dict[str, str], is_terminal: bool, kind: type[Quiet]
) -> None:
    assert type(progress_for(settings(**flags), is_terminal=is_terminal)) is kind


def test_progress_counts_what_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Hourly()
    progress.begin(TOTALS)
    progress.end()
    for step in ((State.PLANNED, State.SUBMITTING), (State.SUBMITTING, State.SUBMITTED)):
        progress.moved(1, *step)
        progress.moved(2, *step)
    progress.running(1)
    assert progress.words() == "1 running, 1 queued"
    progress.moved(1, State.SUBMITTED, State.COMPLETED)
    progress.running(0)
    progress.moved(1, State.COMPLETED, State.FETCHED)
    progress.moved(2, State.SUBMITTED, State.FAILED)
    assert (progress.saved, progress.words()) == (5, "1 failed")
    assert "5 of 10 rows saved, 1 failed, about " in progress.line()
    assert "4 of 10 rows saved\n" in capsys.readouterr().err


def test_a_log_gets_a_line_an_hour_until_the_run_ends() -> None:
    told: list[str] = []
    enough = threading.Event()

    class Told(Hourly):
        def _print(self, line: str) -> None:
            told.append(line)
            if len(told) == 3:
                enough.set()

    progress = Told(every_s=0.001)
    progress.begin(TOTALS)
    assert enough.wait(30)
    progress.end()


def test_verbose_is_a_line_for_every_step(
    capsys: pytest.CaptureFixture[str], one_job: Callable[[int], JobLine]
) -> None:
    progress = Hourly(is_verbose=True)
    progress.opened(one_job)
    progress.moved(1, State.SUBMITTING, State.SUBMITTED)
    line = capsys.readouterr().err.split(" ", 1)[1]
    assert line == "shots.csv:2 cat submitting -> submitted job=abc attempt=1 request_id=r-1\n"


@pytest.fixture
def one_job() -> Callable[[int], JobLine]:
    def line(job_id: int) -> JobLine:
        return JobLine(
            address="shots.csv:2",
            row_id="cat",
            take=1,
            stem="cat",
            key="abc",
            endpoint="e",
            state=State.SUBMITTED,
            fal_status=None,
            cause=None,
            message=None,
            due_at=0.0,
            seed=1,
            request_id="r-1",
            attempts=1,
            cost_micros=1,
            submitted_at=1.0,
            finished_at=None,
            paths=(),
            urls=(),
        )

    return line
