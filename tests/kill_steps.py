"""`python kill_steps.py`: a real run, killed with SIGKILL at every commit of its ledger, against a separate queue.

For every n the run is killed once just before its n-th commit and once just after it, and then typed again until it is
done. The killing is done by a launcher, which starts the program with a `sqlite3.connect` of its own:
`python kill_steps.py launch N before|after WORD...` (instead of N also the name of an event, for the first commit with
it). The program knows nothing of it. Exit code 1 when an input was accepted twice, a video is missing or is not the one
its row asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kill_loop import MOVES, PROGRAM, PROJECT, accepted, frames_are_right, queue

TIMES = ("--start-timeout", "5s", "--run-timeout", "5s", "--history-delay", "0s")
LIVES_MAX = 5
STEPS_MAX = 200  # a run of two rows has fewer
MOMENTS = ("before", "after")


class EndedFirst(Exception):
    """The run ended well before it could be killed."""


# --- the launcher ---


def launch(step: str, moment: str, words: list[str]) -> None:
    """Be `fal-batch WORD...`, killed just before or just after that commit of the ledger."""
    sys.path.insert(0, str(PROJECT))
    from batch.ledger.schema import LEDGER_NAME

    commits = 0
    written = set[object]()  # by the transaction that is open, of which the name of an event is one

    class Killed(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            nonlocal commits
            word = sql.split(None, 1)[0].upper()
            if word == "INSERT":
                written.update(parameters)
            is_commit = word in ("COMMIT", "END") or (
                not self.in_transaction and word not in ("BEGIN", "PRAGMA", "SELECT", "WITH", "ROLLBACK")
            )
            commits += is_commit
            is_it = is_commit and (step in written or step == str(commits))
            if is_commit or word in ("BEGIN", "ROLLBACK"):
                written.clear()
            if is_it and moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            done = super().execute(sql, parameters)
            if is_it:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        def commit(self) -> None:
            if self.in_transaction:
                self.execute("COMMIT")

        def __exit__(self, *failure: Any) -> Any:  # sqlite-utils makes its migrations inside `with connection:`
            if failure[0] is None:
                self.commit()
            return super().__exit__(*failure)

    connect = sqlite3.connect

    def connected(database: Any, **options: Any) -> sqlite3.Connection:
        is_ledger = Path(str(database)).name == LEDGER_NAME
        return connect(database, **({"factory": Killed} if is_ledger else {}), **options)

    sqlite3.connect = connected  # type: ignore[assignment]
    sys.argv = ["fal-batch", *words]
    from batch.cli import entry

    entry()


# --- the loop ---


def killed_at(folder: Path, environment: Mapping[str, str], step: str, moment: str, *, rows: int) -> str | None:
    """One story: killed at that commit, then typed again until done. What was wrong with it, None when nothing was.

    EndedFirst when the run has no such commit.
    """
    folder.mkdir(parents=True)
    name = f"kill {moment} {step}"
    write_sheet(folder / "kills.csv", name, rows)
    words = ["run", "kills.csv", "-y", "-j", "2", *TIMES]
    launcher = (sys.executable, str(Path(__file__).resolve()), "launch", step, moment)
    code = typed((*launcher, *words), folder, environment)
    if code == 0:
        raise EndedFirst
    if code != -signal.SIGKILL:
        return f"{name}: the first life ended with {code}"
    for _ in range(LIVES_MAX):
        code = typed((*PROGRAM, *words), folder, environment)
        if code == 0:
            return what_is_wrong(folder, name, rows)
    return f"{name}: ended with {code} after {LIVES_MAX} more lives"


def what_is_wrong(folder: Path, name: str, rows: int) -> str | None:
    """The videos, each the one that its row asked for; doubles are the queue's to tell."""
    outputs = folder / "state" / "outputs" / "kills"
    wanted = {f"row{n}.mp4{end}" for n in range(rows) for end in ("", ".json")}
    found = {path.name for path in outputs.iterdir()}
    if found != wanted:
        return f"{name}: in {outputs} there are {sorted(found)}"
    for n in range(rows):
        facts = json.loads((outputs / f"row{n}.mp4.json").read_text(encoding="utf-8"))
        is_right = facts["row"] == f"row{n}" and facts["input"]["prompt"] == prompt(name, n)
        if not is_right or not frames_are_right(outputs / f"row{n}.mp4"):
            return f"{name}: row{n}.mp4 is not the video of its row"
    return None


def typed(command: tuple[str, ...], folder: Path, environment: Mapping[str, str]) -> int:
    with (folder / "output.txt").open("ab") as output:
        ended = subprocess.run(
            command, cwd=folder, env=dict(environment), stdout=output, stderr=output, timeout=300, check=False
        )
    return ended.returncode


def write_sheet(path: Path, name: str, rows: int) -> None:
    images = sorted((PROJECT / "manifests" / "images").glob("*.jpg"))
    lines = [f"row{n},{prompt(name, n)},{images[n % len(images)]},480p,2\n" for n in range(rows)]
    path.write_text("id,prompt,image_url,resolution,duration\n" + "".join(lines), encoding="utf-8")


def prompt(name: str, n: int) -> str:
    return f"{name} picture {n} camera {MOVES[n % len(MOVES)]}"


def environment_for(url: str) -> dict[str, str]:
    urls = {f"FAL_BATCH_{name}_URL": url for name in ("QUEUE", "REST", "CDN", "API")}
    return {**os.environ, **urls, "FAL_KEY": "test", "NO_PROXY": "*", "PYTHONPATH": str(PROJECT)}


def main() -> int:
    if sys.argv[1:2] == ["launch"]:
        launch(sys.argv[2], sys.argv[3], sys.argv[4:])
        return 0
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=2)
    arguments.add_argument("--at-once", type=int, default=2, help="stories played side by side")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name, queue(Path(name) / "queue") as url:
        return kill_at_every_step(Path(name), url, rows=options.rows, at_once=options.at_once)


def kill_at_every_step(folder: Path, url: str, *, rows: int, at_once: int) -> int:
    """Both moments of every commit. The exit code."""
    environment = environment_for(url)
    began = time.monotonic()
    stories = [(number, moment) for number in range(1, STEPS_MAX) for moment in MOMENTS]
    wrong: list[str] = []
    kills = 0

    def story(number: int, moment: str) -> str | None:
        return killed_at(folder / f"{number}{moment}", environment, str(number), moment, rows=rows)

    with ThreadPoolExecutor(at_once) as pool:
        for first in range(0, len(stories), at_once):
            begun = [pool.submit(story, *one) for one in stories[first : first + at_once]]
            has_ended = False
            for one in begun:
                try:
                    problem = one.result()
                except EndedFirst:
                    has_ended = True
                    continue
                kills += 1
                wrong += [problem] if problem else []
            print(f"{kills} kills, {accepted(url)['accepted']} accepted, {len(wrong)} wrong", flush=True)
            if has_ended:
                break
    counted = accepted(url)
    for problem in wrong:
        print(problem)
    print(
        f"killed {kills} times, before and after every commit; accepted {counted['accepted']}, inputs "
        f"{counted['inputs']}, accepted twice {len(counted['doubles'])}, wrong {len(wrong)}; "
        f"{time.monotonic() - began:.0f} s"
    )
    return int(bool(wrong or counted["doubles"]) or counted["accepted"] != counted["inputs"])


if __name__ == "__main__":
    sys.exit(main())
