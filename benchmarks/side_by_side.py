"""Measured side by side: the same work by several programs, in turns, in one run; what all benchmarks here share.

A machine is never as quiet as one hopes, so the cases take turns, a first round warms up and is not counted, and what
is told is the median. Believe the ratios more than the numbers. Nothing here is a test: a test may only ask whether a
benchmark runs and what its result looks like.

A benchmark is a script with a `main` that ends in `compare(...)`; its name is in the Makefile's list.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "Goal", "Run", "compare", "given", "table", "took_turns"]

RESULTS = Path(__file__).parent / "results"

Run = Callable[[], Mapping[str, float]]
"""One run of one case: does the work and tells what it measured, by name: `{"cpu ms/job": 1.2, "jobs/s": 800.0}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What `measure` of ours is to be next to that of `baseline`: ours / baseline at most or at least this."""

    measure: str
    baseline: str
    at_most: float | None = None
    at_least: float | None = None

    def is_met(self, ratio: float) -> bool:
        return (self.at_most is None or ratio <= self.at_most) and (self.at_least is None or ratio >= self.at_least)

    def __str__(self) -> str:
        bound = f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"
        return f"{self.measure} against {self.baseline}: {bound}"


def given(description: str | None, *, rounds: int, **sizes: int | float | str) -> argparse.Namespace:
    """The command line of a benchmark: `--rounds`, `--json`, and its own sizes by their defaults (`jobs=2000`)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"counted rounds (default {rounds})")
    parser.add_argument(
        "--json", type=Path, help="where the result goes as JSON, a file or, for several tables, a folder"
    )
    for name, default in sizes.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"default {default}"
        )
    return parser.parse_args()


def took_turns(
    cases: Mapping[str, Run], rounds: int, *, say: Callable[[str], None] = lambda line: None
) -> dict[str, list[Mapping[str, float]]]:
    """What each case measured in each round; every other round goes backwards, and a first one only warms up."""
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name in list(cases)[:: -1 if number % 2 else 1]:
            began = time.monotonic()
            measured = cases[name]()
            told = ", ".join(f"{value:.4g} {measure}" for measure, value in measured.items())
            say(f"{f'round {number}' if number else 'warm-up'}: {name}: {told} ({time.monotonic() - began:.1f} s)")
            if number:
                found[name].append(measured)
    return found


def compare(
    name: str,
    title: str,
    cases: Mapping[str, Run],
    *,
    ours: str,
    rounds: int,
    goals: Sequence[Goal] = (),
    left_out: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
    packages: Sequence[str] = (),
    out: Path | None = None,
) -> dict[str, Any]:
    """Run the cases in turns, print the table, and write the result as JSON (to `out`, else `results/<name>.json`).

    `ours` is the case that the others are compared with; `left_out` says why a baseline is not here; `facts` are the
    sizes of the work and whatever else the numbers hang on.
    """
    found = took_turns(cases, rounds, say=lambda line: print(line, file=sys.stderr, flush=True))
    document = {
        "title": title,
        "ours": ours,
        "rounds": rounds,
        "facts": dict(facts or {}),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
        "cases": {case: _medians(measured) for case, measured in found.items()},
        "rounds_measured": {case: [dict(one) for one in measured] for case, measured in found.items()},
        "left_out": dict(left_out or {}),
        "goals": [],
    }
    document["goals"] = [_judged(goal, document) for goal in goals if goal.baseline in cases]
    print(table(document))
    out = out or RESULTS / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return document


def table(document: Mapping[str, Any]) -> str:
    """A result as a Markdown table: every case, each measure with its ratio (theirs / ours), then the goals."""
    cases: Mapping[str, Mapping[str, float]] = document["cases"]
    ours = cases[document["ours"]]
    measures = list(dict.fromkeys(measure for measured in cases.values() for measure in measured))
    heads = ["", *(head for measure in measures for head in (measure, "/ ours"))]
    lines = [_line(heads), _line(["---", *["---:"] * (len(heads) - 1)])]
    for case, measured in cases.items():
        cells = [f"**{case}**" if case == document["ours"] else case]
        for measure in measures:
            value, our = measured.get(measure), ours.get(measure)
            cells += [
                "" if value is None else f"{value:.4g}",
                f"{value / our:.2f}" if value is not None and our else "",
            ]
        lines.append(_line(cells))
    lines += [
        _line([f"{case}: not run: {why}", *[""] * (len(heads) - 1)]) for case, why in document["left_out"].items()
    ]
    goals = [
        f"{'met ' if goal['is_met'] else 'MISSED'} {goal['goal']}; it is {goal['ratio']:.3g}"
        for goal in document["goals"]
    ]
    return "\n".join([document["title"], "", *lines, *([""] if goals else []), *goals, ""])


def _medians(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in measured) for name in measured[0]}


def _judged(goal: Goal, document: Mapping[str, Any]) -> dict[str, Any]:
    ours, theirs = document["cases"][document["ours"]], document["cases"][goal.baseline]
    ratio = ours[goal.measure] / theirs[goal.measure]
    return {"goal": str(goal), "ratio": ratio, "is_met": goal.is_met(ratio)}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
