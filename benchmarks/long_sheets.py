"""Long sheets for benchmarks, ledgers of campaigns that are nearly done, work in processes of its own. No script."""

from __future__ import annotations

import csv
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["COLUMNS", "in_a_process", "made_for", "mostly_done", "write_sheet"]

HERE = Path(__file__).parent
IMAGES = sorted((HERE.parent / "manifests" / "images").glob("*.jpg"))
COLUMNS = ("id", "prompt", "image_url", "resolution", "duration", "camera_fixed", "aspect_ratio", "subject")
WORDS = [
    "slow",
    "camera",
    "over",
    "the",
    "sea",
    "at",
    "dawn",
    "waves",
    "light",
    "fog",
    "birds",
    "city",
    "street",
    "rain",
    "neon",
    "warm",
    "grain",
    "calm",
    "storm",
    "hills",
    "forest",
    "river",
    "glass",
    "dust",
]


def write_sheet(path: Path, rows: int, *, has_files: bool = True) -> Path:
    """A sheet of so many different rows of eight columns on eight pictures, files or URLs; the same every time."""
    rng = random.Random(1)
    pictures = [str(image) if has_files else f"https://example.com/{image.name}" for image in IMAGES]
    with path.open("w", newline="", encoding="utf-8") as file:
        sheet = csv.writer(file)
        sheet.writerow(COLUMNS)
        for n in range(rows):
            prompt = f"{' '.join(rng.choices(WORDS, k=12))} {n}"
            sizes = (rng.choice(("480p", "720p", "1080p")), rng.choice("358"), rng.choice(("true", "false")))
            sheet.writerow((f"shot-{n:07d}", prompt, pictures[n % len(pictures)], *sizes, "auto", rng.choice(WORDS)))
    return path


def in_a_process(code: str, *arguments: object, environ: Mapping[str, str] | None = None) -> dict[str, float]:
    """What a piece of Python costs in a process of its own, its start and imports included; it sees `sys.argv[1:]`."""
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **(environ or {})},
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    cpu_s = used.ru_utime + used.ru_stime
    return {"cpu s": cpu_s, "wall s": time.monotonic() - began, "peak MB": used.ru_maxrss / 1024}


def mostly_done(ledger: Path, left: int) -> None:
    """Make the ledger of a planned campaign one of which all but the last `left` jobs are paid for and saved."""
    db = sqlite3.connect(ledger, isolation_level=None)
    db.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -65536; BEGIN")
    count = db.execute("SELECT count(*) FROM job").fetchone()[0]
    done = count - left
    result = json.dumps({"video": {"url": "https://v3.fal.media/files/x/" + "0" * 40 + ".mp4"}, "seed": 1234567890})
    db.execute(
        """INSERT INTO attempt (id, job_id, campaign_id, number, body, price_micros, cost_micros, is_settled,
        start_timeout_s, run_timeout_s, submitting_at, closed_at, accepted_at, ended_at, request_id, status_url,
        response_url, cancel_url, end_event, result, is_cost_told)
        SELECT id, id, 1, 1, input, price_micros, price_micros, 1, 3600, 3600, 1e9 + id, 1e9 + id + 1, 1e9 + id + 1,
        1e9 + id + 30, printf('00000000-0000-4000-8000-%012d', id), 'https://queue.fal.run/x/' || id || '/status',
        'https://queue.fal.run/x/' || id, 'https://queue.fal.run/x/' || id || '/cancel', 'completed', ?, 0
        FROM job WHERE id <= ?""",
        (result, done),
    )
    db.execute(
        """INSERT INTO artifact (job_id, attempt_id, row_id, place, path, path_folded, url, sha256, size_bytes,
        media_type, saved_at)
        SELECT row.job_id, row.job_id, row.id, 'video', 'outputs/shots/' || row.stem || '.mp4',
        'outputs/shots/' || row.stem || '.mp4', 'https://v3.fal.media/x', printf('%064d', row.id), 1000000, 'video/mp4',
        1e9 FROM row WHERE row.job_id <= ?""",
        (done,),
    )
    steps = (("planned", "claimed", "submitting"), ("submitting", "accepted", "submitted"))
    steps += (("submitted", "completed", "completed"), ("completed", "fetched", "fetched"))
    for was, event, now in steps:
        db.execute(
            """INSERT INTO event (job_id, attempt_id, event, was, now, at) SELECT id, id, ?, ?, ?, 1e9
            FROM job WHERE id <= ?""",
            (event, was, now, done),
        )
    db.execute("UPDATE job SET state = 'fetched', fal_status = 'COMPLETED' WHERE id <= ?", (done,))
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def made_for(ledger: Path, queue_url: str) -> None:
    """Let a ledger belong to another queue."""
    db = sqlite3.connect(ledger)
    with db:
        db.execute("UPDATE ledger SET queue_url = ?", (queue_url,))
    db.close()
