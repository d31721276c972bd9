"""The runners: each takes the request whose turn it is, does what fal's model would do, and ends it.

Of the project it imports only `endpoints` and its neighbours. It knows no HTTP: a request comes from the store and its
answer goes there. What is wrong with an input is found here and not at the submit, because fal does so.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
import anyio.lowlevel

from batch.endpoints import Endpoint, Problem, check_input
from batch.local import times
from batch.local.bell import Bell
from batch.local.camera import motion_of
from batch.local.disk import Disk
from batch.local.luck import Luck
from batch.local.paths import file_id_of, file_path
from batch.local.refusals import internal_error, verdict
from batch.local.shape import billable_units, frame_count, frame_shape
from batch.local.shelf import StoredFile
from batch.local.store import CLIENT_CANCELLED, Ended, Request, Store

__all__ = ["Render", "RunBlocking", "Workshop"]

logger = logging.getLogger(__name__)

Render = Callable[[dict[str, Any], bytes, Path], None]
"""Writes the clip for an input (defaults and seed filled in) and the bytes of its picture to a path."""

T = TypeVar("T")

SEED_MAX = 2**31 - 1


class RunBlocking(Protocol):
    """Runs a blocking function somewhere and gives its result: a thread in production, inline on a virtual clock."""

    def __call__(self, func: Callable[..., T], /, *args: Any) -> Awaitable[T]: ...


class _Refused(Exception):
    """The model says no: the answer it gives."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.code)
        self.ended = ended


@dataclass(kw_only=True)
class Workshop:
    """What all runners share. `wake` tells them of new work, `stop` tells one of a cancellation."""

    store: Store
    disk: Disk
    clock: Callable[[], float]
    run_blocking: RunBlocking
    render: Render
    endpoint: Callable[[str], Endpoint | None]
    luck: Luck
    seconds: Callable[[Mapping[str, Any]], float] | None = None
    _work: Bell = field(default_factory=Bell)
    _stops: dict[str, anyio.Event] = field(default_factory=dict)

    def wake(self) -> None:
        """A request was accepted."""
        self._work.ring()

    def stop(self, request_id: str) -> None:
        """A running request was cancelled; it ends at once unless its clip is being made already."""
        if request_id in self._stops:
            self._stops[request_id].set()

    async def runner(self) -> None:
        """Run requests one after the other, for ever."""
        while True:
            await anyio.lowlevel.checkpoint()  # where rendering runs inline, others get their turn here
            work = self._work.next()  # before the look: what is accepted after the look sets this very event
            request = self.store.take(self.clock(), self.luck.held_until)
            if request is None:
                with anyio.move_on_after(self.store.next_release(self.luck.held_until) - self.clock()):
                    await work.wait()
                continue
            await self._run(request)

    async def _run(self, request: Request) -> None:
        self._stops[request.id] = anyio.Event()
        file = None
        try:
            strike = self.luck.verdict(request.seq)
            if strike is not None and strike.fault.kind.name == "start_timeout":
                ended = verdict(strike, request)
            elif await self._is_stopped(request):
                ended = CLIENT_CANCELLED
            elif strike is not None:
                ended = verdict(strike, request)
            else:
                ended, file = await self._finish(request)
        except _Refused as refusal:
            ended = refusal.ended
        except Exception:
            # Whatever the model's code raises is its 500, as in fal's own framework: the queue goes on.
            logger.exception("request %s failed", request.id)
            ended = internal_error()
        finally:
            del self._stops[request.id]
        self.store.end(request.id, ended, self.clock(), file=file)

    async def _is_stopped(self, request: Request) -> bool:
        """Let the extra service time pass; whether the request was cancelled meanwhile."""
        if self.seconds is None:
            return False
        with anyio.move_on_after(self.seconds(request.input)):
            await self._stops[request.id].wait()
            return True
        return False

    async def _finish(self, request: Request) -> tuple[Ended, StoredFile]:
        endpoint = self._endpoint(request)
        _check(endpoint, request.input)
        wanted = _filled(endpoint, request)
        picture, size = await self._picture(endpoint, wanted)
        shape = frame_shape(wanted, size)
        self._say(request, f"{motion_of(wanted)}, {frame_count(wanted)} frames of {shape[0]}x{shape[1]}")
        file = await self._clip(request, wanted, picture)
        self._say(request, f"saved {file.size} bytes")
        body = {
            "video": {
                "url": file_path(file.id, file.name),
                "content_type": file.content_type,
                "file_name": file.name,
                "file_size": file.size,
            },
            "seed": wanted["seed"],
        }
        return Ended(code=200, body=body, headers={"x-fal-billable-units": billable_units(wanted, shape)}), file

    def _endpoint(self, request: Request) -> Endpoint:
        endpoint = self.endpoint(request.endpoint)
        if endpoint is None:
            path = request.endpoint.removeprefix(request.app) or "/"
            body = {"detail": f"Path {path} not found"}
            raise _Refused(Ended(code=404, body=body, headers={"x-fal-billable-units": "0"}))
        if "video" not in endpoint.output_schema.get("properties", {}):
            raise _refusal("feature_not_supported", (), "The local queue makes videos only", request.input)
        return endpoint

    async def _picture(self, endpoint: Endpoint, wanted: Mapping[str, Any]) -> tuple[bytes, tuple[int, int]]:
        """The picture to start from, and its size; one made up where the endpoint takes none."""
        from batch.local.images import BadImage, backdrop, picture_size

        pictures = (field.name for field in endpoint.fields if field.media == "image")
        name = next((name for name in pictures if wanted.get(name)), None)
        if name is None:
            content = await self.run_blocking(backdrop, str(wanted.get("prompt", "")))
            return content, await self.run_blocking(picture_size, content)
        value = wanted[name][0] if isinstance(wanted[name], list) else wanted[name]
        content = await self._fetched(name, str(value))
        try:
            return content, await self.run_blocking(picture_size, content, endpoint.image_limits)
        except BadImage as exc:
            raise _refusal(exc.kind, (name,), exc.message, value, exc.context) from exc

    async def _fetched(self, name: str, url: str) -> bytes:
        if url[:5].lower() == "data:":
            return _data_uri_bytes(name, url)
        file_id = file_id_of(urllib.parse.urlsplit(url).path)
        file = self.store.file(file_id) if file_id else None
        if file is None or not file.is_there(self.clock()):
            # It asks nobody: a rehearsal must not depend on the network, nor fetch what a stranger's sheet names.
            words = "Failed to download the file: the local queue takes data URIs and files uploaded to it"
            raise _refusal("file_download_error", (name,), words, url)
        return await self.run_blocking(self.disk.read, file.id)

    async def _clip(self, request: Request, wanted: dict[str, Any], picture: bytes) -> StoredFile:
        from batch.local.images import BadImage

        # Named after the request: made again after a crash, it replaces what the crash left.
        file_id = request.id.replace("-", "")
        try:
            size, digest = await self.run_blocking(
                self.disk.make, file_id, lambda part: self.render(wanted, picture, part)
            )
        except BadImage as exc:
            raise _refusal(exc.kind, ("image_url",), exc.message, wanted.get("image_url"), exc.context) from exc
        return StoredFile(
            id=file_id, name="video.mp4", content_type="video/mp4", is_upload=False, size=size, sha256=digest
        )

    def _say(self, request: Request, message: str) -> None:
        entry = {"message": message, "level": "INFO", "source": "USER", "timestamp": times.iso(self.clock())}
        request.logs.append(entry)
        self.store.log(request.id, request.logs)


def _check(endpoint: Endpoint, wanted: Mapping[str, Any]) -> None:
    # fal ignores fields that a model does not have; only our own sheets treat them as mistakes.
    problems = [problem for problem in check_input(endpoint, wanted) if problem.kind != "extra_forbidden"]
    if problems:
        headers = {"x-fal-billable-units": "0", "x-fal-retryable": "false"}
        raise _Refused(Ended(code=422, body={"detail": [_detail(problem) for problem in problems]}, headers=headers))


def _refusal(
    kind: str, loc: tuple[str | int, ...], message: str, value: object, ctx: Mapping[str, Any] | None = None
) -> _Refused:
    problem = Problem(loc=loc, kind=kind, message=message, ctx=ctx or {}, input=value)
    # No billable units here: fal says of such a 422 only that it may be charged.
    return _Refused(Ended(code=422, body={"detail": [_detail(problem)]}, headers={"x-fal-retryable": "false"}))


def _detail(problem: Problem) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "loc": ["body", *problem.loc],
        "msg": problem.message,
        "type": problem.kind,
        "url": f"https://docs.fal.ai/errors/#{problem.kind}",
        "input": problem.input,
    }
    return {**entry, "ctx": dict(problem.ctx)} if problem.ctx else entry


def _filled(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    """The input with the endpoint's defaults and a seed: all that decides what the clip looks like."""
    defaults = {field.name: field.default for field in endpoint.fields if field.default is not None}
    wanted = {**defaults, **{name: value for name, value in request.input.items() if value is not None}}
    seed = wanted.get("seed")
    if not isinstance(seed, int) or seed < 0:
        # "Random", yet the same again when a crash makes this request run twice.
        wanted["seed"] = int.from_bytes(hashlib.sha256(request.id.encode()).digest()[:8]) % (SEED_MAX + 1)
    return wanted


def _data_uri_bytes(name: str, uri: str) -> bytes:
    head, _, data = uri.partition(",")
    raw = urllib.parse.unquote_to_bytes(data)
    if not head.lower().endswith(";base64"):
        return raw
    try:
        return base64.b64decode(raw, validate=False)
    except binascii.Error as exc:
        raise _refusal("file_download_error", (name,), f"The data URI is not base64: {exc}", uri[:64]) from exc
