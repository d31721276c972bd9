"""Results of every shape: what of them is a file, what is said in words, and what is saved of one that has no file."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from endpoint_support import document_of
from test_cli import Call, call

from batch.endpoints import parsed
from batch.errors import DownloadFailed
from batch.fetch import suffix_for, verify
from batch.jobs import FileRef, file_refs, result_text, short_url

__all__ = ["call"]  # a fixture

PICTURE = Path(__file__).parents[1] / "manifests" / "images" / "moon.jpg"
CDN = "https://v3b.fal.media/files/b/abc"
DATA = "data:image/png;base64,iVBORw0KGgo="
FILE = {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}


@pytest.mark.parametrize(
    ("result", "places"),
    [
        ({"video": {"url": f"{CDN}/v.mp4"}}, ["video"]),
        ({"images": [f"{CDN}/a.png", f"{CDN}/b.png"]}, ["images.0", "images.1"]),
        ({"images": ["https://example.com/a.png"]}, ["images.0"]),
        ({"audio_url": "https://example.com/get?id=1"}, []),
        ({"audio_url": f"{CDN}/noending"}, ["audio_url"]),
        ({"anything": f"{CDN}/a.glb"}, ["anything"]),
        ({"anything": "https://example.com/a.glb"}, []),
        ({"image": DATA}, ["image"]),
        ({"image": {"url": DATA}}, ["image"]),
        ({"note": "data: a chart, growing"}, []),
        ({"text": f"see {CDN}/a.png"}, []),
        ({"sources": [{"title": "x", "link": "https://example.com/page.html"}]}, []),
        ({"status_url": "https://queue.fal.run/a/b/requests/1/status"}, []),
        ({"image_url": "https://example.com/sent.png", "caption": "a cat"}, []),
        ({"mesh": {"textures": [{"map": {"url": f"{CDN}/t.png"}}]}}, ["mesh.textures.0.map"]),
        ({"url": None, "score": 0.5, "tags": ["a"]}, []),
        ({"image": {"url": "https://example.com/sent.png", "width": 5}, "video": {"url": f"{CDN}/v.mp4"}}, ["video"]),
        ({"image": {"url": "http://example.com/a.png"}, "video": {"url": f"{CDN}/v.mp4"}}, ["video"]),
        ({"image": {"url": "http://localhost:8000/a.png"}}, ["image"]),
        ({"video": {"url": "ftp://example.com/v.mp4"}}, []),
        ({"video": {"url": "gs://bucket/v.mp4", "content_type": "video/mp4"}}, []),
        ({"video": {"url": "https://example.com/get?id=1"}}, ["video"]),
        ({"output": {"url": "https://example.com/get?id=1"}}, ["output"]),
        ({"url": "https://example.com/get?id=1"}, [""]),
        ({"anything": {"url": "https://example.com/get?id=1"}}, []),
        ({"anything": {"url": "https://example.com/get?id=1", "content_type": None}}, ["anything"]),
        ({"anything": {"url": "https://example.com/a.glb"}}, ["anything"]),
        ({"anything": {"url": f"{CDN}/noending"}}, ["anything"]),
        ({"sources": [{"url": "https://example.com/page", "title": "A page"}]}, []),
        (
            {"results": [{"url": "https://example.com/page", "title": "A page", "image": {"url": DATA}}]},
            ["results.0.image"],
        ),
        ({"song": {"url": "https://example.com/a.mp3", "title": "A song"}}, ["song"]),
    ],
)
def test_a_result_is_walked_for_its_files(result: Any, places: list[str]) -> None:
    sent = {"image_url": "https://example.com/sent.png"}
    assert [ref.place for ref in file_refs(result, sent)] == places


def test_a_bare_url_is_a_file_without_any_words_about_it() -> None:
    assert file_refs({"images": [f"{CDN}/a.png"]}) == (FileRef(place="images.0", url=f"{CDN}/a.png"),)


def test_a_data_uri_is_remembered_by_its_hash() -> None:
    assert short_url(f"{CDN}/a.png") == f"{CDN}/a.png"
    long = "data:image/png;base64," + "A" * 10_000
    assert short_url(long).startswith("data:image/png;base64,sha256-")
    assert len(short_url(long)) < 50
    assert short_url(long) != short_url(long + "A")


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"output": "a cat on a mat"}, "a cat on a mat"),
        ({"text": "hello", "language": "en"}, "hello"),
        ({"prompt": "a cat", "caption": "a dog"}, "a dog"),
        ({"prompt": "a cat"}, ""),
        ({"verdict": "safe", "score": 1}, "safe"),
        ({"a": "x", "b": "y"}, ""),
        ({"images": [{"url": f"{CDN}/a.png"}], "description": "a cat, painted"}, "a cat, painted"),
        ({"images": [{"url": f"{CDN}/a.png"}], "model": "v2"}, ""),
        ({"tags": ["a"]}, ""),
        ([], ""),
    ],
)
def test_what_a_result_says_in_words(result: Any, text: str) -> None:
    assert result_text(result, {"prompt": "a cat"}) == text


@pytest.mark.parametrize(
    ("given", "needs"),
    [
        ({"properties": {"video": FILE}, "required": ["video"]}, True),
        ({"properties": {"images": {"type": "array", "items": FILE}}, "required": ["images"]}, True),
        ({"properties": {"video": {"allOf": [FILE]}, "text": {"type": "string"}}, "required": ["text"]}, False),
        ({"properties": {"text": {"type": "string"}}, "required": ["text"]}, False),
        ({"properties": {"image_url": {"type": "string"}}, "required": ["image_url"]}, False),
        ({}, False),
    ],
)
def test_a_result_is_held_to_the_files_that_its_document_promises(given: dict[str, Any], needs: bool) -> None:
    wanted = {"type": "object", "properties": {"prompt": {"type": "string"}}}
    document = document_of(wanted, {"type": "object", **given})
    assert parsed("acme/thing", document, source="here").output_has_files is needs


def test_results_of_every_kind_are_saved_and_come_back_in_the_sheet(call: Call, tmp_path: Path) -> None:
    """One sheet over endpoints that answer with words, with figures, with a bare URL and with a mesh."""
    wanted = {
        "type": "object",
        "required": ["image_url"],
        "properties": {"image_url": {"type": "string"}, "prompt": {"type": "string"}},
    }
    outputs: dict[str, dict[str, Any]] = {
        "caption": {"properties": {"output": {"type": "string"}}, "required": ["output"]},
        "score": {"properties": {"score": {"type": "number"}}, "required": ["score"]},
        "sound": {"properties": {"audio_url": {"type": "string"}}, "required": ["audio_url"]},
        "mesh": {"properties": {"model_mesh": FILE}, "required": ["model_mesh"]},
        "picture": {"properties": {"image": FILE}, "required": ["image"]},
    }
    shutil.copy(PICTURE, tmp_path / "moon.jpg")
    for name, given in outputs.items():
        document = document_of(wanted, {"type": "object", **given}, endpoint_id=f"acme/{name}")
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
        assert call("endpoint", f"{name}.json").code == 0
    rows = "".join(f"{name},acme/{name},moon.jpg,a moon\n" for name in outputs)
    (tmp_path / "shots.csv").write_text(f"id,endpoint,image_url,prompt\n{rows}")
    said = call("run", "shots.csv", "--local", "--endpoint", "acme/caption", "-q")
    assert said.code == 0, said.err
    assert call("export", "shots.csv", "out.csv", "--local", "--endpoint", "acme/caption").code == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        found = {row["id"]: row for row in csv.DictReader(file)}
    assert {name: Path(row["result_path"]).suffix for name, row in found.items()} == {
        "caption": ".json", "score": ".json", "sound": ".wav", "mesh": ".glb", "picture": ".png",
    }  # fmt: skip
    for row in found.values():
        assert (tmp_path / row["result_path"]).is_file()
    caption = json.loads((tmp_path / found["caption"]["result_path"]).read_text())
    assert json.loads(found["caption"]["result_json"]) == caption
    assert found["caption"]["result_text"] == caption["output"]
    assert (found["score"]["result_text"], json.loads(found["score"]["result_json"]).keys()) == ("", {"score"})
    assert {found[name]["result_json"] for name in ("sound", "mesh", "picture")} == {""}


GLB = b"glTF" + (2).to_bytes(4, "little") + (20).to_bytes(4, "little") + bytes(8)


def archive() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("a.txt", "a")
    return made.getvalue()


@pytest.mark.parametrize(("whole", "hint"), [(GLB, "model/gltf-binary"), (archive(), "application/zip")])
def test_a_mesh_and_an_archive_that_were_cut_are_noticed(tmp_path: Path, whole: bytes, hint: str) -> None:
    path = tmp_path / "a.part"
    path.write_bytes(whole)
    verify(path, hint)
    path.write_bytes(whole[:-3])
    with pytest.raises(DownloadFailed, match="not a whole"):
        verify(path, hint)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(DownloadFailed, match="expected"):
        verify(path, f"{CDN}/a{'.glb' if whole is GLB else '.zip'}")


@pytest.mark.parametrize(
    ("head", "ref", "suffix"),
    [
        (archive(), FileRef(place="a", url=f"{CDN}/a.usdz"), ".usdz"),
        (archive(), FileRef(place="a", url=f"{CDN}/a", content_type="application/zip"), ".zip"),
        (b"1\n00:00", FileRef(place="a", url=f"{CDN}/a.srt", content_type="text/plain"), ".srt"),
        (b"solid", FileRef(place="a", url=f"{CDN}/a", file_name="a.stl"), ".stl"),
        (b"o cube", FileRef(place="a", url=f"{CDN}/a.bin", content_type="model/obj"), ".obj"),
        (GLB, FileRef(place="a", url=f"{CDN}/a.bin"), ".glb"),
        (b"?", FileRef(place="a", url=f"{CDN}/a"), ".bin"),
    ],
)
def test_a_file_gets_the_ending_of_what_it_is(head: bytes, ref: FileRef, suffix: str) -> None:
    assert suffix_for(ref, head[:32]) == suffix
