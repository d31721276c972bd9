"""fal's own JavaScript client, unchanged, against `fal-batch serve`. What is asked of it is in clients.test.mjs.

Node runs that file once, its tests at the same time; each of them is a test here too.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from clients import environment
from local_support import picture
from relay import Relay, relayed, table

PROJECT = Path(__file__).parents[2]
TESTS = Path(__file__).with_name("clients.test.mjs")
CALLS = Path(__file__).with_name("calls_of_fal_js.txt")
NAMES = re.findall(r'^  test\("(.+)", async', TESTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
RUN_S_MAX = 120


@pytest.fixture(scope="module")
def relay(node: str, queue: str) -> Iterator[Relay]:
    with relayed(queue) as relay:
        yield relay


@pytest.fixture(scope="module")
def endings(node: str, relay: Relay, stuck: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What Node says of each test: None when it passed, else how it failed."""
    folder = tmp_path_factory.mktemp("javascript")
    (folder / "street.jpg").write_bytes(picture())
    report = folder / "report.xml"
    command = (node, "--test-reporter=junit", f"--test-reporter-destination={report}", str(TESTS))
    places = {"QUEUE": relay.url, "STUCK": stuck, "PICTURE": str(folder / "street.jpg")}
    ended = subprocess.run(
        command, env={**environment(), **places}, capture_output=True, text=True, timeout=RUN_S_MAX, check=False
    )
    assert report.exists(), ended.stderr
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return {case.attrib["name"]: next((found.text for found in case.iter("failure")), None) for case in cases}


def test_it_is_the_client_these_tests_are_about(node: str) -> None:
    installed = json.loads((PROJECT / "node_modules/@fal-ai/client/package.json").read_text(encoding="utf-8"))
    wanted = json.loads((PROJECT / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert installed["version"] == wanted["@fal-ai/client"] == "1.10.1"


def test_node_ran_all_of_them(endings: dict[str, str | None]) -> None:
    assert sorted(endings) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_javascript(endings: dict[str, str | None], name: str) -> None:
    if failure := endings[name]:
        pytest.fail(failure, pytrace=False)


def test_these_calls_and_headers_are_all_that_the_client_sent(endings: dict[str, str | None], relay: Relay) -> None:
    """A new version of the client that asks for something else is noticed here."""
    seen = table(relay.calls)
    print(f"@fal-ai/client 1.10.1\n\n{seen}")
    assert seen == CALLS.read_text(encoding="utf-8"), f"{CALLS.name} says otherwise"
