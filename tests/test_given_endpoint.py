"""--endpoint is said once: what a sheet without an endpoint was run on last is what its other commands mean."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from ledger_support import bring_to, opened
from test_cli import NOBODY, Call, call

from batch import manifest
from batch.states import State

__all__ = ["call"]  # a fixture

STILL, OTHER = "fal-ai/flux/dev", "fal-ai/flux-pro/v1.1"
NOTE = f"on {STILL}, as the last run had it; --endpoint names another"


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    """Two prompts: Seedance could not do with them, it needs a picture."""
    path = tmp_path / "shots.csv"
    path.write_text("id,prompt\na,a cat\nb,a dog\n")
    return path


@pytest.fixture
def done(sheet: Path, call: Call) -> Path:
    """The sheet as a run with --endpoint leaves it, its jobs made by hand: the run itself has nothing to request."""
    with opened(sheet.parent / "state", time.time, queue_url=NOBODY) as ledger:
        ledger.plan(ledger.campaign("shots", sheet), manifest.load(sheet, endpoint=STILL).rows())
        for _ in range(2):
            bring_to(ledger, 1, State.FETCHED)
    said = call("run", sheet.name, "--endpoint", STILL, "-y", key="id:secret")
    assert said.code == 0, said.err
    return sheet


@pytest.mark.parametrize("words", [("export",), ("gallery",), ("retry",), ("run", "-y")])
def test_a_command_after_the_run_needs_no_endpoint(done: Path, call: Call, words: tuple[str, ...]) -> None:
    said = call(words[0], done.name, *words[1:])
    assert said.code == 0, said.err
    assert "2 rows, 2 saved" in said.out + said.err


def test_a_plan_says_which_one_it_goes_by(done: Path, call: Call) -> None:
    found = json.loads(call("plan", done.name, "--json").out)
    assert (found["to_submit"], found["done"]) == (0, 2)
    assert NOTE in found["notes"]


def test_the_same_sheet_is_still_not_read_again(done: Path, call: Call) -> None:
    with opened(done.parent / "state", time.time, queue_url=NOBODY) as ledger:
        before = ledger.reading(1)
    assert call("run", done.name, "-y").code == 0
    with opened(done.parent / "state", time.time, queue_url=NOBODY) as ledger:
        assert ledger.given_endpoint(1) == STILL
        assert ledger.reading(1) == before


@pytest.mark.parametrize("said_by", ["flag", "environment"])
def test_what_is_said_now_is_meant(done: Path, call: Call, monkeypatch: pytest.MonkeyPatch, said_by: str) -> None:
    if said_by == "environment":
        monkeypatch.setenv("FAL_BATCH_ENDPOINT", OTHER)
    flags = ("--endpoint", OTHER) if said_by == "flag" else ()
    found = json.loads(call("plan", done.name, "--json", *flags).out)
    assert (found["changed"], found["to_submit_by_endpoint"]) == (2, {OTHER: 2})
    assert NOTE not in found["notes"]


def test_a_manifest_that_names_its_own_goes_by_that(done: Path, call: Call) -> None:
    done.write_text(f"id,prompt,endpoint\na,a cat,{OTHER}\nb,a dog,{OTHER}\n")
    assert json.loads(call("plan", done.name, "--json").out)["to_submit_by_endpoint"] == {OTHER: 2}


def test_another_manifest_of_that_name_is_not_taken_for_it(done: Path, call: Call) -> None:
    folder = done.parent / "elsewhere"
    folder.mkdir()
    (folder / "shots.csv").write_text(done.read_text())
    said = call("plan", "elsewhere/shots.csv")
    assert said.code == 2
    assert "image_url" in said.err, "it is for the default endpoint, which needs a picture"


def test_without_a_run_there_is_nothing_to_go_by(sheet: Path, call: Call) -> None:
    assert "image_url" in call("plan", sheet.name).err
