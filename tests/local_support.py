"""What the tests of the local queue share: pictures, an open queue, a virtual clock, a server process."""

from __future__ import annotations

import base64
import functools
import io
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import trio
import trio.testing
from PIL import Image, ImageDraw

from batch.local import FaultPlan, LocalQueue, open_queue, parsed_plan
from batch.local.answers import Piece

ENDPOINT = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video"
APP = "fal-ai/bytedance"
KEY = {"Authorization": "Key someone:secret"}
BASE = "http://local.invalid"
EPOCH = 1_795_338_000.0  # where the virtual clock starts, a whole second


@functools.cache
def picture(width: int = 640, height: int = 480, *, format: str = "JPEG", colour: str = "#406080") -> bytes:
    """A plain picture with a bright disc in the middle."""
    image = Image.new("RGB", (width, height), colour)
    middle, radius = (width / 2, height / 2), min(width, height) / 6
    ImageDraw.Draw(image).ellipse(
        (middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius), fill="white"
    )
    return encoded(image, format)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def data_uri(content: bytes, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def wanted(**fields: Any) -> dict[str, Any]:
    """A small input that the endpoint takes."""
    return {
        "prompt": "a street, camera pans left",
        "image_url": data_uri(picture()),
        "resolution": "480p",
        "duration": "2",
        "seed": 7,
        **fields,
    }


def plan(text: str) -> FaultPlan:
    """A fault plan from its text."""
    return parsed_plan(text, "plan.yaml")


def hits(of: FaultPlan, group: str, count: int = 400) -> list[str | None]:
    """What a plan does to the first calls (or requests) of a group."""
    strikes = (of.strike(group, number) for number in range(1, count + 1))
    return [None if strike is None else strike.fault.kind.name for strike in strikes]


def stub_render(_piece: Piece, _pictures: tuple[bytes, ...], out: Path) -> None:
    """Takes the renderer's place where a test is not about pictures."""
    out.write_bytes(b"a ready-made clip")


async def inline(func: Callable[..., Any], /, *args: Any) -> Any:
    """Blocking work on the loop itself: a worker thread would make the virtual clock leap."""
    await anyio.lowlevel.checkpoint()
    return func(*args)


def virtual_now() -> float:
    return EPOCH + trio.current_time() - _started_at.get()


_started_at: trio.lowlevel.RunVar[float] = trio.lowlevel.RunVar("local_support_started_at")


def on_virtual_clock(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on trio with a clock that leaps over every wait."""

    async def main() -> None:
        _started_at.set(trio.current_time())
        await test()

    anyio.run(main, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)})


@dataclass(frozen=True)
class Local:
    """An open queue and a client that reaches it."""

    queue: LocalQueue
    client: httpx.AsyncClient

    async def submit(self, input: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        answer = await self.client.post(
            options.pop("path", f"/{ENDPOINT}"), json=wanted() if input is None else input, **options
        )
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def status(self, request_id: str, **params: Any) -> httpx.Response:
        return await self.client.get(f"/{APP}/requests/{request_id}/status", params=params)

    async def result(self, request_id: str) -> httpx.Response:
        return await self.client.get(f"/{APP}/requests/{request_id}")

    async def cancel(self, request_id: str) -> httpx.Response:
        return await self.client.put(f"/{APP}/requests/{request_id}/cancel")

    async def finished(self, request_id: str) -> httpx.Response:
        """The result, once the status says COMPLETED."""
        return await self.completed(f"{BASE}/{APP}/requests/{request_id}")

    async def completed(self, response_url: str, *, pause: float = 1.0) -> httpx.Response:
        for _ in range(10_000):
            if (await self.client.get(f"{response_url}/status")).status_code != 202:
                return await self.client.get(response_url)
            await anyio.sleep(pause)
        raise AssertionError("it never completed")


@asynccontextmanager
async def local_queue(state: Path, **options: Any) -> AsyncIterator[Local]:
    """A queue on the virtual clock that takes ten seconds for each request, and a client with a key."""
    options = {
        "runners": 1,
        "clock": virtual_now,
        "run_blocking": inline,
        "render": stub_render,
        "seconds": lambda _input: 10.0,
        **options,
    }
    async with (
        open_queue(state=state, **options) as queue,
        httpx.AsyncClient(transport=queue.transport(), base_url=BASE, headers=KEY) as client,
    ):
        yield Local(queue, client)


_SERVE = """
import sys
from pathlib import Path
from batch.local import read_plan, serve
serve(
    port=0,
    state=Path(sys.argv[1]),
    runners=int(sys.argv[2]),
    on_ready=lambda url: print(url, flush=True),
    faults=read_plan(sys.argv[3]),
)
"""


@contextmanager
def served(
    state: Path, *, runners: int = 2, faults: Path | str = "/dev/null", said: Path | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The queue in a process of its own: its base URL and the process. What it says on stderr goes to `said`."""
    with ExitStack() as files:
        stderr = None if said is None else files.enter_context(said.open("w", encoding="utf-8"))
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(state), str(runners), str(faults)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), "the server did not start"
        yield url, process
    finally:
        process.kill()
        process.communicate()


def wait_for(question: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Ask until the answer is yes."""
    until = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.01)
