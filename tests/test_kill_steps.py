"""Killed with SIGKILL at a commit of the ledger, in processes of their own. `make crash` does it at every commit."""

from __future__ import annotations

from pathlib import Path

from kill_loop import accepted, queue
from kill_steps import environment_for, killed_at


def test_what_was_paid_for_and_not_yet_written_down_when_the_program_was_killed_is_not_paid_for_again(
    tmp_path: Path,
) -> None:
    with queue(tmp_path / "queue") as url:
        assert killed_at(tmp_path / "desk", environment_for(url), "accepted", "before", rows=1) is None
        counted = accepted(url)
    assert (counted["accepted"], counted["inputs"]) == (1, 1)
