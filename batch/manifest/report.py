"""The issues of one reading, collected: a bounded number kept, all of them counted by kind.

Every issue has a kind, a short name that stays the same while messages get better: `--json` and the counts use it. The
kinds of wrong values are fal's own error types. `KINDS` is the list.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from batch.errors import Issue, ManifestError

__all__ = ["ISSUES_KEPT_MAX", "KINDS", "Report"]

ISSUES_KEPT_MAX = 10_000  # a million bad rows are one mistake; memory stays flat

KINDS: Mapping[str, str] = {
    # the file
    "no_sheet": "`rows:` names nothing that can be read as a sheet",
    "no_pictures": "the pattern of `rows:` matches no file",
    "picture_field": "a pattern of pictures, and an endpoint that does not need exactly one image",
    "no_rows": "there are columns, but no rows",
    "damaged_text": "a cell holds bytes that are no text in the file's encoding",
    "unclosed_quote": "a quotation mark opens in a row and is never closed",
    "swallowed_rows": "a cell holds what looks like rows of its own, for want of a quotation mark",
    "too_many_cells": "a row has more cells than the header",
    "shifted_cells": "a bare comma in a text has pushed the cells of a row to the right",
    "json": "a line of a .jsonl file is no JSON object",
    "uncalculated": "a cell holds a formula that no program has calculated",
    "unnamed_column": "a value stands in a column without a name",
    "sheet_error": "a cell holds a spreadsheet program's error, such as #REF!, in place of a value",
    "exported_matrix": "the sheet is the export of a campaign with a matrix",
    # the header
    "duplicate_column": "two columns have the same name",
    "two_columns": "two columns are to be the same field",
    "near_field": "a column is named nearly like a field",
    "missing_field": "nothing fills a field that the endpoint needs",
    "no_column": "a campaign or option names a column that the sheet does not have",
    "carried_and_mapped": "a column is both carried along and mapped to a field",
    # the campaign
    "yaml": "the file is not YAML",
    "not_a_campaign": "the file is YAML, but no mapping of keys",
    "unknown_key": "a campaign has no such key",
    "missing_key": "a campaign needs this key",
    "duplicate_key": "a key stands twice",
    "bad_merge": "a `<<` with nothing to merge",
    "not_text": "a list or mapping where one value is wanted",
    "not_a_list": "one value where a list is wanted",
    "not_a_mapping": "something else where a mapping is wanted",
    "not_a_row": "an item of `rows:` is no mapping of column to value",
    "name": "a campaign cannot be called so",
    "max_cost": "not a sum of money",
    "duplicate_value": "an axis has the same value twice",
    "endpoint_twice": "`endpoint` and an axis of that name both stand in the campaign",
    "axis_name": "this cannot be an axis of the matrix",
    "axis_and_column": "an axis is also a column of the sheet",
    "unknown_axis": "an axis is no field and no template uses it",
    "set_twice": "`set` and something else fill the same field",
    "too_many_variants": "a matrix makes more combinations than can be meant",
    "equal_variants": "two combinations of a row ask for the same thing",
    # a row
    "duplicate_id": "two rows have the same id",
    "lost_digits": "an id is a long number that a spreadsheet program has shortened",
    "lone_take": "an export's line of a further take, without the row's first line",
    "other_take": "an export's line of a further take says something else than the row's first line",
    "takes": "not a number of takes",
    "template": "a template that cannot be used, of a file name or of `set`",
    "same_name": "two files would get the same name",
    "unknown_endpoint": "no document is known for the endpoint",
    "unknown_field": "the endpoint has no such field",
    "sync_mode": "what fal would take and this program does not: no history",
    # a file
    "url": "not a URL that fal can fetch",
    "data_uri": "not a data URI that fal takes",
    "file_missing": "no such file, or it cannot be read",
    "file_empty": "the file is empty",
    "image_unreadable": "not an image, or a damaged one",
    "image_refused": "an image that the model does not take: its format, size or shape",
    # a value; fal's own words
    "missing": "a field that the endpoint needs is empty",
    "one_of": "not one of the values that the field takes",
    "string_type": "not text",
    "int_type": "not a whole number",
    "float_type": "not a number",
    "bool_type": "not true or false",
    "list_type": "not a list",
    "dict_type": "not an object",
    "greater_than": "too small",
    "greater_than_equal": "too small",
    "less_than": "too large",
    "less_than_equal": "too large",
    "multiple_of": "not a multiple of the step",
    "string_pattern_mismatch": "text that does not fit the pattern",
    "sequence_too_short": "too short",
    "sequence_too_long": "too long",
    "extra_forbidden": "an object has a member that the endpoint does not know",
    "value_error": "wrong for a rarer reason, in the checker's own words",
}

_LINE = re.compile(r"(.*?)(?::| row | .*![A-Z]{0,3})([0-9]+)")  # as the readers of sheets write addresses


class Report:
    """Collects issues; `raise_if_any` ends the reading with all of them.

    They are told in the order of the file: `first` is the name of the file to begin with (the campaign), `columns` the
    order within a row, `notes` what else may explain them. `count` is how many there are so far.
    """

    def __init__(self, first: str = "") -> None:
        self.columns: Sequence[str] = ()
        self.notes: Sequence[str] = ()
        self.count = 0
        self._first = first
        self._kinds: Counter[str] = Counter()
        self._kept: dict[Issue, None] = {}

    def add(self, address: str, column: str, message: str, kind: str) -> None:
        """One more thing that is wrong. The same again is nothing new: a cell is read once for every combination."""
        assert kind in KINDS, kind
        issue = Issue(address=address, column=column, message=message, kind=kind)
        if issue in self._kept:
            return
        self.count += 1
        self._kinds[kind] += 1
        if len(self._kept) < ISSUES_KEPT_MAX:
            self._kept[issue] = None

    def is_wrong_but_for(self, kinds: frozenset[str]) -> bool:
        """Whether there is an issue of any other kind."""
        return bool(self._kinds.keys() - kinds)

    def raise_if_any(self) -> None:
        """ManifestError with everything found so far, if anything was."""
        if self._kept:
            raise ManifestError(self._sorted(), kinds=self._kinds, notes=self.notes)

    def _sorted(self) -> tuple[Issue, ...]:
        places = {name: place for place, name in enumerate(self.columns)}

        def order(issue: Issue) -> tuple[bool, int, int]:
            where = _LINE.fullmatch(issue.address)
            if where is None:  # a picture: in the order found
                return True, 0, 0
            return where[1] != self._first, int(where[2]), places.get(issue.column, -1)

        return tuple(sorted(self._kept, key=order))
