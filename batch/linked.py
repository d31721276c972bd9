"""Sheets that a campaign names by a link: read once for a plan or a run, and kept in the state folder.

The copy is what is judged and sent, so that a sheet which somebody edits meanwhile changes nothing half-way, and an
export shows the rows that were run. Beside it lies what it is: link, time, hash. No key is ever sent to where a link
leads.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import anyio

from batch.errors import Blocked, DownloadFailed, InputError
from batch.manifest import Linked
from batch.settings import Settings, is_loopback

if TYPE_CHECKING:
    from batch.fetch import Saved

__all__ = ["BYTES_MAX", "export_link", "follow"]

BYTES_MAX = 256 * 1024 * 1024  # a million rows of prompts
DEADLINE_S = 120.0
TRIES_MAX = 3
PAUSE_S = 0.5

_GOOGLE = "docs.google.com"
_GOOGLE_SHEET = re.compile(r"/spreadsheets/(?:u/[0-9]+/)?d/(?!e/)([\w-]+)(?:/(edit|view|preview|htmlview|copy)?)?/?")
_GOOGLE_PUBLISHED = re.compile(r"(/spreadsheets/(?:u/[0-9]+/)?d/e/[\w-]+)/pub(?:html)?/?")
_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|table|meta)\b", re.IGNORECASE)
_HEAD_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """The copy of a linked sheet, and what is written beside it."""

    path: Path
    stamp: Path

    def read(self) -> dict[str, Any] | None:
        """What is known of the copy; None where there is none."""
        try:
            found = json.loads(self.stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and self.path.is_file() else None


def follow(link: str, settings: Settings, *, is_fresh: bool) -> Linked:
    """The copy of the sheet that a link leads to: with `is_fresh` read anew, else as it was read the last time (and
    anew where it never was).

    InputError where the link is none that can be read or leads to no sheet; Blocked when it cannot be read now.
    """
    url = export_link(link)
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    folder = settings.state / "sheets"
    kept = _Kept(path=folder / f"{name}.csv", stamp=folder / f"{name}.json")
    before = kept.read()
    if before is not None and not is_fresh:
        return Linked(
            path=kept.path, name=_name_of(url), note=f"rows: the copy of {before.get('read_at')}, {kept.path}"
        )
    saved = _downloaded(url, kept, settings)
    read_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    stamp = {"url": link, "read_at": read_at, "sha256": saved.sha256, "size_bytes": saved.size_bytes}
    part = kept.stamp.with_suffix(".json.part")
    try:
        part.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
        os.replace(saved.path, kept.path)
        os.replace(part, kept.stamp)
    except OSError as exc:
        raise Blocked(f"cannot write {exc.filename}: {exc.strerror or exc}") from exc
    changed = (
        "" if before is None or before.get("sha256") == saved.sha256 else f", changed since {before.get('read_at')}"
    )
    told = f"rows: {saved.size_bytes:,} bytes read from {_shown(url)} at {read_at}{changed}; kept as {kept.path}"
    return Linked(path=kept.path, name=_name_of(url), note=told)


def export_link(link: str) -> str:
    """Where the CSV of a shared sheet is: a Google sheet's own link is turned into that of its export.

    InputError for what cannot be followed, with what to write.
    """
    try:
        parts = urllib.parse.urlsplit(link)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or any(sign.isspace() for sign in link):
        raise InputError(f"{link!r} is not a whole link; write https://host/path")
    if parts.scheme.lower() != "https" and not is_loopback(link):
        raise InputError(f"{_shown(link)}: a sheet is read over https only; write https://")
    if host != _GOOGLE:
        return urllib.parse.urlunsplit(parts._replace(fragment=""))
    published, shared = _GOOGLE_PUBLISHED.fullmatch(parts.path), _GOOGLE_SHEET.fullmatch(parts.path)
    said = {**dict(urllib.parse.parse_qsl(parts.query)), **dict(urllib.parse.parse_qsl(parts.fragment))}
    tab = {"gid": said["gid"]} if said.get("gid", "").isdecimal() else {}
    if published:
        query = urllib.parse.urlencode({"output": "csv", **({"single": "true"} if tab else {}), **tab})
        return f"https://{_GOOGLE}{published[1]}/pub?{query}"
    if shared:
        return f"https://{_GOOGLE}/spreadsheets/d/{shared[1]}/export?{urllib.parse.urlencode({'format': 'csv', **tab})}"
    return urllib.parse.urlunsplit(parts._replace(fragment=""))


def _downloaded(url: str, kept: _Kept, settings: Settings) -> Saved:
    """The sheet in a file beside the copy."""
    part = kept.path.with_suffix(f".{os.getpid()}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as exc:
        raise Blocked(f"cannot write {part}: {exc.strerror or exc}") from exc
    try:
        saved = anyio.run(_fetched, url, part, settings)
        _check(part, url)
        return saved
    except BaseException as exc:
        part.unlink(missing_ok=True)
        if not isinstance(exc, DownloadFailed):
            raise
        if exc.is_gone:
            raise InputError(f"{exc}; is the link whole, and the sheet still shared?") from exc
        raise Blocked(f"{exc}{_instead(kept)}") from exc


async def _fetched(url: str, part: Path, settings: Settings) -> Saved:
    """Asked for again where that may help."""
    from batch import fal, fetch

    here = is_loopback(url)
    _, transport = fal.transports(proxy=settings.proxy, is_loopback=here)
    run_blocking = anyio.to_thread.run_sync
    fetcher = fetch.Fetcher(
        transport=transport, allow_http_loopback=here, run_blocking=run_blocking, bytes_max=BYTES_MAX
    )
    try:
        for tried in range(1, TRIES_MAX + 1):
            try:
                with anyio.fail_after(DEADLINE_S):
                    return await fetcher.download(url, part)
            except TimeoutError as exc:
                raise DownloadFailed(f"{_shown(url)}: the sheet was not whole after {DEADLINE_S:.0f} s") from exc
            except DownloadFailed as exc:
                if exc.is_gone or tried == TRIES_MAX:
                    raise
            part.write_bytes(b"")  # it may be another sheet by now: nothing is gone on with
            await anyio.sleep(PAUSE_S)
        raise AssertionError("the last try returns or raises")
    finally:
        await fetcher.aclose()


def _check(path: Path, url: str) -> None:
    """InputError where it is plainly no CSV."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    how = "use the link of its CSV export, or download the sheet"
    if _WEB_PAGE.match(head):
        told = "leads to a web page, perhaps one to log in: share the sheet with anyone who has the link, or " + how
        if urllib.parse.urlsplit(url).hostname == _GOOGLE:
            told = "leads to a page to log in: under Share, let anyone with the link view the sheet"
    elif head.startswith(b"PK\x03\x04"):
        told = "leads to an Excel workbook or an archive; " + how
    elif head.lstrip()[:1] in (b"{", b"["):
        told = "leads to JSON, not to CSV; " + how
    else:
        return
    raise InputError(f"{_shown(url)} {told}")


def _instead(kept: _Kept) -> str:
    """What can be done without the link, as the end of a message."""
    before = kept.read()
    return "" if before is None else f"; to go on with the copy of {before.get('read_at')}, write rows: {kept.path}"


def _name_of(url: str) -> str:
    """What messages call the sheet: `docs.google.com:17`, or its file name where the link ends with one."""
    parts = urllib.parse.urlsplit(url)
    last = urllib.parse.unquote(PurePosixPath(parts.path).name)
    return last if last.lower().endswith((".csv", ".tsv")) else parts.hostname or last


def _shown(url: str) -> str:
    """A link for a message: without its query, which may be what lets one in."""
    return url.split("?")[0].split("#")[0]
