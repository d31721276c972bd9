"""The platform calls of the local queue about models, prices and what was billed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from local_support import ENDPOINT, KEY, Local, local_queue, on_virtual_clock, wanted

from batch.endpoints import STAMP, load, parsed

PINNED = "someone/thing/make"


async def ask(local: Local, path: str, **params: Any) -> dict[str, Any]:
    answer = await local.client.get(f"/v1{path}", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def pinned(folder: Path) -> Path:
    """A folder with one more endpoint in it: the built-in one's document under another name."""
    folder.mkdir()
    document = json.dumps(load(ENDPOINT).document).replace(ENDPOINT, PINNED)
    stamped = {**json.loads(document), STAMP: {"pinned_at": "2026-11-22"}}
    (folder / (PINNED.replace("/", "__") + ".json")).write_text(json.dumps(stamped))
    return folder


def test_a_model_is_told_with_its_document_where_that_is_asked(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path / "queue", pinned_dir=pinned(tmp_path / "pinned")) as local:
            found = await ask(local, "/models", endpoint_id=[ENDPOINT, PINNED, "no/such"], expand="openapi-3.0")
            assert [model["endpoint_id"] for model in found["models"]] == [ENDPOINT, PINNED]
            assert found["models"][0]["openapi"] == load(ENDPOINT).document
            assert STAMP not in found["models"][1]["openapi"]
            again = parsed(PINNED, found["models"][1]["openapi"], source="asked")
            assert {field.name for field in again.fields} == {field.name for field in load(ENDPOINT).fields}
            [plain] = (await ask(local, "/models", endpoint_id=ENDPOINT))["models"]
            assert "openapi" not in plain
            assert plain["metadata"]["category"] == "image-to-video"
            assert (found["next_cursor"], found["has_more"]) == (None, False)

    on_virtual_clock(test)


def test_models_come_in_pages_and_by_words_and_to_anybody(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path / "queue", pinned_dir=pinned(tmp_path / "pinned")) as local:
            local.client.headers.pop("authorization")
            everything = [model["endpoint_id"] for model in (await ask(local, "/models", limit=100))["models"]]
            assert {ENDPOINT, PINNED} <= set(everything)
            paged: list[str] = []
            page = await ask(local, "/models", limit=1)
            while True:
                paged += [model["endpoint_id"] for model in page["models"]]
                if not page["has_more"]:
                    break
                page = await ask(local, "/models", limit=1, cursor=page["next_cursor"])
            assert paged == everything
            assert [model["endpoint_id"] for model in (await ask(local, "/models", q="thing make"))["models"]] == [
                PINNED
            ]
            assert (await ask(local, "/models", status="deprecated"))["models"] == []

    on_virtual_clock(test)


def test_a_price_is_that_of_fals_own_page(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path / "queue", pinned_dir=pinned(tmp_path / "pinned")) as local:
            assert (await ask(local, "/models/pricing", endpoint_id=f"{ENDPOINT},{PINNED}"))["prices"] == [
                {"endpoint_id": ENDPOINT, "unit_price": 1.0, "unit": "1m tokens", "currency": "USD"}
            ]

    on_virtual_clock(test)


@pytest.mark.parametrize(
    ("asked", "total"),
    [
        ({"estimate_type": "unit_price", "endpoints": {ENDPOINT: {"unit_quantity": 1.5}}}, 1.5),
        # 1080p and 5 s, fal's own defaults, at the dear side of what sources say
        ({"estimate_type": "historical_api_price", "endpoints": {ENDPOINT: {"call_quantity": 100}}}, 25.1777),
    ],
)
def test_an_estimate_adds_up(tmp_path: Path, asked: dict[str, Any], total: float) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.client.post("/v1/models/pricing/estimate", json=asked)
            assert answer.json() == {
                "estimate_type": asked["estimate_type"],
                "total_cost": pytest.approx(total),
                "currency": "USD",
            }

    on_virtual_clock(test)


def test_an_estimate_by_calls_goes_by_what_calls_came_to(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            await local.finished((await local.submit(wanted(aspect_ratio="16:9")))["request_id"])
            asked = {"estimate_type": "historical_api_price", "endpoints": {ENDPOINT: {"call_quantity": 100}}}
            answer = await local.client.post("/v1/models/pricing/estimate", json=asked)
            assert answer.json()["total_cost"] == pytest.approx(1.944)

    on_virtual_clock(test)


def test_what_was_billed_is_told_by_request(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            made = (await local.submit(wanted(aspect_ratio="16:9")))["request_id"]
            refused = (await local.submit(wanted(duration="13")))["request_id"]
            await local.finished(made)
            await local.finished(refused)
            await anyio.sleep(1)
            [event] = (await ask(local, "/models/billing-events"))["billing_events"]
            assert event.pop("timestamp").endswith("Z")
            assert event == {
                "request_id": made,
                "endpoint_id": ENDPOINT,
                "output_units": 0.01944,
                "unit_price": 1.0,
                "percent_discount": 0,
                "cost_subtotal": 0.01944,
                "cost_discount": 0.0,
                "cost_total": 0.01944,
                "cost_estimate_nano_usd": 19_440_000,
            }
            for params in ({"request_id": [made, refused]}, {"endpoint_id": ENDPOINT}, {"start": "2026-11-22"}):
                assert len((await ask(local, "/models/billing-events", **params))["billing_events"]) == 1
            for params in ({"request_id": refused}, {"endpoint_id": "no/such"}, {"end": "2026-11-22"}):
                assert (await ask(local, "/models/billing-events", **params))["billing_events"] == []

    on_virtual_clock(test)


def test_billing_events_come_in_pages_that_hold_still(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            ids = [(await local.submit())["request_id"] for _ in range(3)]
            await local.finished(ids[-1])
            await anyio.sleep(1)
            first = await ask(local, "/models/billing-events", limit=2)
            await local.finished((await local.submit())["request_id"])
            second = await ask(local, "/models/billing-events", limit=2, cursor=first["next_cursor"])
            told = [event["request_id"] for event in first["billing_events"] + second["billing_events"]]
            assert told == ids[::-1]
            assert (first["has_more"], second["has_more"]) == (True, False)

    on_virtual_clock(test)


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "kind"),
    [
        ("GET", "/models/pricing", None, 400, "validation_error"),
        ("GET", "/models/pricing?endpoint_id=no/such", None, 404, "not_found"),
        ("GET", "/models/pricing?endpoint_id=" + ",".join(f"a/{n}" for n in range(51)), None, 400, "validation_error"),
        ("GET", "/models?limit=0", None, 400, "validation_error"),
        ("GET", "/models?cursor=x", None, 400, "validation_error"),
        ("GET", "/models/billing-events?start=soon", None, 400, "validation_error"),
        ("POST", "/models/pricing/estimate", {}, 400, "validation_error"),
        ("POST", "/models/pricing/estimate", {"estimate_type": "x", "endpoints": {}}, 400, "validation_error"),
        ("POST", "/models/pricing/estimate", {"estimate_type": "unit_price", "endpoints": {}}, 400, "validation_error"),
        (
            "POST",
            "/models/pricing/estimate",
            {"estimate_type": "unit_price", "endpoints": {ENDPOINT: {"unit_quantity": -1}}},
            400,
            "validation_error",
        ),
        (
            "POST",
            "/models/pricing/estimate",
            {"estimate_type": "unit_price", "endpoints": {"no/such": {"unit_quantity": 1}}},
            404,
            "not_found",
        ),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_in_the_platforms_words(
    tmp_path: Path, method: str, path: str, body: Any, code: int, kind: str
) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            for prefix in ("/v1", ""):
                answer = await local.client.request(method, prefix + path, json=body)
                assert (answer.status_code, answer.json()["error"]["type"]) == (code, kind)
                assert answer.json()["error"]["message"]

    on_virtual_clock(test)


@pytest.mark.parametrize("path", ["/models/pricing?endpoint_id=a/b", "/models/billing-events"])
def test_money_is_told_with_a_key_only(tmp_path: Path, path: str) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.client.get(f"/v1{path}", headers={**KEY, "Authorization": ""})
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authorization_error")

    on_virtual_clock(test)
