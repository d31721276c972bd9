"""Every call and header that fal-client sends, against a table: a new version that asks for something else is noticed.

The JavaScript client's own table is held against its tests, which run in one piece.
"""

from __future__ import annotations

import importlib.metadata
from contextlib import suppress
from pathlib import Path

import fal_client
import fal_client.client
import pytest
from clients import Fal, asked, asynchronous, plain, pointed_at
from local_support import ENDPOINT, picture
from PIL import Image
from relay import relayed, table

CALLS = Path(__file__).with_name("calls_of_fal_client.txt")


def ask_everything(fal: Fal) -> None:
    """Each call of the client, with each of its options. Its inputs are refused, which takes no time."""
    client, wait = fal.client, fal.wait
    refused = asked(duration="13")
    with suppress(fal_client.FalClientHTTPError):
        wait(client.subscribe(ENDPOINT, refused, with_logs=True, on_queue_update=lambda _: None))
    with suppress(fal_client.FalClientHTTPError):
        wait(client.run(ENDPOINT, refused, hint="here", start_timeout=600))
    options = {"priority": "low", "hint": "here", "start_timeout": 600, "headers": {"X-Fal-No-Retry": "1"}}
    handle = wait(client.submit(ENDPOINT, refused, **options))
    fal.events(handle, with_logs=True)
    for call in (client.status, client.result, client.cancel):
        with suppress(fal_client.FalClientHTTPError):
            wait(call(ENDPOINT, handle.request_id))
    wait(client.submit(ENDPOINT, refused, webhook_url="http://127.0.0.1:9/nobody"))

    lifecycle = fal_client.StorageSettings(expires_in="1d", initial_acl=fal_client.StorageACL(default="allow"))
    wait(client.upload(b"some bytes", "text/plain", file_name="notes.txt", lifecycle=lifecycle))
    wait(client.upload_image(Image.new("RGB", (480, 640))))
    with suppress(fal_client.FalClientHTTPError):
        wait(client.upload(b"some bytes", "text/plain", repository="fal", lifecycle=lifecycle))
    with pytest.MonkeyPatch.context() as patch:  # a file that counts as large; another test sends a really large one
        patch.setattr(fal_client.client, "MULTIPART_THRESHOLD", 100)
        wait(client.upload(picture(), "image/jpeg", file_name="street.jpg", lifecycle=lifecycle))


def test_these_calls_and_headers_are_all_that_the_client_sends(queue: str) -> None:
    with relayed(queue) as relay, pointed_at(relay.url):
        ask_everything(plain())
        with asynchronous() as other:
            ask_everything(other)
        seen = table(relay.calls)
    print(f"fal-client {importlib.metadata.version('fal-client')}\n\n{seen}")
    assert seen == CALLS.read_text(encoding="utf-8"), f"{CALLS.name} says otherwise"
