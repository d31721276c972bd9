"""The pages in docs/ say what the program does, name by name."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from ledger_support import bring_to, opened
from test_cli import NOBODY, Call, call, planned, sheet

from batch.manifest.campaign import KEYS
from batch.manifest.report import KINDS
from batch.states import State

__all__ = ["call", "sheet"]  # fixtures

IMAGES = Path(__file__).parents[1] / "manifests" / "images"
TEXT = (Path(__file__).parents[1] / "docs" / "json.md").read_text(encoding="utf-8")


def documented(section: str) -> set[str]:
    """The names in a section's table."""
    (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def printed(call: Call, *args: str, **kwargs: Any) -> Any:
    return json.loads(call(*args, "--json", **kwargs).out)


def test_a_plan(call: Call, sheet: Path) -> None:
    found = printed(call, "plan", str(sheet))
    assert documented("plan") == set(found)
    assert set(found["first_requests"][0]) == {"address", "row_id", "endpoint", "body", "defaults", "price_micros"}
    assert set(found["superseded"]) == {"dropped", "followed", "ended"}
    assert set(found["this_run"]) == {"jobs", "estimate_micros", "seconds"}


def test_init(call: Call) -> None:
    assert documented("init") == set(printed(call, "init", "autumn"))


def test_a_status(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet)
    (found,) = printed(call, "status")
    assert documented("status") == set(found)


def test_a_run(call: Call, sheet: Path) -> None:
    """One that has nothing to do needs no fal."""
    with opened(sheet.parent / "state", time.time, queue_url=NOBODY) as ledger:
        from batch import manifest

        rows = list(manifest.load(sheet).rows())
        ledger.plan(ledger.campaign("shots", sheet), rows)
        for _ in rows:
            bring_to(ledger, 1, State.FETCHED)
    found = printed(call, "run", str(sheet))
    assert documented("status") | documented("run, retry") == set(found)
    assert (found["exit_code"], found["submitted"], found["fetched"]) == (0, 0, 2)


def test_jobs(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet)
    assert documented("jobs") == set(printed(call, "jobs", str(sheet))[0])


def test_cancel(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet)
    found = printed(call, "cancel", str(sheet), key="id:secret")
    assert documented("cancel") == set(found)
    assert (found["not_submitted"], found["cancelled"], found["exit_code"]) == (3, 0, 0)


def test_reconcile(call: Call, sheet: Path) -> None:
    planned(sheet.parent, sheet)
    assert documented("reconcile") == set(printed(call, "reconcile", str(sheet), key="id:secret"))


def test_the_doctor(call: Call) -> None:
    for finding in printed(call, "doctor", "--local"):
        assert documented("doctor") == set(finding)
        assert finding["verdict"] in {"ok", "note", "trouble"}


def test_an_export(call: Call, sheet: Path) -> None:
    assert documented("export") == set(printed(call, "export", str(sheet), "out.csv"))


def test_a_gallery(call: Call, sheet: Path) -> None:
    assert documented("gallery") == set(printed(call, "gallery", str(sheet)))


def test_an_endpoint(call: Call) -> None:
    found = printed(call, "endpoint", "fal-ai/flux/dev", "--local")
    assert documented("endpoint") >= set(found)
    assert set(found["fields"][0]) == {"name", "type", "limits", "required", "default", "file", "description", "schema"}
    assert set(found["template"][0]) == {"name", "example", "is_required"}
    assert set(printed(call, "endpoint")[0]) == {"id", "source"}


def test_a_refused_manifest(call: Call, sheet: Path) -> None:
    sheet.write_text("id,prompt,image_url\na,,\n")
    found = printed(call, "plan", str(sheet))
    assert documented("errors") | {"error", "exit_code"} == set(found)
    assert set(found["mistakes"][0]) == {"address", "column", "message", "kind"}


@pytest.mark.parametrize("args", [("status", "--settings"), ("status",), ("plan", "none.csv"), ("jobs", "none.csv")])
def test_stdout_is_one_document_and_nothing_else(call: Call, args: tuple[str, ...]) -> None:
    assert printed(call, *args) is not None


# --- docs/manifests.md ---


MANIFESTS = (Path(__file__).parents[1] / "docs" / "manifests.md").read_text(encoding="utf-8")


def named(heading: str) -> list[str]:
    """The first column of the table that has this heading."""
    table = MANIFESTS.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]


def test_every_kind_of_mistake_is_listed_with_its_meaning() -> None:
    assert named("kind") == list(KINDS)
    assert all(f"| `{kind}` | {meaning} |" in MANIFESTS for kind, meaning in KINDS.items())


def test_every_key_of_a_campaign_is_listed() -> None:
    assert sorted(named("key")) == sorted(KEYS)


def test_the_campaign_that_is_shown_is_a_good_one(call: Call, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    shutil.copy(IMAGES / "chelsea.jpg", tmp_path / "images" / "cat.jpg")
    (tmp_path / "moves.yaml").write_text(MANIFESTS.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    found = printed(call, "plan", "moves.yaml")
    assert (found["sheet_rows"], found["combinations"], found["rows"], found["jobs"]) == (1, 4, 4, 4)
    assert found["cap_micros"] == 25_000_000
    assert found["first_requests"][0]["body"]["prompt"] == "cat, camera zooms in"


# --- docs/webhooks.md ---


def test_the_numbers_of_the_page_on_webhooks_are_the_programs() -> None:
    from batch import asking, receiver
    from batch.fal import webhook
    from batch.settings import OPTIONS

    text = " ".join((Path(__file__).parents[1] / "docs" / "webhooks.md").read_text(encoding="utf-8").split())
    option = OPTIONS["webhook_listen"]
    assert f"`--webhook-listen HOST:PORT` ({option.text(option.default)})" in text
    assert (webhook.CLOCKS_APART_S_MAX, "five minutes ago" in text) == (300, True)
    assert (receiver.KEYS_LIFE_S, "kept for a day" in text) == (86400, True)
    assert (receiver.REFETCH_S, "once a minute at most" in text) == (60, True)
    assert (receiver.BODY_BYTES_MAX, "longer than 1 MiB" in text) == (2**20, True)
    assert (asking.SAFETY_NET_S, "every three minutes" in text) == (180, True)
    assert (asking.NET_FACTOR, "one and a half times" in text) == (1.5, True)
    codes = {receipt.value for receipt in webhook.Receipt} | {401, 404, 413}
    assert codes == {int(code) for code in re.findall(r"\| (\d{3}) \|", text)}
