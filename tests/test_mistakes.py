"""Bad manifests and their exact messages: where, what was expected, what was found, what to do."""

from __future__ import annotations

import ast
import dataclasses
import functools
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import batch
from batch import manifest
from batch.endpoints import DEFAULT_ENDPOINT, load
from batch.errors import InputError, ManifestError
from batch.manifest import KINDS
from batch.manifest.files import FileCell, Files
from batch.manifest.report import ISSUES_KEPT_MAX
from batch.manifest.same import Looked

MANIFESTS = Path(__file__).parent.parent / "manifests"
URL = "https://example.com/cat.png"
KEYS = "name, endpoint, rows, columns, defaults, set, matrix, takes, output, max_cost, carry"
FIELDS = ", ".join(field.name for field in load(DEFAULT_ENDPOINT).fields)
FETCH = "`fal-batch endpoint fal-ai/nothing` fetches it from fal; `fal-batch endpoint` lists those that are known."
NEEDS = f"{DEFAULT_ENDPOINT} needs it"

Report = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sheet `shots.csv` of two rows, pictures, and files that are none."""
    (tmp_path / "images").mkdir()
    shutil.copy(MANIFESTS / "images" / "moon.jpg", tmp_path / "images" / "moon.jpg")
    (tmp_path / "shots.csv").write_text(f"id,subject,image_url\na,a cat,{URL}\nb,a dog,{URL}\n")
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    (tmp_path / "drawing.svg").write_text('<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>')
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    (tmp_path / "clip.jpg").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isom" + bytes(99))
    (tmp_path / "paper.jpg").write_bytes(b"%PDF-1.7\n")
    (tmp_path / "noise.jpg").write_bytes(bytes(range(32)) * 9)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "images" / "moon.jpg").read_bytes()[:15_000])
    for name in ("one/portraits-of-nobody.jpg", "two/portraits-of-nobody.jpg", ".cache/hidden.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    (tmp_path / "new.avif").write_bytes(avif())
    Image.new("RGB", (200, 400)).save(tmp_path / "small.png")
    return tmp_path


@functools.cache
def avif() -> bytes:
    """A picture that takes longer to pack than any of these tests to run."""
    out = io.BytesIO()
    Image.new("RGB", (400, 400)).save(out, "AVIF")
    return out.getvalue()


@pytest.fixture
def report(folder: Path) -> Report:
    """The issues of a manifest as text, the folder left out."""

    def issues_of(text: str, name: str = "shots.csv", **options: object) -> list[str]:
        path = folder / name
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ManifestError) as caught:
            list(manifest.load(path, **options).rows())  # type: ignore[arg-type]
        assert caught.value.count == len(caught.value.issues) == sum(caught.value.by_kind().values())
        return [str(issue).replace(f"{folder}/", "").replace(str(folder), "FOLDER") for issue in caught.value.issues]

    return issues_of


# One cell. The header is `prompt,image_url` and the column named; the message follows `shots.csv:2 column: `.

RATIOS = "21:9, 16:9, 4:3, 1:1, 3:4, 9:16, auto"
SHORTENED = "a spreadsheet program has left digits out; set the column to text"
DATED = "a spreadsheet program made a date of it; set the column to text"

CELLS: list[tuple[str, str, str]] = [
    ("duration", "13", "'13' is not one of 2 … 12"),
    ("duration", "five", "'five' is not one of 2 … 12"),
    ("duration", "5s", "'5s' is not one of 2 … 12 (did you mean '5'?)"),
    ("resolution", "480", "'480' is not one of 480p, 720p, 1080p (did you mean '480p'?)"),
    ("resolution", "4k", "'4k' is not one of 480p, 720p, 1080p"),
    (
        "aspect_ratio",
        "16x9",
        f"'16x9' is not one of {RATIOS} (did you mean '16:9'?)",
    ),
    ("seed", "1.5", "'1.5' is not a whole number"),
    ("seed", "1,000", "'1,000' is not a whole number (write it with nothing between its digits)"),
    ("seed", "1.000.000", "'1.000.000' is not a whole number (write it with nothing between its digits)"),
    ("seed", "2,0", "'2,0' is not a whole number (a decimal comma; write 2)"),
    ("seed", "2,5", "'2,5' is not a whole number"),
    ("seed", "02.03.2026", f"'02.03.2026' is not a whole number ({DATED})"),
    ("seed", "2026-03-02 00:00:00", f"'2026-03-02 00:00:00' is not a whole number ({DATED})"),
    ("seed", "02. Mrz", f"'02. Mrz' is not a whole number ({DATED})"),
    ("seed", "Mar-26", f"'Mar-26' is not a whole number ({DATED})"),
    ("seed", "5 marks", "'5 marks' is not a whole number"),
    ("seed", "1.23457E+17", f"'1.23457E+17' is not a whole number ({SHORTENED} and write it anew)"),
    ("seed", "2e+14", f"'2e+14' is not a whole number ({SHORTENED} and write it anew)"),
    ("id", "1.23457E+17", f"'1.23457E+17' is a number of which {SHORTENED} and write it anew"),
    ("duration", "2,0", "'2,0' is not one of 2 … 12 (a decimal comma; write 2)"),
    ("duration", "13,0", "'13,0' is not one of 2 … 12"),
    ("duration", "2.3.26", f"'2.3.26' is not one of 2 … 12 ({DATED})"),
    (
        "aspect_ratio",
        "16:09:00",
        f"'16:09:00' is not one of {RATIOS} (a spreadsheet program made a time of it; write 16:9 and set the column "
        "to text)",
    ),
    (
        "aspect_ratio",
        "9:09 PM",
        f"'9:09 PM' is not one of {RATIOS} (a spreadsheet program made a time of it; write 21:9 and set the column "
        "to text)",
    ),
    ("aspect_ratio", "16:08", f"'16:08' is not one of {RATIOS}"),
    *(
        (("camera_fixed", word, f"'{word}' is not true or false (write true)"))
        for word in ("WAHR", "VRAI", "Ja", "Oui")
    ),
    *((("camera_fixed", word, f"'{word}' is not true or false (write false)")) for word in ("FALSCH", "Nein", "Non")),
    ("takes", "2,0", "'2,0' is not a whole number from 1 to 1000 (a decimal comma; write 2)"),
    ("seed", "random", "'random' is not a whole number"),
    ("camera_fixed", "perhaps", "'perhaps' is not true or false (yes and no, 1 and 0 will do)"),
    ("takes", "0", "'0' is not a whole number from 1 to 1000"),
    ("takes", "two", "'two' is not a whole number from 1 to 1000"),
    ("takes", "5000", "'5000' is not a whole number from 1 to 1000"),
    (
        "output",
        "{sed}",
        "'{sed}' names {sed}, which is neither a column nor a field (did you mean 'seed'?)",
    ),
    ("output", "{seed:03}", "'{seed:03}' may hold only plain names in braces, such as {id} or {seed}"),
    (
        "output",
        "{id",
        "'{id' is not a template (expected '}' before end of string); a name stands in braces, such as {id}",
    ),
    (
        "endpoint",
        "fal-ai/nothing",
        f"no OpenAPI document is known for 'fal-ai/nothing'. {FETCH}",
    ),
    (
        "endpoint",
        DEFAULT_ENDPOINT[:-1],
        f"no OpenAPI document is known for '{DEFAULT_ENDPOINT[:-1]}'. Did you mean {DEFAULT_ENDPOINT}? {FETCH}".replace(
            "fal-ai/nothing", DEFAULT_ENDPOINT[:-1]
        ),
    ),
    (
        "endpoint",
        "seedance",
        f"'seedance' is not an endpoint id; one looks like {DEFAULT_ENDPOINT}",
    ),
]


@pytest.mark.parametrize(("column", "cell", "message"), CELLS)
def test_a_cell_that_is_wrong_is_named_with_what_is_expected(
    report: Report, column: str, cell: str, message: str
) -> None:
    assert report(f'prompt,image_url,{column}\nx,{URL},"{cell}"\n') == [f"shots.csv:2 {column}: {message}"]


ERRORS = ["#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#N/A", "#NULL!", "#NUM!", "#ERROR!", "#BEZUG!", "#NV", "Err:502"]


@pytest.mark.parametrize("error", [*ERRORS, " #REF! "])
def test_an_error_of_the_spreadsheet_program_is_sent_nowhere(report: Report, error: str) -> None:
    hint = "; text that begins with = + or - needs a ' before it there" if error == "#NAME?" else ""
    message = f"'{error.strip()}' is an error of the spreadsheet program; mend the cell there{hint}"
    row = ",".join([error] * 7)
    found = report(f"id,takes,output,prompt,image_url,duration,seed,mood\n{row},{error}\n")
    names = ["id", "takes", "output", "prompt", "image_url", "duration", "seed"]
    assert sorted(found) == sorted(f"shots.csv:2 {name}: {message}" for name in names)


def test_an_error_in_a_cell_that_a_template_names_is_told_at_the_cell(report: Report, folder: Path) -> None:
    (folder / "shots.csv").write_text(f"id,subject,length,mood,image_url\na,#REF!,#NV,#N/A,{URL}\nb,x,13,,{URL}\n")
    campaign = "rows: shots.csv\nset: {prompt: '{subject}, seen', duration: '{length}'}\nmatrix: {seed: [1, 2]}\n"
    wrong = "is an error of the spreadsheet program; mend the cell there"
    assert report(campaign, "n.yaml") == [
        "n.yaml:2 set.duration: '13' is not one of 2 … 12 (for shots.csv:3)",
        f"shots.csv:2 subject: '#REF!' {wrong}",
        f"shots.csv:2 length: '#NV' {wrong}",
    ]


def test_the_signs_of_a_column_that_is_too_narrow_are_no_value(report: Report) -> None:
    (issue,) = report(f"prompt,image_url,seed\nx,{URL},#####\n")
    wrong = "stands for a value that its column had no room for; widen the column and save it again"
    assert issue == f"shots.csv:2 seed: '#####' {wrong}"


@pytest.mark.parametrize("text", ["#1 in the charts", "#REF! and more", "# N/A", "N/A", "##", "Err: 502", "#cats!"])
def test_text_that_begins_like_an_error_is_text(folder: Path, text: str) -> None:
    (folder / "shots.csv").write_text(f"prompt,image_url\n{text},{URL}\n")
    (row,) = manifest.load(folder / "shots.csv").rows()
    assert row.job.input["prompt"] == text


# One image. The message follows `shots.csv:2 image_url: `.

FILES: list[tuple[str, str]] = [
    ("images", "'images' is a folder; name one file in it"),
    ("empty.png", "'empty.png' is an empty file"),
    ("text.jpg", "'text.jpg' is text, not an image"),
    ("page.jpg", "'page.jpg' is a web page, not an image; perhaps the download needed a login"),
    ("paper.jpg", "'paper.jpg' is a PDF, not an image; export the page as PNG"),
    ("clip.jpg", "'clip.jpg' is a video, not an image"),
    ("noise.jpg", "'noise.jpg' is not an image that can be read"),
    ("phone.heic", "'phone.heic' is a HEIC picture, which the model does not take; save it as JPEG"),
    ("drawing.svg", "'drawing.svg' is an SVG drawing, which the model does not take; export it as PNG"),
    (
        "new.avif",
        "'new.avif': image/avif is not a format that the model takes (jpeg, png, webp, bmp, tiff, gif)",
    ),
    (
        "small.png",
        "'small.png': 200 x 400 pixels: each side must be over 300 and under 6000 pixels",
    ),
    ("moon.jpg", "'moon.jpg' does not exist (did you mean 'images/moon.jpg'?); looked for moon.jpg"),
    ("small.jpg", "'small.jpg' does not exist (did you mean 'small.png'?); looked for small.jpg"),
    ("portraits-of-nobody.jpg", "'portraits-of-nobody.jpg' does not exist; looked for portraits-of-nobody.jpg"),
    ("hidden.jpg", "'hidden.jpg' does not exist; looked for hidden.jpg"),
    ("images/mon.jpg", "'images/mon.jpg' does not exist (did you mean 'moon.jpg'?); looked for images/mon.jpg"),
    ("images/MOON.JPG", "'images/MOON.JPG' does not exist (did you mean 'moon.jpg'?); looked for images/MOON.JPG"),
    ("pics/moon.jpg", "'pics/moon.jpg' does not exist, nor does the folder 'pics'; looked for pics/moon.jpg"),
    (
        r"images\mon.jpg",
        r"'images\mon.jpg' does not exist (did you mean 'moon.jpg'?); looked for images/mon.jpg",
    ),
    (
        r"C:\Users\me\cat.jpg",
        r"'C:\Users\me\cat.jpg' does not exist: it is a path of a Windows computer; write where the file is here, best "
        r"relative to the sheet",
    ),
    (
        "'images/moon.jpg'",
        "''images/moon.jpg'' does not exist: leave out the quotation marks in the cell",
    ),
    (
        "www.example.com/cat.png",
        "'www.example.com/cat.png' does not exist: a web address begins with https:// "
        "(https://www.example.com/cat.png)",
    ),
    ("~nobody-here/cat.jpg", "'~nobody-here/cat.jpg' cannot be read: Could not determine home directory."),
    ("x" * 300, f"'{'x' * 59}…' cannot be read: File name too long"),
    ("file:///home/me/a%20cat.jpg", "'file:///home/me/a%20cat.jpg': write the path itself: '/home/me/a cat.jpg'"),
    ("s3://bucket/cat.png", "'s3://bucket/cat.png': fal fetches http and https only"),
    ("https:///cat.png", "'https:///cat.png' is not a whole URL; write https://host/path"),
    (
        "https://example.com/a cat.png",
        "'https://example.com/a cat.png' holds a blank; write it as %20: 'https://example.com/a%20cat.png'",
    ),
    ("data:image/png,AAAA", "is not a data URI of the form data:image/png;base64,…"),
    ("data:image/PNG;base64,AAAA", "the model wants 'data:image/png' in lower case"),
    ("data:text/plain;base64,AAAA", "holds text/plain; an image is needed"),
    ("data:image/png;base64,AAAA", "'data:image/png;base64,AAAA' is not an image that can be read"),
    ("data:image/png;base64,", "'data:image/png;base64,' is empty"),
]


@pytest.mark.skipif(not Path("/proc").exists(), reason="the words of another system differ")
@pytest.mark.parametrize(("cell", "message"), FILES)
def test_a_file_that_cannot_be_sent_is_named_with_what_it_is(report: Report, cell: str, message: str) -> None:
    assert report(f'prompt,image_url\nx,"{cell}"\n') == [f"shots.csv:2 image_url: {message}"]


def test_a_photograph_that_is_cut_short_is_damaged(report: Report) -> None:
    (issue,) = report("prompt,image_url\nx,cut.jpg\n")
    assert issue.startswith("shots.csv:2 image_url: 'cut.jpg' is a damaged image: image file is truncated")


@pytest.mark.parametrize("cell", ["images\\moon.jpg", "  images/moon.jpg ", "images/../images/moon.jpg"])
def test_a_path_with_backslashes_or_blanks_round_it_is_the_same_file(folder: Path, cell: str) -> None:
    (folder / "shots.csv").write_text(f"prompt,image_url\nx,{cell}\nx,images/moon.jpg\n")
    odd, plain = manifest.load(folder / "shots.csv").rows()
    assert odd.job == plain.job


def test_a_file_whose_name_really_has_a_backslash_comes_first(folder: Path) -> None:
    shutil.copy(MANIFESTS / "images" / "chelsea.jpg", folder / "images\\moon.jpg")
    (folder / "shots.csv").write_text("prompt,image_url\nx,images\\moon.jpg\n")
    (row,) = manifest.load(folder / "shots.csv").rows()
    assert row.job.files[0].path.name == "images\\moon.jpg"


def test_what_the_endpoint_takes_decides_whether_a_picture_we_cannot_read_is_good(folder: Path) -> None:
    endpoint = load(DEFAULT_ENDPOINT)
    field = endpoint.field("image_url")
    assert field is not None
    assert endpoint.image_limits is not None
    limits = dataclasses.replace(endpoint.image_limits, media_types=("image/heic", "image/avif"))
    files = Files(dataclasses.replace(endpoint, image_limits=limits), Looked())
    for name, size in (("phone.heic", None), ("new.avif", (400, 400))):
        cell = files.read(field, name, (folder,))
        assert isinstance(cell, FileCell)
        assert cell.image_size == size


# A whole sheet, and all there is to say about it.


def near(name: str, field: str) -> str:
    own = f"keep it as your own by `carry: [{name}]` or --carry {name}"
    return f"shots.csv:1 {name}: did you mean '{field}'? Rename the column, or {own}"


def both(name: str, field: str) -> str:
    own = f"keep it as your own by `carry: [{name}]` or --carry {name}"
    return f"shots.csv:1 {name}: is nearly '{field}', and there is a column '{field}' too: remove one of them, or {own}"


SHEETS: list[tuple[str, list[str]]] = [
    (
        f"prompt,image_url,mood,mood\nx,{URL},a,b\n",
        ["shots.csv:1 mood: is the name of two columns; rename or remove one"],
    ),
    (
        f"prompt,input.prompt,image_url\nx,y,{URL}\n",
        ["shots.csv:1 input.prompt: and column 'prompt' are both to be prompt; keep one of them"],
    ),
    (
        f"promt,image_url\nx,{URL}\ny,{URL}\n",
        [
            "shots.csv:1 promt: did you mean 'prompt'? Rename the column, or keep it as your own by `carry: [promt]` "
            "or --carry promt"
        ],
    ),
    (
        f"Prompt!,image_url\nx,{URL}\n",
        [
            "shots.csv:1 Prompt!: did you mean 'prompt'? Rename the column, or keep it as your own by "
            "`carry: [Prompt!]` or --carry 'Prompt!'"
        ],
    ),
    (
        f"prompt,Prompt,image_url,ID,id\nx,y,{URL},a,b\n",
        [
            both("Prompt", "prompt"),
            both("ID", "id"),
        ],
    ),
    (
        "prompt,image\nx,images/moon.jpg\ny,images/moon.jpg\n",
        [
            f"shots.csv:1 image_url: no column and no default fills it, and {NEEDS}; if column 'image' holds it, "
            "rename that, or map it in a campaign (columns: {image: image_url})"
        ],
    ),
    (
        f"prompt,image_url,result_variant\nx,{URL},3\ny,{URL},4\n",
        [
            "shots.csv:1 result_variant: this is the export of a campaign with a matrix; use the sheet or campaign "
            "that it was made from"
        ],
    ),
    (
        f"id,prompt,image_url\na,x,{URL}\n\na,y,{URL}\na,z,{URL}\n",
        [
            "shots.csv:4 id: 'a' is also the id of shots.csv:2",
            "shots.csv:5 id: 'a' is also the id of shots.csv:2",
        ],
    ),
    (
        f"id,prompt,image_url,output\na,x,{URL},same\nb,y,{URL},same.mp4\n",
        [
            "shots.csv:3 output: shots.csv:3 and shots.csv:2 would get the same file name 'same'; "
            "name what differs, such as {id}"
        ],
    ),
    (
        f"prompt,image_url\na cat, sitting,{URL}\n",
        ["shots.csv:2: has more cells than the header; a comma inside a cell needs quotes round it"],
    ),
    (
        f"prompt,image_url,duration,note\na cat, sitting, on a mat,{URL}\n",
        [
            "shots.csv:2: 2 cells do not fit their columns, and 'sitting' begins with a blank; "
            "text with a comma in it needs quotes round it"
        ],
    ),
    (  # a blank behind every comma is a habit, and one before a prompt is nothing
        f"image_url, prompt, duration, resolution\n{URL}, x, 13, big\n{URL}, x,13,480\n",
        [
            "shots.csv:2 duration: '13' is not one of 2 … 12",
            "shots.csv:2 resolution: 'big' is not one of 480p, 720p, 1080p",
            "shots.csv:3 duration: '13' is not one of 2 … 12",
            "shots.csv:3 resolution: '480' is not one of 480p, 720p, 1080p (did you mean '480p'?)",
        ],
    ),
    (
        f"prompt,,image_url\nx,oops,{URL}\n",
        ["shots.csv:2: 'oops' stands in column 2, which has no name in the header"],
    ),
    (
        f'prompt,image_url\nx,{URL}\n"open,{URL}\n',
        ["shots.csv:3: a quotation mark opens in this row and is never closed; the rows below it were not read"],
    ),
    (
        f'id,prompt,image_url\na,"a cat,{URL}\nb,a dog,{URL}\nc,"a bird",{URL}\nd,a fish,images\n',
        [
            f"shots.csv:2 prompt: holds 'b,a dog,{URL}' in a line of its own, which looks like a row of the sheet; "
            "a quotation mark before it is not closed, or one is missing (if it is text, write a blank behind each "
            "comma)",
            "shots.csv:3 image_url: 'images' is a folder; name one file in it",
        ],
    ),
    ("prompt,image_url\n", ["shots.csv:1: names the columns, and no row follows"]),
    (
        "promt,image_url\n",
        [
            "shots.csv:1: names the columns, and no row follows",
            "shots.csv:1 promt: did you mean 'prompt'? Rename the column, or keep it as your own by `carry: [promt]` "
            "or --carry promt",
        ],
    ),
    (
        f"prompt,image_url\n,{URL}\n",
        [f"shots.csv:2 prompt: is empty, and {NEEDS}"],
    ),
    (  # a column with nearly the name of a field is read as that: all of it is told in one round
        f"promts,image_url,Resolution,Takes\n,{URL},480,0\nx,{URL},,\ny,{URL},720p,2\n",
        [
            near("promts", "prompt"),
            near("Resolution", "resolution"),
            near("Takes", "takes"),
            f"shots.csv:2 promts: is empty, and {NEEDS}",
            "shots.csv:2 Resolution: '480' is not one of 480p, 720p, 1080p (did you mean '480p'?)",
            "shots.csv:2 Takes: '0' is not a whole number from 1 to 1000",
        ],
    ),
    (
        "ID,prompt,image_urls\na,x,images/moon.jpg\na,y,images/non.jpg\n",
        [
            near("ID", "id"),
            near("image_urls", "image_url"),
            "shots.csv:3 ID: 'a' is also the id of shots.csv:2",
            "shots.csv:3 image_urls: 'images/non.jpg' does not exist (did you mean 'moon.jpg'?); "
            "looked for images/non.jpg",
        ],
    ),
    (
        f"prompt,image_url,Endpoint\nx,{URL},fal-ai/nothing\n",
        [
            near("Endpoint", "endpoint"),
            f"shots.csv:2 Endpoint: no OpenAPI document is known for 'fal-ai/nothing'. {FETCH}",
        ],
    ),
    (  # where a column has the name itself, the other may be anything
        f"prompt,image_url,duration,Duration\nx,{URL},5,long\n",
        [both("Duration", "duration")],
    ),
]


@pytest.mark.parametrize(("text", "issues"), SHEETS)
def test_a_sheet_that_is_wrong_tells_all_of_it_once(report: Report, text: str, issues: list[str]) -> None:
    assert report(text) == issues


def test_a_column_to_carry_that_is_not_there_is_told_where_it_was_asked_for(report: Report) -> None:
    sheet = f"prompt,image_url,mood\nx,{URL},calm\n"
    assert report(sheet, carry=("Mod",)) == [
        "shots.csv:1 --carry: there is no column 'Mod' to carry along (did you mean 'mood'?)"
    ]


def test_carry_claims_a_column_of_a_plain_sheet(folder: Path) -> None:
    path = folder / "shots.csv"
    path.write_text(f"prompt,image_url,promts\nx,{URL},y\n")
    loaded = manifest.load(path, carry=("promts",))
    assert [row.cells["promts"] for row in loaded.rows()] == ["y"]
    assert loaded.carried == ("promts",)


# A campaign on the sheet of two rows (id, subject, image_url), and all there is to say about it. Where no `rows:` is
# written, `rows: shots.csv` is its first line, and a `set:` for the prompt its last.

CAMPAIGNS: list[tuple[str, list[str]]] = [
    (
        "rows: shts.csv\ntakes: 0\ndefaults: {duration: 99}\n",
        [
            "n.yaml:1 rows: shts.csv does not exist; did you mean shots.csv?",
            "n.yaml:2 takes: '0' is not a whole number from 1 to 1000",
            "n.yaml:3 defaults.duration: '99' is not one of 2 … 12",
        ],
    ),
    (
        "rows: images\n",
        [
            "n.yaml:1 rows: images is a folder; name the sheet or the campaign in it; "
            "a row for each picture is written images/*.jpg"
        ],
    ),
    ("rows: images/*.gif\n", ["n.yaml:1 rows: no file matches 'images/*.gif'; looked in FOLDER"]),
    ("rows: []\n", ["n.yaml:1 rows: is an empty list"]),
    (
        "rows: [a cat]\n",
        ["n.yaml:1 rows: a row is a mapping of column to value"],
    ),
    (
        "rows:\n",
        [
            "n.yaml:1 rows: is missing; name a sheet (`rows: shots.csv`), a pattern (`rows: images/*.jpg`) "
            "or list the rows"
        ],
    ),
    ("row: shots.csv\n", [f"n.yaml:1 row: is not a key of a campaign (did you mean 'rows'?); it knows {KEYS}"]),
    (
        "matrx:\n  seed: [1, 1]\n",
        [
            f"n.yaml:2 matrx: is not a key of a campaign (did you mean 'matrix'?); it knows {KEYS}",
            "n.yaml:3 matrix.seed: '1' stands in the list twice",
        ],
    ),
    ("budget: 7\n", [f"n.yaml:2 budget: is not a key of a campaign; it knows {KEYS}"]),
    (
        "duration: 5\n",
        ["n.yaml:2 duration: is a field, not a key of a campaign; write it under `defaults:` (or `set:`, `matrix:`)"],
    ),
    (
        "name: a/b\n",
        ["n.yaml:2 name: 'a/b' cannot be the name of a campaign; it becomes the name of a folder"],
    ),
    ("name: a\nname: b\n", ["n.yaml:3 name: stands here twice"]),
    ("defaults:\n  seed: 1\n  seed: 2\n", ["n.yaml:4 defaults.seed: stands here twice"]),
    (
        "endpoint: fal-ai/nothing\ntakes: no\ncarry: [mood]\n",
        [
            f"n.yaml:2 endpoint: no OpenAPI document is known for 'fal-ai/nothing'. {FETCH}",
            "n.yaml:3 takes: 'no' is not a whole number from 1 to 1000",
            "n.yaml:4 carry: there is no column 'mood' to carry along; there are id, subject, image_url",
        ],
    ),
    (
        f"endpoint:\n  - {DEFAULT_ENDPOINT}\n  - fal-ai/nothing\nmatrix: {{duration: [2, 13]}}\n",
        [
            f"n.yaml:4 endpoint: no OpenAPI document is known for 'fal-ai/nothing'. {FETCH}",
            "n.yaml:5 matrix.duration: '13' is not one of 2 … 12",
        ],
    ),
    ("endpoint: {a: b}\n", ["n.yaml:2 endpoint: must be the id of an endpoint, or a list of them"]),
    (
        f"endpoint: {DEFAULT_ENDPOINT}\nmatrix: {{endpoint: [c/d]}}\n",
        ["n.yaml:3 matrix.endpoint: stands under `endpoint` too; keep one of them"],
    ),
    ("max_cost: lots\n", ["n.yaml:2 max_cost: 'lots' is no sum; write dollars like 25 or 25.00"]),
    ("max_cost: -5\n", ["n.yaml:2 max_cost: '-5' is no sum; write dollars like 25 or 25.00"]),
    ("takes: [1, 2]\n", ["n.yaml:2 takes: must be a number"]),
    ("carry: [mood]\n", ["n.yaml:2 carry: there is no column 'mood' to carry along; there are id, subject, image_url"]),
    (
        "carry:\n  - subject\n  - subjet\n",
        ["n.yaml:4 carry: there is no column 'subjet' to carry along (did you mean 'subject'?)"],
    ),
    (
        "columns: {subjet: prompt}\nset: {}\n",
        ["n.yaml:2 columns.subjet: shots.csv has no such column (did you mean 'subject'?)"],
    ),
    (
        "columns: {subject: promt}\nset: {}\n",
        [f"n.yaml:2 columns.subject: 'promt' is not a field of {DEFAULT_ENDPOINT} (did you mean 'prompt'?)"],
    ),
    ("columns: {subject: [prompt]}\nset: {}\n", ["n.yaml:2 columns.subject: must be the name of a field"]),
    (
        "columns: {subject: prompt}\ncarry: [subject]\nset: {}\n",
        ["n.yaml:3 carry: column 'subject' is mapped to prompt by `columns` as well; keep one of them"],
    ),
    (
        "defaults:\n  resolution: 481p\n  image_url: images/non.jpg\n  takes: 2\n  sed: 3\n",
        [
            "n.yaml:3 defaults.resolution: '481p' is not one of 480p, 720p, 1080p (did you mean '480p'?)",
            "n.yaml:4 defaults.image_url: 'images/non.jpg' does not exist (did you mean 'moon.jpg'?); "
            "looked for images/non.jpg",
            "n.yaml:5 defaults.takes: is no field; write `takes: 2` on a line of its own, not under `defaults`",
            f"n.yaml:6 defaults.sed: is not a field of {DEFAULT_ENDPOINT} (did you mean 'seed'?)",
        ],
    ),
    (
        "set: [a]\nmatrix: 7\ndefaults: x\n",
        [
            "n.yaml:2 set: must be a mapping of name to value",
            "n.yaml:3 matrix: must be a mapping of name to value",
            "n.yaml:4 defaults: must be a mapping of name to value",
        ],
    ),
    (
        "set: {prompt: '{subjct}'}\n",
        ["n.yaml:2 set.prompt: names {subjct}, which is neither a column nor an axis (did you mean 'subject'?)"],
    ),
    (
        "set: {prompt: '{subject}, camera {mov}'}\nmatrix: {move: [left, right]}\n",
        ["n.yaml:2 set.prompt: names {mov}, which is neither a column nor an axis (did you mean 'move'?)"],
    ),
    (
        "set: {prompt: '{subject'}\n",
        [
            "n.yaml:2 set.prompt: '{subject' is not a template (expected '}' before end of string); a name stands in "
            "braces, such as {id}; a brace itself is written twice"
        ],
    ),
    (
        "set: {prompt: {subject}}\n",
        ['n.yaml:2 set.prompt: must be a template in quotation marks, such as "{subject}, camera {move}"'],
    ),
    (
        "set: {promt: '{subject}'}\n",
        [f"n.yaml:2 set.promt: is not a field of {DEFAULT_ENDPOINT} (did you mean 'prompt'?)"],
    ),
    (
        "set: {prompt: x, image_url: y}\n",
        ["n.yaml:2 set.image_url: column 'image_url' of shots.csv fills image_url too; keep one of them"],
    ),
    (
        "set: {prompt: x, seed: '{id}'}\nmatrix: {seed: [1]}\n",
        ["n.yaml:2 set.seed: an axis of `matrix` sets seed too; keep one of them"],
    ),
    (
        "set: {prompt: x, duration: '{id}'}\n",
        [
            "n.yaml:2 set.duration: 'a' is not one of 2 … 12 (for shots.csv:2)",
            "n.yaml:2 set.duration: 'b' is not one of 2 … 12 (for shots.csv:3)",
        ],
    ),
    ("matrix: {seed: 1}\n", ["n.yaml:2 matrix.seed: must be a list of values, such as [1, 2, 3]"]),
    (
        "set: {prompt: '{subject} {move}'}\nmatrix: {move: left}\n",
        ["n.yaml:3 matrix.move: must be a list of values, such as [1, 2, 3]"],
    ),
    (
        "matrix: {subject: [a]}\n",
        ["n.yaml:2 matrix.subject: is also column 'subject' of shots.csv; keep one of them"],
    ),
    (
        "matrix: {image_url: [a]}\n",
        ["n.yaml:2 matrix.image_url: is also column 'image_url' of shots.csv; keep one of them"],
    ),
    (
        "matrix:\n  takes: [1, 2]\n",
        ["n.yaml:3 matrix.takes: cannot be an axis; `takes: 3` on a line of its own makes three takes"],
    ),
    (
        "matrix:\n  durations: [5]\n",
        ["n.yaml:3 matrix.durations: is neither a field nor named in a template of `set` (did you mean 'duration'?)"],
    ),
    (
        "matrix: {seed: [1, 2], duration: [5,\n  13]}\n",
        ["n.yaml:3 matrix.duration: '13' is not one of 2 … 12"],
    ),
    (
        "matrix: {duration: [5, 5.0]}\n",
        ["n.yaml:2 matrix: two combinations ask for the same video of shots.csv:2; each must differ in what is sent"],
    ),
    (
        f"matrix: {{seed: {list(range(2501))}, duration: [2, 3], camera_fixed: [yes, no]}}\n",
        ["n.yaml:2 matrix: makes 10,004 combinations of every row; 10,000 is the most"],
    ),
    (
        "output: x\n",
        [
            "n.yaml:2 output: shots.csv:3 and shots.csv:2 would get the same file name 'x'; "
            "name what differs, such as {id}"
        ],
    ),
    (
        "output: '{id}-{sed}'\n",
        ["n.yaml:2 output: '{id}-{sed}' names {sed}, which is neither a column nor a field (did you mean 'seed'?)"],
    ),
    (
        "output: {id}-{seed}\n",
        [
            "n.yaml:2: is not YAML: while parsing a block mapping did not find expected key; "
            'a template stands in quotation marks, such as output: "{id}-{seed}"'
        ],
    ),
    (
        "set:\n  prompt: a cat: on a mat\n",
        [
            "n.yaml:3: is not YAML: mapping values are not allowed in this context; "
            "text with a colon and a blank in it needs quotation marks"
        ],
    ),
    (
        "set:\n\tprompt: x\n",
        [
            "n.yaml:3: is not YAML: while scanning for the next token found character that cannot start any token; "
            "indent with spaces, not with tabs"
        ],
    ),
    ("defaults: {<<: 7}\n", ["n.yaml:2 defaults: `<<` merges a mapping, and there is none behind it"]),
    ("? [a, b]\n: c\n", ["n.yaml:2: a key must be text, such as `prompt`"]),
    (
        "defaults:\n  ? {a: b}\n  : c\n  duration: 13\n",
        [
            "n.yaml:3: a key must be text, such as `prompt`",
            "n.yaml:5 defaults.duration: '13' is not one of 2 … 12",
        ],
    ),
    (
        f"rows:\n  - id: a\n    image_url: {URL}\n    camera:\n      at: {{[1, 2]: x}}\n",
        ["n.yaml:5: a key must be text, such as `prompt`"],
    ),
    (
        "rows: shts.csv\noutput: '{id'\n",
        [
            "n.yaml:1 rows: shts.csv does not exist; did you mean shots.csv?",
            "n.yaml:2 output: '{id' is not a template (expected '}' before end of string); a name stands in braces, "
            "such as {id}",
        ],
    ),
    (
        "columns: {subject: promt}\nset: {}\ndefaults: {duration: 13}\n",
        [
            f"n.yaml:2 columns.subject: 'promt' is not a field of {DEFAULT_ENDPOINT} (did you mean 'prompt'?)",
            "n.yaml:4 defaults.duration: '13' is not one of 2 … 12",
        ],
    ),
]


@pytest.mark.parametrize(("text", "issues"), CAMPAIGNS)
def test_a_campaign_that_is_wrong_tells_all_of_it_once(report: Report, text: str, issues: list[str]) -> None:
    text = text if text.startswith("row") else f"rows: shots.csv\n{text}"
    text = text if "set:" in text else f'{text}set: {{prompt: "{{subject}}"}}\n'
    assert report(text, "n.yaml") == issues


# Where the rows or the endpoint are not found, nobody knows which columns or fields there are: none of them is wrong.

NO_ROWS: list[tuple[str, str]] = [
    ("rows: pix/*.jpg", "rows: no file matches 'pix/*.jpg'; looked in FOLDER"),
    ("rows: shts.csv", "rows: shts.csv does not exist; did you mean shots.csv?"),
    (
        "rows: images",
        "rows: images is a folder; name the sheet or the campaign in it; a row for each picture is written "
        "images/*.jpg",
    ),
    (
        "name: n",
        "rows: is missing; name a sheet (`rows: shots.csv`), a pattern (`rows: images/*.jpg`) or list the rows",
    ),
    ("rows: []", "rows: is an empty list"),
    ("rows: [a cat]", "rows: a row is a mapping of column to value"),
]
UNKNOWN = f"no OpenAPI document is known for 'fal-ai/nothing'. {FETCH}"
NO_ENDPOINT: list[tuple[str, str]] = [
    ("endpoint: fal-ai/nothing", f"endpoint: {UNKNOWN}"),
    (f"endpoint: [{DEFAULT_ENDPOINT}, fal-ai/nothing]", f"endpoint: {UNKNOWN}"),
    (f"endpoint: [{DEFAULT_ENDPOINT}, [x]]", "endpoint: must be the id of an endpoint"),
    ("endpoint: {a: b}", "endpoint: must be the id of an endpoint, or a list of them"),
]
GOOD = [
    "set: {prompt: '{id} {move}'}\nmatrix: {move: [left, right], seed: [1, 2]}",
    "set: {prompt: x}\nmatrix: {duration: [2, 3], camera_fixed: [yes, no]}",
    "set: {prompt: '{id}, {resolution}'}\nmatrix: {resolution: [480p, 720p]}\noutput: '{id}-{resolution}'",
]
COLUMNS = "set: {prompt: '{a} {b}'}\ncolumns: {pic: image_url}\ncarry: [c]\noutput: '{id}-{d}'"
FIELDS_OF_ANOTHER = (
    "set: {prompt: x, strength: '{id}'}\nmatrix: {scale: [1, 2]}\ndefaults: {style: y}\noutput: '{id}-{steps}'"
)


@pytest.mark.parametrize("rest", [*GOOD, COLUMNS])
@pytest.mark.parametrize(("rows", "message"), NO_ROWS)
def test_without_rows_a_good_rest_has_no_mistakes(report: Report, rows: str, message: str, rest: str) -> None:
    line = 1 if message.startswith("rows: is missing") else 2
    assert report(f"takes: 1\n{rows}\n{rest}\n", "n.yaml") == [f"n.yaml:{line} {message}"]


@pytest.mark.parametrize("rest", [*GOOD, FIELDS_OF_ANOTHER])
@pytest.mark.parametrize(("endpoint", "message"), NO_ENDPOINT)
def test_without_an_endpoint_a_good_rest_has_no_mistakes(
    report: Report, endpoint: str, message: str, rest: str
) -> None:
    assert report(f"rows: shots.csv\n{endpoint}\n{rest}\n", "n.yaml") == [f"n.yaml:2 {message}"]


@pytest.mark.parametrize("rest", [*GOOD, FIELDS_OF_ANOTHER, COLUMNS])
@pytest.mark.parametrize(("endpoint", "wrong_endpoint"), NO_ENDPOINT)
@pytest.mark.parametrize(("rows", "wrong_rows"), NO_ROWS)
def test_without_both_a_good_rest_has_no_mistakes(
    report: Report, rows: str, wrong_rows: str, endpoint: str, wrong_endpoint: str, rest: str
) -> None:
    line = 1 if wrong_rows.startswith("rows: is missing") else 2
    assert report(f"takes: 1\n{rows}\n{endpoint}\n{rest}\n", "n.yaml") == [
        f"n.yaml:{line} {wrong_rows}",
        f"n.yaml:3 {wrong_endpoint}",
    ]


def test_without_rows_what_is_wrong_by_itself_is_told(report: Report) -> None:
    rest = "set: {promt: x, prompt: '{'}\nmatrix:\n  move: [1]\n  takes: [2]\ndefaults: {sed: 3}\n"
    text = "rows: pix/*.jpg\n" + rest
    assert [issue.partition(": ")[0] for issue in report(text, "n.yaml")] == [
        "n.yaml:1 rows",
        "n.yaml:2 set.prompt",
        "n.yaml:2 set.promt",
        "n.yaml:5 matrix.takes",
        "n.yaml:6 defaults.sed",
    ]


def test_a_campaigns_mistakes_the_headers_and_every_cells_are_one_report(report: Report, folder: Path) -> None:
    (folder / "shots.csv").write_text(
        f"id,subject,image_url,duration,mood,mood\na,a cat,{URL},13,,\na,a dog,images/non.jpg,5,,\n"
    )
    campaign = 'name: a/b\nrows: shots.csv\nset:\n  prompt: "{subject}"\ntakes: 0\ncarry: [mod]\nmax_cost: lots\n'
    assert report(campaign, "n.yaml") == [
        "n.yaml:1 name: 'a/b' cannot be the name of a campaign; it becomes the name of a folder",
        "n.yaml:5 takes: '0' is not a whole number from 1 to 1000",
        "n.yaml:6 carry: there is no column 'mod' to carry along (did you mean 'mood'?)",
        "n.yaml:7 max_cost: 'lots' is no sum; write dollars like 25 or 25.00",
        "shots.csv:1 mood: is the name of two columns; rename or remove one",
        "shots.csv:2 duration: '13' is not one of 2 … 12",
        "shots.csv:3 id: 'a' is also the id of shots.csv:2",
        "shots.csv:3 image_url: 'images/non.jpg' does not exist (did you mean 'moon.jpg'?); looked for images/non.jpg",
    ]


def test_the_sheet_of_every_mistake_is_one_report() -> None:
    with pytest.raises(ManifestError) as caught:
        list(manifest.load(MANIFESTS / "mistakes.csv").rows())
    found = [str(issue).replace(f"{MANIFESTS.absolute()}/", "") for issue in caught.value.issues]
    assert found == [
        "mistakes.csv:1 mood: is the name of two columns; rename or remove one",
        "mistakes.csv:1 promts: is nearly 'prompt', and there is a column 'prompt' too: remove one of them, or keep "
        "it as your own by `carry: [promts]` or --carry promts",
        "mistakes.csv:3 duration: '13' is not one of 2 … 12",
        f"mistakes.csv:4 prompt: is empty, and {NEEDS}",
        "mistakes.csv:5 image_url: 'images/chelsee.jpg' does not exist (did you mean 'chelsea.jpg'?); "
        "looked for images/chelsee.jpg",
        "mistakes.csv:6 image_url: 'images' is a folder; name one file in it",
        "mistakes.csv:7 image_url: 'README.md' is text, not an image",
        "mistakes.csv:8 image_url: 'https://example.com/my cat.jpg' holds a blank; "
        "write it as %20: 'https://example.com/my%20cat.jpg'",
        "mistakes.csv:9 image_url: is not a data URI of the form data:image/png;base64,…",
        "mistakes.csv:10 resolution: '480' is not one of 480p, 720p, 1080p (did you mean '480p'?)",
        "mistakes.csv:11 duration: 'five' is not one of 2 … 12",
        "mistakes.csv:12 seed: '1.5' is not a whole number",
        "mistakes.csv:13 camera_fixed: 'perhaps' is not true or false (yes and no, 1 and 0 will do)",
        "mistakes.csv:14 aspect_ratio: '16x9' is not one of 21:9, 16:9, 4:3, 1:1, 3:4, 9:16, auto "
        "(did you mean '16:9'?)",
        "mistakes.csv:16 id: 'a' is also the id of mistakes.csv:3",
        "mistakes.csv:17 takes: '0' is not a whole number from 1 to 1000",
        "mistakes.csv:18 output: '{shot}' names {shot}, which is neither a column nor a field; there are id, take, "
        "prompt, image_url, duration, resolution, seed, camera_fixed, aspect_ratio, mood, promts, takes, …",
        "mistakes.csv:20 output: mistakes.csv:20 and mistakes.csv:19 would get the same file name 'same'; "
        "name what differs, such as {id}",
        f"mistakes.csv:21 endpoint: no OpenAPI document is known for 'fal-ai/nothing'. {FETCH}",
        "mistakes.csv:22: 5 cells do not fit their columns, and 'slowly' begins with a blank; "
        "text with a comma in it needs quotes round it",
        "mistakes.csv:23: 5 cells do not fit their columns, and 'slowly' begins with a blank; "
        "text with a comma in it needs quotes round it",
        "mistakes.csv:24 output: '{id' is not a template (expected '}' before end of string); "
        "a name stands in braces, such as {id}",
        "mistakes.csv:25: 'later' stands in column 15, which has no name in the header",
        "mistakes.csv:26 prompt: '#NAME?' is an error of the spreadsheet program; mend the cell there; "
        "text that begins with = + or - needs a ' before it there",
        "mistakes.csv:26 duration: '2,0' is not one of 2 … 12 (a decimal comma; write 2)",
        "mistakes.csv:26 camera_fixed: 'WAHR' is not true or false (write true)",
        f"mistakes.csv:26 aspect_ratio: '16:09:00' is not one of {RATIOS} (a spreadsheet program made a time of it; "
        "write 16:9 and set the column to text)",
        "mistakes.csv:27: a quotation mark opens in this row and is never closed; the rows below it were not read",
    ]
    kinds = caught.value.by_kind()
    assert (len(kinds), sum(kinds.values()), next(iter(kinds))) == (19, caught.value.count, "one_of")


# Names given on the command line have no line in a file.


def test_a_name_from_the_command_line_is_refused_by_its_option(folder: Path) -> None:
    sheet = folder / "shots.csv"
    with pytest.raises(InputError) as caught:
        manifest.load(sheet, campaign="a/b")
    assert str(caught.value) == "--campaign: 'a/b' cannot be the name of a campaign; it becomes the name of a folder"
    with pytest.raises(InputError) as caught:
        manifest.load(sheet, endpoint="fal-ai/nothing")
    assert str(caught.value) == f"no OpenAPI document is known for 'fal-ai/nothing'. {FETCH}"


# Kinds.


def test_kinds_are_counted_beyond_the_issues_that_are_kept(folder: Path) -> None:
    extra = 7
    rows = f"x,{URL},13,0\n" * (ISSUES_KEPT_MAX // 2 + extra)
    (folder / "shots.csv").write_text("prompt,image_url,duration,takes\n" + rows)
    with pytest.raises(ManifestError) as caught:
        list(manifest.load(folder / "shots.csv").rows())
    assert len(caught.value.issues) == ISSUES_KEPT_MAX
    half = ISSUES_KEPT_MAX // 2 + extra
    assert (caught.value.by_kind(), caught.value.count) == ({"one_of": half, "takes": half}, 2 * half)


def named_kinds() -> set[str]:
    """Every kind that the code gives to an issue or a problem, as it stands there."""
    found = set()
    root = Path(batch.__file__).parent
    for path in [*(root / "manifest").rglob("*.py"), *(root / "endpoints").glob("*.py")]:
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            given = [word.value for word in call.keywords if word.arg == "kind"]
            if name in ("add", "_wrong") and len(call.args) > 2:
                given.append(call.args[-1])
            if name == "_Wrong":
                given.append(call.args[0])
            if name == "_problem" and len(call.args) == 4:
                given.append(call.args[2])
            found |= {word.value for word in given if isinstance(word, ast.Constant) and isinstance(word.value, str)}
    return found


def test_every_kind_in_the_code_is_in_the_list_and_every_one_in_the_list_is_used() -> None:
    from batch.endpoints.check import _TYPE_KINDS

    # Given by tables and variables: the types of values, the bounds of numbers, the row that was pushed to the right.
    others = {*_TYPE_KINDS.values(), "greater_than", "greater_than_equal", "less_than", "less_than_equal"}
    assert named_kinds() | others | {"shifted_cells"} == set(KINDS)
    assert all(kind.islower() and kind.replace("_", "").isalpha() for kind in KINDS)
