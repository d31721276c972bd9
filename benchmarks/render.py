"""What a preview clip costs beside ffmpeg's own zoompan: 480p, five seconds, one core, the same encoder settings.

    python benchmarks/render.py [--rounds 5] [--json render.json]

CPU seconds, the median of interleaved rounds after a warm-up; everything is counted, from the picture's bytes to the
finished file. zoompan moves in whole pixels of its source: on the plain one that is seen as trembling, so it is also
measured on a source of twice and four times the frame, which is how people smooth it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.filter

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


def main() -> None:
    arguments = argparse.ArgumentParser(description="A preview clip beside ffmpeg's zoompan.")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "render.json")
    given = arguments.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        ours_out, theirs = Path(folder) / "ours.mp4", Path(folder) / "theirs.mp4"
        cases = {
            "fal-batch, camera zooms in": ours("camera zooms in", ours_out),
            "fal-batch, camera pans left": ours("camera pans left", ours_out),
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
    rows = {
        name: {"cpu_s": seconds, "ratio": seconds / medians[BASELINE], "rounds_s": found[name]}
        for name, seconds in medians.items()
    }
    given.json.parent.mkdir(exist_ok=True)
    given.json.write_text(json.dumps({"baseline": BASELINE, "cases": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
