"""The status stream: server-sent events into statuses. Free and read-only, and never the only way: what the stream does
not tell, a status question does.

Nothing is repeated here; a stream that breaks, or ends before its last status, is for the caller to go on without.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from batch.errors import Action, CallFailed
from batch.fal.failures import Call, answer_failure
from batch.fal.protocol import Answer, parsed_json, parsed_status
from batch.fal.wire import Wire
from batch.jobs import FalStatus, Status

__all__ = ["status_events"]

EVENT_BYTES_MAX = 4 * 1024 * 1024
"""Of one event: a status with the logs that came since the last one."""

SILENCE_S = 60.0
"""Without a byte. fal sends a comment every fifteen seconds or so, to show that the line is open."""


async def status_events(wire: Wire, url: str, *, with_logs: bool) -> AsyncGenerator[Status, None]:
    """The statuses of one request as fal tells them, COMPLETED the last. CallFailed when there are no more to come."""
    params = {"logs": "true" if with_logs else "false"}
    accept = {"Accept": "text/event-stream"}
    async with wire.streamed(Call.STATUS, url, params=params, headers=accept, silence_s=SILENCE_S) as answer:
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if answer.status_code != 200 or kind != "text/event-stream":
            head = Answer(status_code=answer.status_code, headers=answer.headers, content=b"", is_whole=False)
            raise wire.safe_failure(answer_failure(Call.STATUS, head, now=wire.clock()))
        async with aclosing(_data(answer.chunks)) as events:
            async for data in events:
                status = parsed_status(parsed_json(data))
                if status is None:
                    raise _broken("holds what is no status")
                yield status
                if status.status is FalStatus.COMPLETED:
                    return
    raise _broken("ended before the request did")


async def _data(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The data of each event: its `data:` lines joined. Comments and other fields are left out."""
    lines: list[bytes] = []
    size = 0
    async for line in _lines(chunks):
        size += len(line)
        if size > EVENT_BYTES_MAX:
            raise _broken(f"has an event of more than {EVENT_BYTES_MAX} bytes")
        if not line:
            if lines:
                yield b"\n".join(lines)
            lines, size = [], 0
        elif line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The lines of a stream, whichever of the three ends they have, however they were cut."""
    rest = b""
    async for chunk in chunks:
        rest += chunk
        *whole, rest = rest.splitlines(keepends=True) or [b""]
        if rest.endswith(b"\n"):  # a last \r may be the first half of \r\n
            whole, rest = [*whole, rest], b""
        for line in whole:
            yield line.rstrip(b"\r\n")
        if len(rest) > EVENT_BYTES_MAX:
            raise _broken(f"has a line of more than {EVENT_BYTES_MAX} bytes")


def _broken(why: str) -> CallFailed:
    return CallFailed(f"status: fal's stream {why}", action=Action.REPEAT, cause="stream_broken")
