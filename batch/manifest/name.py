"""The name of a manifest's campaign, without reading its rows: what is asked of the ledger needs no good sheet."""

from __future__ import annotations

from pathlib import Path

import yaml

from batch.errors import InputError
from batch.manifest.nodes import composed
from batch.manifest.report import Report
from batch.places import stem_of

__all__ = ["campaign_name"]


def campaign_name(path: Path) -> str:
    """`name:` of a YAML campaign, else the file's stem. InputError when the file cannot be read as YAML."""
    if path.suffix.lower() not in (".yaml", ".yml") or not path.is_file():
        return stem_of(path)
    try:
        top, _ = composed(path, Report(path.name))
    except RecursionError as exc:
        raise InputError(f"{path.name} is nested too deep to read") from exc
    for key, value in top.value if isinstance(top, yaml.MappingNode) else ():
        if key.value == "name" and isinstance(value, yaml.ScalarNode) and value.value.strip():
            return str(value.value).strip()
    return stem_of(path)
