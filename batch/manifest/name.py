"""The name of a manifest's campaign, without reading its rows: what is asked of the ledger needs no good sheet."""

from __future__ import annotations

from pathlib import Path

import yaml

from batch.errors import InputError

__all__ = ["campaign_name"]


def campaign_name(path: Path) -> str:
    """`name:` of a YAML campaign, else the file's stem. InputError when the file cannot be read as YAML."""
    if path.suffix.lower() not in (".yaml", ".yml") or not path.is_file():
        return path.stem
    try:
        found = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as exc:
        raise InputError(f"{path} cannot be read: {exc}") from exc
    name = found.get("name") if isinstance(found, dict) else None
    return name.strip() if isinstance(name, str) and name.strip() else path.stem
