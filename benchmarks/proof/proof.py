"""`make proof`: one sheet, one fault plan, three programs; who paid for what, and who has which video.

Each contestant gets a local queue of its own (`fal-batch serve --faults`, a fresh folder, the same seed) and a copy of
the sheet. Each is killed with SIGKILL once, when the queue has accepted so many, and is then started again by the same
command until it says itself that nothing is missing. The official clients are the published packages with their
defaults. The judge is the queue: it knows every request it took, and every byte it made.

Prints the seed and all versions first. What cannot be run here is left out, and the table says why.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from judging import Finding, Life, Request, judged, table

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
WORK = PROJECT / "build" / "proof"
ENDPOINT = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video"
MOVES = ("pans left", "pans right", "tilts up", "tilts down", "zooms in", "zooms out", "static")
TIMES = ("--start-timeout", "20s", "--run-timeout", "20s", "--history-delay", "15s")
"""How long fal-batch waits before it takes a request for never accepted. By default two hours, because at fal a request
may wait for one and run for another; here a video takes a third of a second."""

DIFFERENCE = """\
Both clients take an answer that was lost for a request that was never made and POST again, and no client remembers over
a kill what it had at fal. fal-batch writes down what it is about to ask for, looks for a lost request in fal's history,
asks again only when it is proved that fal never took the first, and gives no file its name before it is whole."""

LIVES_MAX = 8  # whoever is not done then is not done
LIFE_S_MAX = 900.0
IDLE_S_MAX = 300.0

Videos = Callable[[Path, str], Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A program and how its user starts it; `video` is where it puts a row's video."""

    name: str
    command: tuple[str, ...]
    video: Videos


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument("--at-once", type=int, default=8)
    arguments.add_argument("--kill-at", type=int, help="accepted requests; default: two fifths of the rows")
    arguments.add_argument("--json", type=Path, default=WORK / "proof.json", help="where the same goes as JSON")
    options = arguments.parse_args()
    options.kill_at = options.kill_at or options.rows * 2 // 5
    shutil.rmtree(WORK / "runs", ignore_errors=True)
    (WORK / "runs").mkdir(parents=True)
    facts = about(options)
    say(json.dumps(facts, indent=2))
    columns: dict[str, Finding | str] = {}
    for contestant in (_python_client(), _javascript_client(), _fal_batch(options.at_once)):
        if isinstance(contestant, Contestant):
            folder = WORK / "runs" / str(len(columns) + 1)
            columns[contestant.name] = played(contestant, folder, options)
        else:
            name, columns[name] = contestant
            say(f"{name}: not run: {columns[name]}")
    found = {name: one.document() if isinstance(one, Finding) else {"not_run": one} for name, one in columns.items()}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({**facts, "found": found}, indent=2) + "\n", encoding="utf-8")
    print(f"{table(columns)}\n\n{DIFFERENCE}")
    say(f"the same as JSON: {options.json}; what each program said: {WORK / 'runs'}/*/life*.log")
    return 0


def about(options: argparse.Namespace) -> dict[str, Any]:
    """All that the outcome hangs on."""
    return {
        "seed": options.seed,
        "rows": options.rows,
        "at_once": options.at_once,
        "killed_at_accepted": options.kill_at,
        "versions": versions(),
        "fal_batch_times": list(TIMES),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def played(contestant: Contestant, folder: Path, options: argparse.Namespace) -> Finding:
    """Let one contestant do the sheet, and judge."""
    folder.mkdir()
    rows = write_sheet(folder, options.rows)
    with served(folder, options.seed) as url:
        environment = environment_for(url, options.at_once)
        lives: list[Life] = []
        while len(lives) < LIVES_MAX and (not lives or lives[-1].exit_code != 0):
            kill_at = None if lives else options.kill_at
            lives.append(lived(contestant, folder, environment, url, kill_at, len(lives) + 1))
            say(f"{contestant.name}: life {len(lives)} ended with {lives[-1].exit_code}, {lives[-1].accepted} accepted")
        calls = sum(asked(f"{url}/local/faults")["calls"].values())
        httpx.put(f"{url}/local/faults", trust_env=False).raise_for_status()  # the judge is lied to by nobody
        requests = accepted_requests(url, rows)
    paths = {row: contestant.video(folder, row) for row in rows.values()}
    saved = {row: sha256(path.read_bytes()) for row, path in paths.items() if path.is_file()}
    return judged(list(rows.values()), requests, saved, lives=lives, calls=calls)


def environment_for(url: str, at_once: int) -> dict[str, str]:
    """What leads each of the programs to the queue."""
    return {
        **os.environ,
        **{f"FAL_BATCH_{name}_URL": url for name in ("QUEUE", "REST", "CDN", "API")},
        "PROOF_URL": url,
        "PROOF_ENDPOINT": ENDPOINT,
        "PROOF_AT_ONCE": str(at_once),
        "FAL_KEY": "somebody:secret",
        "NO_PROXY": "*",
    }


def lived(
    contestant: Contestant, folder: Path, environment: Mapping[str, str], url: str, kill_at: int | None, number: int
) -> Life:
    """One start of the program; with `kill_at` it is killed once the queue has accepted so many."""
    began = time.monotonic()
    with (folder / f"life{number}.log").open("wb") as log:
        program = subprocess.Popen(contestant.command, cwd=folder, env=dict(environment), stdout=log, stderr=log)
        while program.poll() is None:
            is_time = kill_at is not None and asked(f"{url}/local/accepted")["accepted"] >= kill_at
            if is_time or time.monotonic() - began > LIFE_S_MAX:
                program.send_signal(signal.SIGKILL)
                program.wait()
            time.sleep(0.02 if kill_at else 0.1)
    seconds = time.monotonic() - began
    return Life(exit_code=program.returncode, accepted=settled_count(url), seconds=seconds)


def settled_count(url: str) -> int:
    """The accepted requests once no call of a dead program is on its way any more."""
    count = -1
    while count != (count := asked(f"{url}/local/accepted")["accepted"]):
        time.sleep(0.3)
    return count


def accepted_requests(url: str, rows: Mapping[str, str]) -> list[Request]:
    """All that the queue accepted, in order, once all of it has ended; `rows` gives the row of a prompt."""
    until = time.monotonic() + IDLE_S_MAX
    items = list(history(url))
    while any(item["ended_at"] is None for item in items):
        assert time.monotonic() < until, "the queue does not get idle"
        time.sleep(0.5)
        items = list(history(url))
    requests = []
    for item in sorted(items, key=lambda item: str(item["request_id"])):  # ids grow with time
        video = (item["json_output"] or {}).get("video")
        made = sha256(httpx.get(video["url"], trust_env=False).raise_for_status().content) if video else None
        row = rows[item["json_input"]["prompt"]]
        requests.append(Request(id=item["request_id"], row=row, code=item["status_code"], sha256=made))
    assert len(requests) == asked(f"{url}/local/accepted")["accepted"], "the history and the count agree"
    return requests


def history(url: str) -> Iterator[dict[str, Any]]:
    query = {"endpoint_id": ENDPOINT, "limit": "100", "expand": "payloads"}
    cursor: str | None = ""
    while cursor is not None:
        page = asked(f"{url}/v1/models/requests/by-endpoint", params={**query, "cursor": cursor} if cursor else query)
        yield from page["items"]
        cursor = page["next_cursor"]


@contextmanager
def served(folder: Path, seed: int) -> Iterator[str]:
    """A queue of its own with the plan under that seed; its address."""
    plan = {**yaml.safe_load((HERE / "faults.yaml").read_text(encoding="utf-8")), "seed": seed}
    (folder / "faults.yaml").write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
    command = (sys.executable, "-m", "batch", "serve", "--port", "0", "--faults", "faults.yaml", "--state", "queue")
    with (folder / "queue.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip().split("=", 1)[1]
        finally:
            server.terminate()
            server.wait()


def write_sheet(folder: Path, count: int) -> dict[str, str]:
    """The sheet and its pictures; the id of the row of each prompt."""
    pictures = sorted((PROJECT / "manifests" / "images").glob("*.jpg"))
    for picture in pictures:
        shutil.copy(picture, folder)
    rows = {f"take {n} where the camera {MOVES[n % len(MOVES)]}": f"row{n:04}" for n in range(1, count + 1)}
    with (folder / "proof.csv").open("w", encoding="utf-8", newline="") as file:
        sheet = csv.writer(file)
        sheet.writerow(("id", "prompt", "image_url", "resolution", "duration"))
        for n, (prompt, row) in enumerate(rows.items()):
            sheet.writerow((row, prompt, pictures[n % len(pictures)].name, "480p", 2))
    return rows


# --- the contestants; a name and a reason where one cannot be run ---


def _python_client() -> Contestant | tuple[str, str]:
    name = f"fal-client {version('fal-client')}"
    if version("fal-client") is None:
        return "fal-client", "fal-client is not installed (`make setup` installs it)"
    return Contestant(name=name, command=(sys.executable, str(HERE / "with_fal_client.py")), video=_in_videos)


def _javascript_client() -> Contestant | tuple[str, str]:
    name = f"@fal-ai/client {_javascript_packages()['@fal-ai/client']}"
    node = shutil.which("node")
    if node is None:
        return name, "node is not here"
    if not (PROJECT / "node_modules" / "@fal-ai" / "client").is_dir():
        return name, "@fal-ai/client is not installed (`make proof` does it where npm is)"
    return Contestant(name=name, command=(node, str(HERE / "with_fal_js.mjs")), video=_in_videos)


def _fal_batch(at_once: int) -> Contestant:
    return Contestant(
        name=f"fal-batch {version('fal-batch')}",
        command=(sys.executable, "-m", "batch", "run", "proof.csv", "-y", "-j", str(at_once), *TIMES),
        video=lambda folder, row: folder / "state" / "outputs" / "proof" / f"{row}.mp4",
    )


def _in_videos(folder: Path, row: str) -> Path:
    return folder / "videos" / f"{row}.mp4"


# --- small things ---


def versions() -> dict[str, str | None]:
    """Of everything that takes part."""
    node = shutil.which("node")
    said = subprocess.run((node, "--version"), capture_output=True, text=True, check=False).stdout if node else ""
    found = {name: version(name) for name in ("fal-batch", "fal-client", "httpx", "av")}
    return {"python": platform.python_version(), **found, "node": said.strip() or None, **_javascript_packages()}


def _javascript_packages() -> dict[str, str]:
    wanted: dict[str, str] = json.loads((PROJECT / "package.json").read_text(encoding="utf-8"))["dependencies"]
    return wanted


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def asked(url: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A JSON answer of the queue."""
    answer = httpx.get(url, params=params, headers={"Authorization": "Key judge"}, timeout=30, trust_env=False)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
