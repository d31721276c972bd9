"""A queue that costs next to nothing, so that what is measured is the program that asks it. It makes nothing, keeps
nothing and forgives nothing: for benchmarks alone (`fal-batch serve` is the queue to try things with).

    python benchmarks/cheap_queue.py [--service 2.0] [--file-bytes 20000]

A process of its own; says its address on the first line and ends when its input is closed. Every request is done
`--service` seconds after it was taken. `GET /counts` tells how many calls of each kind there were, `GET /reset` forgets
them, `GET /service/0.5` sets another time. A bare asyncio protocol: some 30 microseconds a call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

__all__ = ["Queue", "mp4", "queue_process"]

REASONS = {200: "OK", 202: "Accepted", 404: "Not Found"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A running queue and its address."""

    url: str

    def counts(self) -> dict[str, int]:
        """Calls by kind since the last time, which is then forgotten."""
        found: dict[str, int] = self._asked("/counts")
        self._asked("/reset")
        return found

    def serves_in(self, seconds: float) -> None:
        self._asked(f"/service/{seconds}")

    def _asked(self, path: str) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url + path) as answer:
            return json.loads(answer.read())


@contextmanager
def queue_process(*, service_s: float = 0.0, file_bytes: int = 20_000) -> Iterator[Queue]:
    """A queue in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--service", str(service_s), "--file-bytes", str(file_bytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            yield Queue(url=process.stdout.readline().strip())
        finally:
            process.stdin.close()


def mp4(size_bytes: int) -> bytes:
    """The boxes of a video, of `size_bytes` in all, and nothing in them: whole by its own account."""
    head = struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"isom") + struct.pack(">I4s", 8, b"moov")
    rest = max(8, size_bytes - len(head))
    return head + struct.pack(">I4s", rest, b"mdat") + bytes(rest - 8)


@dataclass(slots=True)
class State:
    """What the queue remembers: when each request was taken, by its number."""

    url: str
    service_s: float
    file: bytes
    taken_at: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    date: str = ""


class Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            method, path, _ = self._buffer[:end].split(b" ", 2)
            self._buffer = self._buffer[end + 4 + length :]
            self._answer(method.decode(), path.decode(), b"\r\nconnection: close" in head)

    def _answer(self, method: str, target: str, closes: bool) -> None:
        state = self._state
        path = target.partition("?")[0]
        *_, before, last = path.split("/")
        if method == "POST":
            state.counts["submit"] += 1
            state.taken_at.append(time.monotonic())
            request_id = f"00000000-0000-4000-8000-{len(state.taken_at) - 1:012d}"
            base = f"{state.url}/{'/'.join(path.split('/')[1:3])}/requests/{request_id}"
            urls = {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}
            self._json({"status": "IN_QUEUE", "request_id": request_id, **urls, "queue_position": 0}, closes=closes)
        elif last == "status":
            state.counts["status"] += 1
            self._json(self._status(before), closes=closes)
        elif last == "stream":
            state.counts["stream"] += 1
            self._stream(path.split("/")[-3])
        elif before == "requests":
            state.counts["result"] += 1
            video = {"url": f"{state.url}/files/{last}.mp4", "content_type": "video/mp4"}
            self._json({"video": video | {"file_size": len(state.file)}, "seed": 7}, closes=closes)
        elif before == "files":
            state.counts["file"] += 1
            self._write(200, "video/mp4", state.file, closes=closes)
        else:
            self._aside(before, last, closes)

    def _aside(self, before: str, last: str, closes: bool) -> None:
        """What the benchmark asks, and what a client asks once in a run."""
        if last == "counts":
            self._json(self._state.counts, closes=closes)
        elif last == "reset":
            self._state.counts.clear()
            self._json({}, closes=closes)
        elif before == "service":
            self._state.service_s = float(last)
            self._json({}, closes=closes)
        else:
            self._state.counts["other"] += 1
            self._json({"detail": "not here"}, code=404, closes=closes)

    def _status(self, request_id: str) -> dict[str, Any]:
        state = self._state
        is_done = time.monotonic() - state.taken_at[int(request_id[-12:])] >= state.service_s
        word = {"status": "COMPLETED", "metrics": {}} if is_done else {"status": "IN_PROGRESS"}
        return {"request_id": request_id, "logs": None, **word}

    def _stream(self, request_id: str) -> None:
        head = "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        self._transport.write((head % self._state.date).encode())
        left = self._state.taken_at[int(request_id[-12:])] + self._state.service_s - time.monotonic()
        if left > 0:
            self._event(request_id)
        asyncio.get_running_loop().call_later(max(0.0, left + 0.001), self._end_stream, request_id)

    def _end_stream(self, request_id: str) -> None:
        self._event(request_id)
        self._transport.close()

    def _event(self, request_id: str) -> None:
        self._transport.write(b"data: " + json.dumps(self._status(request_id)).encode() + b"\n\n")

    def _json(self, body: Any, *, code: int = 200, closes: bool) -> None:
        self._write(code, "application/json", json.dumps(body).encode(), closes=closes)

    def _write(self, code: int, media_type: str, body: bytes, *, closes: bool) -> None:
        head = (
            f"HTTP/1.1 {code} {REASONS[code]}\r\nDate: {self._state.date}\r\nContent-Type: {media_type}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: {'close' if closes else 'keep-alive'}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)
        if closes:
            self._transport.close()


async def serve(service_s: float, file_bytes: int) -> None:
    """Until the input is closed."""
    state = State(url="", service_s=service_s, file=mp4(file_bytes))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=4096)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def tick() -> None:
        state.date = formatdate(usegmt=True)
        loop.call_later(0.5, tick)

    tick()
    print(state.url, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--service", type=float, default=0.0, help="seconds from the submit to the result")
    given.add_argument("--file-bytes", type=int, default=20_000)
    options = given.parse_args()
    asyncio.run(serve(options.service, options.file_bytes))
