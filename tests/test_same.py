"""A manifest that is what it was is not read again; whatever is in doubt is."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batch import manifest
from batch.endpoints import DEFAULT_ENDPOINT, file_name, load
from batch.manifest import Manifest

IMAGES = Path(__file__).parent.parent / "manifests" / "images"
SHEET = "id,prompt,image_url\na,cat,images/cat.jpg\nb,dog,images/dog.jpg\n"


def made(folder: Path) -> Path:
    """A campaign of two rows in a folder of its own, with pictures that nobody has touched for long."""
    (folder / "images").mkdir()
    for name, source in (("cat", "chelsea"), ("dog", "coffee")):
        shutil.copy(IMAGES / f"{source}.jpg", folder / "images" / f"{name}.jpg")
    (folder / "pinned").mkdir()
    document = json.dumps(load(DEFAULT_ENDPOINT).document)
    (folder / "pinned" / file_name(DEFAULT_ENDPOINT)).write_text(document, encoding="utf-8")
    (folder / "shots.csv").write_text(SHEET, encoding="utf-8")
    (folder / "camp.yaml").write_text("rows: shots.csv\ndefaults: {resolution: 480p}\n", encoding="utf-8")
    return folder / "camp.yaml"


def loaded(path: Path, later_s: float = 60.0, **options: object) -> Manifest:
    """The manifest as a run reads it that begins a minute after all files were made."""
    pinned = path.parent / "pinned"
    return manifest.load(path, pinned_dir=pinned, now=lambda: time.time() + later_s, **options)  # type: ignore[arg-type]


def basis_of(found: Manifest) -> dict[str, object] | None:
    digest = found.digest()
    assert list(found.rows())
    told = found.basis(digest)
    return None if told is None else json.loads(json.dumps(told))


def is_same(path: Path, basis: dict[str, object], **options: object) -> bool:
    again = loaded(path, **options)
    return again.is_as_read(basis, again.digest())


def test_what_nobody_has_touched_is_the_same(tmp_path: Path) -> None:
    path = made(tmp_path)
    basis = basis_of(loaded(path))
    assert basis is not None
    assert is_same(path, basis)


def changed_in_place(folder: Path) -> None:
    """Other bytes of the same number, and the old time put back, as careful copying programs do it."""
    picture = folder / "images" / "cat.jpg"
    before = picture.stat()
    content = bytearray(picture.read_bytes())
    content[-100] ^= 1
    picture.write_bytes(bytes(content))
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))


def pinned_anew(folder: Path) -> None:
    pinned = folder / "pinned" / file_name(DEFAULT_ENDPOINT)
    pinned.write_text(pinned.read_text(encoding="utf-8").replace("1080p", "1081p"), encoding="utf-8")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a cell": lambda folder: (folder / "shots.csv").write_text(SHEET.replace("cat,", "cow,"), encoding="utf-8"),
    "the campaign": lambda folder: (folder / "camp.yaml").write_text("rows: shots.csv\n", encoding="utf-8"),
    "a picture, in place": changed_in_place,
    "a picture, by another": lambda folder: (folder / "images" / "dog.jpg").replace(folder / "images" / "cat.jpg"),
    "a picture that is gone": lambda folder: (folder / "images" / "dog.jpg").unlink(),
    "a document": pinned_anew,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_is_read_again(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = made(tmp_path)
    basis = basis_of(loaded(path))
    assert basis is not None
    change(tmp_path)
    assert not is_same(path, basis)


def test_a_file_that_comes_to_stand_before_the_one_that_was_read_is_noticed(tmp_path: Path) -> None:
    """A cell's file is looked for beside the sheet first, then beside the campaign."""
    path = made(tmp_path)
    (tmp_path / "sheets").mkdir()
    (tmp_path / "shots.csv").rename(tmp_path / "sheets" / "shots.csv")
    path.write_text("rows: sheets/shots.csv\n", encoding="utf-8")
    basis = basis_of(loaded(path))
    assert basis is not None
    assert is_same(path, basis)
    (tmp_path / "sheets" / "images").mkdir()
    shutil.copy(tmp_path / "images" / "dog.jpg", tmp_path / "sheets" / "images" / "cat.jpg")
    assert not is_same(path, basis)


@pytest.mark.parametrize("options", [{"carry": ("mine",)}, {"price_micros": 5}, {"campaign": "other"}])
def test_another_way_of_reading_is_another_reading(tmp_path: Path, options: dict[str, object]) -> None:
    path = made(tmp_path)
    basis = basis_of(loaded(path))
    assert basis is not None
    assert not is_same(path, basis, **options)


def test_a_manifest_that_changed_while_it_was_read_is_not_remembered(tmp_path: Path) -> None:
    path = made(tmp_path)
    found = loaded(path)
    digest = found.digest()
    assert list(found.rows())
    (tmp_path / "shots.csv").write_text(SHEET + "c,cow,images/cat.jpg\n", encoding="utf-8")
    assert found.basis(digest) is None


def test_a_picture_that_was_just_made_may_change_unseen(tmp_path: Path) -> None:
    assert basis_of(loaded(made(tmp_path), later_s=0.0)) is None


def test_what_a_pattern_matches_is_known_by_looking(tmp_path: Path) -> None:
    path = made(tmp_path)
    path.write_text("rows: images/*.jpg\ndefaults: {prompt: camera pans left}\n", encoding="utf-8")
    assert basis_of(loaded(path)) is None
