"""The runners: each takes the request whose turn it is, does what fal's model would do, and ends it.

Of the project it imports only `endpoints` and its neighbours. It knows no HTTP: a request comes from the store and its
answer goes there. What is wrong with an input is found here and not at the submit, because fal does so.
"""

from __future__ import annotations

import base64
import logging
import urllib.parse
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
import anyio.lowlevel

from batch.endpoints import Endpoint
from batch.local import times
from batch.local.answers import Answer, File, Piece, answer_of, told
from batch.local.bell import Bell
from batch.local.camera import motion_of
from batch.local.checking import Loc, Refused, check, refusal
from batch.local.disk import Disk
from batch.local.inputs import Picture, data_uri_bytes, fetched, filled, shown_pictures
from batch.local.luck import Luck
from batch.local.paths import file_id_of, file_path
from batch.local.refusals import failings, internal_error, runner_error, verdict
from batch.local.shape import Size, billable_units
from batch.local.shelf import StoredFile
from batch.local.store import CLIENT_CANCELLED, Ended, Request, Store

__all__ = ["Render", "RunBlocking", "Workshop"]

logger = logging.getLogger(__name__)

Render = Callable[[Piece, tuple[bytes, ...], Path], None]
"""Makes one file of an answer: what it shall be, the pictures to start from and to end in, and the path to write to."""

T = TypeVar("T")

RUNS_MAX = 10  # fal's page on reliability (2026-11-22): up to ten attempts after a failure of the runner


class RunBlocking(Protocol):
    """Runs a blocking function somewhere and gives its result: a thread in production, inline on a virtual clock."""

    def __call__(self, func: Callable[..., T], /, *args: Any) -> Awaitable[T]: ...


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
        files: list[StoredFile] = []
        again = f" again, run {request.runs}," if request.runs > 1 else ""
        self._say(request, f"started{again} after {self.clock() - request.sent_at:.1f} s")
        try:
            strike, lost = self.luck.verdict(request.seq), self.luck.runner_is_lost(request)
            if strike is not None and strike.fault.kind.name == "start_timeout":
                ended = verdict(strike, request)
            elif await self._is_stopped(request):
                ended = CLIENT_CANCELLED
            elif lost is not None and not request.no_retry and request.runs < RUNS_MAX:
                self._run_again(request, lost)
                return
            elif lost is not None:
                ended = runner_error(lost)
            elif strike is not None:
                ended = verdict(strike, request)
            else:
                ended, files = await self._finish(request)
        except Refused as refusal:
            ended = refusal.ended
        except Exception:
            # Whatever the model's code raises is its 500, as in fal's own framework: the queue goes on.
            logger.exception("request %s failed", request.id)
            ended = internal_error()
        finally:
            del self._stops[request.id]
        for line in failings(ended):
            self._say(request, line, level="ERROR")
        self.store.end(request.id, ended, self.clock(), files=files)

    def _run_again(self, request: Request, lost: str) -> None:
        """As fal does after a failure of the runner: the same request, under another name inside fal."""
        self._say(request, f"{lost.replace('_', ' ')}; it runs again", level="WARN")
        self.store.put_back(request.id, self.clock())
        self.wake()

    async def _is_stopped(self, request: Request) -> bool:
        """Let the extra service time pass; whether the request was cancelled meanwhile."""
        if self.seconds is None:
            return False
        with anyio.move_on_after(self.seconds(request.input)):
            await self._stops[request.id].wait()
            return True
        return False

    async def _finish(self, request: Request) -> tuple[Ended, list[StoredFile]]:
        endpoint = self._endpoint(request)
        check(endpoint, request.input)
        wanted = filled(endpoint, request)
        sent = await fetched(endpoint, wanted, fetch=self._fetched, run_blocking=self.run_blocking)
        for picture in sent:
            place = ".".join(map(str, picture.loc))
            self._say(request, f"{place}: {picture.size[0]}x{picture.size[1]}, {len(picture.content)} bytes")
        pictures = shown_pictures(sent)
        answer = answer_of(endpoint, wanted, pictures[0].size if pictures else None)
        stored, files = [], []
        is_inline = wanted.get("sync_mode") is True and endpoint.field("sync_mode") is not None
        for piece in answer.pieces:
            self._say(request, _described(piece))
            began = self.clock()
            made = await self._made(request, piece, pictures)
            self._say(request, f"saved {made.name}, {made.size} bytes, made in {self.clock() - began:.1f} s")
            if is_inline:
                content = await self.run_blocking(self.disk.take, made.id)
                url = f"data:{made.content_type};base64,{base64.b64encode(content).decode()}"
            else:
                url = file_path(made.id, made.name)
                stored.append(made)
            files.append(File(url=url, size_bytes=made.size or 0))
        units = {"x-fal-billable-units": billable_units(endpoint, wanted, _clip_size(answer))}
        return Ended(code=200, body=told(answer, files), headers=units), stored

    def _endpoint(self, request: Request) -> Endpoint:
        endpoint = self.endpoint(request.endpoint)
        if endpoint is None:
            path = request.endpoint.removeprefix(request.app) or "/"
            body = {"detail": f"Path {path} not found"}
            raise Refused(Ended(code=404, body=body, headers={"x-fal-billable-units": "0"}))
        return endpoint

    async def _fetched(self, loc: Loc, url: str) -> bytes:
        if url[:5].lower() == "data:":
            return data_uri_bytes(loc, url)
        file_id = file_id_of(urllib.parse.urlsplit(url).path)
        file = self.store.file(file_id) if file_id else None
        if file is None or not file.is_there(self.clock()):
            words = "Failed to download the file: the local queue takes data URIs and files uploaded to it"
            raise refusal("file_download_error", loc, words, url)
        return await self.run_blocking(self.disk.read, file.id)

    async def _made(self, request: Request, piece: Piece, pictures: Sequence[Picture]) -> StoredFile:
        from batch.local.images import BadImage

        # Named after the request: made again after a crash, it replaces what the crash left.
        own = uuid.UUID(request.id)
        file_id = (uuid.uuid5(own, str(piece.number)) if piece.number else own).hex
        contents = tuple(picture.content for picture in pictures)
        try:
            size, digest = await self.run_blocking(
                self.disk.make, file_id, lambda part: self.render(piece, contents, part)
            )
        except BadImage as exc:
            picture = pictures[exc.number]
            raise refusal(exc.kind, picture.loc, exc.message, picture.value, exc.context) from exc
        content_type = piece.kind.content_type
        return StoredFile(
            id=file_id, name=piece.name, content_type=content_type, is_upload=False, size=size, sha256=digest
        )

    def _say(self, request: Request, message: str, *, level: str = "INFO") -> None:
        entry = {"message": message, "level": level, "source": "USER", "timestamp": times.iso(self.clock())}
        request.logs.append(entry)
        self.store.log(request.id, request.logs)


def _described(piece: Piece) -> str:
    """What is about to be made, for the request's log."""
    if piece.kind.family == "video":
        return f"{motion_of(piece.request)}, {piece.frames} frames of {piece.width}x{piece.height}"
    if piece.kind.family == "image":
        return f"picture {piece.name} of {piece.width}x{piece.height}"
    return f"sound {piece.name} of {piece.seconds:.1f} s" if piece.kind.family == "audio" else f"file {piece.name}"


def _clip_size(answer: Answer) -> Size | None:
    return next(((piece.width, piece.height) for piece in answer.pieces if piece.kind.family == "video"), None)
