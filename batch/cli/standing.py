"""The words for where a row stands: the states, and those that `status` has for some of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from batch.states import State

if TYPE_CHECKING:
    from batch.ledger import JobLine

__all__ = ["Standing", "stands", "states_of"]

PAID = "paid-fetch-later"
STANDING = {
    "saved": {State.FETCHED},
    PAID: {State.SUBMITTED, State.COMPLETED},
    "in-flight": {State.SUBMITTING, State.SUBMITTED},
    "not-started": {State.PLANNED},
}
"""What `status` calls some states otherwise, and the states that it counts there."""

_AT_FAL = {State.SUBMITTING, State.SUBMITTED, State.COMPLETED}


class Standing(click.Choice[str]):
    """A state, or a word for it as `status` has it: with blanks, `-` or `_`, with or without its comma."""

    def __init__(self) -> None:
        super().__init__([*(state.value for state in State), *STANDING])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        words = str(value).lower().replace(",", " ").replace("-", " ").replace("_", " ").split()
        known = {name.replace("-", " ").replace("_", " "): name for name in self.choices}
        return known.get(" ".join(words)) or super().convert(value, param, ctx)


def states_of(names: Iterable[str]) -> set[State]:
    """The states in which rows of these names may be."""
    return {state for name in names for state in STANDING.get(name, {}) or {State(name)}}


def stands(line: JobLine, name: str) -> bool:
    """Whether a row stands there: at a state, or where `status` counts it. It counts a job that fal calls complete as
    paid for, although its result is still to be asked for."""
    if name not in STANDING:
        return line.state is State(name)
    is_complete = line.state is State.COMPLETED or line.fal_status == "COMPLETED"
    return line.state in STANDING[name] and (line.state not in _AT_FAL or is_complete == (name == PAID))
