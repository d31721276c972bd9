"""A new sheet as an Excel workbook that helps to fill it in: drop-downs, ranges that are checked as one types, notes.

What is checked here is only an early word; `plan` judges every cell again. Nothing is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batch.endpoints import Endpoint, Field, free_types
from batch.errors import InputError, MissingPackage
from batch.init.columns import StartColumn
from batch.manifest.sheets import ROWS_MAX

__all__ = ["TITLE", "check_workbook", "write_workbook"]

TITLE = "Shots"
FIELDS_TITLE, LISTS_TITLE = "Fields", "Lists"

# Excel's limits of a data validation: the formula of a list, and the texts of its message.
LIST_CHARS_MAX, MESSAGE_CHARS_MAX, TITLE_CHARS_MAX = 255, 255, 32
NUMBER_MAX = 999_999_999_999_999  # the digits that Excel knows

FONT = "Calibri"  # as the cells below it
INK, NEEDED_FILL, OPTIONAL_FILL = "FFFFFF", "C2410C", "475569"
_ID_NOTE = (
    "Names the files of this row, and the row in every message. No two are the same; where it is empty, the row is "
    "known by a hash of its cells."
)
TEXT_WIDTH, FILE_WIDTH, ID_WIDTH, WIDTH_MIN = 60, 34, 18, 12


def write_workbook(
    path: Path, endpoint: Endpoint, columns: Sequence[StartColumn], rows: Sequence[Sequence[str]]
) -> None:
    """Write the workbook, which `check_workbook` has allowed. FileExistsError when there is one."""
    from openpyxl import Workbook

    book = Workbook()
    shots, fields, lists = book.active, book.create_sheet(FIELDS_TITLE), book.create_sheet(LISTS_TITLE)
    shots.title, lists.sheet_state = TITLE, "hidden"
    _header(shots, columns)
    for place, column in enumerate(columns, start=2):
        _style_column(shots, place, column)
        _validate(shots, lists, place, column)
    for number, cells in enumerate(rows, start=2):
        _row(shots, number, cells, columns)
    _table_of_fields(fields, endpoint, columns)
    if lists.max_row == 1 and lists["A1"].value is None:
        book.remove(lists)
    with path.open("xb") as file:
        book.save(file)


def check_workbook(path: Path, rows: int) -> None:
    """InputError when openpyxl is missing or the rows are too many for a sheet: before anything is made."""
    try:
        import openpyxl  # noqa: F401 - whether it is there
    except ImportError as exc:
        raise MissingPackage(f"{path}: writing Excel workbooks needs", "openpyxl", "leave out --xlsx") from exc
    if rows >= ROWS_MAX:
        raise InputError(f"{path}: a sheet of Excel has {ROWS_MAX:,} rows at the most; leave out --xlsx for a CSV")


def _header(sheet: Any, columns: Sequence[StartColumn]) -> None:
    """The names of the columns, those that are needed in a colour of their own, and a note on each."""
    from openpyxl.comments import Comment
    from openpyxl.styles import Alignment, Font, PatternFill

    notes = [("id", False, _ID_NOTE), *((column.name, column.is_required, _note(column)) for column in columns)]
    for place, (name, is_needed, note) in enumerate(notes, start=1):
        cell = sheet.cell(1, place, name)
        cell.font = Font(name=FONT, bold=True, color=INK)
        cell.fill = PatternFill("solid", fgColor=NEEDED_FILL if is_needed else OPTIONAL_FILL)
        cell.alignment = Alignment(vertical="center")
        cell.comment = Comment(note, "fal-batch", width=360, height=60 + 18 * (len(note) // 50 + note.count("\n")))
    sheet.freeze_panes = "B2"
    sheet.row_dimensions[1].height = 24
    _fit_to_paper(sheet)


def _fit_to_paper(sheet: Any) -> None:
    """As wide as a page, and the header on each."""
    sheet.page_setup.orientation = "landscape"
    sheet.page_setup.fitToHeight = 0
    sheet.sheet_properties.pageSetUpPr.fitToPage = True
    sheet.print_title_rows = "1:1"


def _note(column: StartColumn) -> str:
    need = "Needed in every row." if column.is_required else "Empty: left to the campaign's defaults, else to fal."
    return "\n".join(filter(None, (need, column.facts, "", column.description)))


def _style_column(sheet: Any, place: int, column: StartColumn) -> None:
    """Width and format; what is text stays text, or Excel makes a date of 2.3 and a time of 16:9."""
    from openpyxl.utils import get_column_letter

    dimension = sheet.column_dimensions[get_column_letter(place)]
    is_prose = _is_prose(column.field)
    wide = TEXT_WIDTH if is_prose else FILE_WIDTH if column.field.is_file else WIDTH_MIN
    dimension.width = max(wide, len(column.name) + 4)
    dimension.number_format = _format(column.field)
    dimension.alignment = _alignment(column.field)
    sheet.column_dimensions["A"].width = ID_WIDTH
    sheet.column_dimensions["A"].number_format = "@"
    sheet.column_dimensions["A"].alignment = _alignment(column.field, wraps=False)


def _row(sheet: Any, number: int, cells: Sequence[str], columns: Sequence[StartColumn]) -> None:
    for place, text in enumerate(cells, start=1):
        if text:
            cell = sheet.cell(number, place, text)
            cell.data_type = "s"  # a name that begins with = is no formula
            field = columns[place - 2].field if place > 1 else None
            cell.number_format = "@" if field is None else _format(field)
            cell.alignment = _alignment(field, wraps=field is not None)


def _alignment(field: Field | None, *, wraps: bool = True) -> Any:
    from openpyxl.styles import Alignment

    return Alignment(vertical="top", wrap_text=wraps and field is not None and _is_prose(field))


def _is_prose(field: Field) -> bool:
    return field.types == ("string",) and not (field.enum or field.is_file)


def _format(field: Field) -> str:
    if field.types == ("integer",):
        return "0"
    numbers = [str(member) for member in field.enum]
    is_numeric = bool(numbers) and all(number.replace(".", "", 1).isdigit() for number in numbers)
    return "General" if is_numeric or field.types in (("number",), ("boolean",)) else "@"


def _validate(sheet: Any, lists: Any, place: int, column: StartColumn) -> None:
    """What can be picked or typed in a column, as a data validation of Excel."""
    from openpyxl.utils import get_column_letter
    from openpyxl.worksheet.datavalidation import DataValidation

    rule = _rule(column.field, lists)
    if rule is None:
        return
    message = f"{column.name} takes {column.facts}"
    made = DataValidation(
        allow_blank=True,
        showErrorMessage=True,
        errorStyle="warning" if free_types(column.field.schema) and column.field.enum else "stop",
        errorTitle=column.name[:TITLE_CHARS_MAX],
        error=message if len(message) <= MESSAGE_CHARS_MAX else message[: MESSAGE_CHARS_MAX - 1] + "…",
        **rule,
    )
    letter = get_column_letter(place)
    made.add(f"{letter}2:{letter}{ROWS_MAX}")
    sheet.add_data_validation(made)


def _rule(field: Field, lists: Any) -> dict[str, Any] | None:
    if field.enum:
        return {"type": "list", "formula1": _list(field.enum, lists)}
    if field.types == ("boolean",):
        return {"type": "list", "formula1": '"TRUE,FALSE"'}
    if field.types in (("integer",), ("number",)):
        low = -NUMBER_MAX if field.minimum is None else field.minimum
        high = NUMBER_MAX if field.maximum is None else field.maximum
        kind = "whole" if field.types == ("integer",) else "decimal"
        return {"type": kind, "operator": "between", "formula1": f"{low:.15g}", "formula2": f"{high:.15g}"}
    longest = field.schema.get("maxLength")
    if field.types == ("string",) and isinstance(longest, int):
        return {"type": "textLength", "operator": "lessThanOrEqual", "formula1": str(longest)}
    return None


def _list(members: Sequence[Any], lists: Any) -> str:
    """The members in the rule itself, or where that has no room for them (or they hold commas) in a hidden sheet."""
    from openpyxl.utils import get_column_letter

    texts = [str(member) for member in members if not isinstance(member, dict | list)]
    plain = f'"{",".join(texts)}"'
    if len(plain) - 2 <= LIST_CHARS_MAX and not any(sign in text for text in texts for sign in ',"'):
        return plain
    place = 1 if lists["A1"].value is None else lists.max_column + 1
    for number, text in enumerate(texts, start=1):
        cell = lists.cell(number, place, text)
        cell.data_type, cell.number_format = "s", "@"
    letter = get_column_letter(place)
    return f"{LISTS_TITLE}!${letter}$1:${letter}${len(texts)}"


def _table_of_fields(sheet: Any, endpoint: Endpoint, columns: Sequence[StartColumn]) -> None:
    """Every field on a sheet of its own, for reading."""
    from openpyxl.styles import Alignment, Font, PatternFill

    header = ("field", "needed", "type", "fal's default", "values", "what it is")
    table = [(c.name, "yes" if c.is_required else "", c.kind, c.default, c.limits, c.description) for c in columns]
    for number, row in enumerate([header, *table], start=1):
        for place, text in enumerate(row, start=1):
            cell = sheet.cell(number, place, text)
            cell.data_type, cell.number_format = "s", "@"
            cell.alignment = Alignment(vertical="top", wrap_text=place > 4)
            if number == 1:
                cell.font = Font(name=FONT, bold=True, color=INK)
                cell.fill = PatternFill("solid", fgColor=OPTIONAL_FILL)
    for letter, width in zip("ABCDEF", (24, 9, 20, 16, 44, 80), strict=True):
        sheet.column_dimensions[letter].width = width
    sheet.freeze_panes = "B2"
    sheet.cell(len(table) + 3, 1, f"{endpoint.id} ({endpoint.source})")
    _fit_to_paper(sheet)
