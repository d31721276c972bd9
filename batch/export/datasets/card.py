"""The README of a dataset: what is in it, for people, and where its parts are, for `datasets.load_dataset`.

What the user writes into it stays: only what stands between our marks is written again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from batch import __version__
from batch.export.datasets.known import Counts

__all__ = ["write_card"]

LISTED_MAX = 8

_HEAD = "# fal-batch: files", "# fal-batch: end of files"
_FACTS = "<!-- fal-batch: facts -->", "<!-- fal-batch: end of facts -->"
_PATHS = {"videofolder": "{}/**", "imagefolder": "{}/**", "webdataset": "{}-*.tar", "parquet": "{}-*.parquet"}


def write_card(out: Path, campaign: str, kind: str, counts: Counts) -> None:
    """Write README.md, or bring what is ours in it up to date."""
    path = out / "README.md"
    head, facts = _marked(_HEAD, _files(kind, counts)), _marked(_FACTS, _facts(campaign, kind, counts))
    text = path.read_text(encoding="utf-8") if path.is_file() else _fresh(campaign)
    for marks, block in ((_HEAD, head), (_FACTS, facts)):
        found = re.search(f"{re.escape(marks[0])}\n.*?{re.escape(marks[1])}", text, re.DOTALL)
        if found is not None:
            text = text[: found.start()] + block + text[found.end() :]
    part = path.with_name("README.md.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _fresh(campaign: str) -> str:
    return (
        f"---\n{_marked(_HEAD, '')}\n---\n\n# {campaign}\n\n{_marked(_FACTS, '')}\n\n"
        "Licence: not said yet. Say here under which terms others may use these files, and the pictures that went in.\n"
    )


def _marked(marks: Sequence[str], text: str) -> str:
    return f"{marks[0]}\n{text}{marks[1]}"


def _files(kind: str, counts: Counts) -> str:
    """Where the parts are, in the words of a dataset card; nothing where there is none.

    The description changes with the samples: of a folder, `datasets` keeps what it has read by its name and by what the
    card says about the files, never looking at them (5.2, load.py: the hash of a local module), and would go on giving
    what an earlier export had.
    """
    if not counts.splits:
        return ""
    lines = [f"  - split: {split}\n    path: {_PATHS[kind].format(split)!r}\n" for split in sorted(counts.splits)]
    head = f"configs:\n- config_name: default\n  description: samples {counts.digest:016x}\n  data_files:\n"
    return head + "".join(lines)


def _facts(campaign: str, kind: str, counts: Counts) -> str:
    total = sum(counts.splits.values())
    told = [f"{total:,} samples of the campaign `{campaign}` as a {kind}, made by fal-batch {__version__}.", ""]
    told += [
        "| part | samples |",
        "|---|---:|",
        *(f"| {name} | {n:,} |" for name, n in sorted(counts.splits.items())),
        "",
    ]
    told.append(f"{counts.bytes:,} bytes, {counts.seconds:,.1f} seconds of video and sound.")
    for what, found in (("Endpoints", counts.endpoints), ("Sizes", counts.sizes)):
        named = ", ".join(f"`{name}` ({n:,})" for name, n in found.most_common(LISTED_MAX))
        more = f" and {len(found) - LISTED_MAX} more" if len(found) > LISTED_MAX else ""
        told.append(f"{what}: {named or 'none'}{more}.")
    return "\n".join(told) + "\n"
