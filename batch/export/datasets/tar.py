"""A shard as a tar archive that `webdataset` reads: the files of a sample stand together and have one name but for what
follows the first dot: the file itself, `.txt` with the prompt, `.json` with all that is said of it."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import asdict
from pathlib import Path

from batch.export.datasets.facts import Facts
from batch.export.datasets.known import Wanted, sources_there

__all__ = ["TarShard"]


class TarShard:
    """One archive. The same samples give the same bytes."""

    def __init__(self, part: Path, *, has_sources: bool) -> None:
        self._has_sources = has_sources
        self._archive = tarfile.open(part, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - until `close`

    @property
    def size_bytes(self) -> int:
        return int(self._archive.offset)

    def add(self, wanted: Wanted, facts: Facts) -> None:
        sample = wanted.sample
        told = {**sample.record, **asdict(facts)}
        self._add_file(f"{sample.key}{sample.suffix}", sample.path)
        self._add_bytes(f"{sample.key}.json", json.dumps(told, ensure_ascii=False).encode("utf-8", "replace"))
        self._add_bytes(f"{sample.key}.txt", str(sample.record["prompt"]).encode("utf-8", "replace"))
        for number, (path, _) in enumerate(sources_there(sample) if self._has_sources else (), start=1):
            name = "source" if number == 1 else f"source{number}"
            self._add_file(f"{sample.key}.{name}{path.suffix.lower()}", path)

    def close(self) -> None:
        self._archive.close()

    def _add_file(self, name: str, path: Path) -> None:
        with path.open("rb") as file:
            info = tarfile.TarInfo(name)
            info.size = path.stat().st_size
            self._archive.addfile(info, file)

    def _add_bytes(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        self._archive.addfile(info, io.BytesIO(content))
