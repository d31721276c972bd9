"""Sheets of every kind, each read as a header and a stream of records that know where they stand.

record.py is what they have in common, opened.py picks the reader; the others read one kind each.
"""

from batch.manifest.sheets.delimited import Delimited
from batch.manifest.sheets.opened import ROWS_MAX, WORKBOOKS, check_file, open_sheet
from batch.manifest.sheets.record import Record, Sheet
from batch.manifest.sheets.workbook import Workbook

__all__ = [
    "ROWS_MAX",
    "WORKBOOKS",
    "Delimited",
    "Record",
    "Sheet",
    "Workbook",
    "check_file",
    "open_sheet",
]
