"""Names of rows: the id of a row without one, and the output template."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from batch import jobs

__all__ = ["Template", "TemplateError", "one_name", "row_hash", "without_suffix"]

_MEDIA_SUFFIX = re.compile(r"\.(mp4|mov|webm|mkv|gif|png|jpe?g|webp|avif|wav|mp3|flac|ogg|glb)$", re.IGNORECASE)


def row_hash(cells: Mapping[str, str]) -> str:
    """The id of a row that names none: 12 hex digits of what it says; the order of the columns does not matter."""
    said = {name: text for name, text in cells.items() if text}
    return hashlib.sha256(jobs.canonical_json(said).encode()).hexdigest()[:12]


class TemplateError(ValueError):
    """A template that cannot be used; its text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Plain text with `{names}` in it: of a file, or of a field."""

    parts: tuple[tuple[str, str | None], ...]  # the text before a name, and the name
    names: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> Template:
        """The template in `text`; TemplateError for anything but plain names in braces."""
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as exc:
            raise TemplateError(f"is not a template ({exc}); a name stands in braces, such as {{id}}") from exc
        for _, name, spec, conversion in pieces:
            if name is not None and (not name or spec or conversion or "[" in name):
                raise TemplateError("may hold only plain names in braces, such as {id} or {seed}")
        names = frozenset(name for _, name, _, _ in pieces if name)
        return cls(parts=tuple((before, name) for before, name, _, _ in pieces), names=names)

    def file_name(self, value: Callable[[str], str]) -> str:
        """The text with every name replaced. A separator inside a value makes no folder."""
        return "".join(before + (one_name(value(name)) if name else "") for before, name in self.parts)

    def text(self, values: Mapping[str, str]) -> str:
        """The text with every name replaced by its value as it is."""
        return "".join(before + (values.get(name, "") if name else "") for before, name in self.parts)


def one_name(text: str) -> str:
    """A value as part of a file name: a separator in it makes no folder."""
    return text.strip().replace("/", "-").replace("\\", "-")


def without_suffix(text: str) -> str:
    """An output template without the ending of a media file, which the result decides."""
    return _MEDIA_SUFFIX.sub("", text.strip())
