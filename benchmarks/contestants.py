"""The programs that are measured doing a sheet of jobs, each in a process of its own: `measured(...)`.

    python benchmarks/contestants.py fal-batch --url http://127.0.0.1:8123 --jobs 2000 --in-flight 256

A process warms up with a few jobs, so that imports and the first use of everything are not counted, and then does
the sheet; it prints what that cost. Each submits, asks, takes the result and saves the file, and the official client
is used as its README does. Only `fal-batch` also keeps a ledger and checks, hashes and syncs what it saves.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

__all__ = ["FLOOR", "OURS", "missing", "run"]

ENDPOINT = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video"
KEY = "id:secret"
WARM_UP_JOBS = 20
OURS, FLOOR = "fal-batch", "aiohttp loop"
Contestant = Callable[[argparse.Namespace, Path, int], None]


def run(
    name: str, *, url: str, jobs: int, in_flight: int, service_s: float = 0.0, asks: int = 1, streams: bool = False
) -> dict[str, float]:
    """What one contestant's process needs for the sheet: `cpu ms/job` and `jobs/s`. `service_s`, `asks` and `streams`
    are for the floor alone: it makes the requests that we make, as many and at like times."""
    sizes = {"--url": url, "--jobs": jobs, "--in-flight": in_flight, "--service": service_s, "--asks": asks}
    command = [sys.executable, __file__, name, *(str(part) for pair in sizes.items() for part in pair)]
    done = subprocess.run([*command, *(["--streams"] if streams else [])], stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def missing(name: str) -> str | None:
    """Why a contestant cannot be measured here; None when it can."""
    if name == FLOOR:
        try:
            import aiohttp  # noqa: F401
        except ImportError:
            return "aiohttp is not installed"
    if name == "parallel + curl":
        import shutil

        absent = [tool for tool in ("parallel", "curl") if shutil.which(tool) is None]
        return f"{' and '.join(absent)} not installed" if absent else None
    return None


def fal_batch(given: argparse.Namespace, folder: Path, jobs: int) -> None:
    from batch.api import Queue

    os.environ |= {f"FAL_BATCH_{name}_URL": given.url for name in ("QUEUE", "REST", "CDN")}
    os.environ["FAL_BATCH_API_URL"] = f"{given.url}/v1"
    sheet = folder / "sheet.csv"
    with open(sheet, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *arguments(0)])
        writer.writerows([number, *arguments(number).values()] for number in range(jobs))
    concurrency = max(1, given.in_flight * 4 // 5)  # a quarter more may wait at fal: as many in flight as the others
    with Queue(KEY, local=False, state=folder / "state") as queue:
        summary = queue.run(sheet, concurrency=concurrency, outputs=folder / "outputs")
    if summary.exit_code != 0:
        sys.exit(f"fal-batch ended with {summary.exit_code}: {summary.stopped} {summary.notes}")


def fal_client_async(given: argparse.Namespace, folder: Path, jobs: int) -> None:
    import httpx

    client = _fal_client(given.url).AsyncClient(key=KEY)

    async def main() -> None:
        limit = asyncio.Semaphore(given.in_flight)
        async with httpx.AsyncClient(timeout=60) as http:

            async def make(number: int) -> None:
                async with limit:
                    result = await client.subscribe(ENDPOINT, arguments(number))
                    answer = await http.get(result["video"]["url"])
                    answer.raise_for_status()
                    (folder / f"{number}.mp4").write_bytes(answer.content)

            await asyncio.gather(*(make(number) for number in range(jobs)))

    asyncio.run(main())


def fal_client_threads(given: argparse.Namespace, folder: Path, jobs: int) -> None:
    import httpx

    client = _fal_client(given.url).SyncClient(key=KEY)
    with httpx.Client(timeout=60) as http, ThreadPoolExecutor(given.in_flight) as threads:

        def make(number: int) -> None:
            result = client.subscribe(ENDPOINT, arguments(number))
            answer = http.get(result["video"]["url"])
            answer.raise_for_status()
            (folder / f"{number}.mp4").write_bytes(answer.content)

        list(threads.map(make, range(jobs)))


def parallel_and_curl(given: argparse.Namespace, folder: Path, jobs: int) -> None:
    """What one writes in a shell: submit, ask every second, fetch. sed finds the addresses in the answers."""
    script = f"""
      said=$(curl -sf -H 'Authorization: Key {KEY}' -H 'Content-Type: application/json' -d "$2" {given.url}/{ENDPOINT})
      at=$(echo "$said" | sed 's/.*"response_url": "\\([^"]*\\)".*/\\1/')
      until curl -sf -H 'Authorization: Key {KEY}' "$at/status" | grep -q COMPLETED; do sleep 1; done
      curl -sf -H 'Authorization: Key {KEY}' "$at" | sed 's/.*"url": "\\([^"]*\\)".*/\\1/' | xargs curl -sf -o "$1.mp4"
    """
    lines = "\n".join(f"{number}\t{json.dumps(arguments(number))}" for number in range(jobs))
    script_file = folder / "make.sh"
    script_file.write_text(script, encoding="utf-8")
    command = ["parallel", f"-j{given.in_flight}", "--colsep", "\t", "sh", str(script_file), "{1}", "{2}"]
    subprocess.run(command, input=lines, text=True, cwd=folder, check=True)


def aiohttp_loop(given: argparse.Namespace, folder: Path, jobs: int) -> None:
    """The floor: the same requests, nothing remembered, nothing checked."""
    import aiohttp

    async def main() -> None:
        limit = asyncio.Semaphore(given.in_flight)
        headers = {"Authorization": f"Key {KEY}"}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as http,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True), headers=headers) as once,
        ):

            async def asked(url: str) -> Any:
                async with http.get(url) as answer:
                    return await answer.json()

            async def follow(url: str) -> None:
                if given.streams:
                    async with http.get(f"{url}/stream") as answer:
                        await answer.read()
                    return
                pause_s = given.service / given.asks * 1.01
                while True:
                    if pause_s:
                        await asyncio.sleep(pause_s)
                    if (await asked(url))["status"] == "COMPLETED":
                        return

            async def make(number: int) -> None:
                async with limit:
                    async with once.post(f"{given.url}/{ENDPOINT}", json=arguments(number)) as answer:
                        ticket = await answer.json()
                    await follow(ticket["status_url"])
                    result = await asked(ticket["response_url"])
                    async with http.get(result["video"]["url"]) as answer:
                        content = await answer.read()
                    (folder / f"{number}.mp4").write_bytes(content)

            await asyncio.gather(*(make(number) for number in range(jobs)))

    asyncio.run(main())


def arguments(number: int) -> dict[str, Any]:
    """The input of one job."""
    return {
        "prompt": f"a lighthouse in the rain, number {number}, camera pans left",
        "image_url": "https://example.com/images/lighthouse.jpg",
        "resolution": "480p",
        "duration": "5",
        "seed": number + 1,
    }


def _fal_client(url: str) -> Any:
    """The official client, its addresses set to the queue on this machine. Nothing else of it is touched."""
    import fal_client
    import fal_client.client

    for name in ("QUEUE_URL_FORMAT", "RUN_URL_FORMAT"):
        setattr(fal_client.client, name, f"{url}/")
    return fal_client


CONTESTANTS: dict[str, Contestant] = {
    OURS: fal_batch,
    "fal-client async": fal_client_async,
    "fal-client threads": fal_client_threads,
    "parallel + curl": parallel_and_curl,
    FLOOR: aiohttp_loop,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--service", type=float, default=0.0)
    parser.add_argument("--asks", type=int, default=1)
    parser.add_argument("--streams", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, jobs in (("warm-up", WARM_UP_JOBS), ("sheet", given.jobs)):
            (Path(folder) / name).mkdir()
            cpu_before, began = _cpu_s(), time.monotonic()
            CONTESTANTS[given.name](given, Path(folder) / name, jobs)
            cpu_s, wall_s = _cpu_s() - cpu_before, time.monotonic() - began
            saved = sum(1 for _ in (Path(folder) / name).rglob("*.mp4"))
            assert saved == jobs, f"{given.name} saved {saved} of {jobs} files"
    print(json.dumps({"cpu ms/job": cpu_s / given.jobs * 1000, "jobs/s": given.jobs / wall_s}))


def _cpu_s() -> float:
    """Of this process and of those it started that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
