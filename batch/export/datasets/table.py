"""A shard as Parquet: a column for each thing that is said of a sample, and one for its file, called after its kind,
with the bytes in it or the path. Imports pyarrow inside functions.

The file says in its own metadata which columns hold videos, pictures or sounds, in the words of Hugging Face's
`datasets`; other readers find a struct of `bytes` and `path`, or text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch.export.datasets.facts import Facts
from batch.export.datasets.known import Wanted, sources_there
from batch.export.tables import parquet_module

if TYPE_CHECKING:
    from batch.export.datasets.dataset import Form

__all__ = ["TableShard"]

GROUP_BYTES = 32_000_000  # of files in one row group, which is held in memory and read as one
_FEATURES = {"video": "Video", "image": "Image", "audio": "Audio"}
_DTYPES = {str: "string", int: "int64", float: "float64"}


class TableShard:
    """One file. `columns` are the names and types of what is said, `media` the kinds of files that there are."""

    def __init__(self, part: Path, columns: Mapping[str, type], media: Sequence[str], form: Form, out: Path) -> None:
        parquet = parquet_module(part)
        import pyarrow

        self._out, self._form, self._media = out, form, media
        types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
        told = {**columns, **{name: type(value) for name, value in asdict(Facts()).items()}}
        files = [*media, *(["source_image"] if form.has_sources else [])]
        kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        fields = [pyarrow.field(name, kind if form.has_bytes else pyarrow.string()) for name in files]
        fields += [pyarrow.field(name, types[one]) for name, one in told.items()]
        features: dict[str, Any] = {name: {"dtype": _DTYPES[one], "_type": "Value"} for name, one in told.items()}
        for name in files:
            shown = {"_type": _FEATURES.get(name, "Image")}
            features[name] = shown if form.has_bytes else {"dtype": "string", "_type": "Value"}
        told_to_readers = {"huggingface": json.dumps({"info": {"features": features}})}
        self._schema = pyarrow.schema(fields, metadata=told_to_readers)
        self._opened = part.open("wb")  # pyarrow would read a name with a colon in it as a URI
        self._writer = parquet.ParquetWriter(self._opened, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._waiting = self._written = 0

    @property
    def size_bytes(self) -> int:
        return self._written + self._waiting

    def add(self, wanted: Wanted, facts: Facts) -> None:
        sample = wanted.sample
        row: dict[str, Any] = {**sample.record, **asdict(facts), sample.kind: self._file(sample.path)}
        sources = sources_there(sample) if self._form.has_sources else []
        if sources:
            row["source_image"] = self._file(sources[0][0])
        self._rows.append(row)
        self._waiting += facts.bytes if self._form.has_bytes else 1_000
        if self._waiting >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._opened.close()

    def _file(self, path: Path) -> object:
        if self._form.has_bytes:
            return {"bytes": path.read_bytes(), "path": path.name}
        return Path(os.path.relpath(path.resolve(), self._out.resolve())).as_posix()

    def _flush(self) -> None:
        import pyarrow

        if self._rows:
            self._writer.write_table(pyarrow.Table.from_pylist(self._rows, schema=self._schema))
        self._written += self._waiting
        self._rows, self._waiting = [], 0
