"""The files of a result, saved under names of a script's choice. What is fetched and how it is checked is fetch's."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread

from batch import fetch, retry
from batch.errors import DownloadFailed, InputError
from batch.jobs import FileRef, file_refs

__all__ = ["save"]

TRIES = 5  # half a minute of pauses; what is saved later is asked of fal again by `result`
HEAD_BYTES = 32  # enough for every signature that `suffix_for` knows


async def save(
    result: Mapping[str, Any], folder: Path, name: str | None, fetcher: fetch.Fetcher, rng: random.Random
) -> list[Path]:
    """Saves each file of a result in `folder`; see `AsyncQueue.save`."""
    refs = file_refs(result)
    if not refs:
        raise InputError("save: expected a result with files in it, found none")
    return [await _save(fetcher, rng, ref, folder, name or _own_name(ref)) for ref in refs]


async def _save(fetcher: fetch.Fetcher, rng: random.Random, ref: FileRef, folder: Path, name: str) -> Path:
    # A name of its own: two scripts, or two calls of one, may save the same URL into one folder.
    part = folder / f".{uuid.uuid4().hex}.part"
    try:
        await anyio.to_thread.run_sync(_make_folder, folder)
        await _download(fetcher, rng, ref, part)
        return await anyio.to_thread.run_sync(_install, part, ref, folder, name)
    finally:
        part.unlink(missing_ok=True)


async def _download(fetcher: fetch.Fetcher, rng: random.Random, ref: FileRef, part: Path) -> None:
    """The whole file, each try going on where the one before broke off."""
    for failures in itertools.count(1):
        try:
            await fetcher.download(ref.url, part, expected_bytes=ref.file_size)
            await anyio.to_thread.run_sync(fetch.verify, part, ref.content_type)
            return
        except DownloadFailed as exc:
            if exc.is_gone or failures >= TRIES:
                raise
        await anyio.sleep(retry.backoff_s(failures, rng))


def _install(part: Path, ref: FileRef, folder: Path, name: str) -> Path:
    with open(part, "rb") as file:
        suffix = fetch.suffix_for(ref, file.read(HEAD_BYTES))
    for path in _paths(folder, name, suffix):
        try:
            fetch.install(part, path)
        except FileExistsError:
            continue
        return path
    raise AssertionError("there is always another number")


def _paths(folder: Path, name: str, suffix: str) -> Iterator[Path]:
    """The name asked for, then with a number: what is there stays."""
    stem = fetch.safe_stem(name.removesuffix(suffix))
    yield folder / f"{stem}{suffix}"
    for number in itertools.count(2):
        yield folder / f"{stem}.{number}{suffix}"


def _own_name(ref: FileRef) -> str:
    """fal's name for a file without its ending, else the field's."""
    return Path((ref.file_name or ref.place).replace("\\", "/")).stem or "file"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InputError(f"save: {folder} cannot be made: {exc.strerror}") from exc
