"""What a check is and what it finds, as values; and the one way a check is asked. Imports only errors.

A check never fails: what keeps it from its answer is its answer.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch.errors import FalBatchError

if TYPE_CHECKING:
    import httpx

__all__ = ["Check", "Finding", "Said", "Verdict", "World", "asked", "note", "ok", "trouble"]


class Verdict(enum.Enum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"  # worth knowing; a run can do its work
    TROUBLE = "trouble"  # it keeps a run from its work, or damages what was paid for


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The answer of a check: what was found, and what to do about it (None: nothing)."""

    verdict: Verdict
    found: str
    advice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An answer under the name of its check."""

    name: str
    verdict: Verdict
    found: str
    advice: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A question under a name, and how long it may take. `late` is what no answer in time means."""

    name: str
    deadline_s: float
    ask: Callable[[], Awaitable[Said]]
    late: Verdict = Verdict.NOTE


async def _in_thread(func: Callable[..., Any], *args: Any) -> Any:
    import anyio.to_thread

    return await anyio.to_thread.run_sync(func, *args, abandon_on_cancel=True)


def _free_bytes(folder: Path) -> int:
    import shutil

    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the checks touch that is not ours. `transport` None: the real network."""

    clock: Callable[[], float] = time.time
    transport: httpx.AsyncBaseTransport | None = None
    run_blocking: Callable[..., Awaitable[Any]] = _in_thread
    free_bytes: Callable[[Path], int] = _free_bytes
    link: Callable[[Path, Path], None] = os.link


def ok(found: str, advice: str | None = None) -> Said:
    return Said(verdict=Verdict.OK, found=found, advice=advice)


def note(found: str, advice: str | None = None) -> Said:
    return Said(verdict=Verdict.NOTE, found=found, advice=advice)


def trouble(found: str, advice: str | None = None) -> Said:
    return Said(verdict=Verdict.TROUBLE, found=found, advice=advice)


async def asked(check: Check, secrets: Sequence[str]) -> Finding:
    """The finding of one check, whatever happens to it, without any of `secrets` in its words."""
    import anyio

    try:
        with anyio.fail_after(check.deadline_s):
            said = await check.ask()
    except TimeoutError:
        said = Said(verdict=check.late, found=f"no answer within {check.deadline_s:g} s")
    except FalBatchError as exc:
        said = trouble(str(exc))
    except Exception as exc:  # noqa: BLE001 - the other checks are asked all the same, and this one says what it met
        said = trouble(f"{type(exc).__name__}: {exc}")
    return Finding(
        name=check.name,
        verdict=said.verdict,
        found=_one_line(said.found, secrets),
        advice=None if said.advice is None else _one_line(said.advice, secrets),
    )


def _one_line(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "[secret]")
    return " ".join(text.split())
