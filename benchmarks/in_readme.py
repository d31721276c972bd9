"""Puts what `make bench` measured last between the marks in the README: a line for each promise, met or missed.

    PYTHONPATH=. python benchmarks/in_readme.py

A benchmark that was not run leaves no line. What is told are medians, and the ratio of the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from side_by_side import RESULTS, Goal

__all__ = ["BEGIN", "END", "LINES", "README", "Line", "table"]

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- performance -->\n", "<!-- /performance -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One promise: `what` in words, the `result` and its case that it is about, and the goal it is held to."""

    what: str
    result: str
    case: str
    goal: Goal
    unit: str

    def told(self, found: Mapping[str, Any]) -> str:
        ours, theirs = (found["cases"][name][self.goal.measure] for name in (self.case, self.goal.baseline))
        bound = self.goal.at_most if self.goal.at_most is not None else self.goal.at_least
        wanted = f"{'≤' if self.goal.at_most is not None else '≥'} {bound:.3g}"
        verdict = "" if self.goal.is_met(ours / theirs) else ", missed"
        beside = f"{_number(theirs)} {self.unit} ({self.goal.baseline})"
        what = self.what.format(**found["facts"])
        return f"| {what} | {_number(ours)} {self.unit} | {beside} | {ours / theirs:.3g} ({wanted}{verdict}) |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _line(
    what: str,
    result: str,
    measure: str,
    baseline: str,
    *,
    case: str = "fal-batch",
    unit: str,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Line:
    goal = Goal(measure=measure, baseline=baseline, at_most=at_most, at_least=at_least)
    return Line(what=what, result=result, case=case, goal=goal, unit=unit)


_CPU, _PACE = "cpu ms/job", "jobs/s"
LINES = (
    _line("CPU a job, {in_flight} in flight, 2 s each", "jobs_slow", _CPU, "fal-client async", unit="ms", at_most=0.1),
    _line("the same beside bare requests", "jobs_slow", _CPU, "aiohttp loop", unit="ms", at_most=2.5),
    _line("jobs that take no time", "jobs_quick", _PACE, "fal-client async", unit="a second", at_least=8),
    _line(
        "requests a job, {service_mean_s:g} s each, {slots} slots",
        "asking_30s",
        "requests/job",
        "fal-client, 0.1 s",
        unit="requests",
        at_most=1 / 20,
    ),
    _line(
        "the same, {service_mean_s:g} s each, {slots} slots",
        "asking_2s",
        "requests/job",
        "every end known at once",
        unit="requests",
        at_most=2.0,
    ),
    _line(
        "use of fal's slots, {jobs:,} jobs",
        "asking_30s",
        "pace",
        "every end known at once",
        unit="of the time",
        at_least=0.97,
    ),
    _line("planning {rows:,} rows", "plan", "wall s", "the floor", unit="s", at_most=2.0),
    _line(
        "the same beside the ledger's tables", "plan", "wall s", "the floor, the ledger's tables", unit="s", at_most=2.0
    ),
    _line("its memory beside that of {few rows:,} rows", "plan", "peak MB", "few rows", unit="MB", at_most=1.3),
    _line(
        "first submit after a kill, {rows:,} jobs, {left:,} left",
        "resume",
        "wall s",
        "planning it",
        case="to the first submit",
        unit="s",
        at_most=0.05,
    ),
    _line("`status` of it", "resume", "wall s", "planning it", case="status", unit="s", at_most=0.05),
    _line("downloads on 1 Gbit/s", "downloads_line", "MB/s", "curl, in parallel", unit="MB/s", at_least=0.9),
    _line("downloads over loopback", "downloads_free", "MB/s", "curl, in parallel", unit="MB/s", at_least=0.9),
    _line(
        "beside what hashes and syncs too", "downloads_free", "MB/s", "curl, sha256sum, sync", unit="MB/s", at_least=0.9
    ),
    _line(
        "a preview clip that zooms",
        "render",
        "cpu s",
        "zoompan, source doubled",
        case="fal-batch, camera zooms in",
        unit="s",
        at_most=1.2,
    ),
    _line(
        "`fal-batch --help`",
        "start_up",
        "wall s",
        "python, import fal_client",
        case="fal-batch --help",
        unit="s",
        at_most=1.0,
    ),
)


def table(results: Path = RESULTS) -> str:
    """The table, of those results that are there; empty where there are none."""
    lines = []
    for line in LINES:
        found = results / f"{line.result}.json"
        if found.exists():
            lines.append(line.told(json.loads(found.read_text(encoding="utf-8"))))
    if not lines:
        return ""
    return "\n".join(["| | fal-batch | beside | ratio (wanted) |", "| --- | ---: | ---: | ---: |", *lines, ""])


def main() -> None:
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    README.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
