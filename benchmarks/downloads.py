"""Downloads beside curl's own parallel ones, the same files from one server: bytes a second and CPU.

    python benchmarks/downloads.py [--rounds 3] [--files 48] [--file-bytes 8000000] [--at-once 6]

Ours also hashes every file, looks through its container, syncs it to the disk and only then gives it its name; curl
writes what comes. So there is also curl with sha256sum and sync after it, as one would type for the same. All of it
twice: on a line of 1 Gbit/s, more than most people have, and with no pace at all, where they are bound by the processor
that they share with the server.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from file_server import file_server
from side_by_side import RESULTS, Goal, Run, compare, given

from batch import fetch
from batch.fal import transports
from batch.fetch import Fetcher

OURS, THEIRS, LIKE_OURS = "fal-batch", "curl, in parallel", "curl, sha256sum, sync"
PACE, CPU = "MB/s", "cpu ms/file"
LINE_BYTES_PER_SECOND = 125e6  # 1 Gbit/s


def ours(url: str, folder: Path, options: Any) -> None:
    """The program's own way of a file, without its ledger."""

    async def run_blocking(func: Callable[..., Any], *args: Any) -> Any:
        return await anyio.to_thread.run_sync(func, *args, abandon_on_cancel=True)

    def kept(part: Path, final: Path) -> None:
        fetch.verify(part, "video/mp4")
        fetch.install(part, final)

    async def main() -> None:
        _, transport = transports(proxy=None, is_loopback=True)
        fetcher = Fetcher(transport=transport, allow_http_loopback=True, run_blocking=run_blocking)
        limit = anyio.CapacityLimiter(options.at_once)

        async def one(number: int) -> None:
            part = folder / f"{number}.part"
            async with limit:
                await fetcher.download(f"{url}/{number}.mp4", part, expected_bytes=options.file_bytes)
            await run_blocking(kept, part, folder / f"{number}.mp4")

        async with anyio.create_task_group() as tasks:
            for number in range(options.files):
                tasks.start_soon(one, number)
        await fetcher.aclose()

    anyio.run(main)


def curl(url: str, folder: Path, options: Any) -> None:
    wanted = "\n".join(f'url = "{url}/{n}.mp4"\noutput = "{folder}/{n}.mp4"' for n in range(options.files))
    command = ["curl", "--silent", "--fail", "--parallel", "--parallel-max", str(options.at_once), "--config", "-"]
    subprocess.run(command, input=wanted, text=True, check=True, stderr=subprocess.DEVNULL)  # a bar that none wants


def curl_and_more(url: str, folder: Path, options: Any) -> None:
    """The same, then what it takes to know that the files are there: two hashes at a time, all of them synced."""
    curl(url, folder, options)
    names = [str(folder / f"{n}.mp4") for n in range(options.files)]
    subprocess.run(
        ["xargs", "-P2", "-n8", "sha256sum"], input="\n".join(names), text=True, check=True, stdout=subprocess.DEVNULL
    )
    subprocess.run(["sync", *names, str(folder)], check=True)


def measured(do: Callable[[str, Path, Any], None], url: str, options: Any) -> dict[str, float]:
    """One run into an empty folder, which must then hold every file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cpu_before, began = _cpu_s(), time.monotonic()
        do(url, folder, options)
        wall_s, cpu_s = time.monotonic() - began, _cpu_s() - cpu_before
        sizes = [path.stat().st_size for path in folder.iterdir()]
        assert sizes == [options.file_bytes] * options.files, "every file is there, whole"
    return {PACE: sum(sizes) / wall_s / 1e6, CPU: cpu_s / options.files * 1000}


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    options = given(__doc__, rounds=3, files=48, file_bytes=8_000_000, at_once=6)
    if shutil.which("curl") is None:
        sys.exit("curl is not installed: nothing to measure against")
    folder = options.json or RESULTS
    for name, pace, what in (("line", LINE_BYTES_PER_SECOND, "a line of 1 Gbit/s"), ("free", 0.0, "no pace at all")):
        with file_server(file_bytes=options.file_bytes, bytes_per_second=pace) as url:
            cases: dict[str, Run] = {
                who: partial(measured, do, url, options)
                for who, do in ((OURS, ours), (THEIRS, curl), (LIKE_OURS, curl_and_more))
            }
            compare(
                f"downloads_{name}",
                f"{options.files} files of {options.file_bytes / 1e6:g} MB, {options.at_once} at once, {what}",
                cases,
                ours=OURS,
                rounds=options.rounds,
                goals=[Goal(measure=PACE, baseline=THEIRS, at_least=0.9)],
                facts={"files": options.files, "file_bytes": options.file_bytes, "bytes_per_second": pace},
                packages=("httpx", "httptools", "anyio"),
                out=folder / f"downloads_{name}.json",
            )


if __name__ == "__main__":
    main()
