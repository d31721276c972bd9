"""docs/clients.md: its programs, word for word but for the port, against `fal-batch serve`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from clients import environment, frames_in
from local_support import picture

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "docs" / "clients.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8319"


def program(language: str, queue: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert ADDRESS in text
    return str(text).replace(ADDRESS, queue)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "street.jpg").write_bytes(picture())
    return tmp_path


def last_line(command: Sequence[str], folder: Path) -> str:
    ended = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Completed" in ended.stdout or "COMPLETED" in ended.stdout
    return ended.stdout.splitlines()[-1]


def test_the_python_program(queue: str, folder: Path) -> None:
    (folder / "program.py").write_text(program("python", queue), encoding="utf-8")
    assert frames_in({"video": {"url": last_line((sys.executable, "program.py"), folder)}}) == 49


def test_the_javascript_program(node: str, queue: str, folder: Path) -> None:
    (folder / "program.mjs").write_text(program("js", queue), encoding="utf-8")
    (folder / "node_modules").symlink_to(PROJECT / "node_modules")
    assert frames_in({"video": {"url": last_line((node, "program.mjs"), folder)}}) == 49


def test_the_lists_of_calls_are_where_the_page_says() -> None:
    names = re.findall(r"\]\((\.\./[^)]+)\)", TEXT)
    assert len(names) == 2
    assert all((PROJECT / "docs" / name).is_file() for name in names)
