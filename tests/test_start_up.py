"""What a command loads before it does anything: the answer to `--help` needs none of the line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ledger_support import make_row

from batch.ledger import open_ledger

HEAVY = ("pandas", "numpy", "httpx", "aiohttp", "sqlite_utils", "av", "PIL", "uvicorn", "openpyxl", "pyarrow", "anyio")
OWN = ("batch.local", "batch.fal.client", "batch.scheduler", "batch.fetch")


def loaded_by(folder: Path, *words: str) -> set[str]:
    """The modules that `fal-batch …` has loaded when it ends."""
    script = (
        "import sys\nfrom batch.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    made = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return set(made.stderr.split())


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("--version",), ("status",), ("completion", "bash")])
def test_help_and_status_load_nothing_heavy(tmp_path: Path, words: tuple[str, ...]) -> None:
    loaded = loaded_by(tmp_path, *words)
    assert "batch.cli.commands" in loaded
    assert not loaded & {*HEAVY, *OWN}


def test_the_status_of_a_campaign_loads_nothing_heavy(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "state", queue_url="https://queue.fal.run", command="run", clock=lambda: 0.0) as ledger:
        ledger.plan(ledger.campaign("shots", tmp_path / "shots.csv"), [make_row("a")])
    for words in (("status",), ("status", "shots.csv")):
        assert not loaded_by(tmp_path, *words) & {*HEAVY, *OWN, "batch.save", "batch.manifest"}


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("--version",)])
def test_help_does_not_open_the_ledger_or_know_an_endpoint(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert not loaded_by(tmp_path, *words) & {"sqlite3", "batch.ledger", "batch.endpoints", "batch.run"}
