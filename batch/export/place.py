"""Where an export is written: what must not be written over, and a file that appears when it is whole.

Imports openpyxl and pyarrow inside functions.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TextIO

from batch.errors import InputError
from batch.export.result import RESULT_COLUMNS

__all__ = ["DELIMITERS", "SUFFIXES", "WORKBOOKS", "opened_text", "placed", "suffix_of"]

DELIMITERS = ",;\t|"  # what is found in a header without being told
WORKBOOKS = (".xlsx", ".xlsm")  # the second only as a copy of one that has macros itself
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", *WORKBOOKS, ".jsonl", ".jsonl.gz", ".parquet")
LINE_CHARS_MAX = 1 << 22


def suffix_of(path: Path) -> str:
    """The ending that says what a file is, in small letters: `.csv`, `.csv.gz`."""
    ending = "".join(path.suffixes[-2:]).lower()
    return ending if ending.endswith(".gz") else path.suffix.lower()


@contextlib.contextmanager
def placed(out: Path, *, never: Sequence[Path] = (), make_folder: bool = False) -> Iterator[Path]:
    """A path to write to. What is there in the end becomes `out`; an earlier file of that name stays until then.

    InputError when `out` is one of `never` (the manifest, its sheet), no earlier export, a folder, in no folder (unless
    that is to be made), or not to be written.
    """
    _refuse(out, never)
    if not make_folder and not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it first")
    part = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            _fsync(part)
            os.replace(part, out)
            if os.name == "posix":  # elsewhere a folder cannot be opened
                _fsync(out.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as exc:
        raise InputError(f"{out} cannot be written: {exc.strerror or exc}") from exc


@contextlib.contextmanager
def opened_text(part: Path, *, is_packed: bool, encoding: str = "utf-8") -> Iterator[TextIO]:
    """A text file to write, packed with gzip or not. The same text gives the same bytes."""
    if not is_packed:
        with part.open("w", encoding=encoding, newline="") as file:
            yield file
        return
    with (
        part.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed,
        io.TextIOWrapper(packed, encoding=encoding, newline="") as file,
    ):
        yield file


def _refuse(out: Path, never: Sequence[Path]) -> None:
    if out.is_dir():
        raise InputError(
            f"{out} is a folder; name the file to write, such as {out / 'results.csv'} "
            "(a dataset is written into a folder: --as videofolder)"
        )
    if suffix_of(out) not in SUFFIXES:
        raise InputError(f"{out}: name a file that ends in one of {', '.join(SUFFIXES)}")
    for source in never:
        for path in (out, out.with_name(out.name + ".part")):
            if path.resolve() == source.resolve() or (path.exists() and source.exists() and path.samefile(source)):
                raise InputError(f"{path} is what this export was made from; write it under another name")
    if out.exists() and out.stat().st_size and not _is_an_export(out):
        raise InputError(f"{out} is there already and is no earlier export; write it under another name")


def _is_an_export(path: Path) -> bool:
    """Whether the file is a sheet with result columns, and so nobody's only copy."""
    suffix = suffix_of(path)
    if suffix in WORKBOOKS:
        return _names_results(path)
    if suffix == ".parquet":
        return _is_parquet_export(path)
    try:
        with gzip.open(path, "rb") if suffix.endswith(".gz") else path.open("rb") as file:
            top = file.readline(LINE_CHARS_MAX).decode("utf-8-sig", errors="replace")
    except (OSError, EOFError):
        return False
    if suffix.startswith(".jsonl"):
        try:
            return RESULT_COLUMNS[0] in json.loads(top)
        except (ValueError, TypeError):
            return False
    return any(RESULT_COLUMNS[0] in next(csv.reader([top], delimiter=sign), []) for sign in DELIMITERS)


def _names_results(path: Path) -> bool:
    """Whether a workbook has the name of the first result column in one of its parts."""
    wanted = f">{RESULT_COLUMNS[0]}<".encode()
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [name for name in archive.namelist() if name.startswith(("xl/worksheets/", "xl/sharedStrings"))]
            return any(_holds(archive.open(name), wanted) for name in parts)
    except (zipfile.BadZipFile, OSError, EOFError):
        return False


def _holds(file: IO[bytes], wanted: bytes) -> bool:
    with file:
        tail = b""
        while block := file.read(1 << 20):
            if wanted in tail + block:
                return True
            tail = block[-len(wanted) :]
    return False


def _is_parquet_export(path: Path) -> bool:
    from batch.export.tables import parquet_module

    parquet = parquet_module(path)
    try:
        return RESULT_COLUMNS[0] in parquet.read_schema(path).names
    except (ValueError, OSError):  # what pyarrow raises are these
        return False


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
