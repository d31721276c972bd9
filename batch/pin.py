"""OpenAPI documents of endpoints: fetched from fal or read from a file, kept in the state folder, compared with fal's.

A pinned document is fal's own with one key more, `x-fal-batch`: when it was pinned, from where, and the hash of all the
rest. Inside and not beside it, so that there is one file to copy or to keep under version control, and nothing to come
apart; `x-` keys belong to whoever writes them. What a document says is for `endpoints` to read.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from batch import endpoints, retry
from batch.endpoints import STAMP, Endpoint
from batch.errors import Action, Blocked, CallFailed, InputError
from batch.jobs import canonical_json
from batch.settings import Settings, is_loopback

if TYPE_CHECKING:
    import httpx

__all__ = ["NEWS_S", "TRIES_MAX", "Described", "describe", "documents_now", "fetched", "known", "news"]

TRIES_MAX = 4
TRY_S = 20.0  # a document is some ten kilobytes
NEWS_S = 3.0  # a plan does not wait longer to hear that nothing has changed
NEWS_TOLD_MAX = 4  # changes of one endpoint; `endpoint ID` tells all
FILE_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """An endpoint, where its document is pinned (None for one that is only looked at), and what is new in it against
    the one that was known before (`before` says which that was)."""

    endpoint: Endpoint
    path: Path | None
    before: str | None = None
    changes: tuple[str, ...] = ()


def known(settings: Settings) -> tuple[Endpoint, ...]:
    """The endpoints whose documents are known here, pinned or built in, by their ids. Damaged ones are left out."""
    folder = settings.pinned
    found = []
    for endpoint_id in sorted({*endpoints.built_in(), *endpoints.pinned_in(folder)}):
        try:
            found.append(endpoints.load(endpoint_id, pinned_dir=folder))
        except InputError:
            continue
    return tuple(found)


def describe(what: str, settings: Settings) -> Described:
    """The endpoint of an id, its document fetched from fal and pinned; or that of a file, pinned. In a rehearsal
    nothing is fetched: an id is looked up among those that are known.

    InputError when there is no such endpoint or the file is no document, Blocked when fal cannot be asked now.
    """
    path = Path(what).expanduser()
    if path.is_file():
        document = _read(path)
        return _pinned(_id_in(document, path), document, str(path), settings)
    if path.suffix == ".json" or what.startswith((".", "/", "~")):
        raise InputError(f"{what}: there is no such file")
    endpoints.file_name(what)  # what is no id is never asked for
    if settings.local:
        return Described(endpoint=endpoints.load(what, pinned_dir=settings.pinned), path=_path(what, settings))
    document = anyio.run(fetched, what, settings)
    return _pinned(what, document, f"{settings.api_url}/models", settings)


def news(endpoint_ids: Collection[str], settings: Settings) -> tuple[str, ...]:
    """What fal's own documents of these endpoints say otherwise than the ones that are used here, a line for each.

    One free call, with a key only, and silent when fal does not answer within NEWS_S.
    """
    if settings.local or settings.key is None or not endpoint_ids:
        return ()
    lines = []
    for endpoint_id, document in anyio.run(documents_now, sorted(endpoint_ids), settings).items():
        try:
            used = endpoints.load(endpoint_id, pinned_dir=settings.pinned)
            changes = endpoints.differences(used, endpoints.parsed(endpoint_id, document, source="fal"))
        except (InputError, KeyError, TypeError, AttributeError, ValueError):
            continue
        if changes:
            more = f" and {len(changes) - NEWS_TOLD_MAX} more" if len(changes) > NEWS_TOLD_MAX else ""
            told = "; ".join(changes[:NEWS_TOLD_MAX])
            lines.append(
                f"fal's document of {endpoint_id} differs from the one used here ({used.source}): {told}{more}. "
                f"`fal-batch endpoint {endpoint_id}` takes it over"
            )
    return tuple(lines)


async def fetched(
    endpoint_id: str, settings: Settings, transport: httpx.AsyncBaseTransport | None = None
) -> dict[str, Any]:
    """The document of one endpoint, asked for again where that may help. `transport` replaces the real one in tests."""
    rng = random.Random()
    for failures in range(1, TRIES_MAX + 1):
        try:
            found = await _asked([endpoint_id], settings, transport, TRY_S)
        except CallFailed as exc:
            if exc.action is not Action.REPEAT or failures == TRIES_MAX:
                raise Blocked(
                    f"fal could not be asked about {endpoint_id}: {exc}{_instead(endpoint_id, settings)}"
                ) from exc
            await anyio.sleep(retry.backoff_s(failures, rng, retry_after_s=exc.retry_after_s))
            continue
        if endpoint_id not in found:
            raise InputError(f"fal has no endpoint {endpoint_id!r}, or tells no document of it; is the id whole?")
        return found[endpoint_id]
    raise AssertionError("the last try returns or raises")


async def documents_now(
    endpoint_ids: list[str], settings: Settings, transport: httpx.AsyncBaseTransport | None = None
) -> dict[str, dict[str, Any]]:
    """The documents that fal tells in one call within NEWS_S; none when it does not."""
    from batch.fal.models import IDS_MAX

    try:
        with anyio.move_on_after(NEWS_S):
            return await _asked(endpoint_ids[:IDS_MAX], settings, transport, NEWS_S)
    except (CallFailed, InputError):
        pass
    return {}


async def _asked(
    endpoint_ids: list[str], settings: Settings, transport: httpx.AsyncBaseTransport | None, deadline_s: float
) -> dict[str, dict[str, Any]]:
    from batch import fal
    from batch.fal import models

    if transport is None:
        _, transport = fal.transports(proxy=settings.proxy, is_loopback=is_loopback(settings.api_url))
    hosts = fal.Hosts(queue=settings.queue_url, rest=settings.rest_url, cdn=settings.cdn_url, api=settings.api_url)
    return await models.documents(
        endpoint_ids, hosts=hosts, key=settings.key, transport=transport, clock=time.time, deadline_s=deadline_s
    )


def _instead(endpoint_id: str, settings: Settings) -> str:
    """What can be done without fal, as the end of a message."""
    try:
        there = endpoints.load(endpoint_id, pinned_dir=settings.pinned)
    except InputError:
        return f". Its document can also be read from a file: fal-batch endpoint {endpoint_id.rpartition('/')[2]}.json"
    return f". A document is known here ({there.source}): add --local to see it"


def _pinned(endpoint_id: str, document: Mapping[str, Any], source: str, settings: Settings) -> Described:
    """The document written into the state folder, and what is new in it."""
    plain = {name: value for name, value in document.items() if name != STAMP}
    stamp = {
        "pinned_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "from": source,
        "sha256": hashlib.sha256(canonical_json(plain).encode()).hexdigest(),
    }
    _check(endpoint_id, plain, source)
    before = _known_before(endpoint_id, settings)
    path = settings.pinned / endpoints.file_name(endpoint_id)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({**plain, STAMP: stamp}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as exc:
        raise Blocked(f"cannot write {path}: {exc.strerror or exc}") from exc
    endpoint = endpoints.load(endpoint_id, pinned_dir=settings.pinned)
    changes = () if before is None else endpoints.differences(before, endpoint)
    return Described(endpoint=endpoint, path=path, before=None if before is None else before.source, changes=changes)


def _check(endpoint_id: str, document: Mapping[str, Any], source: str) -> None:
    try:
        endpoints.parsed(endpoint_id, document, source=source)
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise InputError(f"{source}: not a queue OpenAPI document of {endpoint_id} ({exc})") from exc


def _known_before(endpoint_id: str, settings: Settings) -> Endpoint | None:
    try:
        return endpoints.load(endpoint_id, pinned_dir=settings.pinned)
    except InputError:
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise InputError(f"{path}: larger than any OpenAPI document")
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as exc:
        raise InputError(f"{path} cannot be read as JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise InputError(f"{path}: not an OpenAPI document; it begins with no object")
    return document


def _id_in(document: Mapping[str, Any], path: Path) -> str:
    """The endpoint that a document is about: by its own word, else by the path that takes a POST."""
    info = document.get("info")
    about = info.get("x-fal-metadata") if isinstance(info, Mapping) else None
    named = about.get("endpointId") if isinstance(about, Mapping) else None
    if isinstance(named, str) and named:
        return named
    paths = document.get("paths")
    for name, operations in paths.items() if isinstance(paths, Mapping) else ():
        if isinstance(operations, Mapping) and "post" in operations and "{" not in name and "/" in name.strip("/"):
            return str(name).strip("/")
    raise InputError(f"{path}: not a queue OpenAPI document; no path of it takes a POST")


def _path(endpoint_id: str, settings: Settings) -> Path | None:
    path = settings.pinned / endpoints.file_name(endpoint_id)
    return path if path.is_file() else None
