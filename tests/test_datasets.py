"""Datasets: what trainers' own libraries read back is what was saved, and a second export adds only what is new."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy
import pytest
from filelock import FileLock
from PIL import Image
from pyarrow import parquet
from test_cli import Call, call

from batch import endpoints
from batch.errors import InputError
from batch.export.datasets import About, Dataset, Form, Saved, by_column, by_share, one_split, size_of, write_dataset
from batch.export.datasets.facts import Facts, facts_of
from batch.jobs import Job, LocalFile, Row, local_file_mark

__all__ = ["call"]  # a fixture

ENDPOINT = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video"
IMAGES = Path(__file__).parents[1] / "manifests" / "images"
SIZE = (32, 16)


def clip(path: Path, tone: int = 90, frames: int = 3) -> Path:
    """A real film, tiny."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.time_base = Fraction(1, 24)
        for _ in range(frames):
            picture = numpy.full((SIZE[1], SIZE[0], 3), tone, numpy.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path


def picture(path: Path, tone: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (tone, 0, 0)).save(path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Campaign:
    """Rows with saved files, by hand; `states` are of those that have none."""

    folder: Path
    suffix: str = ".mp4"
    tones: dict[str, int] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    cells: dict[str, str] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)

    def add(self, *names: str) -> None:
        for name in names:
            self.tones[name] = 20 + 10 * len(self.tones)

    def file(self, name: str) -> Path:
        path = self.folder / "saved" / f"{name}~{self.tones[name]}{self.suffix}"
        if not path.exists():
            (clip if self.suffix == ".mp4" else picture)(path, self.tones[name])
        return path

    def rows(self) -> list[Row]:
        source = IMAGES / "moon.jpg"
        mark = LocalFile(sha256=sha256(source), path=source, size_bytes=1, media_type="image/jpeg")
        made = []
        for number, name in enumerate([*self.tones, *self.states], start=1):
            seed = ord(name[0])
            input = {"prompt": f"prompt of {name}", "image_url": local_file_mark(mark), "seed": seed}
            job = Job(
                key=hashlib.sha256(name.encode()).hexdigest()[:32],
                endpoint=ENDPOINT,
                input=input,
                take=1,
                files=(mark,),
            )
            cells = {"id": name, "label": self.cells.get(name, "x"), **self.own}
            made.append(
                Row(id=name, address=f"s.csv:{number}", position=number, cells=cells, stem=name, job=job, number=number)
            )
        return made

    def saved(self, row: Row) -> Saved:
        if row.id in self.states:
            return Saved(state=self.states[row.id], endpoint=ENDPOINT)
        path = self.file(row.id)
        files = ((path, sha256(path)),)
        return Saved(
            state="fetched", files=files, seed=int(row.job.input["seed"]), endpoint=ENDPOINT, request_id=f"q-{row.id}"
        )

    def export(
        self,
        out: Path,
        kind: str,
        *,
        split: Callable[[Row], str] = one_split,
        progress: Callable[[int, int], None] = lambda done, total: None,
        saved: Callable[[Row], Saved] | None = None,
        name: str = "c",
        **form: Any,
    ) -> Dataset:
        about = About(campaign=name, carried=("label", *self.own), folder=IMAGES.parent, endpoint_of=endpoints.load)
        return write_dataset(
            self.rows(), saved or self.saved, self.kept, split, about, Form(kind=kind, **form), out, progress=progress
        )

    def kept(self, hashes: Collection[str]) -> set[str]:
        """Which of these hashes are those of saved files."""
        return {sha256(path) for path in (self.folder / "saved").glob("*")} & set(hashes)

    @property
    def wanted(self) -> dict[str, str]:
        """The hash of each sample's file."""
        return {name: sha256(self.file(name)) for name in self.tones}


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    made = Campaign(tmp_path)
    made.add("a", "b", "c", "d", "e")
    return made


def in_folder(out: Path) -> dict[str, str]:
    """What the lists of a folder dataset name, with the hashes of the files that are there."""
    found = {}
    for path in out.glob("*/metadata.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            assert record["key"] not in found
            found[record["key"]] = sha256(path.parent / record["file_name"])
            assert found[record["key"]] == record["sha256"]
    return found


def in_shards(out: Path) -> dict[str, str]:
    found = {}
    for path in out.glob("*.tar"):
        with tarfile.open(path) as archive:
            members = {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]
        for name, content in members.items():
            if name.endswith(".json"):
                key = name.removesuffix(".json")
                assert key not in found
                (media,) = [members[f"{key}{suffix}"] for suffix in (".mp4", ".png") if f"{key}{suffix}" in members]
                found[key] = hashlib.sha256(media).hexdigest()
                assert json.loads(content)["sha256"] == found[key]
    return found


def in_tables(out: Path) -> dict[str, str]:
    found = {}
    for path in out.glob("*.parquet"):
        for row in parquet.read_table(path).to_pylist():
            assert row["key"] not in found
            found[row["key"]] = hashlib.sha256((row.get("video") or row["image"])["bytes"]).hexdigest()
            assert found[row["key"]] == row["sha256"]
    return found


READERS = {"videofolder": in_folder, "webdataset": in_shards, "parquet": in_tables}
KINDS = list(READERS)


def files(out: Path) -> dict[str, tuple[int, int]]:
    """The files that readers see, but for the card, each with what changes when it is written again."""
    seen = (path for path in out.rglob("*") if path.is_file() and ".fal-batch" not in path.parts)
    return {
        str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in seen
        if path.suffix != ".md"
    }


# --- by the readers' own libraries ---


def loaded(out: Path, cache: Path) -> Any:
    from datasets import load_dataset

    return load_dataset(str(out), cache_dir=str(cache))


def test_the_datasets_library_reads_a_videofolder_with_its_parts(campaign: Campaign, tmp_path: Path) -> None:
    from datasets import Video

    out = tmp_path / "out"
    campaign.cells = {"a": "held out"}
    campaign.export(out, "videofolder", split=by_column("label", ["label"]), has_sources=True)
    found = loaded(out, tmp_path / "cache").cast_column("video", Video(decode=False))
    assert {name: part.num_rows for name, part in found.items()} == {"held_out": 1, "x": 4}
    rows = [row for part in found.values() for row in part]
    assert {row["key"]: sha256(Path(row["video"]["path"])) for row in rows} == campaign.wanted
    (a,) = found["held_out"]
    assert (a["prompt"], a["seed"], a["endpoint"], a["request_id"]) == ("prompt of a", ord("a"), ENDPOINT, "q-a")
    assert (a["width"], a["height"], a["frames"], a["fps"], a["codec"]) == (*SIZE, 3, 24.0, "h264")
    assert (a["source"], a["source_sha256"]) == ("images/moon.jpg", sha256(IMAGES / "moon.jpg"))
    assert sha256(out / "held_out" / a["source_path"]) == a["source_sha256"]


def test_the_datasets_library_reads_an_imagefolder_with_the_pictures_that_went_in(tmp_path: Path) -> None:
    from datasets import Image as Picture

    campaign = Campaign(tmp_path, suffix=".png")
    campaign.add("a", "b")
    out = tmp_path / "out"
    campaign.export(out, "imagefolder", has_sources=True)
    part = loaded(out, tmp_path / "cache")["train"]
    assert part[0]["image"].size == SIZE
    assert part[0]["source"].size == Image.open(IMAGES / "moon.jpg").size
    plain = part.cast_column("image", Picture(decode=False))
    assert {row["key"]: sha256(Path(row["image"]["path"])) for row in plain} == campaign.wanted


@pytest.mark.parametrize("kind", ["videofolder", "parquet", "webdataset"])
def test_the_datasets_library_sees_what_a_second_export_changed(campaign: Campaign, tmp_path: Path, kind: str) -> None:
    """It keeps what it has read, and goes by the card whether to read again."""

    def read() -> list[dict[str, Any]]:
        part = loaded(tmp_path / "out", tmp_path / "cache")["train"].remove_columns(media)
        return [json.loads(row["json"]) if isinstance(row.get("json"), str) else row.get("json", row) for row in part]

    media = ["mp4", "txt"] if kind == "webdataset" else ["video"]
    campaign.export(tmp_path / "out", kind)
    assert len(read()) == 5
    campaign.add("z")
    campaign.export(tmp_path / "out", kind)
    assert {row["key"] for row in read()} == {*campaign.wanted}
    campaign.cells = {"a": "another cell"}
    campaign.export(tmp_path / "out", kind)
    assert [row["label_"] for row in read() if row["key"] == "a"] == ["another cell"]


@pytest.mark.parametrize("has_bytes", [True, False])
def test_the_datasets_library_reads_parquet(campaign: Campaign, tmp_path: Path, has_bytes: bool) -> None:
    from datasets import Video

    out = tmp_path / "out"
    campaign.export(out, "parquet", has_bytes=has_bytes, shard_bytes=3000, has_sources=True)
    part = loaded(out, tmp_path / "cache")["train"]
    if has_bytes:
        assert isinstance(part.features["video"], Video)
        part = part.cast_column("video", Video(decode=False))
        found = {
            row["key"]: hashlib.sha256(row["video"]["bytes"]).hexdigest() for row in part.remove_columns("source_image")
        }
    else:
        found = {row["key"]: sha256(out / row["video"]) for row in part}
    assert found == campaign.wanted


def test_the_webdataset_library_reads_the_shards(campaign: Campaign, tmp_path: Path) -> None:
    import webdataset

    out = tmp_path / "out"
    campaign.export(out, "webdataset", shard_bytes=4000, has_sources=True)
    shards = sorted(map(str, out.glob("*.tar")))
    assert len(shards) > 1
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert {one["__key__"]: hashlib.sha256(one["mp4"]).hexdigest() for one in samples} == campaign.wanted
    assert {one["txt"].decode() for one in samples} == {f"prompt of {name}" for name in campaign.tones}
    assert {hashlib.sha256(one["source.jpg"]).hexdigest() for one in samples} == {sha256(IMAGES / "moon.jpg")}


# --- again ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_export_writes_nothing(campaign: Campaign, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    first = campaign.export(out, kind)
    before = files(out)
    second = campaign.export(out, kind)
    assert (first.added, first.kept, second.added, second.kept, second.removed) == (5, 0, 0, 5, 0)
    lists = {name for name in before if name.endswith("metadata.jsonl")}
    assert {name: at for name, at in files(out).items() if name not in lists} == {
        name: at for name, at in before.items() if name not in lists
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_new_is_added_and_no_finished_file_is_written_again(
    campaign: Campaign, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    campaign.export(out, kind)
    before = files(out)
    campaign.add("f", "g")
    found = campaign.export(out, kind)
    assert (found.added, found.kept, found.removed, found.splits) == (2, 5, 0, {"train": 7})
    after = files(out)
    assert all(after[name] == at for name, at in before.items() if not name.endswith(".jsonl"))
    assert READERS[kind](out) == campaign.wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_sample_takes_the_place_of_the_old_one(campaign: Campaign, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    campaign.export(out, kind, shard_bytes=3000)
    before = set(files(out))
    campaign.tones["c"] = 250
    found = campaign.export(out, kind, shard_bytes=3000)
    assert (found.added, found.kept, found.removed) == (1, 4, 1)
    assert READERS[kind](out) == campaign.wanted
    fresh = set(files(out)) - before
    assert len(fresh) >= 1 and len(before - set(files(out))) >= 1, "another name, so no reader's copy is half of each"


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_is_gone_or_not_finished_any_more_takes_its_sample_with_it(
    campaign: Campaign, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    campaign.export(out, kind)
    del campaign.tones["b"]
    del campaign.tones["d"]
    campaign.states["d"] = "submitted"
    found = campaign.export(out, kind)
    assert (found.added, found.kept, found.removed, found.left_out) == (0, 3, 2, {"submitted": 1})
    assert READERS[kind](out) == campaign.wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_that_changed_is_told_anew(campaign: Campaign, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    campaign.export(out, kind)
    campaign.cells["e"] = "another"
    found = campaign.export(out, kind)
    assert (found.added, found.kept) == (1, 4)
    assert READERS[kind](out) == campaign.wanted
    assert b"another" in b"".join(
        path.read_bytes() for path in out.rglob("*") if path.suffix in (".jsonl", ".tar", ".parquet")
    )


EFFECTS = {"os.rename", "os.link", "os.remove", "os.mkdir"}


def killed_before(effect: int, work: Callable[[], object]) -> bool:
    """Do the work in a process of its own that dies before its n-th change of names on the disk; whether it did."""
    child = os.fork()
    if child == 0:
        seen = 0

        def watch(event: str, args: object) -> None:
            nonlocal seen
            seen += event in EFFECTS
            if seen == effect:
                os._exit(9)

        sys.addaudithook(watch)
        work()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("kind", ["videofolder", "webdataset"])
def test_a_kill_anywhere_leaves_what_the_next_export_makes_whole(campaign: Campaign, tmp_path: Path, kind: str) -> None:
    """New samples, changed ones and one that is gone, killed before every change of names on the disk."""
    campaign.export(tmp_path / "kept", kind, shard_bytes=5000)
    changed = Campaign(tmp_path, tones={**campaign.tones, "a": 200, "c": 210, "f": 220})
    del changed.tones["e"]
    whole = {*campaign.wanted.values(), *changed.wanted.values()}
    kills = 0
    while True:
        out = tmp_path / f"out{kills}"
        shutil.copytree(tmp_path / "kept", out)
        if not killed_before(kills + 1, lambda out=out: changed.export(out, kind, shard_bytes=5000)):
            break
        assert set(READERS[kind](out).values()) <= whole
        changed.export(out, kind, shard_bytes=5000)
        assert READERS[kind](out) == changed.wanted
        assert not list(out.rglob("*.part"))
        kills += 1
    assert kills > 10


def test_a_sample_that_is_in_the_dataset_needs_its_saved_file_no_more(campaign: Campaign, tmp_path: Path) -> None:
    for kind in KINDS:
        campaign.export(tmp_path / kind, kind)
    answers = {row.id: campaign.saved(row) for row in campaign.rows()}
    wanted = campaign.wanted
    shutil.rmtree(tmp_path / "saved")
    for kind in KINDS:
        found = campaign.export(tmp_path / kind, kind, saved=lambda row: answers[row.id])
        assert (found.kept, found.left_out) == (5, {})
        assert READERS[kind](tmp_path / kind) == wanted


def test_a_shard_with_the_only_copy_of_a_sample_is_not_taken_out(campaign: Campaign, tmp_path: Path) -> None:
    out = tmp_path / "out"
    campaign.export(out, "webdataset")
    before = files(out)
    answers = {row.id: campaign.saved(row) for row in campaign.rows()}
    campaign.file("a").unlink()
    answers["b"] = replace(answers["b"], seed=99)
    with pytest.raises(InputError, match=r"train-000000\.tar holds samples that have changed, and a, whose saved file"):
        campaign.export(out, "webdataset", saved=lambda row: answers[row.id])
    assert files(out) == before


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_that_would_take_every_sample_out_is_refused(campaign: Campaign, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    campaign.export(out, kind)
    before = files(out)
    nothing = Campaign(tmp_path, states=dict.fromkeys(campaign.tones, "not planned"))
    others = Campaign(tmp_path, tones={"x": 220, "y": 230})
    for other in (nothing, others, Campaign(tmp_path)):
        with pytest.raises(InputError, match=r"out holds 5 samples, and not one of them .*nothing was taken out"):
            other.export(out, kind)
        assert files(out) == before


@pytest.mark.parametrize("kind", KINDS)
def test_all_samples_may_change_or_come_into_another_part(campaign: Campaign, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    campaign.export(out, kind)
    campaign.export(out, kind, split=lambda row: "test")
    changed = Campaign(tmp_path, tones={name: tone + 100 for name, tone in campaign.tones.items()})
    changed.export(out, kind, split=lambda row: "test")
    assert READERS[kind](out) == changed.wanted


def test_the_only_copy_of_a_sample_that_leaves_a_folder_is_not_deleted(campaign: Campaign, tmp_path: Path) -> None:
    out = tmp_path / "out"
    campaign.export(out, "videofolder")
    answers = {row.id: campaign.saved(row) for row in campaign.rows()}
    hashes = campaign.wanted
    campaign.file("a").unlink()
    campaign.file("b").unlink()
    campaign.cells["b"] = "another label"
    del campaign.tones["a"], campaign.tones["c"]
    found = campaign.export(out, "videofolder", saved=lambda row: answers[row.id])
    assert (found.kept, found.added, found.removed, found.left_out) == (2, 1, 3, {})
    assert in_folder(out) == {name: hashes[name] for name in "bde"}
    assert sha256(out / "train" / "a.mp4") == hashes["a"]
    assert not (out / "train" / "c.mp4").exists(), "its saved file is there"


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_a_shard_with_the_only_copy_of_what_leaves_or_changes_stays(
    campaign: Campaign, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    campaign.export(out, kind)
    before = files(out)
    answers = {row.id: campaign.saved(row) for row in campaign.rows()}
    campaign.file("a").unlink()
    campaign.cells["a"] = "another label"
    with pytest.raises(InputError, match=r"train-000000\.\w+ has the only copy of a, which is to leave or to change"):
        campaign.export(out, kind, saved=lambda row: answers[row.id])
    del campaign.tones["a"]
    with pytest.raises(InputError, match=r"train-000000\.\w+ has the only copy of a, which is to leave or to change"):
        campaign.export(out, kind, saved=lambda row: answers[row.id])
    assert files(out) == before


# --- what is left out, and what is refused ---


def test_only_finished_whole_files_are_samples_and_the_others_are_counted(campaign: Campaign, tmp_path: Path) -> None:
    campaign.states = {"x": "failed", "y": "failed", "z": "in_doubt"}
    answers = {row.id: campaign.saved(row) for row in campaign.rows()}
    campaign.file("a").unlink()
    campaign.file("b").write_bytes(b"cut short")
    broken = tmp_path / "saved" / "broken.mp4"
    broken.write_bytes(b"no film")
    answers["c"] = replace(answers["c"], files=((broken, sha256(broken)),))
    sound = tmp_path / "saved" / "sound.wav"
    sound.write_bytes(b"")
    answers["d"] = replace(answers["d"], files=((sound, sha256(sound)),))
    found = campaign.export(tmp_path / "out", "videofolder", saved=lambda row: answers[row.id])
    assert found.splits == {"train": 1}
    assert found.left_out == {
        "audio files": 1,
        "changed since saved": 1,
        "failed": 2,
        "in_doubt": 1,
        "not readable": 1,
        "not where saved": 1,
    }


def test_a_folder_that_holds_something_else_is_left_alone(campaign: Campaign, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "film.mp4").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no earlier dataset"):
        campaign.export(mine, "videofolder")
    assert [path.name for path in mine.iterdir()] == ["film.mp4"]
    out = tmp_path / "out"
    campaign.export(out, "videofolder")
    with pytest.raises(InputError, match="holds a videofolder, not a webdataset"):
        campaign.export(out, "webdataset")
    with pytest.raises(InputError, match="holds the campaign 'c', and this is 'other'"):
        campaign.export(out, "videofolder", name="other")
    with pytest.raises(InputError, match="there is no folder"):
        campaign.export(tmp_path / "no" / "out", "videofolder")
    with FileLock(out / ".fal-batch" / "lock"), pytest.raises(InputError, match="another export is writing it"):
        campaign.export(out, "videofolder")


# --- names, columns, parts ---


def test_keys_hold_no_dot_and_differ_on_every_file_system(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    campaign.add("shot.01", "Shot_01", "a-b")
    wanted = set(campaign.wanted.values())
    for kind in KINDS:
        campaign.export(tmp_path / kind, kind)
        found = READERS[kind](tmp_path / kind)
        assert set(found.values()) == wanted
        assert not any("." in key for key in found)
        assert len({key.casefold() for key in found}) == 3


def test_columns_of_the_users_never_hide_ours_nor_look_like_files(tmp_path: Path) -> None:
    own = {"width": "7", "video": "x", "mask_file_name": "m.png", "sha256": "0", "shot on": "2026-11-22"}
    campaign = Campaign(tmp_path, own=own)
    campaign.add("a")
    campaign.export(tmp_path / "out", "videofolder")
    record = json.loads((tmp_path / "out" / "train" / "metadata.jsonl").read_text())
    assert (record["width"], record["width_"], record["video_"], record["mask_file_name_"]) == (
        SIZE[0],
        "7",
        "x",
        "m.png",
    )
    assert record["sha256"] == campaign.wanted["a"]
    assert record["shot on"] == "2026-11-22 ", "a date would be another type than an empty cell in another part"


def test_a_row_stays_in_its_part_when_others_come_and_go() -> None:
    def row(id: str) -> Row:
        return Row(id=id, address="", position=1, cells={}, stem=id, job=Job(key="", endpoint="", input={}, take=1))

    split = by_share("train=0.9, test=0.1")
    parts = {f"r{n}": split(row(f"r{n}")) for n in range(2000)}
    assert parts["r7"] == by_share("train=0.9,test=0.1")(row("r7"))
    assert 150 < list(parts.values()).count("test") < 250
    grown = by_share("train=0.9,test=0.1")
    assert all(grown(row(name)) == part for name, part in parts.items())


@pytest.mark.parametrize(
    "text", ["train=0.9", "train=0.5,test=0.6", "a=0.5,a=0.5", "a b=1", "train", "train=x", "a=1,b=0"]
)
def test_shares_that_make_no_whole_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--split: "):
        by_share(text)


def test_parts_are_named_after_the_cells_of_a_column(campaign: Campaign, tmp_path: Path) -> None:
    campaign.cells = {"a": "pans left", "b": ""}
    found = campaign.export(tmp_path / "out", "webdataset", split=by_column("label", ["label"]))
    assert found.splits == {"none": 1, "pans_left": 1, "x": 3}
    assert {path.name for path in (tmp_path / "out").glob("*.tar")} == {
        "pans_left-000000.tar",
        "none-000001.tar",
        "x-000002.tar",
    }
    campaign.cells["b"] = "pans-left"
    with pytest.raises(InputError, match=r"s\.csv:2 label: 'pans-left' and 'pans left' would both be the part"):
        campaign.export(tmp_path / "out", "webdataset", split=by_column("label", ["label"]))
    with pytest.raises(InputError, match="there is no column 'lable'; there are label"):
        by_column("lable", ["label"])


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500_000_000), ("1.5 gb", 1_500_000_000), ("200000", 200_000), ("3k", 3000)]
)
def test_a_size_is_read_as_people_write_it(text: str, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "big", "-1", "0", "5 apples", "0.0001k"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no size"):
        size_of(text)


# --- facts and the card ---


def test_facts_are_those_of_the_file(tmp_path: Path) -> None:
    film = clip(tmp_path / "a.mp4", frames=12)
    assert facts_of(film) == Facts(
        bytes=film.stat().st_size, width=32, height=16, frames=12, fps=24.0, duration=0.5, codec="h264"
    )
    still = picture(tmp_path / "a.png", 9)
    assert facts_of(still) == Facts(bytes=still.stat().st_size, width=32, height=16, frames=1, codec="png")
    assert facts_of(tmp_path / "none.mp4") is None


def test_what_the_user_writes_into_the_card_stays(campaign: Campaign, tmp_path: Path) -> None:
    out = tmp_path / "out"
    campaign.export(out, "videofolder")
    card = out / "README.md"
    text = card.read_text().replace("---\n# fal-batch", "---\nlicense: cc0-1.0\n# fal-batch", 1) + "\nMade with care.\n"
    card.write_text(text)
    campaign.add("f")
    campaign.export(out, "videofolder", split=lambda row: "test" if row.id == "f" else "train")
    text = card.read_text()
    assert "license: cc0-1.0" in text and text.endswith("Made with care.\n")
    assert "6 samples of the campaign `c`" in text and "| test | 1 |" in text and "path: 'test/**'" in text
    card.write_text("all mine\n")
    campaign.export(out, "videofolder")
    assert card.read_text() == "all mine\n"


# --- the command ---


def test_a_run_comes_out_as_datasets_by_one_command_each(call: Call, tmp_path: Path) -> None:
    shutil.copy(IMAGES / "moon.jpg", tmp_path)
    rows = "".join(f"{name},{name} zooms in,moon.jpg,480p,2,{kind}\n" for name, kind in (("cat", "a"), ("dog", "b")))
    (tmp_path / "shots.csv").write_text(f"id,prompt,image_url,resolution,duration,kind\n{rows}")
    assert call("run", "shots.csv", "--local", "-q").code == 0
    said = call("export", "shots.csv", "vf", "--as", "videofolder", "--local", "--split-by", "kind", "--with-source")
    assert said.out == "vf: 2 samples (a 1, b 1), 2 new\n"
    found = json.loads(call("export", "shots.csv", "wd", "--as", "webdataset", "--local", "--json").out)
    assert (found["splits"], found["added"], found["left_out"]) == ({"train": 2}, 2, {})
    assert call("export", "shots.csv", "out.csv", "--local").code == 0
    with (tmp_path / "out.csv").open() as file:
        hashes = {line["id"]: line["result_sha256"] for line in csv.DictReader(file)}
    assert in_folder(tmp_path / "vf") == in_shards(tmp_path / "wd") == hashes


@pytest.mark.parametrize("elsewhere", [(), ("--local", "--state", "other")])
def test_a_ledger_that_knows_nothing_of_the_campaign_leaves_every_export_as_it_is(
    call: Call, tmp_path: Path, elsewhere: tuple[str, ...]
) -> None:
    shutil.copy(IMAGES / "moon.jpg", tmp_path)
    (tmp_path / "shots.csv").write_text("id,prompt,image_url,resolution,duration\nmoon,moon zooms in,moon.jpg,480p,2\n")
    assert call("run", "shots.csv", "--local", "-q").code == 0
    exports = [
        ("export", "shots.csv", "out.csv"),
        ("export", "shots.csv", "out.xlsx"),
        *(("export", "shots.csv", kind, "--as", kind) for kind in KINDS),
        ("gallery", "shots.csv", "page"),
    ]
    for words in exports:
        assert call(*words, "--local").code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "state" not in path.parts}
    hint = "" if elsewhere else "; its rehearsals are in another ledger: --local"
    state = "other/local" if elsewhere else "state"
    for words in exports:
        said = call(*words, *elsewhere)
        out = words[2]
        assert said.code == 2, words
        assert said.err == f"error: nothing of 'shots' was run yet in {state}{hint}. {out} stays as it is\n"
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "state" not in path.parts}
    assert after == before
    said = call("export", "shots.csv", "new.csv", *elsewhere)
    assert (said.code, said.out) == (0, "new.csv: 1 row, 0 saved\n")
    assert said.err == f"nothing of 'shots' was run yet in {state}{hint}\n"


def look_back_campaign(call: Call, tmp_path: Path) -> None:
    """Two saved rows, the picture of each in its cell, and one by the campaign's default; then all is exported."""
    (tmp_path / "images").mkdir()
    for name in ("moon", "rocket"):
        shutil.copy(IMAGES / f"{name}.jpg", tmp_path / "images")
    rows = "cat,cat zooms in,images/moon.jpg\ndog,dog zooms in,images/rocket.jpg\nowl,owl pans left,\n"
    (tmp_path / "s.csv").write_text(f"id,prompt,image_url\n{rows}")
    (tmp_path / "shots.yaml").write_text(
        "rows: s.csv\ntakes: 2\ndefaults: {image_url: images/rocket.jpg, resolution: 480p, duration: 2}\n"
    )
    assert call("run", "shots.yaml", "--local", "-q").code == 0


EXPORTS = [
    ("export", "shots.yaml", "out.csv"),
    *(("export", "shots.yaml", kind, "--as", kind, "--with-source") for kind in KINDS),
    ("gallery", "shots.yaml", "page"),
]


SPOILS: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("x"),
}


def test_what_is_saved_is_exported_when_the_pictures_that_went_in_are_gone_or_spoiled(
    call: Call, tmp_path: Path
) -> None:
    look_back_campaign(call, tmp_path)
    for words in EXPORTS:
        assert call(*words, "--local").code == 0
    table = (tmp_path / "out.csv").read_bytes()
    before = {kind: files(tmp_path / kind) for kind in KINDS}
    pictures = list((tmp_path / "images").iterdir())
    for how, spoil in SPOILS.items():
        for path in pictures:
            path.unlink(missing_ok=True)
            path.touch()
            spoil(path)
        for words in EXPORTS:
            said = call(*words, "--local")
            assert (said.code, said.err) == (0, ""), (how, words)
        assert (tmp_path / "out.csv").read_bytes() == table
        for kind in KINDS:
            assert set(files(tmp_path / kind)) == set(before[kind])
            assert len(READERS[kind](tmp_path / kind)) == 6
            said = call("export", "shots.yaml", f"{how}-{kind}", "--as", kind, "--with-source", "--local")
            assert said.out == f"{how}-{kind}: 6 samples (train 6), 6 new, left out: 6 sources not there\n"
        assert in_folder(tmp_path / f"{how}-videofolder") == in_folder(tmp_path / "videofolder")
        assert call("run", "shots.yaml", "--local", "-q").code == 2, "who submits needs them"


def test_a_row_that_was_changed_and_whose_picture_is_gone_is_a_mistake_in_words_of_an_export(
    call: Call, tmp_path: Path
) -> None:
    look_back_campaign(call, tmp_path)
    (tmp_path / "images" / "moon.jpg").unlink()
    sheet = tmp_path / "s.csv"
    sheet.write_text(sheet.read_text().replace("cat zooms in", "cat zooms out"))
    said = call("export", "shots.yaml", "out.csv", "--local")
    assert said.code == 2
    assert said.err.startswith("s.csv:2 image_url: 'images/moon.jpg' does not exist")
    assert said.err.endswith("1 mistake; nothing was written\n")
    assert not (tmp_path / "out.csv").exists()
    told = json.loads(call("gallery", "shots.yaml", "--local", "--json").out)
    assert told["error"] == "1 mistake in the manifest; nothing was written"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--as", "webdataset"), "name the folder for it, such as shots-webdataset"),
        (("out.csv", "--split-by", "id"), "--split-by: that is of a dataset; say which kind with --as"),
        (("out", "--as", "videofolder", "--wide"), "--wide is of a sheet"),
        (("out", "--as", "videofolder", "--shard-size", "1GB"), "a videofolder has no shards"),
        (("out", "--as", "webdataset", "--paths"), "--paths is of --as parquet"),
        (("out", "--as", "parquet", "--split", "a=1", "--split-by", "id"), "use one of them"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(
    call: Call, tmp_path: Path, words: Iterable[str], told: str
) -> None:
    (tmp_path / "shots.csv").write_text("id,prompt,image_url\na,x,https://example.com/a.jpg\n")
    said = call("export", "shots.csv", *words)
    assert said.code == 2 and told in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["shots.csv"]
