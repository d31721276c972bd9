"""`jobs`, `status --settings`, `completion`, and refusals as JSON: what scripts and people ask besides the run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ledger_support import bring_to, make_row, opened
from test_cli import NOBODY, Call, call, planned, sheet

from batch.ledger import Ledger
from batch.settings import OPTIONS
from batch.states import State

__all__ = ["call", "sheet"]  # fixtures

BAD_SHEET = "id,prompt,image_url,duration\n" + "".join(f"r{n},waves,,{n}\n" for n in range(13, 40))


def three(ledger: Ledger) -> None:
    bring_to(ledger, 1, State.FAILED)
    bring_to(ledger, 1, State.IN_DOUBT)


# --- jobs ---


def test_jobs_lists_every_row_in_the_sheets_order_with_what_became_of_it(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet, three)
    said = call("jobs", str(sheet))
    assert said.code == 0
    header, *lines = said.out.splitlines()
    assert header.split() == ["state", "row", "id", "cost", "what"]
    assert [line.split()[:3] for line in lines] == [
        ["failed", "sheet.csv:2", "a"],
        ["in_doubt", "sheet.csv:3", "b"],
        ["planned", "sheet.csv:4", "c"],
    ]
    assert "content_policy: refused" in lines[0]
    assert said.err == "3 rows\n"


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (("--only", "failed"), ["a"]),
        (("--only", "failed", "--only", "planned"), ["a", "c"]),
        (("--cause", "reset"), ["b"]),
        (("--cause", "nothing"), []),
        (("--only", "not started"), ["c"]),
        (("--only", "in-doubt", "--only", "Not_Started"), ["b", "c"]),
        (("--only", "saved"), []),
        (("c", "a"), ["a", "c"]),
        (("--only", "planned", "a"), []),
        (("--superseded",), []),
    ],
    ids=" ".join,
)
def test_jobs_are_narrowed_by_state_cause_and_row(
    call: Call, sheet: Path, words: tuple[str, ...], rows: list[str]
) -> None:
    planned(sheet.parent, sheet, three)
    found = json.loads(call("jobs", str(sheet), "--json", *words).out)
    assert [job["row_id"] for job in found] == rows


def test_a_job_as_json_says_everything_about_it(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet, lambda ledger: bring_to(ledger, 1, State.FETCHED))
    (job,) = json.loads(call("jobs", str(sheet), "--json", "a").out)
    assert (job["state"], job["address"], job["attempts"], job["request_id"]) == (
        "fetched",
        "sheet.csv:2",
        1,
        "request-1",
    )
    assert job["cost_micros"] == 100
    assert job["finished_at"] >= job["submitted_at"] > 0
    assert (job["paths"], job["urls"], job["cause"]) == ([], [], None)


def test_what_no_row_wants_any_more_is_listed_apart(call: Call, sheet: Path) -> None:
    def work(ledger: Ledger) -> None:
        bring_to(ledger, 1, State.SUBMITTED)
        ledger.plan(1, [make_row("b", position=1), make_row("d", position=2)])

    planned(sheet.parent, sheet, work)
    assert [job["row_id"] for job in json.loads(call("jobs", str(sheet), "--json").out)] == ["b", "d"]
    gone = json.loads(call("jobs", str(sheet), "--json", "--superseded").out)
    assert [(job["row_id"], job["state"]) for job in gone] == [("a", "submitted"), ("c", "planned")]


def test_jobs_of_a_row_that_is_not_there_name_it(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet)
    said = call("jobs", str(sheet), "z", "a")
    assert (said.code, said.out, said.err) == (2, "", "error: 'shots' has no row 'z'\n")


def test_jobs_of_nothing_say_what_to_do(call: Call, sheet: Path) -> None:
    said = call("jobs", str(sheet))
    assert (said.code, said.out) == (2, "")
    assert "nothing of 'shots' was run yet in state" in said.err


def test_jobs_and_status_need_no_good_sheet(call: Call, sheet: Path) -> None:
    """Whoever is in the middle of editing it may still ask where the run stands."""
    planned(sheet.parent, sheet)
    sheet.write_text("not,a,sheet\n")
    assert call("jobs", str(sheet)).code == 0
    assert "shots: 3 rows" in call("status", str(sheet)).out
    sheet.unlink()
    assert "shots: 3 rows" in call("status", str(sheet)).out


def test_what_a_retry_would_take_is_said_and_not_done(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet, three)
    said = call("retry", str(sheet), "--dry-run")
    assert [line.split()[0] for line in said.out.splitlines()[1:]] == ["failed"]
    said = call("retry", str(sheet), "--dry-run", "--in-doubt")
    assert [line.split()[0] for line in said.out.splitlines()[1:]] == ["in_doubt"]
    assert [job["state"] for job in json.loads(call("jobs", str(sheet), "--json").out)] == [
        "failed",
        "in_doubt",
        "planned",
    ]


# --- status ---


def test_the_settings_are_shown_with_their_sources_and_never_the_key(
    call: Call, sheet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_BATCH_MAX_COST", "25")
    (sheet.parent / "pyproject.toml").write_text("[tool.fal-batch]\nhistory-delay = '5m'\n")
    said = call("status", "--settings", "--local", key="id:s3cret")
    lines = {line.split()[0]: line.split()[1:] for line in said.out.splitlines()}
    assert lines["max_cost"] == ["25.00", "FAL_BATCH_MAX_COST"]
    assert lines["history_delay"] == ["300s", "pyproject.toml", "[tool.fal-batch]", "history_delay"]
    assert lines["local"] == ["yes", "--local"]
    assert lines["concurrency"] == ["8", "default"]
    assert lines["key"] == ["set", "FAL_KEY"]
    assert set(lines) == {*OPTIONS, "key"}
    assert "s3cret" not in said.out + call("status", "--settings", "--json").out


def test_a_status_names_the_run_that_is_at_work(call: Call, sheet: Path) -> None:
    with opened(sheet.parent / "state", time.time, queue_url=NOBODY) as ledger:
        ledger.plan(ledger.campaign("shots", sheet), [make_row()])
        assert f"  at work: `a test` (process {os.getpid()} on " in call("status").out
    assert "at work" not in call("status").out


def test_a_holder_that_was_killed_is_not_at_work(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet)
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    with opened(sheet.parent / "state", time.time, queue_url=NOBODY):
        note = sheet.parent / "state" / "ledger.holder.json"
        facts = json.loads(note.read_text())
    note.write_text(json.dumps({**facts, "pid": int(done.stdout)}))
    assert "at work" not in call("status").out


def test_waiting_jobs_are_told_with_their_cause(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet, lambda ledger: bring_to(ledger, 1, State.WAITING))
    assert "  waiting to be tried again: 1 connect" in call("status").out


def test_a_watched_status_is_told_again_until_it_is_interrupted(sheet: Path) -> None:
    planned(sheet.parent, sheet)
    command = [sys.executable, "-m", "batch", "status", "--watch"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FAL_")}
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=sheet.parent, env=environ)
    try:
        assert watcher.stdout is not None
        seen = [watcher.stdout.readline() for _ in range(4)]
    finally:
        watcher.send_signal(2)
        assert watcher.wait(timeout=30) == 130
        watcher.stdout.close() if watcher.stdout else None
    assert [line for line in seen if line.startswith("shots: 3 rows")] == [
        "shots: 3 rows, 0 saved, 3 not started\n"
    ] * 2


# --- JSON ---


def test_a_refused_sheet_as_json_has_every_mistake_and_counts_by_kind(call: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(BAD_SHEET)
    said = call("plan", "bad.csv", "--json")
    found = json.loads(said.out)
    assert (said.code, found["exit_code"], found["count"], len(found["mistakes"])) == (2, 2, 54, 54)
    assert sum(found["by_kind"].values()) == 54
    first = found["mistakes"][0]
    assert (first["address"], first["column"], set(first)) == (
        "bad.csv:2",
        first["column"],
        {"address", "column", "message", "kind"},
    )


def test_twenty_mistakes_are_printed_and_the_rest_counted_by_kind(call: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(BAD_SHEET)
    said = call("plan", "bad.csv")
    lines = said.err.splitlines()
    assert len([line for line in lines if line.startswith("bad.csv:")]) == 20
    assert lines[-2] == "… and 34 more: --json lists all of them"
    assert re.fullmatch(r"54 mistakes; nothing was submitted: 27 \w+, 27 \w+", lines[-1])


@pytest.mark.parametrize(
    ("args", "code"), [(("plan", "nowhere.csv"), 2), (("run", "shots.csv", "-y"), 2), (("jobs", "shots.csv"), 2)]
)
def test_a_refusal_as_json_says_why_and_the_exit_code(
    call: Call, sheet: Path, args: tuple[str, ...], code: int
) -> None:
    said = call(*args, "--json")
    found = json.loads(said.out)
    assert (said.code, found["exit_code"], set(found)) == (code, code, {"error", "exit_code"})
    assert said.err == f"error: {found['error']}\n"


# --- completion ---


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(call: Call, shell: str) -> None:
    said = call("completion", shell)
    assert said.code == 0
    assert "_FAL_BATCH_COMPLETE" in said.out


def test_commands_options_and_choices_are_completed(sheet: Path) -> None:
    def completed(words: str) -> list[str]:
        environ = {
            **os.environ,
            "_FAL_BATCH_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        command = [str(Path(sys.executable).with_name("fal-batch"))]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert completed("fal-batch re") == ["retry", "reconcile"]
    assert "--max-cost" in completed("fal-batch run --max")
    assert completed("fal-batch jobs x.csv --only fe") == ["fetched"]


def test_no_color_is_no_color(sheet: Path) -> None:
    """Nothing but a terminal gets colors at all; NO_COLOR takes them from a terminal too."""
    code = (
        "import sys; sys.stderr.isatty = lambda: True\n"
        "from batch.cli import commands\n"
        "print(repr(commands._styled('error:')))"
    )

    def said(**environ: Any) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **environ}, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert "\\x1b[" in said(NO_COLOR="")
    assert said(NO_COLOR="1") == "'error:'"


def test_a_take_has_one_name_in_every_list_and_retry_knows_it(call: Call, sheet: Path) -> None:
    names = ("a-1", "a-2", "b-1", "b-2")

    def work(ledger: Ledger) -> None:
        takes = [make_row(n[0], position=p, take=int(n[2]), stem=n) for p, n in enumerate(names, start=1)]
        ledger.plan(1, takes)
        for state in (State.FAILED, State.FAILED, State.IN_DOUBT, State.IN_DOUBT):
            bring_to(ledger, 1, state)

    planned(sheet.parent, sheet, work)
    told = call("status", str(sheet)).out
    assert [name for name in names if f" {name}: " in told] == list(names)
    assert [line.split()[2] for line in call("jobs", str(sheet)).out.splitlines()[1:]] == list(names)
    again = call("retry", str(sheet), "b-1", "--dry-run")
    assert (again.code, [line.split()[2] for line in again.out.splitlines()[1:]]) == (0, ["b-1"])
    found = call("reconcile", str(sheet), key="id:secret").out
    assert [line.split()[1] for line in found.splitlines()[1:3]] == ["a-2", "b-2"]


@pytest.mark.parametrize(
    ("word", "rows"), [("saved", "c"), ("paid, fetch later", "ab"), ("in flight", "d"), ("submitted", "bd")]
)
def test_only_takes_the_words_that_status_counts_by(call: Call, sheet: Path, word: str, rows: str) -> None:
    """A job that fal calls complete is paid for, wherever we stand with it."""

    def work(ledger: Ledger) -> None:
        ledger.plan(1, [make_row(name, position=n) for n, name in enumerate("abcd", start=1)])
        for state in (State.COMPLETED, State.SUBMITTED, State.FETCHED, State.SUBMITTED):
            bring_to(ledger, 1, state)
        ledger.seen(2, "COMPLETED")

    planned(sheet.parent, sheet, work)
    assert "1 saved, 2 paid, fetch later, 1 in flight" in call("status", str(sheet)).out
    found = json.loads(call("jobs", str(sheet), "--json", "--only", word).out)
    assert "".join(job["row_id"] for job in found) == rows


@pytest.mark.parametrize("words", [("jobs",), ("retry", "--dry-run")], ids=" ".join)
def test_a_cause_that_nothing_has_is_told_with_those_there_are(call: Call, sheet: Path, words: tuple[str, ...]) -> None:
    planned(sheet.parent, sheet, three)
    said = call(*words, str(sheet), "--cause", "bogus")
    assert (said.code, said.out) == (0, "")
    assert said.err == "0 rows\nno row has the cause 'bogus'; the causes there are: content_policy, reset\n"
    assert call("jobs", str(sheet), "--cause", "reset").err == "1 row\n"


def test_help_lists_the_commands_in_the_order_of_their_use(call: Call) -> None:
    text = call("--help").out.partition("Commands:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in text.splitlines() if re.match(r"  \w", line)] == [
        *("init", "plan", "run", "status", "jobs", "retry", "cancel", "reconcile"),
        *("export", "gallery", "endpoint", "serve", "doctor", "completion"),
    ]


@pytest.mark.parametrize("command", ["export", "gallery"])
def test_what_only_reads_results_has_no_price(call: Call, command: str) -> None:
    text = call(command, "--help").out
    assert "--carry" in text and "--price" not in text
