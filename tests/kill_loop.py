"""`make crash KILLS=20`: a real run, killed with SIGKILL at random moments, against a queue in a process of its own.

Prints its seed first and a line for every kill; ends with what the queue counted and what was saved. Exit code 1 when
an input was accepted twice, a video is missing or is not the one its row asked for.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PROGRAM = (sys.executable, "-m", "batch")
TIMES = ("--start-timeout", "20s", "--run-timeout", "20s", "--history-delay", "0s")
MOVES = ("pans left", "pans right", "tilts up", "tilts down", "zooms in", "zooms out", "static")
FRAMES = 49  # two seconds: 24 a second, and one more


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--rows", type=int, default=0, help="default: twelve for every kill")
    arguments.add_argument("--seed", type=int, default=int(time.time()))
    options = arguments.parse_args()
    rows = options.rows or 12 * options.kills
    print(f"seed {options.seed}, {rows} rows, {options.kills} kills", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        return kill_loop(Path(folder), random.Random(options.seed), rows=rows, kills=options.kills)


def kill_loop(folder: Path, rng: random.Random, *, rows: int, kills: int) -> int:
    """Kill a run of `rows` rows `kills` times, let it end, and judge. The exit code."""
    sheet = write_sheet(folder / "kills.csv", rows)
    with queue(folder / "queue") as url:
        environment = {**os.environ, "FAL_KEY": "test", "NO_PROXY": "*"}
        environment |= {f"FAL_BATCH_{name}_URL": url for name in ("QUEUE", "REST", "CDN", "API")}
        command = (*PROGRAM, "run", sheet.name, "-y", *TIMES)
        began = time.monotonic()
        for number in range(1, kills + 1):
            run = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
            if not wait_for_submit(run, url, beyond=accepted(url)["accepted"] if number > 1 else 0):
                print("the run ended before it could be killed again; give it more --rows", flush=True)
                break
            time.sleep(rng.uniform(0.0, 1.5))
            run.send_signal(signal.SIGKILL)
            run.wait()
            print(f"kill {number}: {accepted(url)['accepted']} accepted, {len(videos(folder))} saved", flush=True)
        code = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
        print(f"the last run ended with exit code {code} after {time.monotonic() - began:.0f} s in all", flush=True)
        subprocess.run((*PROGRAM, "export", sheet.name, "out.csv"), cwd=folder, env=environment, check=True)
        return judge(folder, url, rows=rows, code=code)


def judge(folder: Path, url: str, *, rows: int, code: int) -> int:
    """Say what came out. 0 when every row has its own video and nothing was accepted twice."""
    counted = accepted(url)
    wrong = []
    for line in csv.DictReader((folder / "out.csv").open(encoding="utf-8", newline="")):
        video = folder / line["result_path"]
        facts = json.loads(Path(f"{video}.json").read_text(encoding="utf-8")) if line["result_path"] else {}
        is_right = facts.get("row") == line["id"] and facts.get("input", {}).get("prompt") == line["prompt"]
        if line["result_state"] != "fetched" or not is_right or not frames_are_right(video):
            wrong.append(line["id"])
    print(
        f"accepted {counted['accepted']}, inputs {counted['inputs']}, accepted twice {len(counted['doubles'])}, "
        f"saved {len(videos(folder))} of {rows}, wrong {len(wrong)} {wrong[:5]}"
    )
    return int(bool(counted["doubles"]) or counted["inputs"] != rows or bool(wrong) or code != 0)


def write_sheet(path: Path, rows: int) -> Path:
    """Rows that differ in their prompt, over the photographs of manifests/."""
    images = sorted((PROJECT / "manifests" / "images").glob("*.jpg"))
    with path.open("w", encoding="utf-8", newline="") as file:
        sheet = csv.writer(file)
        sheet.writerow(("id", "prompt", "image_url", "resolution", "duration"))
        for n in range(rows):
            prompt = f"picture number {n}, camera {MOVES[n % len(MOVES)]}"
            sheet.writerow((f"row{n:04}", prompt, images[n % len(images)], "480p", 2))
    return path


@contextmanager
def queue(state: Path) -> Iterator[str]:
    """A queue in a process of its own; its address."""
    command = (*PROGRAM, "serve", "--port", "0", "--state", str(state), "--runners", "2")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip().split("=", 1)[1]
        finally:
            server.terminate()


def wait_for_submit(run: subprocess.Popen[bytes], url: str, *, beyond: int) -> bool:
    """Until the queue has accepted one more than `beyond`; False when the run ends first."""
    while accepted(url)["accepted"] <= beyond:
        if run.poll() is not None:
            return False
        time.sleep(0.02)
    return True


def accepted(url: str) -> dict[str, list[object] | int]:
    """What the queue counted: accepted POSTs, different inputs, doubles."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/local/accepted", timeout=10) as answer:
        return json.load(answer)


def videos(folder: Path) -> list[Path]:
    return list((folder / "state" / "outputs" / "kills").glob("*.mp4"))


def frames_are_right(video: Path) -> bool:
    """Whether every frame is there and can be shown."""
    import av

    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0)) == FRAMES


if __name__ == "__main__":
    sys.exit(main())
