"""How soon a run is at work again after a kill, on a ledger of which a tenth is left to do: from the start of the
command to its first submit, against planning the sheet for the first time; and how long `status` takes there.

The queue is a socket that notes when the first submit comes and answers nothing; the run is killed then.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from long_sheets import in_a_process, made_for, mostly_done, write_sheet
from side_by_side import Goal, compare, given

LONGEST_S = 600.0
PLANNING = """
import os, pathlib, sys, time
from batch import run, settings
from batch.ledger import open_ledger
from batch.pricing import Prices
from batch.views import load_manifest
sheet, folder = sys.argv[1:]
chosen = settings.load_settings({"state": folder}, environ=os.environ, cwd=pathlib.Path(folder).parent)
found = load_manifest(pathlib.Path(sheet), chosen)
with open_ledger(pathlib.Path(folder), queue_url=chosen.queue_url, command="benchmark", clock=time.time) as ledger:
    campaign_id = ledger.campaign(found.name, pathlib.Path(sheet))
    with run._planning(found, Prices(chosen), ledger, campaign_id, None, None):
        pass
"""


@contextmanager
def _queue() -> Iterator[tuple[str, threading.Event]]:
    """An address that takes requests and answers 404 to all but submits, and whether one has come."""
    came = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            head = connection.recv(65536)
            if head.startswith(b"POST"):
                came.set()
                time.sleep(LONGEST_S)
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", came
    finally:
        server.close()


def _environ(url: str, state: Path) -> dict[str, str]:
    hosts = {f"FAL_BATCH_{name}_URL": url for name in ("QUEUE", "REST", "CDN", "API")}
    return {**os.environ, **hosts, "FAL_KEY": "benchmark", "FAL_BATCH_STATE": str(state), "FAL_BATCH_PRICE": "0.1"}


def _first_submit(sheet: Path, ledger: Path, folder: Path, number: int) -> dict[str, float]:
    """A restart on a copy of the ledger, which has the address of its queue in it."""
    with _queue() as (url, came):
        state = folder / f"run-{number}"
        state.mkdir()
        shutil.copy(ledger, state / "ledger.db")
        made_for(state / "ledger.db", url)
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "batch", "run", sheet, "-q"],
            env=_environ(url, state),
            cwd=folder,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert came.wait(LONGEST_S), "no submit came"
            waited_s = time.monotonic() - began
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        shutil.rmtree(state)
    return {"wall s": waited_s}


def main() -> None:
    options = given(__doc__, rounds=1, rows=1_000_000)
    left = options.rows // 10
    folder = Path(tempfile.mkdtemp(prefix="fal-batch-resume-"))
    environ = _environ("http://127.0.0.1:9", folder / "planned")
    numbers = iter(range(1_000_000))

    def planned() -> dict[str, float]:
        shutil.rmtree(folder / "planned", ignore_errors=True)
        (folder / "planned").mkdir()
        return in_a_process(PLANNING, sheet, folder / "planned", environ=environ)

    def status() -> dict[str, float]:
        (folder / "state").mkdir(exist_ok=True)
        if not (folder / "state" / "ledger.db").exists():
            shutil.copy(ledger, folder / "state" / "ledger.db")
        code = "from batch.cli import main; main()"
        return in_a_process(code, "status", sheet, "--state", folder / "state")

    try:
        sheet = write_sheet(folder / "shots.csv", options.rows, has_files=False)
        planned()
        ledger = folder / "ledger.db"
        (folder / "planned" / "ledger.db").rename(ledger)
        mostly_done(ledger, left)
        compare(
            "resume",
            f"Going on with {options.rows:,} rows of which {left:,} are left",
            {
                "to the first submit": lambda: _first_submit(sheet, ledger, folder, next(numbers)),
                "planning it": planned,
                "status": status,
            },
            ours="to the first submit",
            rounds=options.rounds,
            goals=[Goal(measure="wall s", baseline="planning it", at_most=0.05)],
            facts={"rows": options.rows, "left": left, "ledger MB": ledger.stat().st_size / 1e6},
            out=options.json,
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
