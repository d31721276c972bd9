"""Results handed back: today the user's own sheet as CSV. May import manifest, ledger and what is below them."""

from batch.export.sheet import RESULT_COLUMNS, Result, to_csv

__all__ = ["RESULT_COLUMNS", "Result", "to_csv"]
