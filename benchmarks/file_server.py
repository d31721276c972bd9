"""A server of one file under any number of names, as fast as it can or paced: for the benchmark of downloads.

    python benchmarks/file_server.py [--file-bytes 8000000] [--bytes-per-second 125000000]

A process of its own; says its address on the first line and ends when its input is closed. The pace holds over all
connections together, as a line to the internet does.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cheap_queue import mp4

__all__ = ["file_server"]

PIECE_BYTES = 64 * 1024


@contextmanager
def file_server(*, file_bytes: int, bytes_per_second: float = 0.0) -> Iterator[str]:
    """The address of a running one; 0 bytes a second is without a pace."""
    words = ["--file-bytes", str(file_bytes), "--bytes-per-second", str(bytes_per_second)]
    command = [sys.executable, str(Path(__file__)), *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


class Line:
    """Tells when the next piece may leave."""

    def __init__(self, bytes_per_second: float) -> None:
        self._bytes_per_second = bytes_per_second
        self._free_at = 0.0

    async def take(self, size_bytes: int) -> None:
        if self._bytes_per_second:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size_bytes / self._bytes_per_second
            await asyncio.sleep(self._free_at - now)


async def serve(file_bytes: int, bytes_per_second: float) -> None:
    """Until the input is closed."""
    content, line = memoryview(mp4(file_bytes)), Line(bytes_per_second)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {len(content)}\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(head)
                for at in range(0, len(content), PIECE_BYTES):
                    await line.take(PIECE_BYTES)
                    writer.write(content[at : at + PIECE_BYTES])
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is done
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=256)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--file-bytes", type=int, default=8_000_000)
    given.add_argument("--bytes-per-second", type=float, default=0.0)
    options = given.parse_args()
    asyncio.run(serve(options.file_bytes, options.bytes_per_second))
