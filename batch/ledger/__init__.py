"""The ledger: the SQLite file that remembers every job, attempt, event and file. The only SQL of the line.

`schema` has the tables, `values` what is said about them, `lock` keeps a second writer out, `read` answers people,
`due` answers a run, `compare` says what a plan would come to, `write` has one method per transition. Every write is one
transaction, durable before it returns.
"""

from batch.ledger.compare import Comparison, compare
from batch.ledger.lock import at_work
from batch.ledger.read import LedgerReader, open_reader
from batch.ledger.schema import LEDGER_NAME
from batch.ledger.values import (
    CampaignTotals,
    JobLine,
    Judged,
    Kept,
    Missing,
    OpenJob,
    Placement,
    Planned,
    RowResult,
    Standing,
    Superseded,
    job_accepted,
    job_completed,
)
from batch.ledger.write import Ledger, open_ledger

__all__ = [
    "LEDGER_NAME",
    "CampaignTotals",
    "Comparison",
    "JobLine",
    "Judged",
    "Kept",
    "Ledger",
    "LedgerReader",
    "Missing",
    "OpenJob",
    "Placement",
    "Planned",
    "RowResult",
    "Standing",
    "Superseded",
    "at_work",
    "compare",
    "job_accepted",
    "job_completed",
    "open_ledger",
    "open_reader",
]
