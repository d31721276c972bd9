"""A completed job's files under the names its row asks for. Joins the ledger and the fetcher.

A name is reserved in the ledger before a file gets it, the sidecar is written before the file, and the file comes last,
whole and verified. A crash in between leaves either no file, or a file whose sidecar proves that it is ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batch import fetch
from batch.errors import DownloadFailed
from batch.fetch import Fetcher
from batch.jobs import FileRef, file_refs
from batch.ledger import Ledger, OpenJob, Placement

__all__ = ["SUPERSEDED", "NoFiles", "Saver", "campaign_folder", "located"]

SUPERSEDED = "_superseded"  # the sub-folder for what was paid for and no row wants any more
PARTS = ".parts"  # unfinished downloads, named by attempt: a resumed one finds its own again
HEAD_BYTES = 32  # enough for every signature that `suffix_for` knows


class NoFiles(Exception):
    """A result that should hold a file holds none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """A downloaded, verified file that has no final name yet, or already its own."""

    part: Path
    sha256: str
    size_bytes: int
    media_type: str | None


class Saver:
    """Saves results below `outputs`, one sub-folder per campaign."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        fetcher: Fetcher,
        outputs: Path,
        run_blocking: Callable[..., Awaitable[Any]],
    ) -> None:
        self._ledger = ledger
        self._fetcher = fetcher
        self._outputs = outputs
        self._run_blocking = run_blocking

    async def save(self, job: OpenJob, campaign_id: int, *, needs_files: bool) -> None:
        """Save every file of a result. DownloadFailed when one cannot be had now, NoFiles when there is none."""
        assert job.attempt is not None and job.result is not None, "only a completed job has files"
        refs = file_refs(job.result)
        if not refs and needs_files:
            raise NoFiles
        placement = self._ledger.placement(campaign_id, job.id)
        reserved = self._ledger.artifacts(job.id, job.attempt.id, placement.row)
        for number, ref in enumerate(refs, start=1):
            path, is_saved = reserved.get(ref.place, (None, False))
            if is_saved:
                continue
            if path is not None and await self._is_ours(job, placement, ref, located(path, self._ledger.folder)):
                continue
            whole = await self._download(job, ref)
            await self._give_name(job, placement, ref, number, whole, reserved_path=path)
        self._ledger.fetched(job.id, attempt_id=job.attempt.id, row=placement.row)

    async def link_missing(self, campaign_id: int) -> int:
        """Give every row whose job was saved under another row's name its own name for it. How many rows got one."""
        linked = 0
        for missing in self._ledger.missing(campaign_id):
            job = self._ledger.job(missing.job_id)
            for number, artifact in enumerate(missing.artifacts, start=1):
                source = located(artifact.path, self._ledger.folder)
                if not source.exists():
                    break
                target = self._free_path(missing.placement, job.key, number, source.suffix)
                row = missing.placement.row
                self._ledger.unreserved(missing.attempt_id, row, artifact.place)
                self._ledger.reserved(
                    job.id,
                    missing.attempt_id,
                    missing.placement,
                    place=artifact.place,
                    path=self._stored(target),
                    url=artifact.url,
                )
                await self._run_blocking(_prepare, target)
                facts = self._facts(job, missing.placement, artifact.url, artifact.sha256, artifact.size_bytes)
                await self._run_blocking(fetch.write_sidecar, _sidecar(target), facts)
                await self._run_blocking(fetch.link_or_copy, source, target)
                self._ledger.saved(
                    missing.attempt_id,
                    row,
                    artifact.place,
                    sha256=artifact.sha256,
                    size_bytes=artifact.size_bytes,
                    media_type=artifact.media_type,
                )
            else:
                linked += 1
        return linked

    async def tidy(self) -> None:
        """Remove the folder of unfinished downloads where nothing is left in it."""
        parts = self._outputs / PARTS
        if parts.is_dir() and not any(parts.iterdir()):
            await self._run_blocking(parts.rmdir)

    async def _download(self, job: OpenJob, ref: FileRef) -> _Whole:
        part = self._part(job, ref)
        await self._run_blocking(_prepare, part)
        saved = await self._fetcher.download(ref.url, part, expected_bytes=ref.file_size)
        try:
            await self._run_blocking(fetch.verify, part, ref.content_type)
        except DownloadFailed:
            await self._run_blocking(_remove, part)  # a whole file that is wrong does not get better by more bytes
            raise
        return _Whole(part=part, sha256=saved.sha256, size_bytes=saved.size_bytes, media_type=ref.content_type)

    async def _give_name(
        self,
        job: OpenJob,
        placement: Placement,
        ref: FileRef,
        number: int,
        whole: _Whole,
        *,
        reserved_path: str | None,
    ) -> None:
        assert job.attempt is not None
        facts = self._facts(job, placement, ref.url, whole.sha256, whole.size_bytes)
        suffix = fetch.suffix_for(ref, await self._run_blocking(_head, whole.part))
        path = None if reserved_path is None else located(reserved_path, self._ledger.folder)
        while True:
            if path is None or path.exists():
                if path is not None:
                    self._ledger.unreserved(job.attempt.id, placement.row, ref.place)
                path = self._free_path(placement, job.key, number, suffix)
                self._ledger.reserved(
                    job.id, job.attempt.id, placement, place=ref.place, path=self._stored(path), url=ref.url
                )
            await self._run_blocking(_prepare, path)
            await self._run_blocking(fetch.write_sidecar, _sidecar(path), facts)
            try:
                await self._run_blocking(fetch.install, whole.part, path)
                break
            except FileExistsError:
                continue  # somebody put a file there since we looked: it stays, ours gets another name
        self._ledger.saved(
            job.attempt.id,
            placement.row,
            ref.place,
            sha256=whole.sha256,
            size_bytes=whole.size_bytes,
            media_type=whole.media_type,
        )

    async def _is_ours(self, job: OpenJob, placement: Placement, ref: FileRef, path: Path) -> bool:
        """Whether a crash came between the rename and the ledger: the file is there and its sidecar is about it."""
        assert job.attempt is not None
        facts = await self._run_blocking(fetch.read_sidecar, _sidecar(path))
        if not path.exists() or facts is None or facts.get("key") != job.key or facts.get("url") != ref.url:
            return False
        sha256 = await self._run_blocking(fetch.sha256_of, path)
        if sha256 != facts.get("sha256"):
            return False
        self._ledger.saved(
            job.attempt.id,
            placement.row,
            ref.place,
            sha256=sha256,
            size_bytes=path.stat().st_size,
            media_type=ref.content_type,
        )
        await self._run_blocking(_remove, self._part(job, ref))  # a second name of the file, where links are possible
        return True

    def _part(self, job: OpenJob, ref: FileRef) -> Path:
        """Where the file's download stands until it is whole: the same place whenever it is resumed."""
        assert job.attempt is not None
        place = hashlib.sha256(ref.place.encode()).hexdigest()[:8]
        return self._outputs / PARTS / f"{job.key}-{job.attempt.number}-{place}.part"

    def _free_path(self, placement: Placement, key: str, number: int, suffix: str) -> Path:
        """The name the row asks for, or the nearest that neither the ledger nor the disk has given away."""
        folder = campaign_folder(self._outputs, placement.campaign)
        if placement.is_superseded:
            folder = folder / SUPERSEDED
        stem = fetch.safe_stem(placement.stem) + ("" if number == 1 else f".{number}")
        tries = ["", f"~{key[:8]}", *(f"~{key[:8]}-{n}" for n in range(2, 1000))]
        for extra in tries:
            path = folder / f"{stem}{extra}{suffix}"
            is_free = not self._ledger.is_taken(self._stored(path).casefold())
            if is_free and not path.exists() and not _sidecar(path).exists():
                return path
        raise DownloadFailed(f"a thousand names like {stem}{suffix} are taken in {folder}")

    def _stored(self, path: Path) -> str:
        """How the ledger writes a path: relative to its own folder where it lies inside, so that it can move."""
        full, folder = path.resolve(), self._ledger.folder.resolve()
        return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else str(full)

    def _facts(
        self, job: OpenJob, placement: Placement, url: str, sha256: str, size_bytes: int
    ) -> Mapping[str, object]:
        """The sidecar: where a file came from."""
        assert job.attempt is not None and job.ticket is not None and job.result is not None
        return {
            "campaign": placement.campaign,
            "row": placement.row_id,
            "address": placement.address,
            "key": job.key,
            "take": job.take,
            "endpoint": job.endpoint,
            "input": job.attempt.body,
            "seed": job.result.get("seed", job.input.get("seed")),
            "request_id": job.ticket.request_id,
            "attempt": job.attempt.number,
            "price_usd": None if job.attempt.price_micros is None else job.attempt.price_micros / 1_000_000,
            "submitted_at": _iso(job.attempt.submitting_at),
            "accepted_at": None if job.accepted_at is None else _iso(job.accepted_at),
            "url": url,
            "sha256": sha256,
            "size_bytes": size_bytes,
        }


def campaign_folder(outputs: Path, campaign_name: str) -> Path:
    """Where a campaign's files go."""
    return outputs / fetch.safe_stem(campaign_name)


def located(stored: str, folder: Path) -> Path:
    """The file that an artifact's stored path means."""
    return folder / stored


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _prepare(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD_BYTES)
