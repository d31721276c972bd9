"""Output files that are neither seen nor heard: text, subtitles, JSON, an archive, a small mesh, a tensor.

Imports nothing outside the standard library. Each is a valid file of its format with as little in it as possible.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from batch.local.answers import Piece

__all__ = ["render_document"]

_CORNERS = [(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
_FACES = (0, 1, 3, 0, 3, 2, 4, 6, 7, 4, 7, 5, 0, 4, 5, 0, 5, 1, 2, 3, 7, 2, 7, 6, 0, 2, 6, 0, 6, 4, 1, 5, 7, 1, 7, 3)


def render_document(piece: Piece, out: Path) -> None:
    """Write the file to `out`."""
    out.write_bytes(_WRITERS.get(piece.kind.suffix, _text)(piece))


def _words(piece: Piece) -> str:
    said = next((str(piece.request[name]) for name in ("prompt", "text") if piece.request.get(name)), "")
    return f"A preview, made without the model (seed {piece.seed}). {said}".strip()


def _text(piece: Piece) -> bytes:
    return (_words(piece) + "\n").encode()


def _srt(piece: Piece) -> bytes:
    return f"1\n00:00:00,000 --> 00:00:05,000\n{_words(piece)}\n".encode()


def _vtt(piece: Piece) -> bytes:
    return f"WEBVTT\n\n00:00.000 --> 00:05.000\n{_words(piece)}\n".encode()


def _json(piece: Piece) -> bytes:
    return json.dumps({"preview": _words(piece), "seed": piece.seed}, ensure_ascii=False).encode()


def _archive(piece: Piece) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("preview.txt"), _text(piece))  # ZipInfo's own date: the same bytes each time
    return out.getvalue()


def _weights(piece: Piece) -> bytes:
    head = json.dumps(
        {"preview": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": {"note": _words(piece)}}
    ).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + struct.pack("<f", piece.seed % 1000 / 1000)


def _mesh(piece: Piece) -> bytes:
    """A cube in glTF's binary form; its height varies with the seed."""
    height = 0.5 + piece.seed % 1000 / 1000
    corners = [(x, y * height, z) for x, y, z in _CORNERS]
    points = b"".join(struct.pack("<3f", *corner) for corner in corners)
    faces = struct.pack(f"<{len(_FACES)}H", *_FACES)
    low, high = ([edge(axis) for axis in zip(*corners, strict=True)] for edge in (min, max))
    document = {
        "asset": {"version": "2.0", "generator": "preview"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": _words(piece)}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "buffers": [{"byteLength": len(points) + len(faces)}],
        "bufferViews": [
            {"buffer": 0, "byteLength": len(points), "target": 34962},
            {"buffer": 0, "byteOffset": len(points), "byteLength": len(faces), "target": 34963},
        ],
        "accessors": [
            # 5126 and 5123 are glTF's numbers for float and unsigned short.
            {"bufferView": 0, "componentType": 5126, "count": len(corners), "type": "VEC3", "min": low, "max": high},
            {"bufferView": 1, "componentType": 5123, "count": len(_FACES), "type": "SCALAR"},
        ],
    }
    head, data = json.dumps(document).encode(), points + faces
    head, data = head + b" " * (-len(head) % 4), data + b"\0" * (-len(data) % 4)
    chunks = struct.pack("<I4s", len(head), b"JSON") + head + struct.pack("<I4s", len(data), b"BIN\0") + data
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


_WRITERS: dict[str, Callable[[Piece], bytes]] = {
    "srt": _srt,
    "vtt": _vtt,
    "json": _json,
    "zip": _archive,
    "safetensors": _weights,
    "glb": _mesh,
}
