"""A manifest becomes rows with jobs, or every issue at once, each at the cell a spreadsheet program shows."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from batch import jobs, manifest
from batch.endpoints import DEFAULT_ENDPOINT, load
from batch.errors import InputError, ManifestError
from batch.export import Result, write_sheet
from batch.jobs import Row
from batch.manifest.report import ISSUES_KEPT_MAX
from batch.manifest.sheets.delimited import CHUNK_ROWS
from batch.seen import Seen

MANIFESTS = Path(__file__).parent.parent / "manifests"
URL = "https://example.com/cat.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two real photographs in `images/`."""
    (tmp_path / "images").mkdir()
    for name in ("moon.jpg", "chelsea.jpg"):
        shutil.copy(MANIFESTS / "images" / name, tmp_path / "images" / name)
    return tmp_path


@pytest.fixture
def rows_of(folder: Path) -> Callable[..., list[Row]]:
    """Writes a manifest into the folder and reads its rows."""

    def read(text: str, name: str = "shots.csv", **options: object) -> list[Row]:
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return list(manifest.load(path, **options).rows())  # type: ignore[arg-type]

    return read


@pytest.fixture
def issues_of(rows_of: Callable[..., list[Row]]) -> Callable[..., list[str]]:
    """The issues of a manifest as text."""

    def read(text: str, name: str = "shots.csv", **options: object) -> list[str]:
        with pytest.raises(ManifestError) as caught:
            rows_of(text, name, **options)
        return [str(issue) for issue in caught.value.issues]

    return read


Rows = Callable[..., list[Row]]
Issues = Callable[..., list[str]]


# Cells become jobs.


def test_the_demonstration_uses_every_photograph_and_every_move() -> None:
    rows = list(manifest.load(MANIFESTS / "demo.yaml").rows())
    moves = {"pans left", "pans right", "tilts up", "tilts down", "zooms in", "zooms out", "static"}
    assert {row.cells["move"] for row in rows} - {""} == moves
    assert len({row.job.files[0].sha256 for row in rows}) == len(list((MANIFESTS / "images").glob("*.jpg"))) == 8
    assert {(row.job.input["resolution"], row.job.input["duration"]) for row in rows} == {("480p", "2")}
    assert len({row.job.key for row in rows}) == len(rows) == 10


def test_a_row_becomes_a_job_with_what_its_cells_say(rows_of: Rows, folder: Path) -> None:
    (row,) = rows_of("id,prompt,image_url,duration,camera_fixed,mood\na,a cat,images/moon.jpg,5.0,yes,calm\n")
    (file,) = row.job.files
    assert file.path == folder / "images" / "moon.jpg"
    assert (file.media_type, file.size_bytes) == ("image/jpeg", file.path.stat().st_size)
    wanted = {"prompt": "a cat", "image_url": {"$file": file.sha256}, "duration": "5", "camera_fixed": True}
    key, input, _ = jobs.seeded(DEFAULT_ENDPOINT, wanted, 1, seed_field="seed")
    assert (row.job.key, row.job.input, row.job.endpoint, row.job.take) == (key, input, DEFAULT_ENDPOINT, 1)
    assert (row.id, row.address, row.position, row.stem) == ("a", "shots.csv:2", 1, "a")
    assert dict(row.cells) == {
        "id": "a", "prompt": "a cat", "image_url": "images/moon.jpg",
        "duration": "5.0", "camera_fixed": "yes", "mood": "calm",
    }  # fmt: skip


def test_the_price_counts_with_the_shape_of_the_image(rows_of: Rows) -> None:
    square, wide = rows_of(
        "prompt,image_url,resolution\nx,images/moon.jpg,480p\nx,images/chelsea.jpg,480p\n"
    )  # 640 x 640 and 736 x 544, 121 frames
    assert (square.job.price_micros, wide.job.price_micros) == (49_368, 48_258)


def test_an_empty_cell_is_not_set(rows_of: Rows) -> None:
    bare, empty = rows_of(f"id,prompt,image_url,seed,duration\na,x,{URL},,\nb,x,{URL},  ,\n")
    assert set(bare.job.input) == {"prompt", "image_url", "seed"}
    assert bare.job == empty.job


def test_writing_the_derived_seed_or_minus_one_into_the_sheet_changes_nothing(rows_of: Rows) -> None:
    (row,) = rows_of(f"id,prompt,image_url,seed\na,x,{URL},\n")
    seed = row.job.input["seed"]
    again = rows_of(f"id,prompt,image_url,seed\na,x,{URL},{seed}.0\nb,x,{URL},-1\nc,x,{URL},7\n")
    assert [other.job.key == row.job.key for other in again] == [True, True, False]


def test_a_moved_image_of_the_same_bytes_is_the_same_job(rows_of: Rows, folder: Path) -> None:
    shutil.copy(folder / "images" / "moon.jpg", folder / "other.jpg")
    first, second = rows_of("id,prompt,image_url\na,x,images/moon.jpg\nb,x,other.jpg\n")
    assert first.job.key == second.job.key


def test_without_an_id_rows_are_known_by_what_they_say(rows_of: Rows) -> None:
    first = rows_of(f"prompt,image_url\nx,{URL}\ny,{URL}\nx,{URL}\n")
    turned = rows_of(f"image_url,prompt\n{URL},y\n{URL},x\n{URL},x\n")
    a, b, a_again = (row.id for row in first)
    assert [row.id for row in turned] == [b, a, a_again]
    assert (len(a), a_again) == (12, f"{a}-2")


def test_an_id_may_be_missing_from_single_rows(rows_of: Rows) -> None:
    named, unnamed = rows_of(f"id,prompt,image_url\na,x,{URL}\n,x,{URL}\n")
    assert (named.id, len(unnamed.id)) == ("a", 12)


def test_takes_are_jobs_of_the_same_row_with_their_own_seeds_and_names(rows_of: Rows) -> None:
    rows = rows_of(f"id,prompt,image_url,takes\na,x,{URL},3\nb,x,{URL},\n")
    assert [(row.id, row.job.take, row.position, row.stem) for row in rows] == [
        ("a", 1, 1, "a-1"),
        ("a", 2, 2, "a-2"),
        ("a", 3, 3, "a-3"),
        ("b", 1, 4, "b"),
    ]
    assert len({row.job.input["seed"] for row in rows}) == 3
    assert rows[0].job.key == rows[3].job.key


def test_result_columns_of_an_earlier_export_are_ignored(rows_of: Rows) -> None:
    (row,) = rows_of(f"id,prompt,image_url,result_seed,result_stat\na,x,{URL},5,odd\n")
    assert list(row.cells) == ["id", "prompt", "image_url"]


def test_each_row_may_name_its_endpoint(rows_of: Rows, folder: Path) -> None:
    document = (Path(manifest.__file__).parent.parent / "endpoints" / "data").glob("fal-ai*.json")
    (folder / "acme__still.json").write_text(next(document).read_text().replace(DEFAULT_ENDPOINT, "acme/still"))
    rows = rows_of(f"prompt,image_url,endpoint\nx,{URL},acme/still\nx,{URL},\n", pinned_dir=folder)
    assert [row.job.endpoint for row in rows] == ["acme/still", DEFAULT_ENDPOINT]
    assert rows[0].job.price_micros is None


def test_input_dot_name_is_the_field_of_that_name(rows_of: Rows) -> None:
    (row,) = rows_of(f"id,input.prompt,image_url\na,x,{URL}\n")
    assert row.job.input["prompt"] == "x"


@pytest.mark.parametrize(
    ("template", "stem"),
    [
        ("{id}-{seed}", "a-7"),
        ("{mood}_{resolution}.mp4", "very-calm_1080p"),
        ("clips/{id}", "clips/a"),
        ("{seed}", "7"),
        ("{duration}s", "5s"),
    ],
)
def test_output_templates_take_columns_and_fields(rows_of: Rows, template: str, stem: str) -> None:
    (row,) = rows_of(f"id,prompt,image_url,seed,mood,output\na,x,{URL},7,very/calm,{template}\n")
    assert row.stem == stem


def test_takes_never_share_a_name(rows_of: Rows) -> None:
    text = "id,prompt,image_url,seed,takes,output\n"
    rows = rows_of(
        text + f"a,x,{URL},7,2,{{id}}-{{seed}}\nb,x,{URL},,2,{{id}}-{{seed}}\nc,x,{URL},,2,{{take}}of{{id}}\n"
    )
    assert [row.stem for row in rows[:2]] == ["a-7-1", "a-7-2"]
    assert [row.stem for row in rows[2:4]] == [f"b-{row.job.input['seed']}" for row in rows[2:4]]
    assert [row.stem for row in rows[4:]] == ["1ofc", "2ofc"]


# Addresses.


def test_rows_have_the_numbers_a_spreadsheet_program_shows(rows_of: Rows) -> None:
    text = f'id,prompt,image_url\r\na,x,{URL}\r\n\r\nb,"two\r\nlines",{URL}\r\n,,\r\n   \r\nc,x,{URL}\r\n\r\n'
    rows = rows_of(text)
    assert [(row.id, row.address) for row in rows] == [("a", "shots.csv:2"), ("b", "shots.csv:4"), ("c", "shots.csv:7")]
    assert rows[1].job.input["prompt"] == "two\r\nlines"


def test_addresses_go_on_right_beyond_a_chunk_and_a_row_that_is_too_long(issues_of: Issues) -> None:
    good = f"x,{URL},\n" * (CHUNK_ROWS + 10)
    long = "a cat, sitting, on, a, mat\n"
    issues = issues_of("prompt,image_url,duration\n" + good + long + f"x,{URL},13\n")
    assert issues == [
        f"shots.csv:{CHUNK_ROWS + 12}: has more cells than the header; a comma inside a cell needs quotes round it",
        f"shots.csv:{CHUNK_ROWS + 13} duration: '13' is not one of 2 … 12",
    ]


def test_a_row_one_cell_too_long_is_an_issue_and_trailing_commas_are_none(rows_of: Rows, issues_of: Issues) -> None:
    assert len(rows_of(f"prompt,image_url,\nx,{URL},\ny,{URL},,,\n")) == 2
    assert issues_of(f"prompt,image_url\nx,{URL},oops\n") == [
        "shots.csv:2: has more cells than the header; a comma inside a cell needs quotes round it"
    ]
    assert issues_of(f"prompt,,image_url\nx,oops,{URL}\n") == [
        "shots.csv:2: 'oops' stands in column 2, which has no name in the header"
    ]


def test_semicolons_and_a_byte_order_mark_are_read(rows_of: Rows) -> None:
    (row,) = rows_of(f"\ufeffid;prompt;image_url\na;x, y;{URL}\n")
    assert (row.id, row.job.input["prompt"]) == ("a", "x, y")


def test_a_price_that_is_given_is_that_of_every_job(folder: Path) -> None:
    second_model(folder)
    (folder / "shots.csv").write_text(f"prompt,image_url,endpoint\nx,{URL},acme/still\nx,{URL},\n")
    loaded = manifest.load(folder / "shots.csv", pinned_dir=folder, price_micros=70_000)
    assert [row.job.price_micros for row in loaded.rows()] == [70_000, 70_000]


def test_a_manifest_says_what_its_rows_are_and_how_many_combinations_each_has(folder: Path) -> None:
    (folder / "n.yaml").write_text(
        'rows: images/*.jpg\nset: {prompt: "{move}"}\nmatrix: {move: [a, b, c], seed: [1, 2]}\ntakes: 2\n'
    )
    loaded = manifest.load(folder / "n.yaml")
    rows = list(loaded.rows())
    assert (loaded.unit, loaded.combinations, rows[-1].number, len(rows)) == ("picture", 6, 2, 24)
    assert sorted({row.number for row in rows}) == [1, 2]
    (folder / "shots.csv").write_text(f"prompt,image_url\nx,{URL}\n")
    assert (manifest.load(folder / "shots.csv").unit, manifest.load(folder / "shots.csv").combinations) == ("row", 1)


# Issues.


def test_all_issues_come_together_each_at_its_cell(issues_of: Issues) -> None:
    issues = issues_of(
        "id,prompt,image_url,duration,resolution,seed,camera_fixed,takes,output\n"
        f"a,x,{URL},13,480p,,,,\n"
        f"a,,images/mon.jpg,5,720,1.5,perhaps,0,\n"
        f"c,x,{URL},5,480p,,,,{{shot}}\n"
    )
    needs = f"{DEFAULT_ENDPOINT} needs it"
    assert [issue.partition(";")[0] for issue in issues] == [
        "shots.csv:2 duration: '13' is not one of 2 … 12",
        "shots.csv:3 id: 'a' is also the id of shots.csv:2",
        f"shots.csv:3 prompt: is empty, and {needs}",
        "shots.csv:3 image_url: 'images/mon.jpg' does not exist (did you mean 'moon.jpg'?)",
        "shots.csv:3 resolution: '720' is not one of 480p, 720p, 1080p (did you mean '720p'?)",
        "shots.csv:3 seed: '1.5' is not a whole number",
        "shots.csv:3 camera_fixed: 'perhaps' is not true or false (yes and no, 1 and 0 will do)",
        "shots.csv:3 takes: '0' is not a whole number from 1 to 1000",
        "shots.csv:4 output: '{shot}' names {shot}, which is neither a column nor a field",
    ]


def test_rows_stop_at_the_first_issue_and_reading_goes_on(folder: Path) -> None:
    path = folder / "shots.csv"
    path.write_text(f"id,prompt,image_url,seed\na,x,{URL},\nb,x,{URL},x\nc,x,{URL},\nd,x,{URL},y\n")
    rows = manifest.load(path).rows()
    assert next(rows).id == "a"
    with pytest.raises(ManifestError) as caught:
        next(rows)
    assert [issue.address for issue in caught.value.issues] == ["shots.csv:3", "shots.csv:5"]


def test_a_bounded_number_of_issues_is_kept_and_all_are_counted(folder: Path) -> None:
    path = folder / "shots.csv"
    path.write_text("prompt,image_url,duration\n" + f"x,{URL},13\n" * (ISSUES_KEPT_MAX + 5))
    with pytest.raises(ManifestError) as caught:
        list(manifest.load(path).rows())
    assert (len(caught.value.issues), caught.value.count) == (ISSUES_KEPT_MAX, ISSUES_KEPT_MAX + 5)


@pytest.mark.parametrize("column", ["Prompt", "promt", "prompts", "PROMPT "])
def test_a_column_nearly_named_like_a_field_is_an_issue_once(issues_of: Issues, column: str) -> None:
    name = column.strip()
    assert issues_of(f"{column},image_url\nx,{URL}\ny,{URL}\n") == [
        f"shots.csv:1 {name}: did you mean 'prompt'? Rename the column, "
        f"or keep it as your own by `carry: [{name}]` or --carry {name}"
    ]


def test_a_carried_column_may_be_named_like_anything(rows_of: Rows) -> None:
    text = f"prompt,image_url,promt,seed,mood\nx,{URL},a,b,c\n"
    (row,) = rows_of(text, carry=("promt", "seed"))
    assert row.cells["seed"] == "b"
    assert row.job.input["seed"] != "b"


def test_carried_columns_are_listed(folder: Path) -> None:
    path = folder / "shots.csv"
    path.write_text(f"id,prompt,mood,image_url,result_state\na,x,calm,{URL},\n")
    loaded = manifest.load(path)
    assert (loaded.columns, loaded.carried) == (("id", "prompt", "mood", "image_url"), ("mood",))


def test_a_required_field_that_nobody_fills_is_one_issue_with_a_hint(issues_of: Issues) -> None:
    (issue,) = issues_of("prompt,image\n" + "x,images/moon.jpg\n" * 3)
    assert issue.startswith("shots.csv:1 image_url: no column and no default fills it")
    assert "columns: {image: image_url}" in issue


def test_two_columns_of_one_name_or_for_one_field_are_an_issue(issues_of: Issues) -> None:
    assert issues_of(f"prompt,image_url,mood,mood\nx,{URL},a,b\n") == [
        "shots.csv:1 mood: is the name of two columns; rename or remove one"
    ]
    (issue,) = issues_of(f"prompt,input.prompt,image_url\nx,y,{URL}\n")
    assert issue == "shots.csv:1 input.prompt: and column 'prompt' are both to be prompt; keep one of them"


def test_an_unknown_endpoint_in_a_cell_is_an_issue_there(issues_of: Issues) -> None:
    (issue,) = issues_of(f"prompt,image_url,endpoint\nx,{URL},acme/nothing\n")
    assert issue.startswith("shots.csv:2 endpoint: no OpenAPI document is known for 'acme/nothing'")


def test_sync_mode_is_refused_because_it_leaves_no_history(folder: Path, issues_of: Issues) -> None:
    text = next((Path(manifest.__file__).parent.parent / "endpoints" / "data").glob("fal-ai*.json")).read_text()
    text = text.replace(DEFAULT_ENDPOINT, "acme/still").replace('"camera_fixed"', '"sync_mode"')
    (folder / "acme__still.json").write_text(text)
    (issue,) = issues_of(
        f"prompt,image_url,sync_mode\nx,{URL},true\ny,{URL},false\n", endpoint="acme/still", pinned_dir=folder
    )
    assert issue.startswith("shots.csv:2 sync_mode: true leaves no trace")


# Files.


def damaged(folder: Path) -> None:
    (folder / "text.jpg").write_text("not a picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.jpg").write_bytes((folder / "images" / "moon.jpg").read_bytes()[:15_000])
    Image.new("RGB", (300, 400)).save(folder / "small.png")
    Image.new("RGB", (1000, 350)).save(folder / "wide.png")
    Image.new("RGB", (400, 400)).save(folder / "other.ppm")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("text.jpg", "is text, not an image"),
        ("empty.png", "is an empty file"),
        ("cut.jpg", "is a damaged image"),
        ("small.png", "300 x 400 pixels: each side must be over 300"),
        ("wide.png", "width / height is 2.86"),
        ("other.ppm", "is not a format that the model takes"),
        ("images", "is a folder; name one file in it"),
        ("nothing.jpg", "does not exist"),
        ("s3://bucket/cat.png", "http and https only"),
        ("https://", "is not a whole URL"),
        ("https://example.com/a cat.png", "write it as %20: 'https://example.com/a%20cat.png'"),
        ("data:image/PNG;base64,AAAA", "in lower case"),
        ("data:image/png;base64,@@@@", "is not well-formed base64"),
        ("data:image/png,AAAA", "is not a data URI"),
        ("data:text/plain;base64,AAAA", "an image is needed"),
        ("data:image/png;base64,AAAA", "is not an image that can be read"),
    ],
)
def test_a_file_that_fal_would_refuse_is_an_issue(folder: Path, issues_of: Issues, cell: str, words: str) -> None:
    damaged(folder)
    (issue,) = issues_of(f'prompt,image_url\nx,"{cell}"\n')
    assert issue.startswith("shots.csv:2 image_url: ")
    assert words in issue


def test_urls_and_data_uris_pass_through(rows_of: Rows, folder: Path) -> None:
    content = base64.b64encode((folder / "images" / "moon.jpg").read_bytes()).decode()
    uri = f"data:image/jpeg;base64,{content}"
    url, data, local = rows_of(f'prompt,image_url\nx,{URL}?a=1\nx,"{uri}"\nx,images/moon.jpg\n')
    assert (url.job.input["image_url"], url.job.files) == (f"{URL}?a=1", ())
    assert (data.job.input["image_url"], data.job.files) == (uri, ())
    assert data.job.key == local.job.key  # the same bytes


def test_absolute_paths_work(rows_of: Rows, folder: Path) -> None:
    (row,) = rows_of(f"prompt,image_url\nx,{folder / 'images' / 'moon.jpg'}\n")
    assert row.job.files[0].path == folder / "images" / "moon.jpg"


def test_a_path_is_relative_to_the_sheet_it_stands_in_wherever_the_campaign_lies(folder: Path, tmp_path: Path) -> None:
    (folder / "shots.csv").write_text("prompt,image_url\nx,images/moon.jpg\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "campaign.yaml").write_text("rows: ../shots.csv\n")
    loaded = manifest.load(elsewhere / "campaign.yaml")
    (row,) = loaded.rows()
    assert row.job.files[0].path == folder / "images" / "moon.jpg"
    assert loaded.sources == (elsewhere / "campaign.yaml", elsewhere / ".." / "shots.csv")


# Files that cannot be read as a manifest at all.


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("shots.csv", b"", "is empty"),
        ("shots.csv", b"\n\n", "holds nothing but blanks"),
        ("shots.csv", b",,\nprompt,image_url\n", "row 1 is blank"),
        ("shots.csv", b"prompt,image_url\n", "no row follows"),
        ("shots.csv", b"prompt,image_url\n\n,\n", "no row follows"),
        ("shots.csv", b'prompt,image_url\nx,y\n"open,y\n', "shots.csv:3: a quotation mark opens in this row"),
        ("shots.xlsx", b"PK", "is no Excel workbook, or a damaged one"),
        ("shots.ods", b"PK", "Save the sheet as .xlsx or CSV"),
        ("shots", b"prompt", "without a suffix"),
        ("shots.yaml", b"rows: nothing.csv\n", "nothing.csv does not exist"),
        ("shots.yaml", b"rows: .\n", "is a folder"),
        ("shots.yaml", b"rows: [\n", "is not YAML"),
        ("shots.yaml", b"- a\n- b\n", "is not a campaign"),
        ("shots.yaml", b"", "is empty"),
        ("shots.yaml", b"# nothing yet\n", "is not a campaign"),
        ("shots.yaml", b"rows: &a [*a]\n", "shots.yaml:1 rows: a row is a mapping"),
        ("shots.yaml", b"rows: [{image_url: &a [*a]}]\n", "holds itself"),
        ("shots.yaml", b"name: a/b\nrows: [{prompt: x}]\n", "cannot be the name of a campaign"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(manifest.load(path).rows())
    assert words in str(caught.value)


def test_a_missing_manifest_is_refused_with_the_name_that_was_meant(folder: Path) -> None:
    (folder / "shots.csv").write_text("prompt\n")
    with pytest.raises(InputError, match=r"does not exist; did you mean .*shots\.csv"):
        manifest.load(folder / "shot.csv")
    with pytest.raises(InputError, match="is a folder"):
        manifest.load(folder)


# Campaigns.


def test_a_campaign_maps_columns_and_fills_empty_cells(rows_of: Rows, folder: Path) -> None:
    (folder / "shots.csv").write_text("id,text,image,duration\na,x,images/moon.jpg,\nb,y,images/moon.jpg,3\n")
    campaign = (
        "name: night\nrows: shots.csv\ncolumns: {image: image_url, text: prompt}\n"
        'defaults: {resolution: 480p, duration: 5.0, aspect_ratio: 16:9, camera_fixed: no}\noutput: "{id}-x"\n'
    )
    first, second = rows_of(campaign, "night.yaml")
    assert {name: first.job.input[name] for name in ("prompt", "resolution", "duration", "aspect_ratio")} == {
        "prompt": "x", "resolution": "480p", "duration": "5", "aspect_ratio": "16:9",
    }  # fmt: skip
    assert first.job.input["camera_fixed"] is False
    assert second.job.input["duration"] == "3"
    assert [row.stem for row in (first, second)] == ["a-x", "b-x"]
    assert first.address == "shots.csv:2"


def test_a_campaign_may_list_its_rows(rows_of: Rows) -> None:
    campaign = (
        "rows:\n"
        "  - {id: 1, prompt: yes, image_url: images/moon.jpg, aspect_ratio: 16:9, mood: 2024-01-01}\n"
        "  - id: 2\n"
        "    prompt: 5.0\n"
        "defaults: {image_url: images/chelsea.jpg}\n"
        "takes: 2\n"
    )
    rows = rows_of(campaign, "night.yaml")
    assert [(row.id, row.address, row.job.take) for row in rows] == [
        ("1", "night.yaml:2", 1), ("1", "night.yaml:2", 2), ("2", "night.yaml:3", 1), ("2", "night.yaml:3", 2),
    ]  # fmt: skip
    assert (rows[0].job.input["prompt"], rows[0].job.input["aspect_ratio"]) == ("yes", "16:9")
    assert (rows[0].cells["mood"], rows[2].cells["mood"]) == ("2024-01-01", "")
    assert rows[2].job.input["prompt"] == "5.0"
    assert rows[2].job.files[0].path.name == "chelsea.jpg"


def test_issues_of_a_campaign_name_its_lines(issues_of: Issues) -> None:
    issues = issues_of(
        "rows:\n"
        "  - {id: 1, prompt: x}\n"
        "  - id: 2\n"
        "    prompt: x\n"
        "    duration: 99\n"
        "defaults:\n"
        "  image_url: images/nothing.gif\n"
        "  resolution: 481p\n"
        "  sed: 4\n"
        "columns: {text: prompt}\n"
        'output: "{id}-{sed}"\n'
        "takes: many\n",
        "night.yaml",
    )
    assert [issue.partition(";")[0] for issue in issues] == [
        "night.yaml:5 duration: '99' is not one of 2 … 12",
        "night.yaml:7 defaults.image_url: 'images/nothing.gif' does not exist",
        "night.yaml:8 defaults.resolution: '481p' is not one of 480p, 720p, 1080p (did you mean '480p'?)",
        f"night.yaml:9 defaults.sed: is not a field of {DEFAULT_ENDPOINT} (did you mean 'seed'?)",
        "night.yaml:10 columns.text: night.yaml has no such column",
        "night.yaml:11 output: '{id}-{sed}' names {sed}, which is neither a column nor a field (did you mean 'seed'?)",
        "night.yaml:12 takes: 'many' is not a whole number from 1 to 1000",
    ]


def test_an_unknown_key_is_an_issue_with_its_line_and_what_is_known(issues_of: Issues) -> None:
    issues = issues_of("nme: x\nrows: shots.csv\nmatrx:\n  seed: [1]\nendpoint: {a: b}\nname: a\nname: b\n", "n.yaml")
    assert "n.yaml:7 name: stands here twice" in issues
    known = "it knows name, endpoint, rows, columns, defaults, set, matrix, takes, output, max_cost, carry"
    assert f"n.yaml:1 nme: is not a key of a campaign (did you mean 'name'?); {known}" in issues
    assert f"n.yaml:3 matrx: is not a key of a campaign (did you mean 'matrix'?); {known}" in issues
    assert "n.yaml:5 endpoint: must be the id of an endpoint, or a list of them" in issues


def test_a_campaigns_name_is_its_own_then_the_files(folder: Path) -> None:
    (folder / "shots.csv").write_text(f"prompt,image_url\nx,{URL}\n")
    (folder / "a.yaml").write_text("name: night\nrows: shots.csv\n")
    (folder / "b.yaml").write_text("rows: shots.csv\n")
    names = [manifest.load(folder / name).name for name in ("a.yaml", "b.yaml", "shots.csv")]
    assert names == ["night", "b", "shots"]
    assert manifest.load(folder / "a.yaml", campaign="other").name == "other"


def test_a_campaigns_endpoint_wins_over_the_default_one(folder: Path) -> None:
    (folder / "shots.csv").write_text(f"prompt,image_url\nx,{URL}\n")
    (folder / "a.yaml").write_text(f"endpoint: {DEFAULT_ENDPOINT}\nrows: shots.csv\n")
    assert manifest.load(folder / "a.yaml", endpoint="acme/other").endpoint == DEFAULT_ENDPOINT
    with pytest.raises(InputError, match="acme/other"):
        manifest.load(folder / "shots.csv", endpoint="acme/other")


def test_the_same_manifest_gives_the_same_rows(folder: Path) -> None:
    (folder / "shots.csv").write_text("prompt,image_url,takes\nx,images/moon.jpg,2\ny,images/chelsea.jpg,\n")
    loaded = manifest.load(folder / "shots.csv")
    assert list(loaded.rows()) == list(loaded.rows()) == list(manifest.load(folder / "shots.csv").rows())


def test_seen_ids_remember_the_first_row_of_each() -> None:
    seen = Seen()
    assert [seen.add(f"id{number}", number) for number in range(5_000)] == [None] * 5_000
    assert [seen.add(f"id{number}", 0) for number in (0, 1, 4_999)] == [0, 1, 4_999]


def test_every_field_of_the_built_in_endpoint_can_be_a_column(rows_of: Rows) -> None:
    fields = {"prompt": "x", "image_url": URL, "camera_fixed": "no", "enable_safety_checker": "1", "seed": "3"}
    fields |= {"aspect_ratio": "1:1", "resolution": "720p", "duration": "12"}
    assert set(fields) == {field.name for field in load(DEFAULT_ENDPOINT).fields}
    (row,) = rows_of(",".join(fields) + "\n" + ",".join(fields.values()) + "\n")
    assert row.job.input == {**fields, "camera_fixed": False, "enable_safety_checker": True, "seed": 3}


# Campaigns that vary their rows.

SHEET = f"id,subject,image_url\na,a cat,{URL}\nb,{{odd}},{URL}\n"


@pytest.fixture
def sheet(folder: Path) -> Path:
    (folder / "shots.csv").write_text(SHEET)
    return folder / "shots.csv"


def second_model(folder: Path) -> None:
    """An endpoint `acme/still` that has `hue` where the built-in one has `camera_fixed`."""
    text = next((Path(manifest.__file__).parent.parent / "endpoints" / "data").glob("fal-ai*.json")).read_text()
    text = text.replace(DEFAULT_ENDPOINT, "acme/still").replace('"camera_fixed"', '"hue"')
    (folder / "acme__still.json").write_text(text)


def test_set_writes_a_field_of_every_row_from_its_columns(rows_of: Rows, sheet: Path) -> None:
    rows = rows_of('rows: shots.csv\nset: {prompt: "{subject} {{of}} {id}/x", duration: 5.0}\n', "n.yaml")
    assert [row.job.input["prompt"] for row in rows] == ["a cat {of} a/x", "{odd} {of} b/x"]
    assert [(row.job.input["duration"], row.stem) for row in rows] == [("5", "a"), ("5", "b")]
    assert list(rows[0].cells) == ["id", "subject", "image_url"]


def test_a_set_prompt_is_the_same_job_as_a_written_one(rows_of: Rows, sheet: Path) -> None:
    made = rows_of('rows: shots.csv\nset: {prompt: "{subject}"}\n', "n.yaml")
    written = rows_of(SHEET.replace("subject", "prompt"))
    assert [row.job for row in made] == [row.job for row in written]


def test_the_matrix_is_every_combination_the_last_axis_fastest(rows_of: Rows, sheet: Path) -> None:
    rows = rows_of(
        'rows: shots.csv\nset: {prompt: "{subject}, camera {move}"}\nmatrix:\n  move: [left, up/down]\n'
        "  seed: [1, 2]\n  resolution: [480p]\ntakes: 2\n",
        "n.yaml",
    )
    assert [row.stem for row in rows[:8]] == [
        "a-left-1-1", "a-left-1-2", "a-left-2-1", "a-left-2-2",
        "a-up-down-1-1", "a-up-down-1-2", "a-up-down-2-1", "a-up-down-2-2",
    ]  # fmt: skip
    assert (rows[4].job.input["prompt"], rows[4].job.input["seed"]) == ("a cat, camera up/down", 1)
    assert {row.job.input["resolution"] for row in rows} == {"480p"}
    assert len({row.job.key for row in rows}) == len({row.stem for row in rows}) == 16
    assert [(row.id, row.address, row.position) for row in rows[7:9]] == [
        ("a", "shots.csv:2", 8),
        ("b", "shots.csv:3", 9),
    ]
    assert [row.cells["result_variant"] for row in rows[:8:2]] == ["1", "2", "3", "4"]
    assert rows[4].cells["move"] == "up/down"


def test_an_axis_wins_over_a_default_and_an_empty_value_leaves_it(rows_of: Rows) -> None:
    rows = rows_of(
        f"rows: [{{id: a, prompt: x, image_url: {URL}}}]\ndefaults: {{duration: 5}}\nmatrix: {{duration: [2, null]}}\n",
        "n.yaml",
    )
    assert [(row.job.input["duration"], row.stem) for row in rows] == [("2", "a-2"), ("5", "a-duration2")]


def test_an_output_that_names_an_axis_gets_no_suffix_for_it(rows_of: Rows, sheet: Path) -> None:
    campaign = 'rows: shots.csv\nset: {prompt: "{subject}"}\nmatrix: {seed: [1, 2], duration: [3, 4]}\n'
    rows = rows_of(campaign + 'output: "{seed}/{id}.mp4"\n', "n.yaml")
    assert [row.stem for row in rows[:4]] == ["1/a-3", "1/a-4", "2/a-3", "2/a-4"]


def test_a_list_of_endpoints_is_the_slowest_axis_and_each_takes_what_it_knows(rows_of: Rows, folder: Path) -> None:
    second_model(folder)
    (folder / "shots.csv").write_text(f"id,prompt,image_url,camera_fixed\na,x,{URL},yes\n")
    rows = rows_of(
        f"rows: shots.csv\nendpoint:\n  - {DEFAULT_ENDPOINT}\n  - acme/still\n"
        f"defaults: {{hue: no}}\nmatrix: {{seed: [1, 2]}}\n",
        "n.yaml",
        pinned_dir=folder,
    )
    assert [(row.job.endpoint, row.job.input["seed"]) for row in rows] == [
        (DEFAULT_ENDPOINT, 1), (DEFAULT_ENDPOINT, 2), ("acme/still", 1), ("acme/still", 2),
    ]  # fmt: skip
    assert ["camera_fixed" in row.job.input for row in rows] == [True, True, False, False]
    assert ["hue" in row.job.input for row in rows] == [False, False, True, True]


LITE = "fal-ai/bytedance/seedance/v1/lite/image-to-video"
SEEDREAM = "fal-ai/bytedance/seedream/v4/text-to-image"


def test_what_only_some_models_of_a_campaign_take_is_sent_there_and_said(folder: Path) -> None:
    header = "id,prompt,image_url,end_image_url,image_size.width,mood\n"
    (folder / "shots.csv").write_text(f"{header}a,a cat,{URL},{URL},640,calm\n")
    campaign = folder / "n.yaml"
    models = [DEFAULT_ENDPOINT, LITE, SEEDREAM]
    campaign.write_text(f"rows: shots.csv\nendpoint: {models}\ndefaults: {{camera_fixed: yes}}\n".replace("'", ""))
    found = manifest.load(campaign)
    sent = [row.job.input for row in found.rows()]
    assert [set(input) - {"prompt", "seed"} for input in sent] == [
        {"image_url", "camera_fixed"}, {"image_url", "end_image_url", "camera_fixed"}, {"image_size"},
    ]  # fmt: skip
    assert found.carried == ("mood",)
    assert found.notes == (
        f"image_url is sent to {DEFAULT_ENDPOINT} and {LITE} only: {SEEDREAM} has no such field",
        f"end_image_url is sent to {LITE} only: {DEFAULT_ENDPOINT} and {SEEDREAM} have no such field",
        f"image_size.width is sent to {SEEDREAM} only: {DEFAULT_ENDPOINT} and {LITE} have no such field",
        f"defaults.camera_fixed is sent to {DEFAULT_ENDPOINT} and {LITE} only: {SEEDREAM} has no such field",
    )


@pytest.mark.parametrize(
    ("column", "words"),
    [("end_image_ulr", "did you mean 'end_image_url'?"), ("image_size.widht", "did you mean 'image_size.width'?")],
)
def test_a_column_that_no_model_of_a_campaign_knows_is_judged_as_always(
    folder: Path, column: str, words: str, issues_of: Issues
) -> None:
    (folder / "shots.csv").write_text(f"id,prompt,image_url,{column}\na,a cat,{URL},{URL}\n")
    issues = issues_of(f"rows: shots.csv\nendpoint: [{LITE}, {SEEDREAM}]\n", "n.yaml")
    assert issues[0].startswith(f"shots.csv:1 {column}: {words}")


def test_mistakes_in_what_varies_the_rows_name_the_campaigns_lines(issues_of: Issues, sheet: Path) -> None:
    issues = issues_of(
        "rows: shots.csv\n"
        "set:\n"
        '  prompt: "{subjct}, {mov}"\n'
        '  promt: "x"\n'
        '  image_url: "x"\n'
        '  seed: "{id}"\n'
        "matrix:\n"
        "  move: [left]\n"
        "  subject: [a]\n"
        "  takes: [1, 2]\n"
        "  seed: [1]\n"
        "  duration: [2,\n"
        "    13]\n"
        "  resolutio: [480p]\n",
        "n.yaml",
    )
    assert [issue.partition(";")[0] for issue in issues] == [
        "n.yaml:3 set.prompt: names {mov}, which is neither a column nor an axis (did you mean 'move'?)",
        "n.yaml:3 set.prompt: names {subjct}, which is neither a column nor an axis (did you mean 'subject'?)",
        "n.yaml:4 set.promt: is not a field of " + DEFAULT_ENDPOINT + " (did you mean 'prompt'?)",
        "n.yaml:5 set.image_url: column 'image_url' of shots.csv fills image_url too",
        "n.yaml:6 set.seed: an axis of `matrix` sets seed too",
        "n.yaml:9 matrix.subject: is also column 'subject' of shots.csv",
        "n.yaml:10 matrix.takes: cannot be an axis",
        "n.yaml:13 matrix.duration: '13' is not one of 2 … 12",
        "n.yaml:14 matrix.resolutio: is neither a field nor named in a template of `set` (did you mean 'resolution'?)",
    ]


def test_a_value_that_set_makes_wrong_names_its_row_too(issues_of: Issues, sheet: Path) -> None:
    assert issues_of('rows: shots.csv\nset:\n  prompt: x\n  duration: "{id}"\n', "n.yaml") == [
        f"n.yaml:4 set.duration: '{id}' is not one of 2 … 12 (for shots.csv:{line})"
        for id, line in (("a", 2), ("b", 3))
    ]


@pytest.mark.parametrize(
    ("campaign", "issue"),
    [
        ("set: {prompt: x}\nmatrix: {seed: 1}", "n.yaml:3 matrix.seed: must be a list of values, such as [1, 2, 3]"),
        ("set: {prompt: x}\nmatrix: {seed: [1, 1]}", "n.yaml:3 matrix.seed: '1' stands in the list twice"),
        (
            f"endpoint: {DEFAULT_ENDPOINT}\nset: {{prompt: x}}\nmatrix: {{endpoint: [c/d]}}",
            "n.yaml:4 matrix.endpoint: stands under `endpoint` too; keep one",
        ),
        ("endpoint: [acme/none]", "n.yaml:2 endpoint: no OpenAPI document is known for 'acme/none'"),
        ("max_cost: lots\nset: {prompt: x}", "n.yaml:2 max_cost: 'lots' is no sum; write dollars like 25 or 25.00"),
        ("set: {prompt: [a]}", "n.yaml:2 set.prompt: must be a template in quotation marks"),
        ("set: {prompt: '{a!r}'}", "n.yaml:2 set.prompt: '{a!r}' may hold only plain names in braces"),
        ("set: {prompt: x}\nmatrix: {duration: [5, 5.0]}", "n.yaml:3 matrix: two combinations ask for the same video"),
        (
            "set: {prompt: x}\noutput: '{prompt}'",
            "n.yaml:3 output: shots.csv:3 and shots.csv:2 would get the same file",
        ),
        (
            "set: {prompt: '{m}'}\nmatrix: {m: [a/b, a-b]}",
            "n.yaml:3 output: shots.csv:2 and another combination of it would get the same file name 'a-a-b'",
        ),
    ],
)
def test_a_campaign_that_cannot_be_meant_is_one_issue(
    issues_of: Issues, sheet: Path, campaign: str, issue: str
) -> None:
    (found,) = issues_of(f"rows: shots.csv\n{campaign}\n", "n.yaml")
    assert found.startswith(issue)


def test_a_campaigns_cap_is_micro_dollars(sheet: Path, folder: Path) -> None:
    (folder / "n.yaml").write_text("rows: shots.csv\nset: {prompt: x}\nmax_cost: 25.50\n")
    assert manifest.load(folder / "n.yaml").max_cost_micros == 25_500_000
    assert manifest.load(sheet).max_cost_micros is None


def test_a_pattern_is_a_row_for_each_picture_sorted_by_name(rows_of: Rows, folder: Path) -> None:
    (folder / "images" / "more").mkdir()
    shutil.copy(folder / "images" / "moon.jpg", folder / "images" / "more" / "moon.jpg")
    campaign = "rows: images/**/*.jpg\nset: {prompt: '{id}'}\n"
    rows = rows_of(campaign, "n.yaml")
    assert [row.address for row in rows] == ["images/chelsea.jpg", "images/moon.jpg", "images/more/moon.jpg"]
    assert [row.id for row in rows[:2]] == ["chelsea", "moon"]
    assert rows[2].id.startswith("moon-")
    assert rows[1].job.files[0].path == folder / "images" / "moon.jpg"
    shutil.copy(folder / "images" / "moon.jpg", folder / "images" / "more" / "a.jpg")
    assert {row.id for row in rows} < {row.id for row in rows_of(campaign, "n.yaml")}


def test_a_picture_that_is_none_and_a_pattern_without_any_are_issues(issues_of: Issues, folder: Path) -> None:
    damaged(folder)
    (issue,) = issues_of("rows: t*.jpg\nset: {prompt: x}\n", "n.yaml")
    assert issue.startswith("text.jpg image_url: 'text.jpg' is text, not an image")
    (issue,) = issues_of("name: x\nrows: nothing/*.jpg\n", "n.yaml")
    assert issue.startswith("n.yaml:2 rows: no file matches 'nothing/*.jpg'")
    (issue,) = issues_of("name: x\nrows: images/*.jpg\n", "n.yaml")
    assert issue.startswith("n.yaml:2 prompt: no column and no default fills it")


def test_the_export_of_a_matrix_is_no_manifest_and_that_of_a_plain_sheet_is(
    rows_of: Rows, issues_of: Issues, sheet: Path, folder: Path
) -> None:
    (folder / "n.yaml").write_text("rows: shots.csv\nset: {prompt: x}\nmatrix: {seed: [1, 2]}\n")
    loaded = manifest.load(folder / "n.yaml")
    out = folder / "results.csv"
    assert write_sheet(loaded.rows, lambda row: Result(state="fetched"), loaded.columns, out).rows == 4
    (issue,) = issues_of(out.read_text().replace("subject", "prompt"), "again.csv")
    assert issue.startswith("again.csv:1 result_variant: this is the export of a campaign with a matrix")
    (folder / "n.yaml").write_text("rows: shots.csv\nset: {prompt: x}\ntakes: 2\n")
    loaded = manifest.load(folder / "n.yaml")
    write_sheet(loaded.rows, lambda row: Result(state="fetched"), loaded.columns, out, inputs=loaded.filled)
    assert out.read_text().splitlines()[0].endswith(",result_input.prompt")
    again = rows_of("rows: results.csv\nset: {prompt: x}\ntakes: 2\n", "again.yaml")
    assert [row.job for row in again] == [row.job for row in loaded.rows()]
