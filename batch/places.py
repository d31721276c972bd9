"""What files and folders are called, on every file system. Pure but for the folder the user is in; imports nothing of
the project, and nothing heavy: `status` asks it too."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from pathlib import Path

__all__ = ["SHEET_SUFFIXES", "campaign_folder", "kind_of", "safe_stem", "stem_of", "typed_path"]

SHEET_SUFFIXES = (".csv", ".tsv", ".xlsx", ".xlsm", ".jsonl", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")

PART_BYTES_MAX = 180
"""Of one part of a name. File systems take 255; the rest is for endings (`~1a2b3c4d.attempt1.mp4.json`)."""

PARTS_MAX = 8  # sub-folders in an output template, a bound on what a cell of the sheet can ask for
HASH_DIGITS = 6

_UNSAFE = re.compile(r'[\\:*?"<>|\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])( *\..*)?", re.IGNORECASE)


def safe_stem(stem: str) -> str:
    """The relative path, `/` between its parts, that `stem` gives on every file system.

    Each `/` makes a sub-folder, and nothing leads out of the folder it is put in. A name that had to be changed ends in
    `~` and six digits of the hash of what was asked for, so that two of them stay two.
    """
    wanted = stem.split("/")
    parts = [_safe_part(part) for part in [*wanted[: PARTS_MAX - 1], "_".join(wanted[PARTS_MAX - 1 :])]]
    path = "/".join(part for part in parts if part) or "_"
    if path == stem:
        return path
    digest = hashlib.sha256(stem.encode(errors="surrogatepass")).hexdigest()[:HASH_DIGITS]
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{_cut(name, PART_BYTES_MAX - HASH_DIGITS - 1)}~{digest}"


def campaign_folder(outputs: Path, campaign_name: str) -> Path:
    """Where a campaign's files go."""
    return outputs / safe_stem(campaign_name)


def kind_of(path: Path) -> str:
    """The suffix that says what is in a file: `.csv`, `.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return "".join(suffixes) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])


def stem_of(path: Path) -> str:
    """The name of a file without what says its kind: `shots` of `shots.csv.gz`."""
    return Path(path.stem).stem if kind_of(path) in SHEET_SUFFIXES and path.suffix.lower() == ".gz" else path.stem


def typed_path(path: Path) -> Path:
    """A path below the folder the user is in as it is seen from there."""
    return Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path


def _safe_part(part: str) -> str:
    clean = _UNSAFE.sub("_", unicodedata.normalize("NFC", part))
    clean = clean.lstrip(" .-").rstrip(" .")
    if part and not clean:
        clean = "_"
    if _RESERVED.fullmatch(clean):
        clean = "_" + clean
    return _cut(clean, PART_BYTES_MAX)


def _cut(part: str, bytes_max: int) -> str:
    """As much of it as fits, no character halved, and no blank or dot left at the new end."""
    return part.encode()[:bytes_max].decode(errors="ignore").rstrip(" .")
