"""The tables of the local queue's file, and what an older file lacks.

The only place that creates or changes a table. Imports nothing of the project; what the columns mean to a request is
told where they are read.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

__all__ = ["opened"]

_REQUEST = """
CREATE TABLE IF NOT EXISTS request (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    endpoint TEXT NOT NULL,
    app TEXT NOT NULL,
    input TEXT NOT NULL,
    input_sha256 TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'IN_QUEUE' CHECK (state IN ('IN_QUEUE', 'IN_PROGRESS', 'COMPLETED')),
    is_low INTEGER NOT NULL CHECK (is_low IN (0, 1)),
    keeps_payloads INTEGER NOT NULL CHECK (keeps_payloads IN (0, 1)),
    cancel_asked INTEGER NOT NULL DEFAULT 0 CHECK (cancel_asked IN (0, 1)),
    sent_at REAL NOT NULL,
    start_by REAL,
    started_at REAL,
    ended_at REAL,
    logs TEXT NOT NULL DEFAULT '[]',
    code INTEGER,
    headers TEXT,
    body TEXT,
    CHECK (state <> 'COMPLETED' OR (ended_at IS NOT NULL AND code IS NOT NULL AND body IS NOT NULL)),
    CHECK (state <> 'IN_PROGRESS' OR started_at IS NOT NULL)
) STRICT;
CREATE INDEX IF NOT EXISTS request_waiting ON request (is_low, seq) WHERE state = 'IN_QUEUE';
CREATE INDEX IF NOT EXISTS request_start_by ON request (start_by)
    WHERE state = 'IN_QUEUE' AND started_at IS NULL AND start_by IS NOT NULL;
CREATE INDEX IF NOT EXISTS request_history ON request (endpoint, sent_at);
CREATE INDEX IF NOT EXISTS request_input ON request (endpoint, input_sha256);
"""

_FILE = """
CREATE TABLE IF NOT EXISTS file (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    content_type TEXT NOT NULL,
    is_upload INTEGER NOT NULL CHECK (is_upload IN (0, 1)),
    size INTEGER,
    sha256 TEXT,
    created_at REAL NOT NULL,
    CHECK ((size IS NULL) = (sha256 IS NULL))
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS token (value TEXT PRIMARY KEY, expires_at REAL NOT NULL) STRICT, WITHOUT ROWID;
"""

# Each brings a file one version further. A column that version 1 did not have comes by ALTER in a new file too, so that
# there is one way to each table.
_STEPS = (
    _REQUEST + _FILE,
    """
ALTER TABLE request ADD COLUMN webhook TEXT;
ALTER TABLE request ADD COLUMN files_base TEXT NOT NULL DEFAULT '';
ALTER TABLE request ADD COLUMN no_retry INTEGER NOT NULL DEFAULT 0 CHECK (no_retry IN (0, 1));
ALTER TABLE request ADD COLUMN runs INTEGER NOT NULL DEFAULT 0;
ALTER TABLE request ADD COLUMN gateway_id TEXT;
ALTER TABLE request ADD COLUMN lifetime_s REAL;
ALTER TABLE request ADD COLUMN acl TEXT;
ALTER TABLE file ADD COLUMN expires_at REAL;
ALTER TABLE file ADD COLUMN acl TEXT;
CREATE TABLE part (
    file_id TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (number > 0),
    etag TEXT NOT NULL,
    PRIMARY KEY (file_id, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE delivery (
    request_id TEXT PRIMARY KEY,
    due_at REAL,
    tries INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    outcome TEXT NOT NULL DEFAULT '',
    CHECK ((due_at IS NULL) = (outcome <> ''))
) STRICT, WITHOUT ROWID;
CREATE INDEX delivery_due ON delivery (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
""",
)


def opened(path: Path) -> sqlite3.Connection:
    """The file, its tables as this program knows them. What must survive is on the disk when a statement returns."""
    db = sqlite3.connect(path, isolation_level=None)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    [version] = db.execute("PRAGMA user_version").fetchone()
    for number, step in enumerate(_STEPS[version:], start=version + 1):
        db.executescript(f"BEGIN IMMEDIATE;{step}PRAGMA user_version = {number};COMMIT;")
    return db
