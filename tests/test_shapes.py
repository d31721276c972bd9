"""Cells of every shape that a document can ask for: how they are read, judged, put together, and searched for files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endpoint_support import ID, pin

from batch import manifest
from batch.endpoints import Problem, check_input, check_value, read_cell
from batch.errors import ManifestError
from batch.jobs import FILE_MARK, Row

PICTURE = Path(__file__).parents[1] / "manifests" / "images" / "moon.jpg"
URL = "https://example.com/cat.png"

SIZE = {
    "type": "object",
    "properties": {
        "width": {"type": "integer", "maximum": 14142, "exclusiveMinimum": 0},
        "height": {"type": "integer", "maximum": 14142, "exclusiveMinimum": 0},
    },
}
LORA = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "description": "URL or the path to the LoRA weights."},
        "scale": {"type": "number", "minimum": 0, "maximum": 4},
    },
    "required": ["path"],
}
PROPERTIES: dict[str, Any] = {
    "prompt": {"type": "string", "minLength": 3, "maxLength": 30},
    "image_size": {
        "anyOf": [{"$ref": "#/components/schemas/Size"}, {"type": "string", "enum": ["square", "portrait_4_3"]}]
    },
    "image_urls": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
    "loras": {"type": "array", "items": {"$ref": "#/components/schemas/Lora"}},
    "frames": {"type": "integer", "enum": [25, 50]},
    "seconds": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "enum": ["auto"]}]},
    "strength": {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]},
    "step": {"type": "number", "multipleOf": 0.1},
    "weights": {"type": "array", "items": {"type": "number"}},
    "mode": {"type": "string", "const": "fast"},
    "words": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "extra": {"type": "object", "additionalProperties": {"type": "integer"}},
    "free": {"type": "object"},
    "untyped": {"title": "Untyped"},
    "shown": {"default": "plain"},
    "both": {"type": ["integer", "null"]},
    "nested": {"allOf": [{"$ref": "#/components/schemas/Size"}, {"required": ["width"]}]},
    "control": {"type": "object", "properties": {"image_url": {"type": "string"}, "masks": {"type": "array", "items": {
        "type": "object", "properties": {"mask_image_url": {"type": "string"}}}}}},
    "webhook_url": {"type": "string"},
    "url": {"type": "string", "description": "The URL of the web page to read."},
    "image": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"url": {"type": "string"}}}]},
    "voice": {"type": "string", "description": "A voice by its name, or the URL of a sample."},
}  # fmt: skip
SCHEMAS = {"Size": SIZE, "Lora": LORA}

Rows = Callable[..., list[Row]]
Issues = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(PICTURE, tmp_path / "moon.jpg")
    shutil.copy(PICTURE, tmp_path / "cat.jpg")
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    pin(tmp_path / "endpoints", PROPERTIES, required=["prompt"], schemas=SCHEMAS)
    return tmp_path


@pytest.fixture
def rows_of(folder: Path) -> Rows:
    """The rows of a sheet or a campaign for the endpoint of every shape."""

    def read(text: str, name: str = "shots.csv") -> list[Row]:
        (folder / name).write_text(text, encoding="utf-8")
        return list(manifest.load(folder / name, endpoint=ID, pinned_dir=folder / "endpoints").rows())

    return read


@pytest.fixture
def issues_of(rows_of: Rows) -> Issues:
    def read(text: str, name: str = "shots.csv") -> list[str]:
        with pytest.raises(ManifestError) as caught:
            rows_of(text, name)
        return [str(issue) for issue in caught.value.issues]

    return read


def cell(column: str, text: str) -> str:
    """A sheet of one row with one column beside the prompt."""
    quoted = text.replace('"', '""')
    return f'id,prompt,{column}\na,a cat,"{quoted}"\n'


@pytest.mark.parametrize(
    ("column", "text", "field", "value"),
    [
        ("image_size", "portrait_4_3", "image_size", "portrait_4_3"),
        ("image_size", '{"width": 512, "height": 256}', "image_size", {"width": 512, "height": 256}),
        ("image_size", '{"width": "512"}', "image_size", {"width": 512}),
        ("image_size.width", "512", "image_size", {"width": 512}),
        ("image_urls", f"{URL}; {URL}?2", "image_urls", [URL, f"{URL}?2"]),
        ("image_urls", f"{URL};v=1;{URL}", "image_urls", [f"{URL};v=1", URL]),
        ("image_urls", f'["{URL}"]', "image_urls", [URL]),
        ("image_urls[1]", URL, "image_urls", [URL]),
        ("image_urls.0", URL, "image_urls", [URL]),
        ("loras", '[{"path": "acme/ink", "scale": "0.5"}]', "loras", [{"path": "acme/ink", "scale": 0.5}]),
        ("loras", '{"path": "acme/ink"}', "loras", [{"path": "acme/ink"}]),
        ("loras[0].path", "acme/ink", "loras", [{"path": "acme/ink"}]),
        ("frames", "50.0", "frames", 50),
        ("seconds", "auto", "seconds", "auto"),
        ("seconds", "12", "seconds", 12),
        ("strength", "0.25", "strength", 0.25),
        ("step", "0.3", "step", 0.3),
        ("weights", "0.5; 1; 2", "weights", [0.5, 1, 2]),
        ("weights", "3", "weights", [3]),
        ("mode", "fast", "mode", "fast"),
        ("words", "one; two", "words", "one; two"),
        ("words", '["one", "two"]', "words", ["one", "two"]),
        ("extra", '{"a": "1"}', "extra", {"a": 1}),
        ("extra.a", "1", "extra", {"a": 1}),
        ("free", '{"a": [1, {"b": null}]}', "free", {"a": [1, {"b": None}]}),
        ("untyped", "[1, 2]", "untyped", [1, 2]),
        ("untyped", "plain words", "untyped", "plain words"),
        ("shown", "12", "shown", "12"),
        ("both", "7", "both", 7),
        ("nested", '{"width": 5}', "nested", {"width": 5}),
        ("webhook_url", "https://example.com/hook", "webhook_url", "https://example.com/hook"),
        ("url", "https://example.com/page", "url", "https://example.com/page"),
        ("voice", "Aria", "voice", "Aria"),
    ],
)
def test_a_cell_of_any_shape_is_read_by_its_schema(
    rows_of: Rows, column: str, text: str, field: str, value: object
) -> None:
    (row,) = rows_of(cell(column, text))
    assert {"prompt": "a cat", field: value} == row.job.input


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("image_size", "wide", "'wide' is not one of square, portrait_4_3"),
        ("image_size", '{"width": 0}', "width: 0 is not more than 0"),
        ("image_size", '{"widht": 5}', "widht: is not a part of it (did you mean 'width'?); it has width, height"),
        ("image_size.width", "20000", "20000 is more than 14142"),
        ("image_size.width", "wide", "'wide' is not a whole number"),
        ("image_urls", f"{URL}; {URL}; {URL}; {URL}", "has 4 items, at most 3 are allowed"),
        ("image_urls", "[]", "has 0 items, at least 1 are needed"),
        ("image_urls[0]", "nothing.jpg", "'nothing.jpg' does not exist"),
        ("image_urls", "cat.jpg; nothing.jpg", "[1]: 'nothing.jpg' does not exist"),
        ("loras", '[{"scale": 1}]', "[0].path: is required and not set"),
        ("loras[0].scale", "9", "9 is more than 4"),
        ("loras[0].path", "other.safetensors", "'other.safetensors' does not exist"),
        ("frames", "30", "'30' is not one of 25, 50"),
        ("seconds", "0", "0 is less than 1"),
        ("seconds", "soon", "'soon' is not one of auto"),
        ("strength", "2", "2 is more than 1"),
        ("step", "0.35", "0.35 is not a multiple of 0.1"),
        ("weights", "0.5; much", "[1]: 'much' is not a number"),
        ("mode", "slow", "'slow' is not 'fast'"),
        ("extra", '{"a": "x"}', "a: 'x' is not a whole number"),
        ("nested", '{"height": 5}', "width: is required and not set"),
        ("control", '{"image_url": "nothing.jpg"}', "image_url: 'nothing.jpg' does not exist"),
        ("control.image_url", "nothing.jpg", "'nothing.jpg' does not exist"),
    ],
)
def test_a_bad_cell_of_any_shape_is_told_by_its_cell(issues_of: Issues, column: str, text: str, message: str) -> None:
    issues = issues_of(cell(column, text))
    assert issues[0].startswith(f"shots.csv:2 {column}: {message}")


def test_parts_of_a_field_may_stand_in_columns_of_their_own(rows_of: Rows) -> None:
    sheet = (
        "id,prompt,image_size.width,image_size.height,loras[0].path,loras[0].scale,loras[1].path\n"
        "a,a cat,512,256,acme/ink,0.5,acme/oil\nb,a dog,,,,,acme/oil\nc,a cow,,,,,\n"
    )
    inputs = [row.job.input for row in rows_of(sheet)]
    assert inputs[0]["image_size"] == {"width": 512, "height": 256}
    assert inputs[0]["loras"] == [{"path": "acme/ink", "scale": 0.5}, {"path": "acme/oil"}]
    assert inputs[1] == {"prompt": "a dog", "loras": [{"path": "acme/oil"}]}
    assert inputs[2] == {"prompt": "a cow"}


def test_a_row_that_gives_a_field_and_a_part_of_it_says_two_things(issues_of: Issues, rows_of: Rows) -> None:
    sheet = "id,prompt,image_size,image_size.width\na,a cat,square,512\n"
    assert issues_of(sheet) == [
        "shots.csv:2 image_size.width: column 'image_size' gives all of image_size in this row already; "
        "empty one of the two cells"
    ]
    one, other = rows_of("id,prompt,image_size,image_size.width\na,a cat,square,\nb,a dog,,512\n")
    assert (one.job.input["image_size"], other.job.input["image_size"]) == ("square", {"width": 512})


def test_a_missing_part_is_told_by_its_own_column_where_there_is_one(issues_of: Issues) -> None:
    sheet = "id,prompt,nested.width,nested.height,loras[0].path,loras[0].scale\na,a cat,,5,,1\n"
    assert issues_of(sheet) == [
        f"shots.csv:2 nested.width: is empty, and {ID} needs it",
        f"shots.csv:2 loras[0].path: is empty, and {ID} needs it",
    ]
    assert issues_of("id,prompt,nested.height\na,a cat,5\n") == ["shots.csv:2 nested.width: is required and not set"]


def test_every_bad_part_of_a_row_is_told_at_once(issues_of: Issues) -> None:
    issues = issues_of("id,prompt,image_size.width,image_size.height,loras[1].scale\na,a cat,0,x,9\n")
    assert [issue.split(": ")[0] for issue in issues] == [
        "shots.csv:2 image_size.width",
        "shots.csv:2 image_size.height",
        "shots.csv:2 loras[1].scale",
    ]


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        ("image_size.widht", "image_size.width"),
        ("image_sise.width", "image_size.width"),
        ("image_size_width", "image_size.width"),
        ("loras[2].paht", "loras[2].path"),
        ("loras[0]_path", "loras[0].path"),
        ("Image_Urls[0]", "image_urls[0]"),
    ],
)
def test_a_misspelt_part_is_suggested(issues_of: Issues, column: str, meant: str) -> None:
    assert issues_of(cell(column, "1"))[0].startswith(
        f"shots.csv:1 {column}: did you mean '{meant}'? Rename the column"
    )


def test_a_part_that_a_field_does_not_have_is_a_mistake_and_a_dot_of_ones_own_is_none(
    issues_of: Issues, rows_of: Rows
) -> None:
    (issue,) = issues_of(cell("image_size.resolution", "1"))
    assert issue.startswith(f"shots.csv:1 image_size.resolution: 'image_size' of {ID} has no such part; it has width")
    (row,) = rows_of(cell("prompt.old", "a dog"))
    assert row.job.input == {"prompt": "a cat"}


def test_defaults_fill_the_parts_that_a_row_leaves_open(rows_of: Rows) -> None:
    campaign = (
        "rows: shots.csv\nendpoint: acme/thing\ndefaults:\n  image_size: {width: 64, height: 32}\n"
        "  loras[0].path: acme/ink\nset: {extra.a: '7'}\nmatrix: {image_size.height: [16, '']}\n"
    )
    rows_of("id,prompt,image_size.width\na,a cat,512\n")
    inputs = [row.job.input for row in rows_of(campaign, "n.yaml")]
    assert [input["image_size"] for input in inputs] == [{"width": 512, "height": 16}, {"width": 512, "height": 32}]
    assert [(input["loras"], input["extra"]) for input in inputs] == [([{"path": "acme/ink"}], {"a": 7})] * 2


@pytest.mark.parametrize(
    ("column", "text", "places"),
    [
        ("image_urls", "moon.jpg; cat.jpg", [["image_urls", 0], ["image_urls", 1]]),
        ("image_urls", f'["{URL}", "moon.jpg"]', [["image_urls", 1]]),
        ("image_urls[1]", "moon.jpg", [["image_urls", 0]]),
        ("control.image_url", "moon.jpg", [["control", "image_url"]]),
        ("control", '{"masks": [{"mask_image_url": "moon.jpg"}]}', [["control", "masks", 0, "mask_image_url"]]),
        ("control.masks[0].mask_image_url", "moon.jpg", [["control", "masks", 0, "mask_image_url"]]),
        ("image", "moon.jpg", [["image"]]),
        ("image", '{"url": "moon.jpg"}', [["image", "url"]]),
        ("image.url", "moon.jpg", [["image", "url"]]),
        ("loras[0].path", "weights.safetensors", [["loras", 0, "path"]]),
        ("free", '{"start_image_url": "moon.jpg", "note": "moon.jpg"}', [["free", "start_image_url"]]),
        ("voice", "moon.jpg", [["voice"]]),
    ],
)
def test_local_files_are_found_at_any_depth(rows_of: Rows, column: str, text: str, places: list[list[Any]]) -> None:
    (row,) = rows_of(cell(column, text))

    def marks(value: object, at: list[Any]) -> list[list[Any]]:
        if isinstance(value, dict) and FILE_MARK in value:
            return [at]
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [found for step, inner in pairs for found in marks(inner, [*at, step])]

    assert marks(row.job.input, []) == places
    assert {file.path.parent for file in row.job.files} == {row.job.files[0].path.parent}


@pytest.mark.parametrize("column", ["webhook_url", "url", "prompt", "free.note"])
def test_what_is_no_file_of_the_users_is_text_even_when_a_file_is_called_so(rows_of: Rows, column: str) -> None:
    sheet = cell(column, "moon.jpg") if column != "prompt" else "id,prompt\na,moon.jpg\n"
    (row,) = rows_of(sheet)
    assert row.job.files == ()


def test_a_field_that_is_called_input_has_its_parts(tmp_path: Path) -> None:
    parts = {"type": "object", "properties": {"text": {"type": "string"}}}
    pin(tmp_path / "endpoints", {"input": parts, "id": {"type": "string"}})
    (tmp_path / "shots.csv").write_text("id,input.text,input.id\na,hello,7\n")
    (row,) = manifest.load(tmp_path / "shots.csv", endpoint=ID, pinned_dir=tmp_path / "endpoints").rows()
    assert (row.id, row.job.input) == ("a", {"input": {"text": "hello"}, "id": "7"})


HINTED = {
    "a": {"type": "string", "ui": {"field": "image"}},
    "b": {"type": "array", "items": {"type": "string", "_fal_ui_field": "video"}},
    "c": {"anyOf": [{"type": "string", "contentMediaType": "audio/wav"}, {"type": "null"}]},
    "d": {"type": "string", "format": "data-uri"},
    "e": {"type": "string", "ui": {"field": "textarea"}},
    "f": {"type": "string", "format": "uri"},
    "g": {"type": "string", "description": "The mask, as a URL or base64 data URI."},
    "mask_image_url": {"type": "string"},
    "images_data_url": {"type": "string"},
    "callback_url": {"type": "string"},
    "website_url": {"type": "string"},
    "lora_url": {"title": "no type"},
    "reference_images": {"type": "array", "items": {"type": "string"}},
    "num_images": {"type": "integer"},
    "image_prompt": {"type": "string"},
    "image_style": {"type": "string", "enum": ["photo", "drawing"]},
}


def test_fields_that_hold_files_are_told_by_hints_names_and_descriptions(tmp_path: Path) -> None:
    endpoint = pin(tmp_path, HINTED)
    assert {field.name: (field.media, field.is_loose) for field in endpoint.fields if field.is_file} == {
        "a": ("image", False),
        "b": ("video", False),
        "c": ("audio", False),
        "d": ("file", False),
        "g": ("file", False),
        "mask_image_url": ("image", False),
        "images_data_url": ("image", False),
        "lora_url": ("file", True),
        "reference_images": ("image", True),
    }


def test_limits_that_a_document_states_for_a_picture_are_checked_here(tmp_path: Path) -> None:
    limits = {"min_width": 2000, "max_file_size": 1000, "max_aspect_ratio": 0.5}
    pin(tmp_path / "endpoints", {"image_url": {"type": "string", "x-fal": limits}})
    shutil.copy(PICTURE, tmp_path / "moon.jpg")
    (tmp_path / "shots.csv").write_text("id,image_url\na,moon.jpg\n")
    with pytest.raises(ManifestError) as caught:
        list(manifest.load(tmp_path / "shots.csv", endpoint=ID, pinned_dir=tmp_path / "endpoints").rows())
    (issue,) = caught.value.issues
    assert issue.kind == "image_refused"
    for words in ("the file may have 0.0 MB", "its width is", "at least 2000", "its aspect ratio is"):
        assert words in issue.message


def test_a_list_is_never_made_of_a_text_that_may_be_one(tmp_path: Path) -> None:
    (words,) = pin(tmp_path, {"words": PROPERTIES["words"]}).fields
    assert read_cell(words, "a; b") == "a; b"
    assert read_cell(words, '["a", 5]') == ["a", "5"]


def test_a_part_is_judged_alone_with_its_whole_place(tmp_path: Path) -> None:
    endpoint = pin(tmp_path, {"size": SIZE})
    width = endpoint.field("size.width")
    assert width is not None
    (problem,) = check_value(width, 0)
    assert (problem.loc, problem.kind) == (("size", "width"), "greater_than")
    assert check_input(endpoint, {"size": {"width": 1}}) == ()
    assert isinstance(read_cell(width, "x"), Problem)
