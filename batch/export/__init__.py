"""Results handed back: the user's own sheet, datasets, a page to look at. May import manifest, ledger and what is
below.

`result.py` is the one row shape, `sheet.py` picks the kind of file, `text.py`, `tables.py`, `workbook.py` and
`copied.py` write one each, `place.py` says where that may be. `datasets` are folders that trainers read, `gallery` is
the page.
"""

from batch.export.result import RESULT_COLUMNS, Result
from batch.export.sheet import Source, Written, write_sheet

__all__ = ["RESULT_COLUMNS", "Result", "Source", "Written", "write_sheet"]
