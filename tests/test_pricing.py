"""Whose word a price is: fal's own list, the built-in rules, or the user; and what the program says of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from ledger_support import accept, bring_to, claim, claimable, make_row, opened, result_of
from line_support import PRICE_MICROS, World, always, answers, on, shot

from batch import endpoints, run
from batch.cli import documents, words
from batch.endpoints import Endpoint, Unit, UnitPrice
from batch.endpoints.units import quantity
from batch.errors import InputError
from batch.jobs import Outcome, Row
from batch.ledger import compare
from batch.pricing import PriceBasis, Prices
from batch.settings import load_settings
from batch.states import State

NOW = 1795338000.0  # 2026-11-22
SEEDANCE = endpoints.DEFAULT_ENDPOINT
STILL = "acme/still"
CLIP = "acme/clip"
KEY = "key-id-1234:secret-5678"


class PriceList:
    """fal's platform API, as far as prices go, and the questions it got."""

    def __init__(self, *entries: Mapping[str, Any], unknown: str | None = None) -> None:
        self.entries = entries
        self.unknown = unknown
        self.asked: list[list[str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("GET", "/v1/models/pricing")
        assert request.headers["authorization"] == f"Key {KEY}"
        wanted = request.url.params.get_list("endpoint_id")
        self.asked.append(wanted)
        assert 1 <= len(wanted) <= 50
        if self.unknown in wanted:
            return httpx.Response(404, json={"error": {"type": "not_found", "message": "no such endpoint"}})
        text = json.dumps({"prices": [one for one in self.entries if one["endpoint_id"] in wanted]})
        return httpx.Response(200, content=text.encode())


def entry(endpoint: str, price: Any, unit: str, currency: str = "USD") -> dict[str, Any]:
    return {"endpoint_id": endpoint, "unit_price": price, "unit": unit, "currency": currency}


def document(fields: Mapping[str, Any], output: str) -> dict[str, Any]:
    """An endpoint's document: its input fields beside a prompt, and what its result holds."""
    file = {"type": "object", "properties": {"url": {"type": "string"}}}
    given = {"type": "array", "items": file} if output.endswith("s") else file
    schemas = {
        "XInput": {"type": "object", "properties": {"prompt": {"type": "string"}, **fields}, "required": ["prompt"]},
        "XOutput": {"type": "object", "properties": {output: given}},
    }
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/XInput"}}}}
    answer = {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/XOutput"}}}}}
    paths = {"/x": {"post": {"requestBody": body}}, "/x/requests/{request_id}": {"get": {"responses": answer}}}
    return {"openapi": "3.0.4", "info": {"title": "x"}, "paths": paths, "components": {"schemas": schemas}}


def pin(folder: Path, endpoint: str, fields: Mapping[str, Any], output: str) -> Endpoint:
    pinned = folder / "state" / "endpoints"
    pinned.mkdir(parents=True, exist_ok=True)
    path = pinned / (endpoint.replace("/", "__") + ".json")
    path.write_text(json.dumps(document(fields, output)), encoding="utf-8")
    return endpoints.load(endpoint, pinned_dir=pinned)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pin(tmp_path, STILL, {"num_images": {"type": "integer", "default": 1}}, "images")
    pin(tmp_path, CLIP, {"duration": {"type": "string", "enum": ["5", "8s"], "default": "5"}}, "video")
    return tmp_path


def prices_of(
    folder: Path, handler: Callable[[httpx.Request], httpx.Response], *, key: str | None = KEY, **flags: Any
) -> Prices:
    environ = {} if key is None else {"FAL_KEY": key}
    settings = load_settings({"state": str(folder / "state"), **flags}, environ=environ, cwd=folder)
    return Prices(settings, clock=lambda: NOW, transport=httpx.MockTransport(handler))


def row(endpoint: str, position: int = 1, **extra: Any) -> Row:
    input = {"resolution": "480p", "aspect_ratio": "16:9", "duration": "5"} if endpoint == SEEDANCE else {}
    made = make_row(f"r{position}", endpoint=endpoint, position=position, extra={**input, **extra})
    built_in = endpoints.price_micros(SEEDANCE_DOCUMENT, made.job.input) if endpoint == SEEDANCE else None
    return replace(made, job=replace(made.job, price_micros=built_in))


SEEDANCE_DOCUMENT = endpoints.load(SEEDANCE)
BUILT_IN = 49_986  # 480p, 16:9, 5 s: 49,005 tokens at $1.00 a million and two percent


def price(prices: Prices, made: Row) -> tuple[int | None, PriceBasis]:
    (priced,) = prices.priced([made], None, None)
    (basis,) = prices.bases([made.job.endpoint])
    return priced.job.price_micros, basis


# --- what a unit is ---


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[
            (name, ("token", 1_000_000))
            for name in ("1m tokens", "1M video tokens", "million tokens", "1,000,000 Tokens")
        ],
        ("1k tokens", ("token", 1_000)),
        ("token", ("token", 1)),
        *[(name, ("second", 1)) for name in ("second", "seconds", "video_second", "Output Seconds", "per second")],
        ("minute", ("second", 60)),
        ("compute second", ("compute second", 1)),
        ("image", ("image", 1)),
        ("videos", ("video", 1)),
        ("megapixels", ("megapixel", 1)),
        ("api call", ("request", 1)),
        ("units", ("unit", 1)),
        ("kilobyte", ("kilobyte", 1)),
    ],
)
def test_a_units_name_is_read_as_people_write_it(name: str, expected: tuple[str, int]) -> None:
    assert Unit.parse(name) == Unit(expected[0], Decimal(expected[1]))


@pytest.mark.parametrize("name", ["", "$", "0 tokens", "1.2.3 tokens", "7"])
def test_what_names_no_unit_is_none(name: str) -> None:
    assert Unit.parse(name) is None


@pytest.mark.parametrize(
    ("fields", "output", "input", "thing", "expected"),
    [
        ({"num_images": {"type": "integer", "default": 2}}, "images", {}, "image", "2"),
        ({"num_images": {"type": "integer", "default": 2}}, "images", {"num_images": 3}, "image", "3"),
        (
            {"num_images": {"type": "integer", "default": 2}, "max_images": {"type": "integer", "default": 4}},
            "images",
            {},
            "image",
            "8",
        ),
        ({}, "image", {}, "image", "1"),
        ({}, "images", {}, "image", None),
        ({}, "video", {}, "image", None),
        ({}, "video", {}, "video", "1"),
        ({}, "videos", {}, "video", None),
        ({}, "videos", {}, "request", "1"),
        ({"duration": {"type": "string", "default": "8s"}}, "video", {}, "second", "8"),
        ({"duration": {"type": "number"}}, "video", {"duration": 2.5}, "second", "2.5"),
        ({"duration": {"type": "string", "default": "auto"}}, "video", {}, "second", None),
        (
            {"num_frames": {"type": "integer"}, "fps": {"type": "integer", "default": 16}},
            "video",
            {"num_frames": 80},
            "second",
            "5",
        ),
        ({"num_frames": {"type": "integer", "default": 80}}, "video", {}, "second", None),
        ({"duration": {"type": "integer", "default": 5}}, "video", {"num_frames": 99}, "second", None),
        ({}, "video", {}, "second", None),
        ({"num_images": {"type": "integer", "default": 2}}, "images", {}, "megapixel", None),
        ({}, "video", {}, "compute second", None),
    ],
)
def test_a_quantity_is_what_the_input_says_and_never_a_guess(
    tmp_path: Path, fields: Mapping[str, Any], output: str, input: Mapping[str, Any], thing: str, expected: str | None
) -> None:
    endpoint = pin(tmp_path, "acme/x", fields, output)
    found = quantity(endpoint, {"prompt": "x", **input}, thing)
    assert found == (None if expected is None else Decimal(expected))


# --- whose price goes ---


def test_fals_price_replaces_that_of_the_built_in_rule_where_both_count_the_same(folder: Path) -> None:
    for amount, unit, expected in (
        (0.8, "1m tokens", 39_989),
        ("0.000002", "tokens", 99_971),
        (1, "million tokens", BUILT_IN),
    ):
        found, basis = price(prices_of(folder, PriceList(entry(SEEDANCE, amount, unit))), row(SEEDANCE))
        assert found == expected
        assert (basis.source, basis.unit, basis.as_of) == ("fal", unit, "2026-11-22")


def test_the_picture_that_settles_an_auto_frame_settles_it_for_fals_price_too(folder: Path) -> None:
    prices = prices_of(folder, PriceList(entry(SEEDANCE, 2, "1m tokens")))
    square = replace(row(SEEDANCE, aspect_ratio="auto"), image_size=(512, 512))
    wide = replace(row(SEEDANCE, aspect_ratio="1:1"), position=2)
    first, second = prices.priced([square, wide], None, None)
    assert first.job.price_micros == second.job.price_micros == 98_736


def test_a_price_is_counted_in_exact_decimals_and_rounded_up(folder: Path) -> None:
    list_of = PriceList(entry(STILL, 0.1, "image"), entry(CLIP, 0.0333333, "second"))
    prices = prices_of(folder, list_of)
    assert price(prices, row(STILL, num_images=3))[0] == 300_000
    assert price(prices, row(CLIP))[0] == 166_667


def test_an_endpoint_without_a_rule_costs_what_the_input_says_the_number_of(folder: Path) -> None:
    prices = prices_of(folder, PriceList(entry(STILL, 0.03, "images"), entry(CLIP, 0.1, "second")))
    found, basis = price(prices, row(CLIP, duration="8s"))
    assert (found, basis.source, basis.unit_usd) == (800_000, "fal", "0.1")
    assert basis.note == "what it adds for other settings (resolution, sound) is not counted"


@pytest.mark.parametrize("unit", ["megapixel", "units", "compute seconds", "1m tokens"])
def test_a_price_for_a_number_that_nobody_knows_before_prices_no_job_and_is_said(folder: Path, unit: str) -> None:
    found, basis = price(prices_of(folder, PriceList(entry(STILL, 0.03, unit))), row(STILL))
    assert (found, basis.source, basis.unit, basis.unit_usd) == (None, "unknown", unit, "0.03")
    assert basis.note == "how many a job takes is not known before"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            [entry(SEEDANCE, 1, "1m tokens", "EUR")],
            "fal's price list has 1 EUR per 1m tokens, and only US dollars are counted",
        ),
        ([entry(SEEDANCE, 0, "1m tokens")], "fal's price list has 0 USD per 1m tokens, which is no price to go by"),
        ([entry(SEEDANCE, -1, "1m tokens")], "which is no price to go by"),
        ([entry(SEEDANCE, 1e12, "1m tokens")], "which is no price to go by"),
        ([entry(SEEDANCE, "a dollar", "1m tokens")], "fal's price list has no number USD per 1m tokens"),
        ([entry(SEEDANCE, True, "1m tokens")], "fal's price list has no number USD per 1m tokens"),
        ([entry(SEEDANCE, "NaN", "1m tokens")], "fal's price list has no number USD per 1m tokens"),
        ([entry(SEEDANCE, 1, "")], "fal's price list has 1 USD per nothing"),
        (
            [entry(SEEDANCE, 1, "1m tokens"), entry(SEEDANCE, 2, "1m tokens")],
            "fal's price list has several prices of it",
        ),
        ([entry(SEEDANCE, 0.05, "second")], "fal's price list has $0.05 per second, which the rule does not count"),
        ([], "fal's price list has nothing of it"),
    ],
)
def test_what_is_no_usable_price_leaves_the_built_in_one_and_is_said(
    folder: Path, given: list[dict[str, Any]], words: str
) -> None:
    found, basis = price(prices_of(folder, PriceList(*given)), row(SEEDANCE))
    assert (found, basis.source, basis.as_of) == (BUILT_IN, "built_in", "2026-01-28")
    assert basis.note is not None and words in basis.note


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(401, json={"error": {"message": "no"}}), "could not be asked: prices: fal answered 401"),
        (httpx.Response(500, content=b"<html>"), "could not be asked: prices: fal answered 500"),
        (httpx.Response(200, content=b'{"prices": 7}'), "could not be asked: prices: fal answered 200"),
        (httpx.Response(200, content=b"\xff"), "could not be asked: prices: fal answered 200"),
    ],
)
def test_a_list_that_is_not_told_leaves_the_built_in_rules_and_is_asked_for_once(
    folder: Path, answer: httpx.Response, words: str
) -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer

    prices = prices_of(folder, handler)
    rows = [*(row(SEEDANCE, n) for n in range(1, 2_500)), row(STILL, 2_500)]
    priced = list(prices.priced(rows, None, None))
    assert [one.job.price_micros for one in priced] == [BUILT_IN] * 2_499 + [None]
    assert len(asked) == 1
    for basis, source in zip(prices.bases([SEEDANCE, STILL]), ("built_in", "unknown"), strict=True):
        assert (basis.source, words in (basis.note or "")) == (source, True), basis
        assert "secret" not in (basis.note or "")


def test_without_a_network_a_price_says_so_in_a_few_words(folder: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("cannot connect to api.fal.ai:443: [Errno -2] Name or service not known")

    _, basis = price(prices_of(folder, handler), row(SEEDANCE))
    assert basis.note == "fal's price list could not be asked: no answer from api.fal.ai"


def test_an_answer_that_does_not_come_is_waited_for_three_seconds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()
        raise AssertionError

    prices = prices_of(folder, PriceList())
    prices._transport, prices._left_s = httpx.MockTransport(never), 0.05
    found, basis = price(prices, row(SEEDANCE))
    assert (found, basis.source) == (BUILT_IN, "built_in")
    assert basis.note == "fal's price list gave no answer within 3 s"


@pytest.mark.parametrize(
    ("key", "flags", "source", "note"),
    [
        (None, {}, "built_in", "without a key fal's price list is not told"),
        (KEY, {"local": True}, "built_in", "a rehearsal does not ask for fal's price list"),
        (KEY, {"price": "0.30"}, "option", "as --price says"),
    ],
)
def test_fal_is_not_asked_without_a_key_in_a_rehearsal_or_where_the_user_says_the_price(
    folder: Path, key: str | None, flags: dict[str, Any], source: str, note: str
) -> None:
    fal = PriceList(entry(SEEDANCE, 9, "1m tokens"))
    found, basis = price(prices_of(folder, fal, key=key, **flags), row(SEEDANCE))
    assert (found, fal.asked) == (BUILT_IN, [])
    assert (basis.source, basis.note) == (source, note)


def test_a_price_that_the_user_says_leaves_no_unit_to_multiply_fals_count_by(folder: Path) -> None:
    assert prices_of(folder, PriceList(), price="0.30").unit_price(SEEDANCE) is None
    built_in = prices_of(folder, PriceList(), local=True).unit_price(SEEDANCE)
    assert built_in is not None and built_in.usd == 1


def test_fifty_endpoints_go_into_one_call_and_each_is_asked_about_once(folder: Path) -> None:
    names = [f"acme/still-{n}" for n in range(70)]
    for name in names:
        pin(folder, name, {}, "image")
    fal = PriceList(*(entry(name, n + 1, "image") for n, name in enumerate(names)))
    prices = prices_of(folder, fal)
    rows = [row(name, n) for n, name in enumerate(names * 30)]
    priced = list(prices.priced(rows, None, None))
    assert [one.job.price_micros for one in priced[:70]] == [1_000_000 * n for n in range(1, 71)]
    assert sorted(map(len, fal.asked)) == [20, 50]


def test_an_endpoint_that_fal_does_not_know_does_not_spoil_the_others(folder: Path) -> None:
    fal = PriceList(entry(CLIP, 0.1, "second"), unknown=STILL)
    prices = prices_of(folder, fal)
    clip, still = prices.priced([row(CLIP), row(STILL, 2)], None, None)
    assert (clip.job.price_micros, still.job.price_micros) == (500_000, None)
    assert [basis.source for basis in prices.bases([CLIP, STILL])] == ["fal", "unknown"]


def test_a_campaign_with_nothing_left_to_submit_asks_for_no_price(folder: Path) -> None:
    fal = PriceList(entry(SEEDANCE, 2, "1m tokens"))
    rows = [row(SEEDANCE, n, seed=n) for n in range(1, 4)]
    with opened(folder / "state") as ledger:
        ledger.plan(ledger.campaign("camp", folder / "camp.csv"), rows)
        for state in (State.FETCHED, State.FAILED, State.COMPLETED):
            bring_to(ledger, 1, state)
        assert list(prices_of(folder, fal).priced(rows, ledger, 1)) == rows
        assert fal.asked == []
        retried = list(prices_of(folder, fal).priced(rows, ledger, 1, is_retry=True))
        assert (retried[0].job.price_micros, len(fal.asked)) == (99_971, 1)


# --- what the ledger makes of it ---


def test_planning_again_prices_what_is_to_come_and_no_attempt_that_was_made(folder: Path) -> None:
    cheap, dear = (prices_of(folder, PriceList(entry(SEEDANCE, usd, "1m tokens"))) for usd in (1, 2))
    rows = [row(SEEDANCE, n, seed=n) for n in range(1, 4)]
    with opened(folder / "state") as ledger:
        campaign = ledger.campaign("camp", folder / "camp.csv")
        assert ledger.plan(campaign, cheap.priced(rows, ledger, campaign)).estimate_micros == 3 * BUILT_IN
        unit = cheap.unit_price(SEEDANCE)
        at_fal = claim_with(ledger, campaign, unit)
        accept(ledger, at_fal)

        planned = ledger.plan(campaign, dear.priced(rows, ledger, campaign))
        assert (planned.to_submit, planned.estimate_micros) == (2, 2 * 99_971)
        totals = ledger.totals(campaign)
        assert (totals.reserved_micros, totals.to_submit_micros) == (BUILT_IN, 2 * 99_971)
        assert claim_with(ledger, campaign, dear.unit_price(SEEDANCE)).price_micros == 99_971
        assert compare(dear.priced(rows, ledger, campaign), ledger, campaign).planned.estimate_micros == 99_971

        ledger.completed(at_fal, Outcome(result=result_of("https://files.example/a.mp4"), billable_units="0.0486"))
        totals = ledger.totals(campaign)
        assert (totals.settled_micros, totals.settled_told_micros) == (48_600, 48_600), "by the price it was claimed at"
        assert ledger._db.execute("SELECT unit, unit_usd FROM attempt ORDER BY id").fetchall()[1][1] == "2"


def claim_with(ledger: Any, campaign: int, unit_price: UnitPrice | None) -> Any:
    job = claimable(ledger, campaign, now=1e12, limit=1)[0]
    return ledger.claimed(
        job,
        campaign_id=campaign,
        body=job.input,
        start_timeout_s=60.0,
        run_timeout_s=60.0,
        cap_micros=None,
        unit_price=unit_price,
    )


def test_a_cost_that_fal_counted_is_told_apart_from_an_estimate(folder: Path) -> None:
    unit = UnitPrice(unit="image", usd=Decimal("0.00012"), source="fal", as_of="2026-11-22")
    with opened(folder / "state") as ledger:
        campaign = ledger.campaign("camp", folder / "camp.csv")
        ledger.plan(campaign, [make_row(name, position=n) for n, name in enumerate("abcdef", start=1)])
        for units, unit_price in (("1", unit), ("1", None), (None, unit), ("0", unit)):
            attempt = claim_with(ledger, campaign, unit_price)
            accept(ledger, attempt)
            ledger.completed(attempt, Outcome(result={"text": "x"}, billable_units=units))
        accept(ledger, claim_with(ledger, campaign, unit))
        totals = ledger.totals(campaign)
        assert (totals.settled_micros, totals.settled_told_micros, totals.reserved_micros) == (340, 120, 120)
        found = [(line.cost_micros, line.cost_source) for line in ledger.jobs(campaign)]
        assert found == [
            (120, "fal"),
            (100, "estimate"),  # without the price of a unit nothing that fal counts can raise it
            (120, "estimate"),  # what the one before came to
            (0, "fal"),
            (120, "reserved"),
            (None, None),
        ]
        for name, (cost, source) in zip("abcde", found, strict=False):
            result = ledger.result_of(campaign, make_row(name).job.key, name, 1)
            assert result is not None and (result.cost_micros, result.cost_source) == (cost, source)
        with pytest.raises(sqlite3.IntegrityError):
            ledger._db.execute("UPDATE attempt SET is_cost_told = 1 WHERE is_settled = 0")


def test_more_than_the_estimate_counts_under_the_cap_as_soon_as_fal_says_so(folder: Path) -> None:
    unit = UnitPrice(unit="image", usd=Decimal("0.0001"), source="fal", as_of="2026-11-22")
    with opened(folder / "state") as ledger:
        campaign = ledger.campaign("camp", folder / "camp.csv")
        ledger.plan(campaign, [make_row("a"), make_row("b", position=2)])
        attempt = claim_with(ledger, campaign, unit)
        accept(ledger, attempt)
        assert ledger.room_micros(campaign, 300) == 200
        ledger.completed(attempt, Outcome(result={"text": "x"}, billable_units="2.5"))
        assert ledger.room_micros(campaign, 300) == 50
        with pytest.raises(AssertionError):
            claim(ledger, campaign, cap_micros=300)


def test_a_failure_that_fal_bills_in_part_costs_that_part(folder: Path) -> None:
    unit = UnitPrice(unit="image", usd=Decimal("0.0001"), source="fal", as_of="2026-11-22")
    with opened(folder / "state") as ledger:
        campaign = ledger.campaign("camp", folder / "camp.csv")
        ledger.plan(campaign, [make_row("a")])
        attempt = claim_with(ledger, campaign, unit)
        accept(ledger, attempt)
        ledger.failed(attempt, cause="content_policy", message="no", is_billed=True, billable_units="0.5")
        totals = ledger.totals(campaign)
        assert (totals.settled_micros, totals.settled_told_micros) == (50, 50)


def test_a_job_that_was_stopped_while_it_ran_costs_the_units_that_fal_bills_for_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.unit_price_of = endpoints.built_in_price
    body = {"detail": "Request was cancelled by the client", "error_type": "client_cancelled"}
    stopped = answers(499, body, headers={"x-fal-error-type": "client_cancelled", "x-fal-billable-units": "0.01"})
    ran = world.run(shot("a", 5, always("result", stopped)))
    assert (ran.states, ran.cost) == ({"a": "cancelled"}, {"a": 10_000})
    assert ran.totals.settled_told_micros == 10_000 < PRICE_MICROS


# --- the line, on the virtual clock ---


def test_a_run_settles_by_fals_units_and_estimates_where_fal_tells_none(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.unit_price_of = endpoints.built_in_price
    no_units = answers(200, {"video": {"url": "https://cdn.test/files/none.mp4"}, "seed": 1})
    ran = world.run(shot("a"), shot("b", 0.0, on("result", no_units)))
    assert ran.cost["a"] == 18_768, "736 x 544 x 48 / 1024 tokens at a dollar a million: fal's own count"
    assert ran.cost["b"] == 19_543, "the estimate"
    assert (ran.totals.settled_micros, ran.totals.settled_told_micros) == (18_768 + 19_543, 18_768)


# --- what people are told ---


def test_a_cap_that_cannot_be_kept_says_what_is_known_of_the_price(folder: Path) -> None:
    settings = load_settings({"state": str(folder / "state"), "max_cost": "5"}, environ={"FAL_KEY": KEY}, cwd=folder)
    with opened(folder / "state") as ledger:
        planned = ledger.plan(ledger.campaign("camp", folder / "camp.csv"), [make_row("a", price_micros=None)])
    basis = PriceBasis(endpoint=STILL, source="unknown", unit="megapixel", unit_usd="0.03", note="how many?")
    with pytest.raises(InputError) as caught:
        run._check_means(settings, planned, settings.max_cost, 0, (basis,))
    assert str(caught.value).startswith(f"1 job has no known price ({STILL}: $0.03 per megapixel, how many?), so a cap")
    assert "--price USD" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "$0.00 spent"),
        ({"settled_micros": 2_000_000}, "$2.00 spent (estimated)"),
        ({"settled_micros": 2_000_000, "settled_told_micros": 2_000_000}, "$2.00 spent (by fal's count)"),
        (
            {"settled_micros": 2_000_000, "settled_told_micros": 1_500_000},
            "$2.00 spent ($1.50 by fal's count, $0.5000 estimated)",
        ),
        ({"unpriced_attempts": 1}, "$0.00 spent, 1 submit without a known price"),
        ({"to_submit_unpriced": 3}, "$0.00 spent, 3 jobs without a known price for what is not submitted yet"),
        (
            {"to_submit_micros": 4_000_000, "to_submit_unpriced": 1},
            "$0.00 spent, up to $4.00 and 1 job without a known price for what is not submitted yet",
        ),
    ],
)
def test_a_status_says_how_much_is_fals_count_how_much_an_estimate_and_what_nobody_knows(
    folder: Path, changes: dict[str, int], told: str
) -> None:
    with opened(folder / "state") as ledger:
        totals = replace(ledger.totals(ledger.campaign("camp", folder / "camp.csv")), **changes)
    assert words._spent(totals, is_rehearsal=False) == f"  money: {told}"
    document = documents._totals(totals)
    parts = document["settled_told_micros"] + document["settled_estimate_micros"]
    assert parts == document["settled_micros"] == totals.settled_micros


@pytest.mark.parametrize(
    ("basis", "told"),
    [
        (PriceBasis(endpoint="e", source="option", note="as --price says"), "as --price says"),
        (
            PriceBasis(endpoint="e", source="fal", unit="1m tokens", unit_usd="1", as_of="2026-11-22"),
            "by fal's price list of 2026-11-22: $1.00 per 1m tokens",
        ),
        (
            PriceBasis(endpoint="e", source="built_in", unit="x", unit_usd="1234.5", as_of="2026-01-28", note="no key"),
            "by the built-in rule of 2026-01-28: $1,234.50 per x (no key)",
        ),
        (
            PriceBasis(
                endpoint="e", source="unknown", unit="megapixel", unit_usd="0.0250", as_of="d", note="how many?"
            ),
            "fal's price list has $0.025 per megapixel (how many?)",
        ),
        (PriceBasis(endpoint="e", source="unknown", note="without a key"), "no price is known (without a key)"),
    ],
)
def test_a_plan_says_whose_word_a_price_is(basis: PriceBasis, told: str) -> None:
    assert words.basis_in_words(basis, is_only=True) == told
    assert words.basis_in_words(basis, is_only=False) == f"e: {told}"
