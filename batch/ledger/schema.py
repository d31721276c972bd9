"""The ledger's tables, as numbered migrations that the file itself records. Imports states only.

What the code promises is said again here as CHECKs and unique indexes, so that an illegal row cannot be written. Times
are seconds since 1970, UTC; money is integer micro-dollars; hashes are lower-case hex SHA-256.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from batch.states import FINAL, State

if TYPE_CHECKING:
    import sqlite_utils

__all__ = ["LEDGER_NAME", "is_current", "migrate"]

LEDGER_NAME = "ledger.db"

_MIGRATION_SET = "fal-batch"


def _is_one_of(column: str, values: Iterable[str]) -> str:
    """A condition; by comparisons, because for `IN (...)` SQLite makes an index of the list at every statement."""
    return "(" + " OR ".join(f"{column} = '{value}'" for value in values) + ")"


_STATES = tuple(state.value for state in State)  # new jobs are found first: they are the first state
_FAL_STATUSES = ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")


_TABLES = f"""
CREATE TABLE ledger (                   -- one row: what this file belongs to
  id INTEGER PRIMARY KEY CHECK (id = 1),
  queue_url TEXT NOT NULL,              -- a ledger made for one queue refuses another
  created_at REAL NOT NULL
);
CREATE TABLE campaign (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  manifest TEXT NOT NULL,               -- its path, relative to the state folder
  reading INTEGER NOT NULL DEFAULT 0,   -- number of the newest reading of the manifest
  created_at REAL NOT NULL
);
CREATE TABLE job (                      -- what is wanted, and where it stands
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL CHECK (length(key) = 32),
  endpoint TEXT NOT NULL,
  input TEXT NOT NULL CHECK (json_valid(input)),
  take INTEGER NOT NULL CHECK (take >= 1),
  price_micros INTEGER CHECK (price_micros >= 0),
  state TEXT NOT NULL DEFAULT 'planned' CHECK {_is_one_of("state", _STATES)},
  fal_status TEXT CHECK {_is_one_of("fal_status", _FAL_STATUSES)},
  due_at REAL NOT NULL DEFAULT 0,       -- not looked at before; 0 while nothing was tried yet
  failures INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),  -- of looks and uploads, in a row
  verdicts INTEGER NOT NULL DEFAULT 0 CHECK (verdicts >= 0),  -- that fal did not bill, in a row
  cause TEXT,                           -- short stable name of what went wrong last
  message TEXT,                         -- the same for a person
  planned_at REAL NOT NULL
);
CREATE UNIQUE INDEX job_key ON job (key);  -- in ledgers of before 2026-11-29 a constraint of the table
CREATE INDEX job_fresh ON job (id) WHERE state = 'planned' AND due_at = 0;
CREATE INDEX job_again ON job (due_at) WHERE state = 'waiting' OR (state = 'planned' AND due_at > 0);
CREATE INDEX job_following ON job (due_at) WHERE state IN ('submitted', 'completed');
CREATE INDEX job_submitting ON job (id) WHERE state = 'submitting';
CREATE INDEX job_in_doubt ON job (id) WHERE state = 'in_doubt';
CREATE TABLE row (                      -- a line of a manifest (one take of it) and the job it wants
  id INTEGER PRIMARY KEY,
  campaign_id INTEGER NOT NULL REFERENCES campaign (id),
  row_id TEXT NOT NULL,
  take INTEGER NOT NULL,
  job_id INTEGER NOT NULL REFERENCES job (id),
  reading INTEGER NOT NULL,             -- wanted while it is the campaign's newest
  position INTEGER NOT NULL,
  address TEXT NOT NULL,
  stem TEXT NOT NULL,                   -- the wanted file name without its ending
  UNIQUE (campaign_id, row_id, take, job_id)
);
CREATE INDEX row_job ON row (job_id);
CREATE TABLE attempt (                  -- one submission: at most one paid request
  id INTEGER PRIMARY KEY,
  job_id INTEGER NOT NULL REFERENCES job (id),
  campaign_id INTEGER NOT NULL REFERENCES campaign (id),  -- whose cap it counts under
  number INTEGER NOT NULL CHECK (number >= 1),
  body TEXT NOT NULL CHECK (json_valid(body)),            -- exactly what is sent
  price_micros INTEGER CHECK (price_micros >= 0),         -- the estimate at the claim
  cost_micros INTEGER CHECK (cost_micros >= 0),           -- what counts now: reserved, then settled, 0 when free
  is_settled INTEGER NOT NULL DEFAULT 0 CHECK (is_settled IN (0, 1)),
  start_timeout_s REAL NOT NULL CHECK (start_timeout_s > 1),
  run_timeout_s REAL NOT NULL CHECK (run_timeout_s >= 0),
  submitting_at REAL NOT NULL,          -- committed before the POST
  clock_offset_s REAL,                  -- fal's clock minus ours, as last told before the claim
  closed_at REAL,                       -- the POST was not open any more
  accepted_at REAL,
  ended_at REAL,                        -- its verdict is known: it is not live any more
  seen_request_id TEXT,                 -- from the header of a damaged answer, not yet confirmed
  request_id TEXT,
  status_url TEXT,
  response_url TEXT,
  cancel_url TEXT,
  end_event TEXT,                       -- how it ended, in the words of the transition table
  cause TEXT,
  message TEXT,
  billable_units TEXT,
  result TEXT CHECK (result IS NULL OR json_valid(result)),
  UNIQUE (job_id, number),
  CHECK ((request_id IS NULL) = (accepted_at IS NULL)),
  CHECK ((request_id IS NULL) = (response_url IS NULL)),
  CHECK (request_id IS NULL OR closed_at IS NOT NULL),
  CHECK ((ended_at IS NULL) = (end_event IS NULL)),
  CHECK (result IS NULL OR request_id IS NOT NULL)
);
CREATE UNIQUE INDEX attempt_request ON attempt (request_id) WHERE request_id IS NOT NULL;
CREATE UNIQUE INDEX attempt_live ON attempt (job_id) WHERE ended_at IS NULL;
CREATE INDEX attempt_time ON attempt (submitting_at);
CREATE INDEX attempt_money ON attempt (campaign_id, cost_micros);
CREATE TABLE event (                    -- append-only: a job's state is what its events add up to, from 'planned' on
  id INTEGER PRIMARY KEY,
  job_id INTEGER NOT NULL REFERENCES job (id),
  attempt_id INTEGER REFERENCES attempt (id),
  event TEXT NOT NULL,
  was TEXT NOT NULL CHECK {_is_one_of("was", _STATES)},
  now TEXT NOT NULL CHECK {_is_one_of("now", _STATES)},
  at REAL NOT NULL,
  why TEXT
);
CREATE INDEX event_job ON event (job_id);
CREATE TABLE artifact (                 -- one file: reserved before its download, with its hash once it is whole
  id INTEGER PRIMARY KEY,
  job_id INTEGER NOT NULL REFERENCES job (id),
  attempt_id INTEGER NOT NULL REFERENCES attempt (id),
  row_id INTEGER NOT NULL REFERENCES row (id),
  place TEXT NOT NULL,                  -- where the File object stands in the result
  path TEXT NOT NULL,                   -- relative to the state folder where it lies inside
  path_folded TEXT NOT NULL UNIQUE,     -- no two names that a case-blind file system takes for one
  url TEXT NOT NULL,
  sha256 TEXT,
  size_bytes INTEGER,
  media_type TEXT,
  saved_at REAL,
  UNIQUE (row_id, attempt_id, place),
  CHECK ((saved_at IS NULL) = (sha256 IS NULL)),
  CHECK ((saved_at IS NULL) = (size_bytes IS NULL))
);
CREATE INDEX artifact_job ON artifact (job_id);
CREATE TABLE upload (                   -- a local file by its content, and where fal can read it
  sha256 TEXT PRIMARY KEY,
  path TEXT NOT NULL,                   -- where it was read last
  size_bytes INTEGER NOT NULL,
  media_type TEXT NOT NULL,
  url TEXT,
  uploaded_at REAL,
  expires_at REAL
) WITHOUT ROWID;
"""

_CANCELLING = """
ALTER TABLE attempt ADD COLUMN cancel_asked_at REAL   -- the user wants it called off: a wish until fal confirms it
  CHECK (cancel_asked_at IS NULL OR request_id IS NOT NULL);
ALTER TABLE attempt ADD COLUMN cancel_answer TEXT     -- what fal said last when it was told
  CHECK (cancel_answer IS NULL OR
    (cancel_answer IN ('asked', 'removed', 'too_late', 'unknown', 'unclear') AND cancel_asked_at IS NOT NULL));
CREATE INDEX attempt_cancelling ON attempt (job_id) WHERE cancel_asked_at IS NOT NULL;
CREATE INDEX job_submitted ON job (due_at) WHERE state = 'submitted';  -- all that a run without downloads follows
"""

_WITNESSES = """
ALTER TABLE attempt ADD COLUMN witness TEXT           -- what became known of an attempt after it was given up
  CHECK (witness IS NULL OR (witness IN ('absent', 'found', 'paid', 'saved', 'free') AND end_event = 'given_up'));
CREATE INDEX attempt_sought ON attempt (campaign_id)  -- what fal's history may still show, or has shown
  WHERE end_event = 'given_up' AND (witness IS NULL OR witness IN ('found', 'paid'));
"""

# With the job alone SQLite preferred the unique index over a campaign's rows, and walked them all for every job.
_WANTING = """
DROP INDEX row_job;
CREATE INDEX row_wanting ON row (job_id, campaign_id, reading);  -- who wants a job: all that is asked of it
"""

_WISHES = """
ALTER TABLE attempt ADD COLUMN cancel_asked_by INTEGER REFERENCES campaign (id)  -- whose wish it is; NULL: everybody's
  CHECK (cancel_asked_by IS NULL OR cancel_asked_at IS NOT NULL);
"""

_GONE = """
ALTER TABLE job ADD COLUMN gone_at REAL               -- since when, by fal's clock, it has nothing of what was paid for
  CHECK (gone_at IS NULL OR state != 'planned');
"""

_OVER_AT_FAL = """
ALTER TABLE attempt ADD COLUMN over_at_fal REAL  -- by fal's clock: its POST was over then, whatever ours said
  CHECK (over_at_fal IS NULL OR closed_at IS NOT NULL);
"""

_UNITS = """
ALTER TABLE attempt ADD COLUMN unit TEXT;             -- what fal's price counts, in the words of its source
ALTER TABLE attempt ADD COLUMN unit_usd TEXT;         -- dollars for one, an exact decimal, as known at the claim
ALTER TABLE attempt ADD COLUMN is_cost_told INTEGER NOT NULL DEFAULT 0  -- fal's own count, not our estimate
  CHECK (is_cost_told IN (0, 1) AND (is_cost_told = 0 OR (cost_micros IS NOT NULL AND is_settled)));
"""

_WEBHOOKS = """
ALTER TABLE ledger ADD COLUMN webhook_secret TEXT;    -- what makes the addresses of deliveries unguessable
ALTER TABLE attempt ADD COLUMN webhook TEXT;          -- where fal was asked to deliver, without the secret
"""

# So that a campaign of a million jobs is counted by indexes alone, and by what is not fetched of it.
_COUNTING = """
DROP INDEX attempt_money;
CREATE INDEX attempt_costs ON attempt (campaign_id, is_settled, cost_micros, is_cost_told);
CREATE INDEX attempt_given_up ON attempt (campaign_id) WHERE end_event = 'given_up';
CREATE INDEX job_ended ON job (id) WHERE state IN ('failed', 'cancelled');
"""

_READINGS = """
CREATE TABLE reading (                  -- the newest of each campaign, numbered in the order they were taken over
  id INTEGER PRIMARY KEY,
  campaign_id INTEGER NOT NULL UNIQUE REFERENCES campaign (id),
  number INTEGER NOT NULL,
  basis TEXT CHECK (basis IS NULL OR json_valid(basis)),  -- what it was made of: the same again need not be read
  sheet_rows INTEGER NOT NULL,
  jobs INTEGER NOT NULL
);
"""

_TIMES = """
ALTER TABLE attempt ADD COLUMN waited_s REAL;         -- in fal's queue, as near as is known; NULL: not watched
ALTER TABLE attempt ADD COLUMN ran_s REAL;            -- at work on it: what the next questions are timed by
"""

# So that how far fal's counts have gone beyond the estimates is asked of the first of them.
_DEARER = """
CREATE INDEX attempt_dearer ON attempt (cost_micros * 1.0 / price_micros)
  WHERE is_cost_told AND cost_micros > price_micros;
"""

_GIVEN = """
ALTER TABLE reading ADD COLUMN endpoint TEXT;         -- what was said for rows that name none; NULL: nothing was
"""

# So that nobody counts a million rows to tell how many there are.
_ROWS = """
ALTER TABLE reading ADD COLUMN rows INTEGER;          -- of the table of this name; NULL: not counted
"""

_MIGRATIONS = (
    ("0001_tables", _TABLES),
    ("0002_cancelling", _CANCELLING),
    ("0003_witnesses", _WITNESSES),
    ("0004_wanting", _WANTING),
    ("0005_wishes", _WISHES),
    ("0006_gone", _GONE),
    ("0007_over_at_fal", _OVER_AT_FAL),
    ("0008_units", _UNITS),
    ("0009_webhooks", _WEBHOOKS),
    ("0010_counting", _COUNTING),
    ("0011_readings", _READINGS),
    ("0012_times", _TIMES),
    ("0013_dearer", _DEARER),
    ("0014_given", _GIVEN),
    ("0015_rows", _ROWS),
)
"""In order, for ever: a ledger that has the first of them gets the others."""

assert {state.value for state in FINAL} == {"fetched", "failed", "cancelled"}, "the partial indexes above name the rest"


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether the newest migration is recorded; asked first, because importing sqlite-utils takes a second."""
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone()
    if known is None:
        return False
    found = connection.execute(
        "SELECT 1 FROM _sqlite_migrations WHERE migration_set = ? AND name = ?", (_MIGRATION_SET, _MIGRATIONS[-1][0])
    ).fetchone()
    return found is not None


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the newest schema; each migration is recorded in the transaction that makes it."""
    if is_current(connection):
        return
    import sqlite_utils

    migrations = sqlite_utils.Migrations(_MIGRATION_SET)
    for name, script in _MIGRATIONS:
        migrations(name=name)(_applied(script))
    migrations.apply(sqlite_utils.Database(connection))


def _applied(script: str) -> Callable[[sqlite_utils.Database], None]:
    def apply(db: sqlite_utils.Database) -> None:
        for statement in _statements(script):
            db.execute(statement)

    return apply


def _statements(script: str) -> list[str]:
    """The script's statements one by one: executescript would commit the migration's own transaction."""
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current.strip())
            current = ""
    assert not current.strip(), "the script ends with a whole statement"
    return statements
