"""What a preview clip costs beside ffmpeg's own zoompan: 480p, five seconds, one core, the same encoder settings.

    python benchmarks/render.py [--rounds 5] [--json render.json]

CPU seconds, the median of interleaved rounds after a warm-up; everything is counted, from the picture's bytes to the
finished file. zoompan moves in whole pixels of its source: on the plain one that is seen as trembling, so it is also
measured on a source of twice and four times the frame, which is how people smooth it.

Then, on all cores, how long two runners take together in threads and in processes of their own, which share nothing;
and how long the local queue takes for a status answer meanwhile.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
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

from batch import local
from batch.endpoints import DEFAULT_ENDPOINT, load
from batch.local.answers import answer_of
from batch.local.clips import X264
from batch.local.images import picture_size
from batch.local.render import Renderer

PICTURE = Path(__file__).parents[1] / "manifests" / "images" / "hubble.jpg"
WIDTH, HEIGHT, FRAMES, RATE = 864, 480, 121, 24
BASELINE = "zoompan, source doubled"


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


def measured(cases: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each case in each round; a first round warms up and is not counted."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, run in cases.items():
            before = time.process_time()
            run()
            if number:
                found[name].append(time.process_time() - before)
    return found


MOVES = ("camera zooms in", "camera pans left", "a galaxy", "camera zooms out")
APART = "import sys, pathlib, render; render.several(sys.argv[1].split(','), pathlib.Path(sys.argv[2]))"


def several(moves: Sequence[str], folder: Path) -> None:
    """Clips one after the other."""
    for move in moves:
        ours(move, folder / f"{move}.mp4")()


def together(folder: Path) -> dict[str, float]:
    """Wall seconds for four clips: by one thread, by two, by two processes (their start taken off)."""
    halves = MOVES[::2], MOVES[1::2]
    began = time.monotonic()
    several(MOVES, folder)
    alone_s = time.monotonic() - began
    with ThreadPoolExecutor(2) as runners:
        began = time.monotonic()
        list(runners.map(several, halves, [folder] * 2))
        threads_s = time.monotonic() - began
        calls = [partial(in_a_process, APART, ",".join(half), folder) for half in halves]
        starts = [partial(in_a_process, "import render")] * 2
        began = time.monotonic()
        list(runners.map(lambda call: call(), calls))
        processes_s = time.monotonic() - began
        began = time.monotonic()
        list(runners.map(lambda call: call(), starts))
        processes_s -= time.monotonic() - began
    return {"one thread": alone_s, "two threads": threads_s, "two processes": processes_s}


async def status_answers(folder: Path, jobs: int) -> list[float]:
    """Seconds for each answer of the local queue while it renders so many clips, asked fifty times a second."""
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
        took = []
        for url in (answer.json()["status_url"] for answer in answers):
            status = ""
            while status != "COMPLETED":
                began = time.monotonic()
                status = (await client.get(url)).json()["status"]
                took.append(time.monotonic() - began)
                await anyio.sleep(0.02)
    return sorted(took)


def main() -> None:
    arguments = argparse.ArgumentParser(description="A preview clip beside ffmpeg's zoompan.")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "render.json")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds = [together(Path(folder)) for _ in range(given.rounds + 1)][1:]
        both = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
        answers = anyio.run(status_answers, Path(folder) / "queue", 4 * given.rounds)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        ours_out, theirs = Path(folder) / "ours.mp4", Path(folder) / "theirs.mp4"
        cases = {
            "fal-batch, camera zooms in": ours("camera zooms in", ours_out),
            "fal-batch, camera zooms out": ours("camera zooms out", ours_out),
            "fal-batch, zooms in and pans left": ours("camera zooms in and pans left", ours_out),
            "fal-batch, camera pans left": ours("camera pans left", ours_out),
            "fal-batch, static camera": ours("static camera", ours_out),
            "fal-batch, no move named": ours("a galaxy", ours_out),
            "zoompan, plain source": zoompan(1, X264, theirs),
            BASELINE: zoompan(2, X264, theirs),
            "zoompan, source four times": zoompan(4, X264, theirs),
            "zoompan, source doubled, x264 as it comes": zoompan(2, {"threads": "1"}, theirs),
        }
        found = measured(cases, given.rounds)
    medians = {name: statistics.median(times) for name, times in found.items()}
    print(f"{'':42} {'CPU s':>7} {'ratio':>7}   ({FRAMES} frames of {WIDTH}x{HEIGHT}; 1 is: {BASELINE})")
    for name, seconds in medians.items():
        print(f"{name:42} {seconds:7.3f} {seconds / medians[BASELINE]:7.2f}")
    print(f"Four clips: {', '.join(f'{name} {seconds:.2f} s' for name, seconds in both.items())}")
    late = {"median": statistics.median(answers), "95 %": answers[len(answers) * 95 // 100], "longest": answers[-1]}
    print(f"A status answer meanwhile: {', '.join(f'{name} {s * 1000:.1f} ms' for name, s in late.items())}")
    rows = {
        name: {"cpu_s": seconds, "ratio": seconds / medians[BASELINE], "rounds_s": found[name]}
        for name, seconds in medians.items()
    }
    given.json.parent.mkdir(exist_ok=True)
    given.json.write_text(
        json.dumps({"baseline": BASELINE, "cases": rows, "together_s": both, "answers_s": late}, indent=2) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
