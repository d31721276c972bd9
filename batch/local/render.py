"""One file of an answer, made: a clip, a picture, a sound or a document.

It only chooses who makes it; what is to be made is decided in `answers`. Imports PyAV, Pillow and numpy, so it is
imported late. The same piece and pictures give the same bytes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from batch.local.answers import Piece
from batch.local.clips import Clips
from batch.local.documents import render_document
from batch.local.sounds import render_sound
from batch.local.stills import render_still

__all__ = ["Renderer"]


class Renderer:
    """Makes pieces. Safe to call from several threads at once."""

    def __init__(self) -> None:
        self._clips = Clips()

    def __call__(self, piece: Piece, pictures: Sequence[bytes], out: Path) -> None:
        """Write the piece to `out`. `pictures` are those the input sends: the one to start from, the one to end in.

        BadImage when one of them cannot be decoded.
        """
        if piece.kind.family == "video":
            self._clips.render(piece, pictures, out)
        elif piece.kind.family == "image":
            render_still(piece, pictures, out)
        elif piece.kind.family == "audio":
            render_sound(piece, out)
        else:
            render_document(piece, out)
