"""`fal-batch endpoint`: documents fetched, pinned, shown, and compared with fal's own."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import threading
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trio.testing
from endpoint_support import ID, document_of
from test_cli import Call, call, sheet

from batch import endpoints, pin
from batch.endpoints import DEFAULT_ENDPOINT, STAMP
from batch.errors import Blocked, InputError
from batch.jobs import canonical_json
from batch.settings import Settings, load_settings

__all__ = ["call", "sheet"]  # fixtures

SIZE = {"type": "object", "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}}}
DOCUMENT = document_of(
    {
        "type": "object",
        "required": ["prompt"],
        "properties": {
            "prompt": {"type": "string", "maxLength": 9, "examples": ["a cat"]},
            "size": SIZE,
            "id": {"type": "string"},
        },
    }
)


class Fal:
    """An API host that has some documents, and notes what it was asked and with which key."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.answers: list[int] = []  # status codes before it answers well
        self.asked: list[tuple[str, dict[str, list[str]], str | None]] = []
        fal = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, body = fal.answer(self.path, self.headers.get("Authorization"))
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def answer(self, path: str, key: str | None) -> tuple[int, bytes]:
        url = urllib.parse.urlsplit(path)
        query = urllib.parse.parse_qs(url.query)
        if url.path != "/v1/models":
            return 404, b"{}"  # its price list
        self.asked.append((url.path, query, key))
        if self.answers:
            return self.answers.pop(0), b"{}"
        models = [
            {"endpoint_id": name, "metadata": {}, "openapi": self.documents[name]}
            for name in query["endpoint_id"]
            if name in self.documents
        ]
        return 200, json.dumps({"models": models, "next_cursor": None, "has_more": False}).encode()


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch, call: Call) -> Iterator[Fal]:
    fal = Fal()
    monkeypatch.setenv("FAL_BATCH_API_URL", fal.url)
    thread = threading.Thread(target=fal.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fal
    fal.server.shutdown()
    thread.join()
    fal.server.server_close()


def settings_of(folder: Path) -> Settings:
    return load_settings({}, environ={"FAL_KEY": "id:secret"}, cwd=folder)


def on_a_virtual_clock(func: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(func, *args, backend="trio", backend_options={"clock": clock})


def pinned(folder: Path, endpoint_id: str = ID) -> Any:
    return json.loads((folder / "state" / "endpoints" / endpoints.file_name(endpoint_id)).read_text())


def test_an_id_is_fetched_pinned_with_its_date_and_hash_and_shown(call: Call, fal: Fal, tmp_path: Path) -> None:
    fal.documents[ID] = DOCUMENT
    said = call("endpoint", ID)
    assert said.code == 0
    assert fal.asked == [("/v1/models", {"endpoint_id": [ID], "expand": ["openapi-3.0"], "limit": ["1"]}, None)]
    found = pinned(tmp_path)
    stamp = found.pop(STAMP)
    assert found == DOCUMENT
    assert stamp["sha256"] == hashlib.sha256(canonical_json(DOCUMENT).encode()).hexdigest()
    assert (stamp["from"], len(stamp["pinned_at"])) == (f"{fal.url}/models", 20)
    lines = [line.split() for line in said.out.splitlines()]
    assert ["prompt", "*", "text", "at", "most", "9", "characters"] in lines
    assert ["size", "object", "with", "width,", "height"] in lines
    assert "columns of their own: size.width, size.height" in said.out
    assert "price: " in said.out
    assert f"pinned in {Path('state/endpoints/acme__thing.json')}" in said.err
    assert (
        endpoints.load(ID, pinned_dir=tmp_path / "state" / "endpoints").source == f"pinned, {stamp['pinned_at'][:10]}"
    )


def test_a_key_is_sent_where_there_is_one(call: Call, fal: Fal) -> None:
    fal.documents[ID] = DOCUMENT
    call("endpoint", ID, key="id:secret")
    assert [key for _, _, key in fal.asked] == ["Key id:secret"]


def test_a_file_is_pinned_under_the_id_that_it_is_about(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(DOCUMENT))
    said = call("endpoint", "mine.json", "--json")
    found = json.loads(said.out)
    assert (found["id"], found["path"]) == (ID, str(Path("state/endpoints/acme__thing.json")))
    assert pinned(tmp_path)[STAMP]["from"] == "mine.json"
    named = {**DOCUMENT, "info": {"x-fal-metadata": {"endpointId": "acme/other"}}}
    (tmp_path / "mine.json").write_text(json.dumps(named))
    assert json.loads(call("endpoint", "mine.json", "--json").out)["id"] == "acme/other"


def test_what_is_new_in_a_document_is_said_when_it_is_pinned_again(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(DOCUMENT))
    call("endpoint", "a.json")
    newer = json.loads(json.dumps(DOCUMENT))
    properties = newer["components"]["schemas"]["In"]["properties"]
    properties["prompt"]["maxLength"] = 12
    properties["mood"] = {"type": "string"}
    del properties["id"]
    (tmp_path / "a.json").write_text(json.dumps(newer))
    err = call("endpoint", "a.json").err
    assert "mood is new" in err
    assert "id is gone" in err
    assert "prompt: takes text (at most 12 characters), not text (at most 9 characters)" in err
    assert "changed" not in call("endpoint", "a.json").err


def test_a_rehearsal_fetches_nothing(call: Call, fal: Fal) -> None:
    fal.documents[ID] = DOCUMENT
    said = call("endpoint", ID, "--local")
    assert (said.code, fal.asked) == (2, [])
    assert "fetches it from fal" in said.err
    assert call("endpoint", DEFAULT_ENDPOINT, "--local").code == 0


def test_without_an_id_what_is_known_is_listed(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(DOCUMENT))
    call("endpoint", "mine.json")
    said = call("endpoint")
    assert {line.split()[0] for line in said.out.splitlines()} == {ID, *endpoints.built_in()}
    listed = json.loads(call("endpoint", "--json").out)
    assert [found["id"] for found in listed] == sorted({ID, *endpoints.built_in()})
    assert {found["id"]: found["source"][:6] for found in listed}[ID] == "pinned"


def test_a_template_is_a_sheet_that_only_wants_to_be_filled(call: Call, fal: Fal, tmp_path: Path) -> None:
    fal.documents[ID] = DOCUMENT
    out = call("endpoint", ID, "--template").out
    assert list(csv.reader(io.StringIO(out))) == [
        ["id", "prompt", "size.width", "size.height", "input.id"],
        ["example", "a cat", "", "", ""],
    ]
    (tmp_path / "shots.csv").write_text(out)
    assert call("plan", "shots.csv", "--endpoint", ID).code == 0


@pytest.mark.parametrize(
    ("answers", "error"),
    [([503, 429], None), ([500] * pin.TRIES_MAX, Blocked), ([401], Blocked), ([404], InputError)],
)
def test_a_free_question_is_asked_again_where_that_may_help(
    tmp_path: Path, answers: list[int], error: type[Exception] | None
) -> None:
    asked: list[httpx.Request] = []
    good = {"models": [{"endpoint_id": ID, "openapi": DOCUMENT}]}

    def fal(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        code = answers[len(asked) - 1] if len(asked) <= len(answers) else 200
        return httpx.Response(code, json=good if code == 200 else {})

    transport = httpx.MockTransport(fal)
    with contextlib.nullcontext() if error is None else pytest.raises(error):
        assert on_a_virtual_clock(pin.fetched, ID, settings_of(tmp_path), transport) == DOCUMENT
    assert len(asked) == (len(answers) if error else len(answers) + 1)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "not json", "cannot be read as JSON"),
        ("a.json", "[]", "not an OpenAPI document"),
        ("a.json", "{}", "no path of it takes a POST"),
        ("a.json", '{"paths": {"/a/b": {"post": {}}}}', "not a queue OpenAPI document of a/b"),
        ("none.json", None, "there is no such file"),
        ("../b", None, "there is no such file"),
        ("seedance", None, "is not an endpoint id"),
    ],
)
def test_what_is_no_document_is_refused_and_pins_nothing(
    call: Call, tmp_path: Path, name: str, text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    said = call("endpoint", name)
    assert (said.code, words in said.err) == (2, True), said.err
    assert not (tmp_path / "state").exists()


# --- plan ---


def changed(document: Any) -> Any:
    newer = json.loads(json.dumps(document))
    (wanted,) = (part for name, part in newer["components"]["schemas"].items() if name.endswith("Input"))
    wanted["properties"]["duration"]["enum"].append("15")
    return newer


def test_a_plan_says_when_fals_document_differs(call: Call, fal: Fal, sheet: Path) -> None:
    document = dict(endpoints.load(DEFAULT_ENDPOINT).document)
    fal.documents[DEFAULT_ENDPOINT] = document
    found = json.loads(call("plan", str(sheet), "--json", key="id:secret").out)
    assert [note for note in found["notes"] if "document" in note] == []
    fal.documents[DEFAULT_ENDPOINT] = changed(document)
    (note,) = json.loads(call("plan", str(sheet), "--json", key="id:secret").out)["notes"]
    assert note.startswith(
        f"fal's document of {DEFAULT_ENDPOINT} differs from the one used here (built in, 2026-01-28): "
    )
    assert "duration: takes text (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15), not text (2 … 12)" in note
    assert f"`fal-batch endpoint {DEFAULT_ENDPOINT}` takes it over" in note
    assert len(fal.asked) == 2
    assert call("endpoint", DEFAULT_ENDPOINT).code == 0
    assert json.loads(call("plan", str(sheet), "--json").out)["notes"] == []


def without_news(call: Call, sheet: Path, *flags: str, key: str | None = None) -> bool:
    said = call("plan", str(sheet), "--json", *flags, key=key)
    return said.code == 0 and json.loads(said.out)["notes"] == []


def test_a_plan_asks_nothing_without_a_key_or_in_a_rehearsal(call: Call, fal: Fal, sheet: Path) -> None:
    fal.documents[DEFAULT_ENDPOINT] = changed(endpoints.load(DEFAULT_ENDPOINT).document)
    assert without_news(call, sheet)
    assert without_news(call, sheet, "--local", key="id:secret")
    assert fal.asked == []


@pytest.mark.parametrize("answer", [500, 401, 404])
def test_a_plan_is_silent_when_fal_does_not_answer(call: Call, fal: Fal, sheet: Path, answer: int) -> None:
    fal.answers = [answer]
    assert without_news(call, sheet, key="id:secret")
    assert len(fal.asked) == 1


def test_a_plan_does_not_wait_for_an_answer_that_does_not_come(tmp_path: Path) -> None:
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await anyio.sleep_forever()
            raise AssertionError

    async def waited() -> tuple[dict[str, Any], float]:
        begun = anyio.current_time()
        found = await pin.documents_now([ID], settings_of(tmp_path), Silent())
        return found, anyio.current_time() - begun

    assert on_a_virtual_clock(waited) == ({}, pin.NEWS_S)
