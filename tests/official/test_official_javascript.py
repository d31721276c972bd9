"""fal's own JavaScript client, unchanged, against `fal-batch serve`. What is asked of it is in clients.test.mjs.

Node runs that file once, its tests at the same time.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest
from clients import environment
from local_support import picture
from relay import relayed, table

PROJECT = Path(__file__).parents[2]
TESTS = Path(__file__).with_name("clients.test.mjs")
CALLS = Path(__file__).with_name("calls_of_fal_js.txt")
NAMES = re.findall(r'^  test\("(.+)", async', TESTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
RUN_S_MAX = 120


def test_it_is_the_client_these_tests_are_about(node: str) -> None:
    installed = json.loads((PROJECT / "node_modules/@fal-ai/client/package.json").read_text(encoding="utf-8"))
    wanted = json.loads((PROJECT / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert installed["version"] == wanted["@fal-ai/client"] == "1.10.1"


def test_all_that_is_asked_of_the_client(node: str, queue: str, stuck: str, tmp_path: Path) -> None:
    """And the calls and headers that it sent: a new version that asks for something else is noticed here."""
    (tmp_path / "street.jpg").write_bytes(picture())
    with relayed(queue) as relay:
        endings = _endings(node, {"QUEUE": relay.url, "STUCK": stuck}, tmp_path)
    for name, failure in endings.items():
        print("failed:" if failure else "passed:", name)
    assert sorted(endings) == sorted(NAMES)
    if failures := [f"{name}\n{failure}" for name, failure in endings.items() if failure]:
        pytest.fail("\n".join(failures), pytrace=False)
    seen = table(relay.calls)
    print(f"\n@fal-ai/client 1.10.1\n\n{seen}")
    assert seen == CALLS.read_text(encoding="utf-8"), f"{CALLS.name} says otherwise"


def _endings(node: str, places: Mapping[str, str], folder: Path) -> dict[str, str | None]:
    """What Node says of each test: None when it passed, else how it failed."""
    report = folder / "report.xml"
    command = (node, "--test-reporter=junit", f"--test-reporter-destination={report}", str(TESTS))
    variables = {**environment(), **places, "PICTURE": str(folder / "street.jpg")}
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
    assert report.exists(), ended.stderr
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return {case.attrib["name"]: next((found.text for found in case.iter("failure")), None) for case in cases}
