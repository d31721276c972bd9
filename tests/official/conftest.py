"""Two queues for the official clients, each `fal-batch serve` in a process of its own, for the whole session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import environment

PROJECT = Path(__file__).parents[2]
NOTHING_STARTS = "queue: {stuck: {rate: 100%, for: forever}}\n"


@pytest.fixture(scope="session")
def queues(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The base URLs of a queue at work and of one where nothing ever starts."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "faults.yaml").write_text(NOTHING_STARTS, encoding="utf-8")
    servers = [_serve(folder, "working"), _serve(folder, "stuck", "--faults", "faults.yaml")]
    try:
        working, stuck = (_address(server) for server in servers)
        yield working, stuck
    finally:
        for server in servers:
            server.terminate()
            server.communicate()


@pytest.fixture(scope="session")
def queue(queues: tuple[str, str]) -> str:
    return queues[0]


@pytest.fixture(scope="session")
def stuck(queues: tuple[str, str]) -> str:
    return queues[1]


@pytest.fixture(scope="session")
def node() -> str:
    """Node, where it and the client are installed. On CI they must be."""
    found = shutil.which("node")
    if found and (PROJECT / "node_modules" / "@fal-ai" / "client").is_dir():
        return found
    if found:
        why = "fal's JavaScript client is not installed; `make test` does it where npm is"
    else:
        why = "node is not here; with it and npm, `make test` also tests fal's JavaScript client"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def _serve(folder: Path, state: str, *options: str) -> subprocess.Popen[str]:
    command = (sys.executable, "-m", "batch", "serve", "--port", "0", "--state", state, *options)
    with (folder / f"{state}.log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True)


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    line = server.stdout.readline().strip()
    assert line.startswith("export FAL_BATCH_QUEUE_URL=http://127.0.0.1:"), "the server did not start"
    return line.partition("=")[2]
