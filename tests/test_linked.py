"""A sheet that a campaign names by a link: read once, kept with its hash, told plainly when it is none."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_cli import Call, call

from batch import linked
from batch.errors import InputError

__all__ = ["call"]  # a fixture

URL = "https://example.com/cat.png"
SHEET = f"id,prompt,image_url,duration\na,a cat,{URL},5\n".encode()
GOOGLE = "https://docs.google.com/spreadsheets/d/1AbC-d_9"


class Shared:
    """A server on loopback that shares what it is told to, path by path, and remembers what it was sent."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.headers: list[dict[str, str]] = []
        shared = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                shared.headers.append({name.lower(): value for name, value in self.headers.items()})
                status, headers, body = shared.pages.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def share(self, body: bytes, path: str = "/export?format=csv", status: int = 200, **headers: str) -> str:
        self.pages[path] = (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
        return self.url + path


@pytest.fixture
def shared() -> Iterator[Shared]:
    made = Shared()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def campaign(folder: Path, link: str) -> None:
    (folder / "n.yaml").write_text(f"rows: {link}\n", encoding="utf-8")


def planned(call: Call, *flags: str) -> Any:
    return json.loads(call("plan", "n.yaml", "--json", *flags).out)


def test_a_linked_sheet_is_read_and_kept_with_its_hash(call: Call, shared: Shared, tmp_path: Path) -> None:
    link = shared.share(SHEET)
    campaign(tmp_path, link)
    found = planned(call)
    assert (found["rows"], found["first_requests"][0]["address"]) == (1, "127.0.0.1:2")
    (copy,) = (tmp_path / "state" / "sheets").glob("*.csv")
    stamp = json.loads(copy.with_suffix(".json").read_text())
    assert copy.read_bytes() == SHEET
    assert (stamp["url"], stamp["sha256"]) == (link, hashlib.sha256(SHEET).hexdigest())
    assert found["notes"][0].startswith(f"rows: {len(SHEET)} bytes read from {shared.url}/export at {stamp['read_at']}")
    assert {path.suffix for path in copy.parent.iterdir()} == {".csv", ".json"}


def test_each_plan_reads_it_once_and_anew(call: Call, shared: Shared, tmp_path: Path) -> None:
    campaign(tmp_path, shared.share(SHEET))
    planned(call)
    shared.share(SHEET + f"b,a dog,{URL},13\n".encode())
    found = planned(call)
    assert [(issue["address"], issue["column"]) for issue in found["mistakes"]] == [("127.0.0.1:3", "duration")]
    shared.share(SHEET + f"b,a dog,{URL},12\n".encode())
    found = planned(call)
    assert (found["rows"], "changed since" in found["notes"][0]) == (2, True)
    assert len(shared.headers) == 3


def test_an_export_shows_the_rows_that_were_read_last_and_asks_for_nothing(
    call: Call, shared: Shared, tmp_path: Path
) -> None:
    campaign(tmp_path, shared.share(SHEET))
    planned(call)
    shared.pages.clear()
    told = call("export", "n.yaml", "out.csv")
    assert (told.code, len(shared.headers)) == (0, 1)
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith(f"a,a cat,{URL},5,not planned")


def test_a_rehearsal_and_the_real_thing_each_have_their_copy(call: Call, shared: Shared, tmp_path: Path) -> None:
    campaign(tmp_path, shared.share(SHEET))
    planned(call, "--local")
    assert (tmp_path / "state" / "local" / "sheets").is_dir()
    assert not (tmp_path / "state" / "sheets").exists()


def test_no_key_and_no_cookie_goes_to_the_link(call: Call, shared: Shared, tmp_path: Path) -> None:
    campaign(tmp_path, shared.share(b"", "/one", 302, Location="/two", Set_Cookie="id=1"))
    shared.share(SHEET, "/two")
    told = call("plan", "n.yaml", "--json", key="id:secret")
    assert json.loads(told.out)["rows"] == 1
    assert len(shared.headers) == 2
    for headers in shared.headers:
        assert not {"authorization", "cookie"} & set(headers)
        assert "secret" not in str(headers)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "leads to a web page, perhaps one to log in: share the sheet"),
        (b"\n <html>", "leads to a web page"),
        (b"PK\x03\x04rest", "leads to an Excel workbook or an archive; use the link of its CSV export"),
        (b'{"error": "no"}', "leads to JSON, not to CSV"),
    ],
)
def test_what_is_no_sheet_is_said_at_the_line_of_the_campaign(
    call: Call, shared: Shared, tmp_path: Path, body: bytes, words: str
) -> None:
    campaign(tmp_path, shared.share(body))
    (issue,) = planned(call)["mistakes"]
    assert (issue["address"], issue["column"], issue["kind"]) == ("n.yaml:1", "rows", "no_sheet")
    assert issue["message"].startswith(f"{shared.url}/export {words}")
    assert not list((tmp_path / "state" / "sheets").iterdir())


def test_a_sheet_that_is_gone_is_a_mistake(call: Call, shared: Shared, tmp_path: Path) -> None:
    campaign(tmp_path, f"{shared.url}/nothing")
    (issue,) = planned(call)["mistakes"]
    assert issue["message"].endswith("the server answers 404: gone; is the link whole, and the sheet still shared?")


def test_a_link_that_does_not_answer_names_the_copy_to_go_on_with(call: Call, shared: Shared, tmp_path: Path) -> None:
    campaign(tmp_path, shared.share(SHEET))
    planned(call)
    shared.share(b"", status=503)
    told = call("plan", "n.yaml")
    (copy,) = (tmp_path / "state" / "sheets").glob("*.csv")
    assert (told.code, len(shared.headers)) == (4, 4), "asked three times"
    assert "the server answers 503; to go on with the copy of " in told.err
    assert f"write rows: {copy.relative_to(tmp_path)}" in told.err
    campaign(tmp_path, str(copy.relative_to(tmp_path)))
    assert planned(call)["rows"] == 1


def test_a_sheet_that_does_not_end_is_not_read(call: Call, shared: Shared, tmp_path: Path) -> None:
    campaign(tmp_path, shared.share(SHEET, Content_Length=str(linked.BYTES_MAX + 1)))
    (issue,) = planned(call)["mistakes"]
    assert f"bytes are more than {linked.BYTES_MAX}" in issue["message"]


def test_packed_answers_are_unpacked(call: Call, shared: Shared, tmp_path: Path) -> None:
    campaign(tmp_path, shared.share(gzip.compress(SHEET), Content_Encoding="gzip"))
    assert planned(call)["rows"] == 1


def test_pictures_are_beside_the_campaign_not_beside_the_copy(call: Call, shared: Shared, tmp_path: Path) -> None:
    campaign(tmp_path, shared.share(SHEET.replace(URL.encode(), b"images/none.jpg")))
    (issue,) = planned(call)["mistakes"]
    assert f"looked for {tmp_path / 'images' / 'none.jpg'}" in issue["message"]
    assert "state" not in issue["message"]


def test_a_link_in_the_place_of_a_manifest_is_told_where_it_belongs(call: Call) -> None:
    told = call("plan", f"{GOOGLE}/edit")
    assert (told.code, "write `rows: LINK` into a file such as shots.yaml" in told.err) == (2, True)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (f"{GOOGLE}/edit?usp=sharing", f"{GOOGLE}/export?format=csv"),
        (f"{GOOGLE}/edit#gid=42", f"{GOOGLE}/export?format=csv&gid=42"),
        (f"{GOOGLE}/edit?gid=7#gid=7", f"{GOOGLE}/export?format=csv&gid=7"),
        (GOOGLE, f"{GOOGLE}/export?format=csv"),
        (GOOGLE.replace("/d/", "/u/1/d/") + "/view", f"{GOOGLE}/export?format=csv"),
        (f"{GOOGLE}/export?format=csv&gid=3", f"{GOOGLE}/export?format=csv&gid=3"),
        (f"{GOOGLE}/gviz/tq?tqx=out:csv&sheet=A", f"{GOOGLE}/gviz/tq?tqx=out:csv&sheet=A"),
        (
            "https://docs.google.com/spreadsheets/d/e/2PACX-1v/pubhtml?gid=5&single=true",
            "https://docs.google.com/spreadsheets/d/e/2PACX-1v/pub?output=csv&single=true&gid=5",
        ),
        ("https://example.org/a/shots.csv#top", "https://example.org/a/shots.csv"),
    ],
)
def test_the_link_of_a_shared_sheet_becomes_that_of_its_export(link: str, expected: str) -> None:
    assert linked.export_link(link) == expected


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("http://example.org/shots.csv", "a sheet is read over https only"),
        ("https://", "is not a whole link"),
        ("https://example.org/my shots.csv", "is not a whole link"),
        ("https://[::1", "is not a whole link"),
    ],
)
def test_a_link_that_cannot_be_followed_is_refused(link: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        linked.export_link(link)
    assert words in str(caught.value)
