"""A wire that listens: it passes bytes on in both directions, unchanged, and keeps the head of every call.

What the clients really send is seen here and not at the server, so the server under test is the one that users start.
"""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import h11

__all__ = ["OF_THE_TESTS", "Call", "Relay", "relayed", "table"]

OF_THE_TESTS = "the tests themselves"  # the agent whose calls are not kept
PIECE_BYTES = 256 * 1024

# What the HTTP library beneath a client adds by itself, and what differs between two machines.
OF_THE_LIBRARY = {"host", "connection", "content-length", "transfer-encoding", "accept-language", "sec-fetch-mode"}
SHOWN = ("accept", "user-agent", "x-fal-queue-priority", "x-fal-no-retry")  # the values of the others are ours

# In this order: an id within a path, then what is left of the path.
_PARTS = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"), "{id}"),
    (re.compile(r"/files/b/[^/?]+/[^/?]+"), "/files/b/{file}"),
    (re.compile(r"/multipart/[^/?]+"), "/multipart/{upload}"),
    (re.compile(r"^/upload/[^/?]+"), "/upload/{file}"),
    (re.compile(r"/\d+(?=$|\?)"), "/{part}"),
    (re.compile(r"fal-ai/bytedance/seedance/[^?]+"), "{endpoint}"),
    (re.compile(r"fal-ai/bytedance"), "{app}"),
    (re.compile(r"fal_webhook=[^&]+"), "fal_webhook={url}"),
)


@dataclass(frozen=True, slots=True)
class Call:
    """The head of one call as it went over the wire."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    @property
    def pattern(self) -> str:
        """Method and path, with names for what differs from call to call."""
        return f"{self.method} {_pattern(self.target)}"


@dataclass(kw_only=True)
class Relay:
    """Where a client is pointed at, and the calls it has made."""

    url: str
    calls: list[Call] = field(default_factory=list)


@contextmanager
def relayed(server: str) -> Iterator[Relay]:
    """A relay to the server at that base URL."""
    host, _, port = server.removeprefix("http://").partition(":")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        relay = Relay(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        threading.Thread(target=_accept, args=(listener, (host, int(port)), relay), daemon=True).start()
        yield relay


def _accept(listener: socket.socket, server: tuple[str, int], relay: Relay) -> None:
    while True:
        try:
            near, _ = listener.accept()
        except OSError:  # the listener was closed: the end
            return
        far = socket.create_connection(server)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_pass_on, args=(near, far, _Heads(relay)), daemon=True).start()
        threading.Thread(target=_pass_on, args=(far, near, None), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, heads: _Heads | None) -> None:
    try:
        while piece := source.recv(PIECE_BYTES):
            if heads:
                heads.read(piece)
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # one end hung up; so does the other
        for end in (source, sink):
            end.close()


class _Heads:
    """Reads the calls of one connection, one after the other."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._call = h11.Connection(h11.SERVER)

    def read(self, piece: bytes) -> None:
        self._call.receive_data(piece)
        while (event := self._call.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                headers = tuple((name.decode(), value.decode()) for name, value in event.headers)
                if ("user-agent", OF_THE_TESTS) not in headers:
                    self._relay.calls.append(Call(event.method.decode(), event.target.decode(), headers))
            elif isinstance(event, h11.EndOfMessage):
                rest, _ = self._call.trailing_data
                self._call = h11.Connection(h11.SERVER)
                if rest:
                    self._call.receive_data(rest)


def table(calls: list[Call]) -> str:
    """Every kind of call with its headers, as text. `(some)`: not every call of that kind had the header."""
    kinds: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        kinds[call.pattern].append(call)
    lines = []
    for pattern in sorted(kinds, key=lambda pattern: pattern.split()[::-1]):
        lines.append(pattern)
        counts = Counter(name for call in kinds[pattern] for name in dict(call.headers))
        for name in sorted(set(counts) - OF_THE_LIBRARY):
            values = {_value(name, value) for call in kinds[pattern] for key, value in call.headers if key == name}
            some = " (some)" if counts[name] < len(kinds[pattern]) else ""
            between = "\n" + " " * 8 if name == "x-fal-target-url" else " | "
            lines.append(f"    {name}: {between.join(sorted(values))}{some}")
    return "\n".join(lines) + "\n"


def _pattern(target: str) -> str:
    for part, name in _PARTS:
        target = part.sub(name, target)
    return target


def _value(name: str, value: str) -> str:
    """A header's value as far as the client chose it."""
    if name == "authorization":
        return value.split(" ")[0] + " …"
    if name == "content-type":
        return value if value == "application/json" else "the file's"
    if name == "x-fal-target-url":
        return _pattern(value)
    if name == "accept-encoding":
        return value if value == "identity" else "…"
    return value if name in SHOWN else "…"
