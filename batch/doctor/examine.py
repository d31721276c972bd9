"""All checks at once, each by itself, told in one order."""

from __future__ import annotations

import urllib.parse

from batch.doctor.findings import Check, Finding, World, asked
from batch.settings import Settings

__all__ = ["examine", "examined"]

SECRET_CHARS_MIN = 6  # as for a key in an error: a shorter half would blot out ordinary words


def examine(settings: Settings) -> tuple[Finding, ...]:
    """What every check finds. Raises nothing that a check can meet."""
    import anyio

    return anyio.run(examined, settings, World())


async def examined(settings: Settings, world: World) -> tuple[Finding, ...]:
    """The same in a given world; the checks go on at the same time, each under its own deadline."""
    import anyio

    from batch.doctor import at_fal, machine, remembered  # late: nobody else on the command line needs them

    ledger = remembered.Ledger(folder=settings.state)
    checks = [
        *machine.checks(settings, world, ledger),
        *at_fal.checks(settings, world, ledger),
        *remembered.checks(settings, world, ledger),
    ]
    found: dict[str, Finding] = {}
    secrets = _secrets(settings)

    async def ask(check: Check) -> None:
        found[check.name] = await asked(check, secrets)

    async with anyio.create_task_group() as tasks:
        for check in checks:
            tasks.start_soon(ask, check)
    return tuple(found[check.name] for check in checks)


def _secrets(settings: Settings) -> list[str]:
    """What no finding may show, whoever's words it quotes: the key, its halves, and the login of a proxy."""
    key = settings.key or ""
    login = urllib.parse.urlsplit(settings.proxy or "").netloc.rpartition("@")[0]
    parts = (key, *key.split(":"), login, *login.split(":"))
    return [part for part in parts if len(part) >= SECRET_CHARS_MIN]
