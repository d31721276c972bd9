"""Planning a long sheet against the least that any program would do for it: read it, write each row as JSON, hash that,
insert it into SQLite once under the hash. fal-batch checks every cell too, prices every job, and writes two tables.

The floors differ in what they insert into: one table, two, or the ledger's own with all their indexes and checks, which
is what anybody has to pay who keeps the same.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from long_sheets import COLUMNS, in_a_process, write_sheet
from side_by_side import Goal, compare, given

CHUNK_ROWS = 2_000
CACHE_KIB = 8_192  # of pages; as much as the ledger takes itself
ENDPOINT = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video"


def floor(sheet: Path, folder: Path, tables: int) -> None:
    """The floor, into one table or (a job and the row that wants it) into two."""
    db = sqlite3.connect(folder / "floor.db", isolation_level=None)
    db.executescript(
        """PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
        CREATE TABLE job (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, input TEXT NOT NULL);
        CREATE TABLE row (id INTEGER PRIMARY KEY, row_id TEXT NOT NULL UNIQUE, key TEXT NOT NULL); BEGIN"""
    )

    def insert() -> None:
        db.executemany("INSERT OR IGNORE INTO job (key, input) VALUES (?, ?)", jobs)
        if tables == 2:
            db.executemany("INSERT OR IGNORE INTO row (row_id, key) VALUES (?, ?)", rows)
        jobs.clear()
        rows.clear()

    jobs: list[tuple[str, str]] = []
    rows: list[tuple[str, str]] = []
    with sheet.open(newline="", encoding="utf-8") as file:
        for cells in csv.DictReader(file):
            text = json.dumps(cells, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            key = hashlib.sha256(text.encode()).hexdigest()[:32]
            jobs.append((key, text))
            rows.append((cells[COLUMNS[0]], key))
            if len(jobs) == CHUNK_ROWS:
                insert()
    insert()
    db.execute("COMMIT")
    db.close()


def floor_in_the_ledger(sheet: Path, folder: Path) -> None:
    """The floor into the tables of an empty ledger, each job with the row that wants it: no cell is judged, and what a
    file or an empty cell means is not asked."""
    db = sqlite3.connect(folder / "ledger.db", isolation_level=None)
    db.executescript(f"PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -{CACHE_KIB}; BEGIN")
    at = time.time()

    def insert() -> None:
        db.executemany(
            """INSERT OR IGNORE INTO job (key, endpoint, input, take, price_micros, planned_at)
            VALUES (?, ?, ?, ?, ?, ?)""",
            jobs,
        )
        db.executemany(
            """INSERT INTO row (campaign_id, row_id, take, job_id, reading, position, address, stem)
            SELECT ?, ?, ?, job.id, ?, ?, ?, ? FROM job WHERE key = ?""",
            rows,
        )
        jobs.clear()
        rows.clear()

    jobs: list[tuple[str, str, str, int, int, float]] = []
    rows: list[tuple[int, str, int, int, int, str, str, str]] = []
    with sheet.open(newline="", encoding="utf-8") as file:
        for position, cells in enumerate(csv.DictReader(file), start=1):
            id = cells.pop(COLUMNS[0])
            del cells[COLUMNS[-1]]
            text = json.dumps(cells, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            key = hashlib.sha256(text.encode()).hexdigest()[:32]
            jobs.append((key, ENDPOINT, text, 1, 100_000, at))
            rows.append((1, id, 1, 1, position, f"{sheet.name}:{position + 1}", id, key))
            if len(jobs) == CHUNK_ROWS:
                insert()
    insert()
    db.execute("COMMIT")
    db.close()


def empty_ledger(sheet: Path, folder: Path) -> None:
    """A ledger with the campaign of the sheet and nothing planned of it."""
    from batch.ledger import open_ledger

    with open_ledger(folder, queue_url="https://queue.example", command="benchmark", clock=time.time) as ledger:
        ledger.campaign(sheet.stem, sheet)


def ours(sheet: Path, folder: Path) -> None:
    """As `run` does it before anything is submitted, into a new ledger."""
    from batch import manifest
    from batch.ledger import open_ledger

    with open_ledger(folder, queue_url="https://queue.example", command="benchmark", clock=time.time) as ledger:
        found = manifest.load(sheet)
        digest = found.digest()
        campaign_id = ledger.campaign(found.name, sheet)
        with ledger.planning(campaign_id, found.rows(), basis=lambda: found.basis(digest)):
            pass


def only_asked(sheet: Path, folder: Path) -> None:
    """As `plan` does it, which writes nothing."""
    from batch import manifest
    from batch.ledger import compare as compared

    compared(manifest.load(sheet).rows(), None, None)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fal-batch-plan-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _cost(call: str, sheet: Path, rows: int) -> dict[str, float]:
    with _folder() as folder:
        if "ledger" in call:
            # In a process too: the memory of this one would count as its children's.
            where = "pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])"
            in_a_process(f"import sys, pathlib, plan; plan.empty_ledger({where})", sheet, folder)
        used = in_a_process(f"import sys, pathlib, plan; plan.{call}", sheet, folder)
    return {"cpu us/row": used["cpu s"] / rows * 1e6, **used}


def main() -> None:
    options = given(__doc__, rounds=1, rows=1_000_000, few=10_000)
    where = "pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])"
    with _folder() as folder:
        sheet = write_sheet(folder / "shots.csv", options.rows)
        few = write_sheet(folder / "few.csv", options.few)
        compare(
            "plan",
            f"Planning {options.rows:,} rows of eight columns",
            {
                "fal-batch": lambda: _cost(f"ours({where})", sheet, options.rows),
                "fal-batch, nothing written": lambda: _cost(f"only_asked({where})", sheet, options.rows),
                "the floor": lambda: _cost(f"floor({where}, 1)", sheet, options.rows),
                "the floor, two tables": lambda: _cost(f"floor({where}, 2)", sheet, options.rows),
                "the floor, the ledger's tables": lambda: _cost(f"floor_in_the_ledger({where})", sheet, options.rows),
                "few rows": lambda: _cost(f"ours({where})", few, options.few),
            },
            ours="fal-batch",
            rounds=options.rounds,
            goals=[
                Goal(measure="wall s", baseline="the floor", at_most=2.0),
                Goal(measure="cpu s", baseline="the floor", at_most=2.0),
                Goal(measure="cpu s", baseline="the floor, two tables", at_most=2.0),
                Goal(measure="wall s", baseline="the floor, the ledger's tables", at_most=2.0),
                Goal(measure="cpu s", baseline="the floor, the ledger's tables", at_most=2.0),
                Goal(measure="peak MB", baseline="few rows", at_most=1.3),
            ],
            facts={"rows": options.rows, "few rows": options.few},
            packages=("pandas",),
            out=options.json,
        )


if __name__ == "__main__":
    main()
