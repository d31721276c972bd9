"""The benchmarks run, at a size that says nothing, and their results have the shape that the README's table is made of.

How fast anything is, is never a test.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import asking  # noqa: E402
import contestants  # noqa: E402
import downloads  # noqa: E402
import in_readme  # noqa: E402
from cheap_queue import queue_process  # noqa: E402
from file_server import file_server  # noqa: E402
from side_by_side import Goal, compare, took_turns  # noqa: E402


def test_cases_take_turns_and_the_warm_up_is_not_counted() -> None:
    ran: list[str] = []

    def case(name: str, value: float) -> dict[str, float]:
        ran.append(name)
        return {"s": value * len(ran)}

    found = took_turns({"a": lambda: case("a", 1.0), "b": lambda: case("b", 2.0)}, 2)
    assert ran == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [{"s": 4.0}, {"s": 5.0}], "b": [{"s": 6.0}, {"s": 12.0}]}


def test_a_comparison_tells_medians_ratios_and_whether_its_goals_are_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = iter([9.0, 1.0, 2.0, 6.0])
    cases = {"ours": lambda: {"ms": next(numbers)}, "theirs": lambda: {"ms": 8.0, "jobs/s": 3.0}}
    goals = [Goal(measure="ms", baseline="theirs", at_most=0.2), Goal(measure="ms", baseline="nobody", at_least=1.0)]
    out = tmp_path / "x" / "found.json"
    compare("x", "A title", cases, ours="ours", rounds=3, goals=goals, left_out={"parallel": "not here"}, out=out)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["cases"] == {"ours": {"ms": 2.0}, "theirs": {"ms": 8.0, "jobs/s": 3.0}}
    assert [(goal["ratio"], goal["is_met"]) for goal in found["goals"]] == [(0.25, False)]
    printed = capsys.readouterr().out
    assert "| theirs | 8 | 4.00 | 3 |  |" in printed
    assert "MISSED ms against theirs: at most 0.2" in printed
    assert "parallel: not run: not here" in printed
    assert len({line.count("|") for line in printed.splitlines() if line.startswith("|")}) == 1


def test_every_benchmark_is_in_the_list_of_make_bench() -> None:
    listed = next(line for line in (BENCHMARKS.parent / "Makefile").read_text().splitlines() if "BENCHMARKS :=" in line)
    sources = {path.stem: path.read_text(encoding="utf-8") for path in BENCHMARKS.glob("*.py")}
    scripts = {name for name, source in sources.items() if "def main" in source and "rounds" in source}
    assert set(listed.split(":=")[1].split()) == scripts


@pytest.mark.parametrize("name", [contestants.OURS, "fal-client async", "fal-client threads", contestants.FLOOR])
def test_a_contestant_does_its_sheet_and_tells_what_it_cost(name: str) -> None:
    if why := contestants.missing(name):
        pytest.skip(why)
    with queue_process() as queue:
        found = contestants.run(name, url=queue.url, jobs=3, in_flight=4)
        counts = queue.counts()
    assert set(found) == {"cpu ms/job", "jobs/s"} and all(value > 0 for value in found.values())
    assert counts["submit"] == counts["file"] == 3 + contestants.WARM_UP_JOBS


def test_who_asks_at_fixed_times_is_computed_from_what_it_does() -> None:
    found = asking.polled([1.0, 1.0, 0.25], 2, 0.5)
    assert found == pytest.approx({"requests/job": 3 + (3 + 3 + 2) / 3, "pace": 1.25 / 1.5, "seen after, s": 0.25 / 3})
    assert asking.polled([1.0, 1.0, 0.25], 2, None) == {"requests/job": 3, "pace": 1.0, "seen after, s": 0.0}


@pytest.mark.parametrize("before", [0, 3])
def test_asking_is_measured_on_the_whole_line(before: int) -> None:
    found = asking.ours([2.0, 3.0, 4.0], 2, before=before)
    assert found["requests/job"] > 4
    assert found["pace"] > 0.5
    assert 0 <= found["seen after, s"] < 2


@pytest.mark.parametrize("bytes_per_second", [0.0, 5e6])
@pytest.mark.parametrize("do", [downloads.ours, downloads.curl])
def test_downloads_leave_every_file_whole(do: Callable[..., None], bytes_per_second: float) -> None:
    if do is downloads.curl and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    options = argparse.Namespace(files=5, file_bytes=100_000, at_once=2)
    with file_server(file_bytes=options.file_bytes, bytes_per_second=bytes_per_second) as url:
        found = downloads.measured(do, url, options)
    assert found["MB/s"] > 0


def test_the_readme_tells_each_promise_from_its_result_and_says_which_is_missed(tmp_path: Path) -> None:
    assert in_readme.table(tmp_path) == ""
    line = next(line for line in in_readme.LINES if line.result == "jobs_quick")
    cases = {"fal-batch": {"jobs/s": 300.0}, "fal-client async": {"jobs/s": 60.0}}
    (tmp_path / "jobs_quick.json").write_text(json.dumps({"cases": cases, "facts": {}}), encoding="utf-8")
    told = in_readme.table(tmp_path).splitlines()[-1]
    assert told == f"| {line.what} | 300 a second | 60 a second (fal-client async) | 5 (≥ 8, missed) |"


def test_the_readme_promises_only_what_a_benchmark_measures() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in BENCHMARKS.glob("*.py") if path.stem != "in_readme")
    for line in in_readme.LINES:
        for word in (line.case, line.goal.measure, line.goal.baseline):
            assert f'"{word}"' in sources, f"{line.what}: {word}"
    text = in_readme.README.read_text(encoding="utf-8")
    assert text.count(in_readme.BEGIN) == text.count(in_readme.END) == 1
