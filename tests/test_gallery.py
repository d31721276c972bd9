"""The gallery without a browser: what is written, what is in it, and the sheets that its logic makes, run again."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from test_cli import Call, call

from batch import endpoints, manifest
from batch.errors import InputError
from batch.export import Result
from batch.export.gallery import About, Gallery, SavedFile, Shown, write_gallery
from batch.export.gallery.posters import make_posters
from batch.jobs import Row

__all__ = ["call"]  # a fixture

IMAGES = Path(__file__).parents[1] / "manifests" / "images"
LOGIC = Path(__file__).parents[1] / "batch" / "export" / "gallery" / "logic.js"
HOSTILE = "</script><!-- <b>\u2028 ünï 🐈 \"quotes\" 'and' {{title}} & =1+1"

Make = Callable[..., Gallery]


def data_of(page: Path) -> dict[str, Any]:
    """The rows as the page has them."""
    text = page.read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    return dict(json.loads(found))


def clip(path: Path, *, shade: int = 128, frames: int = 25) -> Path:
    """A real film whose first frame is black, and all others are of one shade."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 192, "yuv420p"
        for number in range(frames):
            picture = np.full((192, 320, 3), shade if number else 0, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def saved(path: Path) -> SavedFile:
    return SavedFile(path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """The gallery of a sheet whose rows have these files; other rows are not planned."""

    def written(sheet: str, files: dict[str, Path] | None = None, *, out: Path | None = None, **result: str) -> Gallery:
        path = tmp_path / "shots.csv"
        path.write_text(sheet, encoding="utf-8")
        loaded = manifest.load(path)

        def shown(row: Row) -> Shown:
            file = (files or {}).get(row.stem)
            if file is None:
                return Shown(result=Result(state="not planned"))
            kept = saved(file) if file.is_file() else SavedFile(path=file, sha256="0" * 64)
            return Shown(result=Result(state="fetched", **result), files=(kept,))

        about = About(
            campaign=loaded.name,
            manifest=path,
            columns=loaded.columns,
            carried=loaded.carried,
            campaign_folder=tmp_path / "outputs",
            run="fal-batch run",
        )
        folder = tmp_path / "outputs" / "_gallery" if out is None else out
        return write_gallery(loaded.rows(), shown, endpoints.load, about, folder, progress=lambda done, total: None)

    return written


def sheet_of(*rows: str, header: str = "id,prompt,image_url") -> str:
    return "\n".join([header, *rows]) + "\n"


def sea(id: str = "sea", prompt: str = "waves") -> str:
    return f"{id},{prompt},https://example.com/{id}.jpg"


# --- what is written ---


def test_a_poster_is_the_middle_of_the_film_with_its_facts(tmp_path: Path) -> None:
    """The first frame is the picture that went in: all takes of a row would look alike."""
    film = clip(tmp_path / "a.mp4")
    found = make_posters({"ab" * 32: film}, tmp_path / "posters", lambda done, total: None)["ab" * 32]
    assert found.path is not None and found.is_new
    with Image.open(found.path) as image:
        assert image.size == (320, 192)
        assert abs(np.asarray(image).mean() - 128) < 8
    assert (found.facts.width, found.facts.height, found.facts.fps) == (320, 192, 25.0)
    assert found.facts.seconds == pytest.approx(1.0, abs=0.05)


def test_a_poster_that_is_there_is_kept_with_its_facts(tmp_path: Path) -> None:
    film = clip(tmp_path / "a.mp4")
    first = make_posters({"ab" * 32: film}, tmp_path / "posters", lambda done, total: None)["ab" * 32]
    film.write_bytes(b"")  # so that it could not be made again
    second = make_posters({"ab" * 32: film}, tmp_path / "posters", lambda done, total: None)["ab" * 32]
    assert (second.path, second.facts, second.is_new) == (first.path, first.facts, False)


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.mp3", "a.glb"])
def test_a_file_that_cannot_be_read_has_no_poster_and_is_no_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no such thing")
    found = make_posters({"ab" * 32: tmp_path / name}, tmp_path / "posters", lambda done, total: None)
    assert found["ab" * 32].path is None
    assert list((tmp_path / "posters").iterdir()) == []


def test_a_picture_that_lies_on_its_side_is_shown_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1200, 600)).save(tmp_path / "a.jpg", exif=exif)
    found = make_posters({"ab" * 32: tmp_path / "a.jpg"}, tmp_path / "posters", lambda done, total: None)["ab" * 32]
    assert (found.facts.width, found.facts.height) == (600, 1200)
    assert found.path is not None
    with Image.open(found.path) as image:
        assert image.size == (200, 400)


def test_what_stands_in_a_cell_cannot_leave_the_data(make: Make) -> None:
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    made = make(sheet_of(f"sea,{quoted},https://example.com/a.jpg,{quoted}", header="id,prompt,image_url,note"))
    text = made.path.read_text(encoding="utf-8")
    assert text.count("</script>") == 3
    (row,) = data_of(made.path)["rows"]
    assert (row["sent"]["prompt"], row["cells"]["note"]) == (HOSTILE, HOSTILE)


def test_the_page_names_no_address_outside_and_its_policy_allows_none(make: Make) -> None:
    text = make(sheet_of(sea())).path.read_text(encoding="utf-8")
    before_data = text.partition('id="data">')[0]
    assert not re.search(r"https?:|//[a-z]", before_data)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not re.search(r"unsafe|https?:|\*", policy)


@pytest.mark.parametrize("name", ["a b#1?.mp4", "100%.mp4", "c:d.mp4", "ünï 🐈.mp4", "deep/er/e.mp4"])
def test_a_file_is_found_whatever_its_name(make: Make, tmp_path: Path, name: str) -> None:
    film = clip(tmp_path / "outputs" / name)
    made = make(sheet_of(sea()), {"sea": film})
    ((file,),) = [row["files"] for row in data_of(made.path)["rows"]]
    assert file["href"].startswith("./../")
    from urllib.parse import unquote, urlsplit

    assert (made.path.parent / unquote(urlsplit(file["href"]).path)).samefile(film)


def test_a_gallery_elsewhere_has_the_files_beside_it(make: Make, tmp_path: Path) -> None:
    film = clip(tmp_path / "outputs" / "deep" / "sea.mp4")
    out = tmp_path / "elsewhere"
    for _ in range(2):
        made = make(sheet_of(sea()), {"sea": film}, out=out)
    ((file,),) = [row["files"] for row in data_of(made.path)["rows"]]
    assert file["href"] == "./files/deep/sea.mp4"
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.mp4")) == ["files/deep/sea.mp4"]
    assert (out / "files" / "deep" / "sea.mp4").samefile(film)


def test_another_file_of_that_name_elsewhere_is_never_replaced(make: Make, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    make(sheet_of(sea()), {"sea": clip(tmp_path / "outputs" / "sea.mp4")}, out=out)
    (tmp_path / "outputs" / "sea.mp4").unlink()
    other = clip(tmp_path / "outputs" / "sea.mp4", shade=40, frames=50)
    before = (out / "files" / "sea.mp4").read_bytes()
    made = make(sheet_of(sea()), {"sea": other}, out=out)
    ((file,),) = [row["files"] for row in data_of(made.path)["rows"]]
    assert (out / "files" / "sea.mp4").read_bytes() == before
    assert (out / file["href"]).samefile(other)


@pytest.mark.parametrize("there", ["mine.txt", "index.html"])
def test_a_folder_with_anything_else_in_it_is_refused(make: Make, tmp_path: Path, there: str) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / there).write_text("mine")
    with pytest.raises(InputError, match="holds no earlier gallery"):
        make(sheet_of(sea()), out=out)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(there, "mine")]


def test_a_file_is_no_folder(make: Make, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="is a file; name a folder"):
        make(sheet_of(sea()), out=tmp_path / "mine")


def test_a_saved_file_that_is_gone_is_told(make: Make, tmp_path: Path) -> None:
    made = make(sheet_of(sea()), {"sea": tmp_path / "outputs" / "gone.mp4"})
    assert made.missing == 1
    assert data_of(made.path)["rows"][0]["files"] == [{"name": "gone.mp4", "kind": "video", "is_missing": True}]


def test_a_result_that_replaces_another_has_no_pick_yet(make: Make, tmp_path: Path) -> None:
    """A pick is about what was seen."""
    first = make(sheet_of(sea()), {"sea": clip(tmp_path / "outputs" / "a.mp4")})
    before = data_of(first.path)["rows"][0]["pick"]
    second = make(sheet_of(sea()), {"sea": clip(tmp_path / "outputs" / "b.mp4", shade=40)})
    assert data_of(second.path)["rows"][0]["pick"] != before


def test_a_picture_inside_a_cell_does_not_fill_the_page_and_is_not_asked_for_again(make: Make) -> None:
    import base64

    content = io.BytesIO()
    Image.effect_noise((400, 400), 90).save(content, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
    made = make(sheet_of(f'sea,waves,"{uri}"'))
    assert len(uri) > 100_000 > made.path.stat().st_size
    (row,) = data_of(made.path)["rows"]
    assert row["again"] is None
    assert row["sent"]["image_url"].endswith(f"… ({len(uri):,} characters)")


def test_a_long_answer_is_cut_for_the_page_far_down(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "outputs" / "sea.json"
    path.parent.mkdir()
    path.write_text("{}")
    made = make(sheet_of(sea()), {"sea": path}, text="word " * 100_000)
    data = data_of(made.path)
    text = data["rows"][0]["result"][data["result_columns"].index("result_text")]
    assert len(text) < 21_000
    assert text.endswith("word … (500,000 characters)")


# --- the logic, without a browser ---


def logic(expression: str, data: object = None, picks: object = None) -> Any:
    """What an expression over `G`, `data` and `picks` comes to under Node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node here")
    program = f"const G = require({json.dumps(str(LOGIC))}); let text = '';"
    program += "process.stdin.on('data', (d) => text += d).on('end', () => { const { data, picks } = JSON.parse(text);"
    program += f"process.stdout.write(JSON.stringify({expression})); }});"
    given = json.dumps({"data": data, "picks": picks})
    done = subprocess.run([node, "-e", program], input=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lines(text: str) -> list[dict[str, str]]:
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text[1:], newline="")))


def test_filters_and_search_go_together(make: Make) -> None:
    rows = (
        "a,Waves roll,https://e.com/a.jpg,calm",
        "b,waves break,https://e.com/b.jpg,wild",
        "c,dunes,https://e.com/c.jpg,",
    )
    data = data_of(make(sheet_of(*rows, header="id,prompt,image_url,mood")).path)
    picks = {data["rows"][0]["pick"]: "keep"}
    for query, filters, expected in [
        ("", {}, ["a", "b", "c"]),
        ("WAVES", {}, ["a", "b"]),
        ("waves wild", {}, ["b"]),
        ("", {"col.mood": "="}, ["c"]),
        ("", {"col.mood": "=calm"}, ["a"]),
        ("", {"col.mood": "all"}, ["a", "b", "c"]),
        ("", {"col.image_url": "~E.COM/B"}, ["b"]),
        ("", {"picked": "=keep"}, ["a"]),
        ("dunes", {"picked": "=none", "state": "=not planned"}, ["c"]),
    ]:
        fits = f"G.fits(data, row, G.haystack(data, row), picks, {json.dumps(query)}, {json.dumps(filters)})"
        assert logic(f"data.rows.filter((row) => {fits}).map((row) => row.id)", data, picks) == expected, (
            query,
            filters,
        )


@pytest.mark.parametrize(
    ("text", "result", "said"),
    [
        ("a cat", {"output": "a cat"}, "a cat"),
        ("", {"score": 0.5, "tags": ["a", "b"]}, 'score: 0.5\ntags: ["a","b"]'),
        ("", ["a"], "0: a"),
        ("", "a", "a"),
        ("", None, ""),
    ],
)
def test_what_came_back_is_said_in_words_or_in_parts(text: str, result: Any, said: str) -> None:
    given = "" if result is None else json.dumps(result)
    data = {"result_columns": ["result_text", "result_json"], "rows": [{"result": [text, given]}]}
    assert logic("G.said(data, data.rows[0])", data) == said


def test_models_are_called_by_what_differs() -> None:
    def names(*ids: str) -> list[str]:
        return list(logic(f"[...G.modelNames({json.dumps(ids)}).values()]"))

    assert names("fal-ai/seedance/v1/fast/image-to-video", "fal-ai/seedance/v1/lite/image-to-video") == ["fast", "lite"]
    assert names("fal-ai/kling/pro/image-to-video", "fal-ai/veo/image-to-video") == ["kling/pro", "veo"]
    assert names("fal-ai/flux/dev") == ["flux/dev"]
    assert names("fal-ai/flux/dev", "fal-ai/flux/dev/plus") == ["dev", "dev/plus"]


def test_results_of_one_row_are_told_apart_by_their_axes_and_takes(make: Make, tmp_path: Path) -> None:
    data = data_of(make(sheet_of(sea() + ",2", sea("sky") + ",", header="id,prompt,image_url,takes")).path)
    told = logic("G.groups(data.rows).map((group) => G.labels(data, group, new Map()))", data)
    assert told == [["take 1", "take 2"], [""]]


def test_what_is_kept_comes_out_as_an_export_has_it(make: Make, tmp_path: Path) -> None:
    film = clip(tmp_path / "outputs" / "sea.mp4")
    made = make(sheet_of(sea(prompt='"a ""wave"", one"'), sea("sky")), {"sea": film}, error="=1+1", path="o/sea.mp4")
    data = data_of(made.path)
    (line,) = lines(logic("G.keptSheet(data, picks)", data, {data["rows"][0]["pick"]: "keep"}))
    assert list(line)[:5] == ["id", "prompt", "image_url", "result_state", "result_path"]
    assert (line["id"], line["prompt"], line["result_path"]) == ("sea", 'a "wave", one', "o/sea.mp4")
    assert line["result_error"] == "'=1+1"


def test_what_is_asked_for_again_is_the_same_with_another_seed(make: Make, tmp_path: Path) -> None:
    sheet = sheet_of("sea,waves,https://e.com/a.jpg,9,calm,2", header="id,prompt,image_url,duration,mood,takes")
    data = data_of(make(sheet).path)
    picks = {row["pick"]: "again" for row in data["rows"]}
    texts = [logic("G.againSheet(data, picks)", data, picks) for _ in range(2)]
    assert texts[0] == texts[1], "saved twice it asks for the same"
    out = tmp_path / "shots-again.csv"
    out.write_text(texts[0], encoding="utf-8", newline="")
    first = {row.stem: row for row in manifest.load(tmp_path / "shots.csv").rows()}
    again = {row.id: row for row in manifest.load(out).rows()}
    assert set(again) == {"sea-1-again1", "sea-2-again1"}
    for stem, row in first.items():
        other = again[f"{stem}-again1"]
        assert other.job.take == 1 and other.cells["mood"] == "calm"
        assert {**other.job.input, "seed": None} == {**row.job.input, "seed": None}
    assert len({row.job.input["seed"] for row in (*first.values(), *again.values())}) == 4


KLING = "fal-ai/kling-video/v2.5-turbo/pro/image-to-video"
FLUX = "fal-ai/flux/dev"


def test_where_a_model_takes_no_seed_another_take_is_asked_for(make: Make, tmp_path: Path) -> None:
    """Two of the three takes are picked: the new sheet has the three that are known and two more."""
    header = "id,endpoint,prompt,image_url,takes"
    data = data_of(make(sheet_of(f"cat,{KLING},it runs,https://e.com/a.jpg,3", header=header)).path)
    picks = {row["pick"]: "again" for row in data["rows"][:2]}
    out = tmp_path / "shots-again.csv"
    out.write_text(logic("G.againSheet(data, picks)", data, picks), encoding="utf-8", newline="")
    first = [row.job.key for row in manifest.load(tmp_path / "shots.csv").rows()]
    again = [row.job.key for row in manifest.load(out).rows()]
    assert (len(first), len(again)) == (3, 5)
    assert again[:3] == first


def test_a_field_that_came_in_parts_goes_out_whole(make: Make, tmp_path: Path) -> None:
    """In a sheet of several models its columns are some rows' fields, and carried along in the others."""
    header = "id,endpoint,prompt,image_url,image_size.width,image_size.height,note"
    rows = (f"a,{FLUX},a poster,,640,384,x", f"b,{KLING},it runs,https://e.com/a.jpg,,,y")
    data = data_of(make(sheet_of(*rows, header=header)).path)
    out = tmp_path / "shots-again.csv"
    picks = {row["pick"]: "again" for row in data["rows"]}
    out.write_text(logic("G.againSheet(data, picks)", data, picks), encoding="utf-8", newline="")
    assert [row.cells["note"] for row in manifest.load(out).rows()] == ["x", "y", "y"]
    first = next(iter(manifest.load(out).rows()))
    assert first.job.input["image_size"] == {"width": 640, "height": 384}


def test_a_command_line_is_shown_as_it_can_be_typed() -> None:
    names = ["shots-again.csv", "a folder/shots.csv", 'a"$b`.csv']
    assert logic(f"{json.dumps(names)}.map(G.typed)") == [
        "shots-again.csv",
        '"a folder/shots.csv"',
        '"a\\"\\$b\\`.csv"',
    ]


def test_again_of_an_again_counts_on(make: Make) -> None:
    data = data_of(make(sheet_of(sea("cat-again1"), sea("cat"))).path)
    assert [row["again"]["id"] for row in data["rows"]] == ["cat-again2", "cat-again3"]


def test_a_picture_beside_the_sheet_is_named_from_there(make: Make, tmp_path: Path) -> None:
    shutil.copy(IMAGES / "moon.jpg", tmp_path / "the moon.jpg")
    data = data_of(make(sheet_of("moon,it rises,the moon.jpg")).path)
    text = logic("G.againSheet(data, picks)", data, {data["rows"][0]["pick"]: "again"})
    assert lines(text)[0]["image_url"] == "the moon.jpg"
    assert data["rows"][0]["sources"] == [f"./posters/{saved(tmp_path / 'the moon.jpg').sha256[:32]}.jpg"]


# --- the whole way ---


def test_what_is_picked_again_is_run_and_paid_for_alone(call: Call, tmp_path: Path) -> None:
    """A campaign with everything that a plain sheet does not know: columns, defaults, templates, a matrix."""
    (tmp_path / "in").mkdir()
    shutil.copy(IMAGES / "moon.jpg", tmp_path / "in" / "moon.jpg")
    (tmp_path / "in" / "shots.csv").write_text("id,picture,subject\nmoon,moon.jpg,the moon\n")
    (tmp_path / "nights.yaml").write_text(
        "rows: in/shots.csv\ncolumns: {picture: image_url}\nset: {prompt: '{subject}, camera {move}'}\n"
        "matrix: {move: [zooms in, pans left]}\ndefaults: {duration: 2, resolution: 480p}\n"
    )
    assert call("run", "nights.yaml", "--local", "-q").code == 0
    made = json.loads(call("gallery", "nights.yaml", "--local", "--json").out)
    assert (made["rows"], made["saved"], made["posters_new"]) == (2, 2, 3)
    assert json.loads(call("gallery", "nights.yaml", "--local", "--json").out)["posters_new"] == 0
    data = data_of(Path(made["path"]))
    picked = data["rows"][1]
    assert picked["stem"] == "moon-pans left"
    (tmp_path / "nights-again.csv").write_text(
        logic("G.againSheet(data, picks)", data, {picked["pick"]: "again"}), encoding="utf-8", newline=""
    )
    for submitted in (1, 0):
        done = json.loads(call("run", "nights-again.csv", "--local", "--json", "-q").out)
        assert (done["submitted"], done["fetched"], done["exit_code"]) == (submitted, 1, 0)
    (job,) = json.loads(call("jobs", "nights-again.csv", "--local", "--json").out)
    assert job["row_id"] == "moon-pans left-again1"
    assert job["seed"] != int(picked["sent"]["seed"])
