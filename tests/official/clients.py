"""What the tests of the official clients share: pointing one at a queue, receiving its webhooks, looking at a video."""

from __future__ import annotations

import asyncio
import io
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import av
import fal_client
import fal_client.client
import httpx
import pytest
from local_support import wanted
from relay import OF_THE_TESTS

__all__ = [
    "AGENT",
    "Delivery",
    "Fal",
    "asked",
    "asynchronous",
    "deliveries",
    "environment",
    "frames_in",
    "look",
    "plain",
    "pointed_at",
    "video_of",
]

AGENT = {"user-agent": OF_THE_TESTS}
Delivery = tuple[str, dict[str, Any]]
"""The path that a webhook was sent to, its query included, and its body."""


@dataclass(frozen=True)
class Fal:
    """One of fal's two Python clients, and how to wait for it: the plain one needs no waiting."""

    client: Any
    wait: Callable[[Any], Any]

    def events(self, handle: Any, **options: Any) -> list[Any]:
        return list(self.wait(handle.iter_events(interval=0.02, **options)))

    def refused(self, call: Callable[..., Any], *args: Any, **options: Any) -> fal_client.FalClientHTTPError:
        with pytest.raises(fal_client.FalClientHTTPError) as refusal:
            self.wait(call(*args, **options))
        return refusal.value


def plain() -> Fal:
    return Fal(fal_client.SyncClient(), lambda value: value)


@contextmanager
def asynchronous() -> Iterator[Fal]:
    async def awaited(value: Any) -> Any:
        return [one async for one in value] if hasattr(value, "__aiter__") else await value

    with asyncio.Runner() as runner:
        yield Fal(fal_client.AsyncClient(), lambda value: runner.run(awaited(value)))


@contextmanager
def pointed_at(base: str) -> Iterator[None]:
    """fal-client with the addresses of a queue on this machine, as its users do it. Nothing else of it is touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAL_KEY", "someone:secret")
        patch.setattr(fal_client.client, "QUEUE_URL_FORMAT", f"{base}/")
        patch.setattr(fal_client.client, "RUN_URL_FORMAT", f"{base}/run/")
        patch.setattr(fal_client.client, "REST_URL", base)
        patch.setattr(fal_client.client, "CDN_URL", base)
        yield


def environment() -> dict[str, str]:
    """That of a user's program: no setting of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FAL_")}


def asked(**fields: Any) -> dict[str, Any]:
    """An input whose video is made quickly: small, short, and nothing in it moves."""
    return wanted(**{"camera_fixed": True, **fields})


@contextmanager
def deliveries() -> Iterator[tuple[str, queue.Queue[Delivery]]]:
    """A receiver of webhooks: its URL and what arrives."""
    arrived: queue.Queue[Delivery] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.put((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", arrived
        server.shutdown()


def look(url: str) -> httpx.Response:
    """An answer to the test itself, which is no call of the client."""
    return httpx.get(url, headers=AGENT)


def video_of(result: dict[str, Any]) -> tuple[int, int, int]:
    """The downloaded video: its width, its height and how many frames can be decoded."""
    content = look(result["video"]["url"]).raise_for_status().content
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        return stream.width, stream.height, sum(1 for _ in container.decode(stream))


def frames_in(result: dict[str, Any]) -> int:
    return video_of(result)[2]
