"""The command line: words, exit codes, and what is left untouched. The long runs have tests of their own."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ledger_support import claim, make_row, opened

from batch import __version__, cli
from batch.cli.options import typed
from batch.cli.progress import Bar
from batch.ledger import Ledger
from batch.states import State

COMMANDS = ["plan", "run", "retry", "status", "jobs", "cancel", "reconcile"]
COMMANDS += ["export", "gallery", "endpoint", "serve", "doctor", "completion"]
ON_A_MANIFEST = ["plan", "run", "retry", "export", "gallery"]
SHEET = (
    "id,prompt,image_url\nsea,waves roll in,https://example.com/sea.jpg\nsky,clouds pass,https://example.com/sky.jpg\n"
)
BAD_SHEET = "id,prompt,image_url,duration\nsea,waves,https://example.com/sea.jpg,5\nsky,clouds,,13\n"
NOBODY = "http://127.0.0.1:9"  # a request to it would fail, and be seen as another exit code


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`fal-batch` in an empty working folder and an environment without a key."""
    for name in list(os.environ):
        if name.startswith("FAL_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("QUEUE", "REST", "CDN", "API"):
        monkeypatch.setenv(f"FAL_BATCH_{name}_URL", NOBODY)
    monkeypatch.chdir(tmp_path)

    def run(*args: str, key: str | None = None) -> Said:
        if key is not None:
            monkeypatch.setenv("FAL_KEY", key)
        monkeypatch.setattr(sys, "argv", ["fal-batch", *args])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, said.out, said.err)

    return run


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "shots.csv"
    path.write_text(SHEET)
    return path


def planned(folder: Path, sheet: Path, work: Callable[[Ledger], Any] = lambda ledger: None) -> None:
    """A ledger with the campaign of `sheet` in it, three rows, brought somewhere by `work`."""
    with opened(folder / "state", time.time, queue_url=NOBODY) as ledger:
        campaign_id = ledger.campaign(sheet.stem, sheet)
        ledger.plan(campaign_id, [make_row(name, position=n) for n, name in enumerate("abc", start=1)])
        work(ledger)


# --- help and usage ---


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(call: Call, command: str) -> None:
    for flag in ("--help", "-h"):
        said = call(command, flag)
        assert (said.code, said.err) == (0, "")
        usage, sentence = said.out.split("\n\n")[:2]
        assert usage.startswith(f"Usage: fal-batch {command} ")
        assert re.fullmatch(r"[A-Z].+\.", " ".join(sentence.split())), "a sentence says what it does"


def test_the_whole_help_lists_every_command_and_the_exit_codes(call: Call) -> None:
    said = call("--help")
    assert said.code == 0
    assert all(f"\n  {command} " in said.out for command in COMMANDS)
    text = " ".join(said.out.split())
    for code in (
        "0 every row",
        "2 the input",
        "3 some jobs failed",
        "4 stopped early",
        "5 some jobs",
        "130 interrupted",
    ):
        assert code in text


def test_the_version_is_the_packages(call: Call) -> None:
    said = call("--version")
    assert (said.code, said.out.split()[-1]) == (0, __version__)


@pytest.mark.parametrize(
    "args",
    [
        ("plan", "shots.csv", "--unknown"),
        ("frobnicate",),
        ("plan",),
        ("run",),
        ("serve", "--port", "70000"),
        ("serve", "--runners", "0"),
        ("plan", "shots.csv", "extra"),
        ("run", "shots.csv", "-j"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_with_a_hint(call: Call, sheet: Path, args: tuple[str, ...]) -> None:
    said = call(*args)
    assert (said.code, said.out) == (2, "")
    assert "Error: " in said.err
    assert not (sheet.parent / "state").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("-j", "0"), "--concurrency: expected a whole number, 1 or more, found '0'"),
        (("--limit", "all"), "--limit: expected a whole number, 1 or more, found 'all'"),
        (("--max-cost", "cheap"), "--max-cost: expected dollars like 25 or 25.00, found 'cheap'"),
        (("--max-duration", "8 hours"), "--max-duration: expected a time like 90s, 45m or 8h, found '8 hours'"),
        (("--start-timeout", "0.5"), "more than one second"),
    ],
)
def test_a_bad_value_is_exit_code_2_and_names_its_option(
    call: Call, sheet: Path, args: tuple[str, ...], words: str
) -> None:
    said = call("run", str(sheet), *args)
    assert (said.code, said.out) == (2, "")
    assert words in said.err


def test_the_installed_command_and_the_module_are_the_same() -> None:
    installed = Path(sys.executable).with_name("fal-batch")
    for command in ([str(installed)], [sys.executable, "-m", "batch"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout.split()[-1]) == (0, __version__)


def test_help_and_status_do_without_heavy_imports(tmp_path: Path) -> None:
    heavy = ["pandas", "numpy", "av", "PIL", "httpx", "uvicorn", "starlette", "sqlite_utils", "tqdm"]
    for args in (["--help"], ["run", "--help"], ["status"]):
        code = (
            f"import sys; sys.argv = {['fal-batch', *args]!r}\n"
            "from batch import cli\n"
            "try: cli.main()\n"
            "except SystemExit: pass\n"
            f"print('heavy:', [name for name in {heavy!r} if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert done.stdout.splitlines()[-1] == "heavy: []", args


# --- wrong input ---


@pytest.mark.parametrize("command", ON_A_MANIFEST)
def test_a_manifest_that_is_not_there_is_exit_code_2(call: Call, tmp_path: Path, command: str) -> None:
    said = call(command, "nowhere.csv", key="id:secret")
    assert (said.code, said.out) == (2, "")
    assert "nowhere.csv" in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "state" / "ledger.db").exists()


@pytest.mark.parametrize("command", ["plan", "run", "retry"])
def test_a_bad_sheet_is_exit_code_2_names_every_cell_and_submits_nothing(
    call: Call, tmp_path: Path, command: str
) -> None:
    (tmp_path / "bad.csv").write_text(BAD_SHEET)
    said = call(command, "bad.csv", key="id:secret")
    assert (said.code, said.out) == (2, "")
    assert re.search(r"bad\.csv:3 duration: '13'", said.err)
    assert re.search(r"bad\.csv:3 image_url: ", said.err)
    assert said.err.splitlines()[-1] == "2 mistakes; nothing was submitted"
    if (tmp_path / "state" / "ledger.db").exists():
        assert jobs(tmp_path) == []


def test_a_sheet_that_became_bad_changes_nothing_of_what_is_planned(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet, lambda ledger: claim(ledger, 1))
    before = jobs(sheet.parent)
    sheet.write_text(BAD_SHEET)
    assert call("run", str(sheet), key="id:secret").code == 2
    assert before == jobs(sheet.parent)


def test_a_missing_key_is_exit_code_2_says_both_ways_out_and_submits_nothing(call: Call, sheet: Path) -> None:
    said = call("run", str(sheet), "-y")
    assert said.code == 2
    assert "FAL_KEY" in said.err
    assert "--local" in said.err
    assert all(job["state"] == "planned" for job in jobs(sheet.parent))
    assert attempts(sheet.parent) == []


def test_a_key_with_a_line_break_is_exit_code_2_before_anything_is_claimed(call: Call, sheet: Path) -> None:
    said = call("run", str(sheet), "-y", key="id:sec\nret")
    assert said.code == 2
    assert "FAL_KEY" in said.err
    assert "sec" not in said.err.replace("secret", "")
    assert attempts(sheet.parent) == []


def test_a_cap_that_cannot_be_kept_is_exit_code_2(call: Call, sheet: Path) -> None:
    said = call("run", str(sheet), "--max-cost", "1.2.3")
    assert said.code == 2


def test_a_campaign_name_that_belongs_to_another_sheet_is_exit_code_2(call: Call, sheet: Path, tmp_path: Path) -> None:
    planned(tmp_path, sheet)
    other = tmp_path / "other" / "shots.csv"
    other.parent.mkdir()
    other.write_text(SHEET)
    said = call("run", str(other), key="id:secret")
    assert said.code == 2
    assert "--campaign NAME" in said.err


def test_a_ledger_of_another_queue_is_exit_code_2(call: Call, sheet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(sheet.parent, sheet)
    monkeypatch.setenv("FAL_BATCH_QUEUE_URL", "https://other.example")
    said = call("run", str(sheet), key="id:secret")
    assert said.code == 2
    assert "--state DIR" in said.err


# --- plan ---


def test_a_plan_counts_and_prices_and_writes_nothing(call: Call, sheet: Path) -> None:
    said = call("plan", str(sheet))
    assert said.code == 0
    assert said.out.startswith("shots: 2 rows, 2 jobs, 2 to submit\n  new          2\n")
    assert re.search(r"\n  price        \$0\.2518 a job, up to \$0\.5036 in all\n", said.out)
    assert [sheet] == list(sheet.parent.iterdir())


def test_a_dry_run_is_a_plan(call: Call, sheet: Path) -> None:
    for flag in ("--dry-run", "-n"):
        assert call("run", str(sheet), flag).out == call("plan", str(sheet)).out
    assert [sheet] == list(sheet.parent.iterdir())


def test_a_plan_beside_a_ledger_changes_nothing_of_it(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet)
    before = jobs(sheet.parent)
    assert call("plan", str(sheet)).code == 0
    assert before == jobs(sheet.parent)


def test_a_plan_as_json_is_one_object(call: Call, sheet: Path) -> None:
    said = call("plan", str(sheet), "--json")
    found = json.loads(said.out)
    assert (found["campaign"], found["rows"], found["jobs"], found["to_submit"]) == ("shots", 2, 2, 2)
    assert found["estimate_micros"] > 0
    assert said.err == ""


def test_a_column_of_ones_own_that_is_called_like_a_result_is_told_as_not_kept(call: Call, sheet: Path) -> None:
    """It would be gone from the next export, without a word."""
    sheet.write_text(
        "id,prompt,image_url,result_state,result_path_2,result_rating\na,x,https://e.com/a.jpg,fetched,b,5\n"
    )
    told = "not kept, called as the results of an export are: result_rating; rename it to carry it along"
    assert json.loads(call("plan", str(sheet), "--json").out)["notes"] == [told]
    sheet.write_text("id,prompt,image_url,result_state\na,x,https://e.com/a.jpg,fetched\n")
    assert json.loads(call("plan", str(sheet), "--json").out)["notes"] == []


def test_rows_that_share_a_job_are_said_so(call: Call, sheet: Path) -> None:
    sheet.write_text(SHEET + "again,waves roll in,https://example.com/sea.jpg\n")
    out = call("plan", str(sheet)).out
    assert out.startswith("shots: 3 rows, 2 jobs, 2 to submit\n")
    assert "\n  duplicates   1  ask for the same as another row: made once, saved for each\n" in out
    assert "shots.csv:4 again asks for the same as shots.csv:2 sea" in out


# --- status ---


def test_the_status_of_nothing_is_said_and_nothing_is_made(call: Call, tmp_path: Path) -> None:
    said = call("status")
    assert (said.code, said.out) == (0, "")
    assert "nothing has been run yet in state" in said.err
    assert list(tmp_path.iterdir()) == []


def test_the_status_of_nothing_as_json_is_an_empty_list(call: Call) -> None:
    said = call("status", "--json")
    assert (said.code, json.loads(said.out)) == (0, [])


def test_the_status_says_where_the_rows_stand_and_what_was_spent(call: Call, sheet: Path) -> None:
    def work(ledger: Ledger) -> None:
        ledger.doubted(claim(ledger, 1), cause="reset", message="the connection was reset")

    planned(sheet.parent, sheet, work)
    said = call("status")
    assert (said.code, said.err) == (0, "")
    assert "shots: 3 rows, 0 saved, 1 in doubt, 2 not started" in said.out
    assert "sheet.csv:2 a: the connection was reset; can be settled from" in said.out
    assert "$0.0001 in doubt" in said.out


def test_the_status_as_json_adds_up(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet, lambda ledger: claim(ledger, 1))
    (found,) = json.loads(call("status", "--json").out)
    parts = ("fetched", "paid_fetch_later", "failed", "cancelled", "in_doubt", "in_flight", "waiting", "not_started")
    assert sum(found[part] for part in parts) == found["rows"] == 3
    assert (found["campaign"], found["in_flight"], found["reserved_micros"]) == ("shots", 1, 100)


def test_the_status_of_one_campaign_of_several(call: Call, sheet: Path, tmp_path: Path) -> None:
    planned(tmp_path, sheet)
    planned(tmp_path, tmp_path / "other.csv")
    assert [line.split(":")[0] for line in call("status").out.splitlines() if not line.startswith(" ")] == [
        "shots",
        "other",
    ]
    assert "other" not in call("status", str(sheet)).out


def test_the_status_is_told_while_another_process_holds_the_ledger(call: Call, sheet: Path) -> None:
    with opened(sheet.parent / "state", time.time, queue_url=NOBODY) as ledger:
        ledger.plan(ledger.campaign("shots", sheet), [make_row()])
        assert "1 row, 0 saved" in call("status").out
        assert call("plan", str(sheet)).code == 0
        assert call("export", str(sheet), "out.csv").code == 0


@pytest.mark.parametrize("command", ["run", "retry", "reconcile"])
def test_a_second_writer_is_exit_code_4_and_the_holder_is_named(call: Call, sheet: Path, command: str) -> None:
    planned(sheet.parent, sheet)
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from ledger_support import opened
with opened(Path({str(sheet.parent / "state")!r}), time.time, queue_url={NOBODY!r}):
    print("held", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said = call(command, str(sheet), key="id:secret")
    finally:
        holder.kill()
        holder.communicate(timeout=30)
    assert (said.code, said.out) == (4, "")
    assert f"process {holder.pid}" in said.err


def test_a_file_that_is_no_ledger_is_exit_code_4_without_a_traceback(call: Call, sheet: Path) -> None:
    (sheet.parent / "state").mkdir()
    (sheet.parent / "state" / "ledger.db").write_bytes(b"not SQLite " * 500)
    for command in (("status",), ("run", str(sheet)), ("plan", str(sheet))):
        said = call(*command, key="id:secret")
        assert said.code == 4
        assert "ledger.db" in said.err
        assert "Traceback" not in said.err


# --- reconcile, export ---


def test_nothing_in_doubt_needs_no_request(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet)
    said = call("reconcile", str(sheet), key="id:secret")
    assert (said.code, said.out) == (0, "nothing is in doubt\n")


def test_reconcile_without_a_key_is_exit_code_2(call: Call, sheet: Path) -> None:
    assert call("reconcile", str(sheet)).code == 2


def test_what_stays_in_doubt_is_exit_code_5(call: Call, sheet: Path) -> None:
    def work(ledger: Ledger) -> None:
        ledger.doubted(claim(ledger, 1), cause="reset", message="the connection was reset")

    planned(sheet.parent, sheet, work)
    said = call("reconcile", str(sheet), "--json", key="id:secret")
    found = json.loads(said.out)
    assert (said.code, found["found"], found["absent"], found["in_doubt"]) == (5, 0, 0, 1)
    told = call("reconcile", key="id:secret").out
    assert re.search(r"\nsheet\.csv:2 +a +\d{4}-\d\d-\d\d \d\d:\d\d +\$0\.0001  still in doubt: ", told)
    assert "the same command can settle more from " in told


def test_an_export_before_any_run_is_the_sheet_with_every_row_not_planned(call: Call, sheet: Path) -> None:
    said = call("export", str(sheet), "out.csv")
    assert (said.code, said.out.strip()) == (0, "out.csv: 2 rows, 0 saved")
    text = (sheet.parent / "out.csv").read_text(encoding="utf-8-sig")
    assert text.splitlines()[0].startswith("id,prompt,image_url,result_state")
    assert text.count("not planned") == 2
    assert not (sheet.parent / "state" / "ledger.db").exists()


def test_an_export_as_json_names_the_file(call: Call, sheet: Path) -> None:
    found = json.loads(call("export", str(sheet), "out.csv", "--json").out)
    notes = ["nothing of 'shots' was run yet in state"]
    assert found == {"path": "out.csv", "rows": 2, "saved": 0, "notes": notes}


def test_an_export_never_writes_over_the_sheet_itself(call: Call, sheet: Path) -> None:
    said = call("export", str(sheet), str(sheet))
    assert said.code == 2
    assert sheet.read_text() == SHEET


def test_a_failure_is_told_with_its_row_and_its_message(call: Call, sheet: Path) -> None:
    def work(ledger: Ledger) -> None:
        ledger.refused(claim(ledger, 1), cause="too_large", message="submit: fal answered 413")

    planned(sheet.parent, sheet, work)
    out = call("status").out
    assert "  failed: 1 too_large" in out
    assert "    sheet.csv:2 a: too_large: submit: fal answered 413" in out


def test_a_plan_tells_what_is_not_sent_and_where_a_new_ledger_will_be(call: Call, tmp_path: Path) -> None:
    sheet = tmp_path / "mood.csv"
    sheet.write_text("id,prompt,image_url,mood\nsea,waves,https://example.com/sea.jpg,calm\n")
    out = call("plan", "mood.csv").out
    assert "  not sent     mood: carried along to the results" in out
    assert "  note         no ledger yet: what is paid for will be remembered in state" in out


def test_a_state_that_is_no_folder_is_exit_code_2(call: Call, sheet: Path) -> None:
    said = call("run", str(sheet), "--state", str(sheet))
    assert (said.code, said.err) == (2, f"error: --state: {sheet} is no folder\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sea",), "no job meant by that is failed or cancelled (sea is planned)"),
        (("--in-doubt", "sky"), "no job meant by that is in doubt (sky is planned)"),
        (("--cause", "nope"), "no job failed or cancelled has the cause 'nope'; the causes of failures are: none"),
    ],
)
def test_a_retry_that_means_nothing_says_so_and_submits_nothing(
    call: Call, sheet: Path, words: tuple[str, ...], told: str
) -> None:
    said = call("retry", str(sheet), *words, key="id:secret")
    assert said.code == 2
    assert said.err == f"error: nothing to retry: {told}\n"
    assert attempts(sheet.parent) == []


def test_a_retry_of_a_row_that_is_not_there_names_it(call: Call, sheet: Path) -> None:
    said = call("retry", str(sheet), "see", key="id:secret")
    assert (said.code, said.err) == (2, "error: the manifest has no row 'see'\n")


@pytest.mark.parametrize(
    ("flags", "question"),
    [((), "Submit 2 jobs for up to $0.5036?"), (("--limit", "1"), "Submit 1 job for up to $0.2518?")],
)
def test_the_question_is_about_this_run(
    call: Call, sheet: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], question: str
) -> None:
    asked = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("click.confirm", lambda text, err: asked.append(text))
    assert call("run", str(sheet), *flags, key="id:secret").code == 4
    assert asked == [question]
    assert attempts(sheet.parent) == []


def test_the_command_to_go_on_with_is_never_one_that_pays_again() -> None:
    flags = {"max_cost": "5", "yes": "yes", "limit": None}
    assert typed("run", Path("a b.csv"), flags) == ["fal-batch", "run", "a b.csv", "--max-cost", "5", "--yes"]


# --- helpers ---


def jobs(folder: Path) -> list[dict[str, Any]]:
    return _table(folder, "job")


def attempts(folder: Path) -> list[dict[str, Any]]:
    return _table(folder, "attempt")


def _table(folder: Path, name: str) -> list[dict[str, Any]]:
    if not (folder / "state" / "ledger.db").exists():
        return []
    db = sqlite3.connect(folder / "state" / "ledger.db")
    db.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in db.execute(f"SELECT * FROM {name} ORDER BY id")]
    finally:
        db.close()


def test_every_state_has_a_place_in_the_progress_bar() -> None:
    """A state without one would count its jobs nowhere."""
    bar = Bar()
    for state in State:
        bar.moved(1, state, state)
    assert set(bar._counts) == set(State)


# --- what a run may spend ---


def test_a_cap_of_the_environment_never_loosens_a_campaigns_own(
    call: Call, sheet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sheet.parent / "capped.yaml").write_text("rows: shots.csv\nmax_cost: 0.30\n")

    def cap(*flags: str) -> int:
        return int(json.loads(call("plan", "capped.yaml", "--json", *flags).out)["cap_micros"])

    assert cap() == 300_000
    monkeypatch.setenv("FAL_BATCH_MAX_COST", "100")
    assert cap() == 300_000
    monkeypatch.setenv("FAL_BATCH_MAX_COST", "0.20")
    assert cap() == 200_000
    assert cap("--max-cost", "5") == 5_000_000


def test_an_endpoint_that_would_not_be_used_is_refused(call: Call, sheet: Path) -> None:
    own = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video"
    (sheet.parent / "own.yaml").write_text(f"rows: shots.csv\nendpoint: {own}\n")
    assert call("plan", "own.yaml", "--endpoint", own).code == 0
    said = call("plan", "own.yaml", "--endpoint", "fal-ai/cheaper/model")
    assert said.code == 2
    assert "--endpoint" in said.err


def test_a_run_that_is_declined_leaves_the_ledger_as_it_was(
    call: Call, sheet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(sheet.parent, sheet)
    before = jobs(sheet.parent), _table(sheet.parent, "row")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("click.confirm", lambda text, err: False)
    assert call("run", str(sheet), key="id:secret").code == 4
    assert before == (jobs(sheet.parent), _table(sheet.parent, "row"))


def test_a_first_run_without_a_key_leaves_nothing_behind(call: Call, sheet: Path) -> None:
    said = call("run", str(sheet), "-y")
    assert (said.code, said.err[:14]) == (2, "error: no key:")
    assert [sheet] == list(sheet.parent.iterdir())


def test_wrong_usage_as_json_is_a_document_too(call: Call, sheet: Path) -> None:
    said = call("plan", str(sheet), "--bogus", "--json")
    assert (said.code, json.loads(said.out)["exit_code"]) == (2, 2)


def test_json_set_in_the_project_file_is_for_refusals_too(call: Call, sheet: Path) -> None:
    (sheet.parent / "pyproject.toml").write_text("[tool.fal-batch]\njson = true\n")
    sheet.write_text(BAD_SHEET)
    assert json.loads(call("plan", str(sheet)).out)["count"] == 2


def test_a_disk_that_is_full_is_no_fault_of_ours(sheet: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    command = f"{sys.executable} -m batch plan {sheet} > /dev/full"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=sheet.parent, timeout=60, check=False
    )
    assert done.returncode == 4
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_fault(sheet: Path, closed: str) -> None:
    command = f"{sys.executable} -m batch plan {sheet} {closed}"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=sheet.parent, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_has_seen_enough_is_no_fault(sheet: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m batch status --settings | head -1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=sheet.parent, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_sheet_was_guessed_to_be_is_told_even_by_a_quiet_run(call: Call, sheet: Path) -> None:
    """A wrong guess is paid for."""
    sheet.write_bytes("id,prompt,image_url\nsea,un café doré,https://example.com/sea.jpg\n".encode("cp1252"))
    said = call("run", str(sheet), "-q", "--limit", "1", "--max-duration", "1s", key="id:secret")
    assert "shots.csv is not UTF-8" in said.err


# --- what would cost money or look like a loss ---


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("a,waves,2\n", "result_take: this line is a further take of row 'a', whose first one is not here"),
        ("a,waves,1\na,clouds,2\n", "result_take: this line is another take of row 'a' and says something else"),
    ],
)
def test_a_line_of_a_further_take_is_never_dropped_without_a_word(
    call: Call, tmp_path: Path, lines: str, said: str
) -> None:
    rows = "".join(f"{line},https://example.com/sea.jpg\n" for line in lines.splitlines())
    (tmp_path / "back.csv").write_text(f"id,prompt,result_take,image_url\n{rows}")
    told = call("plan", "back.csv", "--local")
    assert (told.code, said in told.err) == (2, True), told.err


def test_a_folder_where_no_file_can_be_saved_is_told_before_anything_is_paid_for(call: Call, tmp_path: Path) -> None:
    (tmp_path / "shots.csv").write_text(SHEET)
    told = call("run", "shots.csv", "--outputs", "shots.csv/videos", "-y", key="k:s")
    assert told.code == 2 and "no file can be saved in" in told.err and "Nothing was submitted" in told.err


def test_a_campaign_that_is_not_there_is_no_empty_ledger(call: Call, tmp_path: Path) -> None:
    with opened(tmp_path / "state") as ledger:
        ledger.plan(ledger.campaign("shots", tmp_path / "shots.csv"), [make_row("a")])
    (tmp_path / "shorts.csv").write_text(SHEET)
    told = call("status", "shorts.csv")
    assert told.code == 2 and "has no campaign 'shorts', but: shots" in told.err
