"""What a preview clip costs beside ffmpeg's own zoompan: 480p, five seconds, one core, the same encoder settings.

    python benchmarks/render.py [--rounds 5] [--json FOLDER]

CPU seconds, the median of interleaved rounds after a warm-up; everything is counted, from the picture's bytes to the
finished file. zoompan moves in whole pixels of its source: on the plain one that is seen as trembling, so it is also
measured on a source of twice and four times the frame, which is how people smooth it.

Then, on all cores, how long two runners take together in threads and in processes of their own, which share nothing;
and how long the local queue takes for a status answer meanwhile, and with nothing to render.
"""

from __future__ import annotations

import base64
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import av
import av.filter
import httpx
from long_sheets import in_a_process
from side_by_side import RESULTS, Goal, compare, given

from batch import local
from batch.endpoints import DEFAULT_ENDPOINT, load
from batch.local.answers import answer_of
from batch.local.clips import X264
from batch.local.images import picture_size
from batch.local.render import Renderer

PICTURE = Path(__file__).parents[1] / "manifests" / "images" / "hubble.jpg"
WIDTH, HEIGHT, FRAMES, RATE = 864, 480, 121, 24
OURS, BASELINE = "fal-batch, camera zooms in", "zoompan, source doubled"
ANSWERS = 50  # asked for at rest


def ours(prompt: str, out: Path) -> Callable[[], None]:
    """Our renderer with nothing remembered, on a prompt that names a move."""
    content = PICTURE.read_bytes()

    def run() -> None:
        asked = {"prompt": prompt, "resolution": "480p", "aspect_ratio": "16:9", "duration": "5", "seed": 7}
        [piece] = answer_of(load(DEFAULT_ENDPOINT), asked, picture_size(content)).pieces
        assert (piece.width, piece.height, piece.frames, piece.rate) == (WIDTH, HEIGHT, FRAMES, RATE)
        Renderer()(piece, (content,), out)

    return run


def zoompan(factor: int, options: dict[str, str], out: Path) -> Callable[[], None]:
    """ffmpeg's filter on a source of `factor` times the frame, a zoom into the middle."""

    def run() -> None:
        with av.open(str(PICTURE), "r") as source:
            picture = next(source.decode(video=0))
        frames = zoomed(picture, factor)
        with av.open(str(out), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=RATE, options=options)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for number, frame in enumerate(frames):
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return run


def zoomed(picture: av.VideoFrame, factor: int) -> Iterator[av.VideoFrame]:
    """The frames of the zoom, from a filter graph."""
    width, height = WIDTH * factor, HEIGHT * factor
    middle = f"z='1+0.35*on/{FRAMES}':x='iw/2-iw/zoom/2':y='ih/2-ih/zoom/2'"
    graph = av.filter.Graph()
    graph.threads = 1
    steps = [
        graph.add_buffer(
            width=picture.width, height=picture.height, format=picture.format.name, time_base=Fraction(1, RATE)
        ),
        graph.add("scale", f"{width}:{height}:force_original_aspect_ratio=increase"),
        graph.add("crop", f"{width}:{height}"),
        graph.add("zoompan", f"{middle}:d={FRAMES}:s={WIDTH}x{HEIGHT}:fps={RATE}"),
        graph.add("format", "yuv420p"),
        graph.add("buffersink"),
    ]
    for before, after in itertools.pairwise(steps):
        before.link_to(after)
    graph.configure()
    picture.pts, picture.time_base = 0, Fraction(1, RATE)
    steps[0].push(picture)
    steps[0].push(None)
    for _ in range(FRAMES):
        frame = steps[-1].pull()
        assert isinstance(frame, av.VideoFrame)
        yield frame


def timed(run: Callable[[], None]) -> dict[str, float]:
    """CPU seconds of this process, all its threads."""
    before = time.process_time()
    run()
    return {"cpu s": time.process_time() - before}


MOVES = ("camera zooms in", "camera pans left", "a galaxy", "camera zooms out")
APART = "import sys, pathlib, render; render.several(sys.argv[1].split(','), pathlib.Path(sys.argv[2]))"


def several(moves: Sequence[str], folder: Path) -> None:
    """Clips one after the other."""
    for move in moves:
        ours(move, folder / f"{move}.mp4")()


def together(how: str, folder: Path) -> dict[str, float]:
    """Wall seconds for four clips: by one thread, by two, by two processes (their start taken off)."""
    halves = MOVES[::2], MOVES[1::2]
    starts_s = 0.0
    with ThreadPoolExecutor(2) as runners:
        if how == "two processes":
            starts_s = _wall_s(lambda: list(runners.map(lambda _: in_a_process("import render"), range(2))))
            work = partial(runners.map, lambda half: in_a_process(APART, ",".join(half), folder), halves)
        else:
            sheets = [MOVES] if how == "one thread" else halves
            work = partial(runners.map, several, sheets, [folder] * len(sheets))
        return {"wall s": _wall_s(lambda: list(work())) - starts_s}


def _wall_s(run: Callable[[], object]) -> float:
    began = time.monotonic()
    run()
    return time.monotonic() - began


def answers(renders: bool, folder: Path) -> dict[str, float]:
    """How long the local queue takes for a status answer, while two clips are rendered or while nothing is."""
    with tempfile.TemporaryDirectory(dir=folder) as state:
        took = anyio.run(status_answers, Path(state), 4, renders)
    return {"median ms": statistics.median(took) * 1000, "95 % ms": took[len(took) * 95 // 100] * 1000}


async def status_answers(folder: Path, jobs: int, renders: bool) -> list[float]:
    """Seconds for each answer of the local queue while it renders so many clips, asked fifty times a second; without
    `renders` when all of them are done."""
    sent = {"image_url": f"data:image/jpeg;base64,{base64.b64encode(PICTURE.read_bytes()).decode()}"}
    sent |= {"resolution": "480p", "duration": "5"}
    async with (
        local.open_queue(
            state=folder, runners=2, clock=time.time, run_blocking=anyio.to_thread.run_sync, pinned_dir=None
        ) as queue,
        httpx.AsyncClient(
            transport=queue.transport(), base_url="https://queue.fal.run", headers={"Authorization": "Key benchmark"}
        ) as client,
    ):
        answers = [
            await client.post(f"/{DEFAULT_ENDPOINT}", json={**sent, "prompt": MOVES[n % 4], "seed": n})
            for n in range(jobs)
        ]
        while_rendering, afterwards = [], []
        for url in (answer.json()["status_url"] for answer in answers):
            status = ""
            while status != "COMPLETED":
                began = time.monotonic()
                status = (await client.get(url)).json()["status"]
                while_rendering.append(time.monotonic() - began)
                await anyio.sleep(0.02)
        for _ in range(ANSWERS):
            began = time.monotonic()
            await client.get(url)
            afterwards.append(time.monotonic() - began)
            await anyio.sleep(0.02)
    return sorted(while_rendering if renders else afterwards)


def main() -> None:
    options = given(__doc__, rounds=5)
    results = options.json or RESULTS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compare(
            "render_together",
            "Four clips on all cores",
            {how: partial(together, how, folder) for how in ("two threads", "one thread", "two processes")},
            ours="two threads",
            rounds=options.rounds,
            packages=("av",),
            out=results / "render_together.json",
        )
        compare(
            "render_answers",
            "A status answer of the local queue",
            {"while it renders": partial(answers, True, folder), "at rest": partial(answers, False, folder)},
            ours="while it renders",
            rounds=options.rounds,
            packages=("av",),
            out=results / "render_answers.json",
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        _beside_zoompan(options.rounds, folder, results / "render.json")


def _beside_zoompan(rounds: int, folder: Path, out: Path) -> None:
    mine, theirs = folder / "ours.mp4", folder / "theirs.mp4"
    runs = {
        OURS: ours("camera zooms in", mine),
        "fal-batch, camera zooms out": ours("camera zooms out", mine),
        "fal-batch, zooms in and pans left": ours("camera zooms in and pans left", mine),
        "fal-batch, camera pans left": ours("camera pans left", mine),
        "fal-batch, static camera": ours("static camera", mine),
        "fal-batch, no move named": ours("a galaxy", mine),
        "zoompan, plain source": zoompan(1, X264, theirs),
        BASELINE: zoompan(2, X264, theirs),
        "zoompan, source four times": zoompan(4, X264, theirs),
        "zoompan, source doubled, x264 as it comes": zoompan(2, {"threads": "1"}, theirs),
    }
    compare(
        "render",
        f"A preview clip of {FRAMES} frames of {WIDTH}x{HEIGHT}, on one core",
        {name: partial(timed, run) for name, run in runs.items()},
        ours=OURS,
        rounds=rounds,
        goals=[Goal(measure="cpu s", baseline=BASELINE, at_most=1.2)],
        facts={"frames": FRAMES, "width": WIDTH, "height": HEIGHT},
        packages=("av", "numpy"),
        out=out,
    )


if __name__ == "__main__":
    main()
