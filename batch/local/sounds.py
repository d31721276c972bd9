"""One output sound: a short, quiet melody, another for each seed and prompt.

Imports PyAV and numpy, so it is imported late. It knows nothing of requests, HTTP or storage.
"""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from batch.local.answers import Piece

__all__ = ["render_sound"]

RATE = 48_000  # the one rate that every codec here takes
LOUDNESS = 0.25
NOTE_S = 0.4
_SCALE = (0, 2, 4, 7, 9, 12)  # pentatonic: no two of these notes clash
_LOWEST_HZ = 220.0
_BLOCK = 4800

_CODECS: dict[str, tuple[str, str, str]] = {
    "wav": ("wav", "pcm_s16le", "s16"),
    "mp3": ("mp3", "libmp3lame", "s16p"),
    "flac": ("flac", "flac", "s16"),
    "ogg": ("ogg", "libopus", "s16"),
}


def render_sound(piece: Piece, out: Path) -> None:
    """Write the sound to `out`."""
    samples = _melody(piece)
    container_format, codec, sample_format = _CODECS[piece.kind.suffix]
    with av.open(str(out), "w", format=container_format, options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=RATE, options={"flags": "+bitexact"})
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        stream.format = sample_format
        for start in range(0, len(samples), _BLOCK):
            block = np.ascontiguousarray(samples[start : start + _BLOCK].reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(block, format=sample_format, layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _melody(piece: Piece) -> npt.NDArray[np.int16]:
    chance = random.Random(f"{piece.seed} {piece.request.get('prompt') or piece.request.get('text') or ''}")
    total = max(1, round(piece.seconds * RATE))
    length = round(NOTE_S * RATE)
    moments = np.arange(length) / RATE
    softened = np.minimum(1.0, moments / 0.02) * np.exp(-4.0 * moments)
    notes = []
    for _ in range(-(-total // length)):
        pitch = _LOWEST_HZ * 2 ** (chance.choice(_SCALE) / 12)
        wave = np.sin(2 * np.pi * pitch * moments) + 0.3 * np.sin(4 * np.pi * pitch * moments)
        notes.append(wave * softened)
    return (np.concatenate(notes)[:total] * LOUDNESS * 32767 / 1.3).astype(np.int16)
