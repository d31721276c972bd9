"""What a cell is before any field reads it: the user's own text, or an error that a spreadsheet program left. Pure."""

from __future__ import annotations

import re

from batch.endpoints import Field, Problem, shown
from batch.jobs import canonical_json

__all__ = ["CUT_MARK", "not_taken", "sheet_error", "text_of"]

CUT_MARK = "[cut by fal-batch: "  # ends, with the rest of it, a cell that was too long for a workbook

# What Excel, Google Sheets and LibreOffice write into a file for a cell without a value; in English, German, French and
# Spanish, for Excel translates them.
_SHEET_ERRORS = frozenset(
    {"#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#N/A", "#NULL!", "#NUM!", "#ERROR!", "#SPILL!", "#CALC!", "#FIELD!"}
    | {"#BEZUG!", "#WERT!", "#NV", "#ZAHL!", "#ÜBERLAUF!", "#NOM?", "#VALEUR!", "#NUL!", "#NOMBRE!"}
    | {"#¿NOMBRE?", "#¡REF!", "#¡VALOR!", "#¡DIV/0!", "#¡NULO!", "#¡NUM!"}
)
_OFFICE_ERROR = re.compile(r"Err:[0-9]{3}|#{3,}")


def sheet_error(cell: object) -> str | None:
    """What is wrong with a cell that holds a spreadsheet program's error, or what an export has cut: nobody means it to
    be sent. Else None."""
    if isinstance(cell, str) and cell.endswith("]") and CUT_MARK in cell:
        return f"was cut by an export ({cell[cell.rindex(CUT_MARK) + len(CUT_MARK) : -1]}); a .csv holds it whole"
    if not isinstance(cell, str) or cell.lstrip()[:1] not in ("#", "E"):
        return None
    text = cell.strip()
    if text.startswith("###") and _OFFICE_ERROR.fullmatch(text):
        return f"{shown(text)} stands for a value that its column had no room for; widen the column and save it again"
    if text not in _SHEET_ERRORS and not _OFFICE_ERROR.fullmatch(text):
        return None
    hint = "; text that begins with = + or - needs a ' before it there" if text in ("#NAME?", "#NOM?") else ""
    return f"{shown(text)} is an error of the spreadsheet program; mend the cell there{hint}"


def text_of(cell: object) -> str:
    """A cell as the user's own text."""
    if isinstance(cell, str):
        return cell
    if cell is None:
        return ""
    return canonical_json(cell)


def not_taken(field: Field, value: object) -> tuple[Problem, ...]:
    """What fal would take and we do not."""
    if field.name == "sync_mode" and value is True:
        message = "true leaves no trace in fal's history, and a lost answer could not be found again; leave it out"
        return (Problem(loc=(field.name,), kind="sync_mode", message=message, input=value),)
    return ()
