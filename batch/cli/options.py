"""Settings as flags of a command; their values stay text, so that every source is read by the same parser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from batch.settings import OPTIONS, Option

__all__ = ["HOW", "READS", "ROWS", "WHERE", "options", "typed"]

Command = Callable[..., Any]

WHERE = ("state", "local", "campaign", "json")
"""Which ledger and which campaign: of every command that asks it something."""

ROWS = ("endpoint", "sheet", "carry")
"""How the manifest is read: of every command that reads its rows."""

READS = (*ROWS, "price")
"""The same where its jobs are priced."""

PROOF = ("start_timeout", "run_timeout", "history_delay", "wait")
"""What the proof needs that a lost submit was never taken."""

HOW = (
    "concurrency",
    "limit",
    "max_cost",
    "max_duration",
    "fail_on_error",
    "yes",
    "no_download",
    *WHERE,
    "outputs",
    *READS,
    "quiet",
    "verbose",
    *PROOF,
    "webhook",
    "webhook_listen",
)
"""Everything about a run, in the order in which a person looks for it."""

_SHORT = {"concurrency": "-j", "yes": "-y", "quiet": "-q", "verbose": "-v"}


def options(*names: str) -> Callable[[Command], Command]:
    """The click options of these settings."""

    def add(command: Command) -> Command:
        for name in reversed(names):
            option = OPTIONS[name]
            spelling = [option.flag, *([_SHORT[name]] if name in _SHORT else []), name]
            command = click.option(*spelling, **_shape(option))(command)
        return command

    return add


def typed(verb: str, manifest: Path, flags: Mapping[str, Any], *words: str) -> list[str]:
    """The words of a command line with the same options."""
    line = ["fal-batch", verb, str(manifest)]
    for name, value in flags.items():
        if value is not None:
            line += [OPTIONS[name].flag] if OPTIONS[name].is_flag else [OPTIONS[name].flag, str(value)]
    return [*line, *words]


def _shape(option: Option) -> dict[str, Any]:
    if option.is_flag:
        return {"is_flag": True, "default": None, "flag_value": "yes", "type": str, "help": option.help}
    shown = option.text(option.default)
    return {
        "default": None,
        "metavar": option.metavar,
        "help": option.help + (f"  [default: {shown}]" if shown else ""),
        **({"type": click.Path()} if option.parse is Path else {}),
    }
