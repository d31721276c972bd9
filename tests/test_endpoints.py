"""An endpoint is data: how cells are read, inputs are checked, and prices are found, by its own document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batch import endpoints
from batch.endpoints import DEFAULT_ENDPOINT, Endpoint, Problem
from batch.errors import InputError

SEEDANCE = endpoints.load(DEFAULT_ENDPOINT)
GOOD = {"prompt": "a cat", "image_url": "https://example.com/cat.png"}


def pinned(tmp_path: Path, properties: dict[str, Any], *, required: list[str] | None = None) -> Endpoint:
    """A made-up endpoint with these input properties, pinned and loaded."""
    ref = "#/components/schemas/In"
    schemas = {
        "In": {"type": "object", "properties": properties, "required": required or []},
        "Size": {"type": "object", "properties": {"width": {"type": "integer", "maximum": 100}}, "required": ["width"]},
    }
    body = {"requestBody": {"content": {"application/json": {"schema": {"$ref": ref}}}}}
    document = {"paths": {"/acme/thing": {"post": body}}, "components": {"schemas": schemas}}
    (tmp_path / "acme__thing.json").write_text(json.dumps(document))
    return endpoints.load("acme/thing", pinned_dir=tmp_path)


def kinds(endpoint: Endpoint, input: dict[str, Any]) -> dict[str, str]:
    return {".".join(map(str, problem.loc)): problem.kind for problem in endpoints.check_input(endpoint, input)}


def test_fields_come_in_the_order_the_document_shows_them() -> None:
    names = [field.name for field in SEEDANCE.fields]
    assert names == [
        "prompt",
        "aspect_ratio",
        "resolution",
        "duration",
        "camera_fixed",
        "seed",
        "enable_safety_checker",
        "image_url",
    ]


def test_seedance_is_read_from_its_own_document() -> None:
    duration, image = SEEDANCE.field("duration"), SEEDANCE.field("image_url")
    assert duration is not None
    assert image is not None
    assert duration.enum == tuple(str(seconds) for seconds in range(2, 13))
    assert (duration.default, duration.is_required, duration.is_file) == ("5", False, False)
    assert (image.is_required, image.media) == (True, "image")
    assert (SEEDANCE.seed_field, SEEDANCE.output_has_files) == ("seed", True)
    assert SEEDANCE.source == "built in, 2026-01-28"


@pytest.mark.parametrize("written", [5, 5.0, "5", "5.0", " 5 "])
def test_every_way_to_write_five_is_the_duration_five(written: object) -> None:
    field = SEEDANCE.field("duration")
    assert field is not None
    assert endpoints.read_cell(field, written) == "5"


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("camera_fixed", "yes", True),
        ("camera_fixed", "TRUE", True),
        ("camera_fixed", 1, True),
        ("camera_fixed", "Off", False),
        ("camera_fixed", 0.0, False),
        ("seed", "3.0", 3),
        ("seed", "-1", -1),
        ("seed", "9007199254740993", 9007199254740993),
        ("aspect_ratio", "16:9", "16:9"),
        ("prompt", " a cat ", " a cat "),
        ("prompt", 5.0, "5"),
        ("image_url", " cat.png ", "cat.png"),
    ],
)
def test_a_cell_is_read_by_its_field(name: str, written: object, value: object) -> None:
    field = SEEDANCE.field(name)
    assert field is not None
    read = endpoints.read_cell(field, written)
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(
    ("name", "written", "kind"),
    [
        ("seed", "3.5", "int_type"),
        ("seed", "1_000", "int_type"),
        ("seed", "nan", "int_type"),
        ("seed", True, "int_type"),
        ("camera_fixed", "perhaps", "bool_type"),
        ("camera_fixed", "2", "bool_type"),
        ("prompt", True, "string_type"),
        ("duration", ["5"], "one_of"),
    ],
)
def test_a_cell_that_means_nothing_to_its_field_is_a_problem(name: str, written: object, kind: str) -> None:
    field = SEEDANCE.field(name)
    assert field is not None
    read = endpoints.read_cell(field, written)
    assert isinstance(read, Problem)
    assert (read.loc, read.kind) == ((name,), kind)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("0,5", "'0,5' is not a number (a decimal comma; write 0.5)"),
        ("-1,250000", "'-1,250000' is not a number (a decimal comma; write -1.250000)"),
        ("1,250", "'1,250' is not a number (write it with nothing between its digits)"),
        ("02. Mai", "'02. Mai' is not a number (a spreadsheet program made a date of it; set the column to text)"),
        ("half", "'half' is not a number"),
    ],
)
def test_a_number_as_a_spreadsheet_program_writes_it_abroad_is_not_guessed_at(
    tmp_path: Path, written: str, words: str
) -> None:
    (field,) = pinned(tmp_path, {"strength": {"type": "number"}}).fields
    read = endpoints.read_cell(field, written)
    assert isinstance(read, Problem)
    assert (read.message, read.kind) == (words, "float_type")


def test_structured_cells_are_json(tmp_path: Path) -> None:
    sizes = {"anyOf": [{"$ref": "#/components/schemas/Size"}, {"type": "string", "enum": ["square", "wide"]}]}
    images = {"type": "array", "items": {"type": "string"}}
    endpoint = pinned(tmp_path, {"size": sizes, "image_urls": images, "scale": {"type": "number"}})
    size, urls, scale = endpoint.fields
    assert endpoints.read_cell(size, '{"width": 64}') == {"width": 64}
    assert endpoints.read_cell(size, "wide") == "wide"
    assert endpoints.read_cell(urls, '["a.png", "b.png"]') == ["a.png", "b.png"]
    assert endpoints.read_cell(urls, "a.png") == ["a.png"]
    assert endpoints.read_cell(scale, ".5") == 0.5
    assert isinstance(endpoints.read_cell(urls, '["a.png"'), Problem)
    assert urls.media == "image"


def test_a_good_input_has_no_problem() -> None:
    assert endpoints.check_input(SEEDANCE, {**GOOD, "seed": -1, "duration": "12", "camera_fixed": False}) == ()


def test_checking_never_adds_fals_defaults_to_the_input() -> None:
    input = dict(GOOD)
    endpoints.check_input(SEEDANCE, input)
    assert input == GOOD


def test_every_problem_of_an_input_is_found_at_once() -> None:
    wrong = {"prompt": 3, "duration": "13", "camera_fixed": "yes", "seed": True, "seeed": 4}
    assert kinds(SEEDANCE, wrong) == {
        "prompt": "string_type",
        "duration": "one_of",
        "camera_fixed": "bool_type",
        "seed": "int_type",
        "seeed": "extra_forbidden",
        "image_url": "missing",
    }


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("duration", "13", "'13' is not one of 2 … 12"),
        ("resolution", "720", "'720' is not one of 480p, 720p, 1080p (did you mean '720p'?)"),
        ("aspect_ratio", "2:1", "'2:1' is not one of 21:9, 16:9, 4:3, 1:1, 3:4, 9:16, auto"),
        ("resolution", "480P", "'480P' is not one of 480p, 720p, 1080p (did you mean '480p'?)"),
    ],
)
def test_messages_say_what_was_found_and_what_was_expected(field: str, value: str, message: str) -> None:
    (problem,) = endpoints.check_input(SEEDANCE, {**GOOD, field: value})
    assert problem.message == message


def test_bounds_lengths_and_patterns_have_fals_names_and_limits(tmp_path: Path) -> None:
    endpoint = pinned(
        tmp_path,
        {
            "steps": {"type": "integer", "minimum": 1, "maximum": 50},
            "scale": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "multipleOf": 0.5},
            "prompt": {"type": "string", "minLength": 2, "maxLength": 4},
            "colour": {"type": "string", "pattern": "^#[0-9a-f]{6}$"},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 1},
        },
    )
    assert kinds(endpoint, {"steps": 0, "scale": 0, "prompt": "x", "colour": "red", "tags": ["a", "b"]}) == {
        "steps": "greater_than_equal",
        "scale": "greater_than",
        "prompt": "sequence_too_short",
        "colour": "string_pattern_mismatch",
        "tags": "sequence_too_long",
    }
    (problem,) = endpoints.check_input(endpoint, {"steps": 51})
    assert (problem.kind, problem.ctx) == ("less_than_equal", {"le": 50})
    assert kinds(endpoint, {"scale": 0.75, "tags": [3]}) == {"scale": "multiple_of", "tags.0": "string_type"}


def test_of_several_alternatives_the_one_that_was_meant_is_explained(tmp_path: Path) -> None:
    size = {"anyOf": [{"$ref": "#/components/schemas/Size"}, {"type": "string", "enum": ["square", "wide"]}]}
    seed = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    endpoint = pinned(tmp_path, {"size": size, "seed": seed, "note": {"type": "string", "nullable": True}})
    assert kinds(endpoint, {"size": {"width": 400}}) == {"size.width": "less_than_equal"}
    assert kinds(endpoint, {"size": "round"}) == {"size": "one_of"}
    assert kinds(endpoint, {"size": 4}) == {"size": "dict_type"}
    assert kinds(endpoint, {"seed": None, "note": None, "size": "wide"}) == {}
    assert endpoint.seed_field == "seed"


def test_a_pinned_document_is_preferred_to_the_built_in_one(tmp_path: Path) -> None:
    document = json.loads(json.dumps(SEEDANCE.document))
    schema = document["components"]["schemas"]["BytedanceSeedanceV1ProFastImageToVideoInput"]
    schema["properties"]["duration"]["enum"] = ["99"]
    (tmp_path / (DEFAULT_ENDPOINT.replace("/", "__") + ".json")).write_text(json.dumps(document))
    endpoint = endpoints.load(DEFAULT_ENDPOINT, pinned_dir=tmp_path)
    assert kinds(endpoint, {**GOOD, "duration": "99"}) == {}
    assert kinds(SEEDANCE, {**GOOD, "duration": "99"}) == {"duration": "one_of"}
    assert endpoint.source.startswith("pinned, ")


def test_a_document_that_holds_itself_can_be_loaded(tmp_path: Path) -> None:
    pinned(tmp_path, {"a": {"type": "string"}})
    path = tmp_path / "acme__thing.json"
    document = json.loads(path.read_text())
    document["components"]["schemas"]["In"]["properties"]["inner"] = {"$ref": "#/components/schemas/In"}
    path.write_text(json.dumps(document))
    endpoint = endpoints.load("acme/thing", pinned_dir=tmp_path)
    assert kinds(endpoint, {"inner": {"inner": {"a": "x"}}}) == {}


@pytest.mark.parametrize("text", ["not json", "[]", "{}", '{"paths": {"/other": {"post": {}}}}'])
def test_a_pinned_file_that_is_no_such_document_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "acme__thing.json").write_text(text)
    with pytest.raises(InputError, match="is not a queue OpenAPI document of acme/thing"):
        endpoints.load("acme/thing", pinned_dir=tmp_path)


def test_an_unknown_endpoint_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        endpoints.load(DEFAULT_ENDPOINT.replace("fast", "fats"), pinned_dir=tmp_path)
    assert f"Did you mean {DEFAULT_ENDPOINT}?" in str(caught.value)
    assert "`fal-batch endpoint fal-ai/bytedance/seedance/v1/pro/fats/image-to-video` fetches it" in str(caught.value)


@pytest.mark.parametrize("endpoint_id", ["../../etc/passwd", "", "seedance", "a//b", "/a/b", "a/.."])
def test_what_is_no_endpoint_id_never_becomes_a_path(endpoint_id: str) -> None:
    with pytest.raises(InputError, match="is not an endpoint id"):
        endpoints.load(endpoint_id)


# Price and frames. The expected figures are the tokens of the table times 1.02, rounded up.


@pytest.mark.parametrize(
    ("resolution", "ratio", "duration", "micros"),
    [
        ("480p", "16:9", "5", 49_986),  # 49,005.0 tokens
        ("480p", "16:9", "2", 20_242),  # 864 x 480 x 49 / 1024 = 19,845.0
        ("720p", "4:3", "5", 112_313),  # 110,110.0
        ("1080p", "16:9", "5", 251_777),  # 246,840.0
        ("1080p", "21:9", "12", 581_307),  # 2176 x 928 x 289 / 1024 = 569,908.0
    ],
)
def test_price_counts_the_tokens_of_every_frame(resolution: str, ratio: str, duration: str, micros: int) -> None:
    input = {**GOOD, "resolution": resolution, "aspect_ratio": ratio, "duration": duration}
    assert endpoints.price_micros(SEEDANCE, input) == micros


def test_what_is_not_set_is_priced_with_fals_defaults() -> None:
    full = {**GOOD, "resolution": "1080p", "duration": "5", "aspect_ratio": "auto"}
    assert endpoints.price_micros(SEEDANCE, GOOD) == endpoints.price_micros(SEEDANCE, full) == 251_777


def test_auto_takes_the_ratio_nearest_the_image_and_the_dearest_when_it_is_unknown() -> None:
    input = {**GOOD, "resolution": "480p", "duration": "5"}
    square = endpoints.price_micros(SEEDANCE, {**input, "aspect_ratio": "1:1"})
    dearest = endpoints.price_micros(SEEDANCE, {**input, "aspect_ratio": "16:9"})
    assert endpoints.price_micros(SEEDANCE, input, (512, 500)) == square
    assert endpoints.price_micros(SEEDANCE, input) == dearest
    assert square is not None
    assert dearest is not None
    assert square < dearest


def test_num_frames_overrides_the_duration() -> None:
    input = {**GOOD, "resolution": "480p", "aspect_ratio": "16:9"}
    assert endpoints.price_micros(SEEDANCE, {**input, "num_frames": 49}) == 20_242


def test_an_endpoint_without_a_rule_has_no_price(tmp_path: Path) -> None:
    endpoint = pinned(tmp_path, {"prompt": {"type": "string"}})
    assert endpoints.price_micros(endpoint, {"prompt": "x"}) is None


@pytest.mark.parametrize(
    ("size", "ratio"),
    [((512, 512), "1:1"), ((676, 450), "4:3"), ((1000, 480), "21:9"), ((1920, 1080), "16:9"), ((450, 676), "3:4")],
)
def test_nearest_ratio_is_the_one_that_differs_by_the_smallest_factor(size: tuple[int, int], ratio: str) -> None:
    assert endpoints.nearest_ratio(*size) == ratio


def test_every_resolution_and_ratio_has_a_frame_and_a_turned_ratio_a_turned_frame() -> None:
    turned = {"16:9": "9:16", "4:3": "3:4", "1:1": "1:1"}
    for resolution in ("480p", "720p", "1080p"):
        for ratio, other in turned.items():
            width, height = endpoints.frame_size(resolution, ratio)
            assert endpoints.frame_size(resolution, other) == (height, width)
        assert endpoints.frame_size(resolution, "21:9")[0] > endpoints.frame_size(resolution, "16:9")[0]
    with pytest.raises(KeyError):
        endpoints.frame_size("480p", "auto")


# Image limits: every bound is exclusive.


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"media_type": "image/avif"}, "image/avif"),
        ({"size_bytes": 30_000_000}, "30.0 MB"),
        ({"width": 300}, "over 300"),
        ({"height": 6000, "width": 5999}, "under 6000"),
        ({"width": 1000, "height": 400}, "width / height is 2.5"),
        ({"width": 400, "height": 1000}, "width / height is 0.4"),
    ],
)
def test_an_image_outside_a_limit_is_refused(change: dict[str, Any], word: str) -> None:
    measures: dict[str, Any] = {"media_type": "image/png", "width": 512, "height": 512, "size_bytes": 1000}
    (message,) = endpoints.check_image(SEEDANCE, **{**measures, **change})
    assert word in message


def test_an_image_just_inside_the_limits_is_taken() -> None:
    inside = [(301, 301, 29_999_999), (5999, 5999, 1), (1000, 401, 1)]
    for width, height, size in inside:
        assert endpoints.check_image(
            SEEDANCE, media_type="image/jpeg", width=width, height=height, size_bytes=size
        ) == ()  # fmt: skip
