"""docs/python.md: its samples are run in order, Python's here and JavaScript's with fal's own client under Node."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fal_client
import httpx
import pytest
from local_support import served

import batch
from batch import Queue
from batch.fal import CancelAnswer

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "python.md").read_text(encoding="utf-8")
PICTURE = "https://pictures.example/cat.jpg"  # an upload stands for it: the local queue fetches nothing from elsewhere
CHELSEA = PROJECT / "manifests" / "images" / "chelsea.jpg"


def samples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A served queue, and a folder with what the samples name, entered with the environment of a script."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(CHELSEA, folder / "cat.jpg")
    (folder / "shots.csv").write_text("id,prompt,image_url,duration,resolution\ncat,static,cat.jpg,2,480p\n")
    with served(folder / "queue") as (url, _), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FAL_KEY", "someone:secret")
        for name in ("QUEUE", "REST", "CDN"):
            patch.setenv(f"FAL_BATCH_{name}_URL", url)
        patch.setenv("FAL_BATCH_API_URL", f"{url}/v1")
        yield url, folder


@pytest.fixture(scope="module")
def hosted(place: tuple[str, Path]) -> str:
    with Queue() as queue:
        return queue.upload_file("cat.jpg")


@pytest.fixture(scope="module")
def ran(place: tuple[str, Path], hosted: str) -> tuple[dict[str, Any], list[str | None]]:
    """What the Python samples leave behind, and how each of them failed."""
    names: dict[str, Any] = {}
    endings: list[str | None] = []
    for sample in samples("python"):
        try:
            exec(compile(sample.replace(PICTURE, hosted), "docs/python.md", "exec"), names)
            endings.append(None)
        except Exception:  # noqa: BLE001 - told by the sample's own test
            endings.append(traceback.format_exc())
    names["queue"].close()
    return names, endings


@pytest.mark.parametrize("number", range(len(samples("python"))))
def test_python(ran: tuple[dict[str, Any], list[str | None]], number: int) -> None:
    if failure := ran[1][number]:
        pytest.fail(f"{textwrap.indent(samples('python')[number], '  ')}\n{failure}", pytrace=False)


def test_what_the_python_samples_leave_behind(ran: tuple[dict[str, Any], list[str | None]], place: Any) -> None:
    names, _ = ran
    assert names["result"]["video"]["url"].startswith(place[0])
    assert names["finished"]["video"]["file_size"] == Path("videos/cat.mp4").stat().st_size
    assert isinstance(names["status"], batch.Status)
    assert names["paths"] == [Path("videos/cat.mp4")]
    assert names["answer"] is CancelAnswer.TOO_LATE
    assert httpx.get(names["url"]).content == CHELSEA.read_bytes()
    assert names["data_uri"].startswith("data:image/jpeg;base64,")
    assert names["asynchronous"]["seed"] == 1
    assert (names["summary"].exit_code, names["summary"].totals.fetched) == (0, 1)


# --- JavaScript ---

TO_THIS_MACHINE = r"""
// Only the addresses: fal's hosts are on this machine.
const fetch = globalThis.fetch;
const here = (url) => String(url).replace(/^https:\/\/[a-z0-9.]+\.fal\.[a-z]+/, "%s");
globalThis.fetch = (url, options) => fetch(here(url), options);
"""
IF_IN_PROGRESS = 'if (update.status === "IN_PROGRESS") {'
# A preview may be rendered between two questions, and then no update says IN_PROGRESS. The last one has the same logs.
IF_IT_HAS_LOGS = "if (update.logs) {"
TELL = "\nconsole.log(JSON.stringify({result, request_id, status, finished, url, dataUri, uploaded}));\n"


@pytest.fixture(scope="module")
def node() -> str:
    """Node, where it and the client are installed. On CI they must be."""
    found = shutil.which("node")
    if found is None or not (PROJECT / "node_modules" / "@fal-ai" / "client").is_dir():
        why = "node or fal's JavaScript client is not here; `make test` installs the client where npm is"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


def test_javascript(node: str, place: tuple[str, Path], hosted: str) -> None:
    url, folder = place
    (folder / "node_modules").symlink_to(PROJECT / "node_modules")
    (folder / "addresses.mjs").write_text(TO_THIS_MACHINE % url)
    page = "\n".join(samples("js"))
    assert page.count(IF_IN_PROGRESS) == 1
    (folder / "page.mjs").write_text(page.replace(PICTURE, hosted).replace(IF_IN_PROGRESS, IF_IT_HAS_LOGS) + TELL)
    ended = subprocess.run(
        [node, "--import", "./addresses.mjs", "page.mjs"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    *printed, last = ended.stdout.splitlines()
    told = json.loads(last)
    assert told["result"]["data"]["video"]["url"].startswith(url)
    assert {"camera zooms in, 49 frames of 736x544", "COMPLETED", "400"} <= set(printed)
    assert told["finished"]["data"]["video"]["url"].startswith(url)
    assert (told["finished"]["requestId"], told["uploaded"]["data"].keys()) == (told["request_id"], {"video", "seed"})
    assert httpx.get(told["url"]).content == CHELSEA.read_bytes()


def test_each_javascript_sample_has_its_python_beside_it() -> None:
    languages = re.findall(r"^```(\w+)\n", PAGE, flags=re.MULTILINE)
    assert all(languages[place + 1] == "python" for place, name in enumerate(languages) if name == "js")
    assert languages.count("js") == 8


# --- what the page lists ---


def test_the_errors_of_the_page_are_all_there_are() -> None:
    section = PAGE.partition("\n## Errors\n")[2].partition("\n### ")[0]
    listed = re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE)
    public = {name: getattr(batch, name) for name in batch.__all__}
    kinds = {name for name, kind in public.items() if isinstance(kind, type) and issubclass(kind, batch.QueueError)}
    assert set(listed) == kinds - {"QueueError"}


DIFFERENCES = PAGE.partition("\n## Coming from fal-client\n")[2]
CALLS = ("submit", "subscribe", "status", "result", "cancel", "upload", "upload_file", "upload_image", "get_handle")
CLIENTS = [(fal_client.SyncClient, Queue), (fal_client.AsyncClient, batch.AsyncQueue)]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("theirs", "ours"), CLIENTS, ids=["sync", "async"])
def test_a_call_of_fal_client_has_the_same_arguments_or_the_page_says_which_differ(
    name: str, theirs: type, ours: type
) -> None:
    here = inspect.signature(getattr(ours, name)).parameters
    for parameter in inspect.signature(getattr(theirs, name)).parameters.values():
        if parameter.name in here:
            assert here[parameter.name].kind is parameter.kind, parameter.name
        else:
            assert f"`{parameter.name}=`" in DIFFERENCES, parameter.name


def test_every_name_of_fal_client_is_there_or_the_page_says_that_it_is_not() -> None:
    ours = {*dir(Queue), *dir(batch)}
    for name in fal_client.__all__:
        is_here = name in ours or name.removesuffix("_async") in ours
        assert is_here or name.removesuffix("_async") in DIFFERENCES or name in ELSEWHERE, name


ELSEWHERE = {
    "version_tuple",
    "set_get_current_app",  # fal's own servers use it
    "SyncClient",  # Queue
    "AsyncClient",  # AsyncQueue
    "SyncRequestHandle",  # Handle
    "AsyncRequestHandle",  # AsyncHandle
    "FalClientError",  # QueueError
    "RealtimeConnection",
    "AsyncRealtimeConnection",
    "ObjectExpiration",  # of lifecycle=
    "StorageACL",
    "StorageACLDecision",
    "StorageACLRule",
    "StorageSettings",
}
