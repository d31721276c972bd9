"""How `make proof` judges: what was paid for, paid twice, lost, and by whose doing. Nothing is started here."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

PROOF = Path(__file__).parents[1] / "benchmarks" / "proof"
sys.path.insert(0, str(PROOF))

from judging import Finding, Life, Request, judged, table  # noqa: E402

from batch.local.fault_file import read_plan  # noqa: E402

ROWS = ("a", "b", "c")


def taken(row: str, video: str | None, code: int = 200) -> Request:
    return Request(id=f"{row}-{video}", row=row, code=code, sha256=video)


def life(accepted: int, exit_code: int = 0) -> Life:
    return Life(exit_code=exit_code, accepted=accepted, seconds=10.0)


def finding(requests: list[Request], saved: dict[str, str], *lives: Life) -> Finding:
    return judged(ROWS, requests, saved, lives=lives or (life(len(requests)),), calls=9)


ALL = [taken("a", "A"), taken("b", "B"), taken("c", "C")]


def test_every_row_paid_once_and_saved_is_a_clean_finding() -> None:
    found = finding(ALL, {"a": "A", "b": "B", "c": "C"})
    assert (found.paid, found.right, found.twice, found.lost, found.broken, found.wasted) == (3, 3, 0, 0, 0, 0.0)


def test_every_paid_request_is_a_right_video_a_double_or_lost() -> None:
    found = finding([*ALL, taken("a", "A2")], {"a": "A2", "b": "half of B"})
    assert (found.right, found.twice, found.lost) == (1, 1, 2)
    assert found.paid == found.right + found.twice + found.lost


def test_a_double_within_one_life_is_the_programs_and_one_across_lives_its_restarts() -> None:
    requests = [taken("a", "A"), taken("a", "A2"), taken("b", "B"), taken("b", "B2"), taken("c", "C")]
    found = finding(requests, {}, life(3, -9), life(5))
    assert (found.twice_by_itself, found.twice_by_restart, found.restarts) == (1, 1, 1)


def test_either_video_of_a_double_is_right() -> None:
    assert finding([*ALL, taken("a", "A2")], {"a": "A"}).right == finding([*ALL, taken("a", "A2")], {"a": "A2"}).right


def test_another_rows_video_is_broken() -> None:
    found = finding(ALL, {"a": "B"})
    assert (found.right, found.broken) == (0, 1)


def test_what_fal_did_not_bill_was_not_paid() -> None:
    found = finding([taken("a", None, code=504), taken("a", "A")], {"a": "A"})
    assert (found.paid, found.twice, found.lost, found.right) == (1, 0, 0, 1)


def test_a_row_that_fal_never_took_is_not_lost() -> None:
    assert finding([], {}).lost == 0


def test_the_table_says_why_somebody_is_not_in_it() -> None:
    text = table({"one": finding(ALL, {"a": "A"}), "two": "node and npm are not here"})
    assert "| rows of the sheet | 3 | not run: node and npm are not here |" in text
    assert "| **paid and lost** | **2** |  |" in text
    assert len({line.count("|") for line in text.splitlines()}) == 1


def test_a_program_that_never_said_it_was_done_is_shown_so() -> None:
    assert "0, not done" in table({"one": finding(ALL, {}, life(3, 1))})


def test_the_plan_of_the_proof_is_one_that_the_queue_can_read() -> None:
    paths = {fault.kind.path for fault in read_plan(str(PROOF / "faults.yaml")).faults}
    assert {"submit.answer_lost", "submit.gateway_after", "result.gateway_first", "file.truncated"} <= paths
    assert not any(path.startswith("verdict.") for path in paths), "a missing video is nobody's fault but the program's"


def test_the_javascript_packages_are_named_exactly() -> None:
    package = json.loads((PROOF.parents[1] / "package.json").read_text(encoding="utf-8"))
    assert set(package["dependencies"]) == {"@fal-ai/client", "p-queue"}
    versions = {**package["dependencies"], **package["overrides"]}.values()
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions)
