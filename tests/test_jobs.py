"""Job keys, seeds and files: what makes a job the same job for ever."""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from batch.jobs import (
    SEED_MAX,
    FileRef,
    LocalFile,
    body_with_urls,
    canonical_json,
    derived_seed,
    file_refs,
    job_key,
    local_file_mark,
    local_files,
    seeded,
)

ENDPOINT = "fal-ai/x"
INPUT: dict[str, Any] = {"prompt": "waves", "duration": "5"}
PICTURE = bytes(range(256))
SHA256 = hashlib.sha256(PICTURE).hexdigest()


def local(path: str) -> LocalFile:
    return LocalFile(sha256=SHA256, path=Path(path), size_bytes=len(PICTURE), media_type="image/png")


def data_uri(content: bytes = PICTURE, head: str = "data:image/png;base64") -> str:
    return f"{head},{base64.b64encode(content).decode()}"


# --- keys ---


def test_a_key_is_for_ever() -> None:
    """Golden values: another key for the same job would pay for it a second time in every ledger there is."""
    assert job_key(ENDPOINT, INPUT, 1) == "7d124ff3432a549d515f37ace4cdfa78"
    assert job_key(ENDPOINT, INPUT, 2) == "907f1f5f5faacaa604b33be6f2936769"
    nested = {"b": [1.0, 2.5, True, None, "é"], "a": {"$file": "f" * 64}}
    assert job_key("e", nested, 1) == "133770cc5f2f64b006e7986d73486e50"
    assert derived_seed("0" * 32) == 1728595412


def test_a_key_is_thirty_two_hex_digits() -> None:
    assert len(job_key(ENDPOINT, {}, 1)) == 32
    assert int(job_key(ENDPOINT, {}, 1), 16) >= 0


@pytest.mark.parametrize(
    "same",
    [
        dict(reversed(INPUT.items())),
        {"prompt": "waves", "duration": "5"},
    ],
    ids=["order", "copy"],
)
def test_the_order_of_fields_makes_no_other_job(same: dict[str, Any]) -> None:
    assert job_key(ENDPOINT, INPUT, 1) == job_key(ENDPOINT, same, 1)


def test_whole_floats_are_integers_at_any_depth() -> None:
    assert job_key(ENDPOINT, {"n": 5, "l": [1], "m": {"x": 2}}, 1) == job_key(
        ENDPOINT, {"n": 5.0, "l": (1.0,), "m": {"x": 2.0}}, 1
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"n": 5}, {"n": "5"}),
        ({"n": 5}, {"n": 5.5}),
        ({"n": 1}, {"n": True}),
        ({"n": 0}, {"n": False}),
        ({"n": None}, {}),
        ({"n": ""}, {}),
        ({"l": [1, 2]}, {"l": [2, 1]}),
        ({"p": "é"}, {"p": "e"}),
        ({"p": "a "}, {"p": "a"}),
        ({"p": '", "q": "'}, {"p": "", "q": ""}),
    ],
)
def test_another_input_is_another_job(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert job_key(ENDPOINT, one, 1) != job_key(ENDPOINT, other, 1)


def test_another_endpoint_or_take_is_another_job() -> None:
    keys = {job_key(endpoint, INPUT, take) for endpoint in ("fal-ai/x", "fal-ai/x/y") for take in (1, 2, 3)}
    assert len(keys) == 6


def test_a_moved_file_makes_no_other_job() -> None:
    assert local_file_mark(local("/here/a.png")) == local_file_mark(local("/there/b.png"))


@pytest.mark.parametrize(
    "spelling",
    [
        data_uri(),
        data_uri(head="data:image/jpeg;base64"),
        data_uri(head="DATA:image/png;charset=x;BASE64"),
        f"data:image/png;base64,{urllib.parse.quote(base64.b64encode(PICTURE).decode(), safe='')}",
    ],
    ids=["plain", "other-type", "capitals", "percent-encoded"],
)
def test_a_data_uri_and_a_local_file_of_the_same_bytes_are_one_job(spelling: str) -> None:
    with_file = {**INPUT, "image_url": local_file_mark(local("a.png"))}
    assert job_key(ENDPOINT, with_file, 1) == job_key(ENDPOINT, {**INPUT, "image_url": spelling}, 1)


def test_data_uris_of_other_bytes_are_other_jobs_at_any_depth() -> None:
    one, other = data_uri(b"one"), data_uri(b"other")
    for wrap in (lambda x: {"a": x}, lambda x: {"a": [x]}, lambda x: {"a": [{"url": x}]}):
        assert job_key(ENDPOINT, wrap(one), 1) != job_key(ENDPOINT, wrap(other), 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("data: a chart, growing", "data: a desert, growing"),
        ("data: a chart", "data: a desert"),
        ("Data:streams over a city, slow pan", "Data:rain over a city, slow pan"),
        ("data:x;base64,---", "data:x;base64,___"),
        ("data:x;base64,AAA", "data:y;base64,AAA"),
        ("data:text/plain,x", "data:text/html,x"),
    ],
)
def test_a_prompt_that_begins_like_a_data_uri_is_text(one: str, other: str) -> None:
    assert job_key(ENDPOINT, {"prompt": one}, 1) != job_key(ENDPOINT, {"prompt": other}, 1)


def test_canonical_json_refuses_what_is_no_json() -> None:
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            canonical_json({"x": number})


def test_canonical_json_keeps_large_and_negative_numbers() -> None:
    assert canonical_json([1e22, -0.0, -5.0, 2**60, 0.1]) == f"[{10**22},0,-5,{2**60},0.1]"


# --- seeds ---


def seed_of(input: dict[str, Any], take: int = 1, **names: Any) -> tuple[str, int]:
    key, body, _ = seeded(ENDPOINT, input, take, seed_field="seed", **names)
    return key, body["seed"]


def test_an_empty_seed_and_minus_one_are_the_same_job_with_a_derived_seed() -> None:
    empty = seed_of(INPUT)
    assert empty == seed_of({**INPUT, "seed": -1}) == seed_of({**INPUT, "seed": None})
    assert empty[0] == job_key(ENDPOINT, INPUT, 1)
    assert empty[1] == derived_seed(empty[0])


def test_writing_the_derived_seed_into_the_sheet_does_not_change_the_job() -> None:
    key, seed = seed_of(INPUT)
    assert (key, seed) == seed_of({**INPUT, "seed": seed})
    assert (key, seed) == seed_of({**INPUT, "seed": float(seed)})


def test_a_seed_of_the_users_own_is_kept_and_makes_a_job_of_its_own() -> None:
    key, seed = seed_of({**INPUT, "seed": 42})
    assert seed == 42
    assert key not in {seed_of(INPUT)[0], seed_of({**INPUT, "seed": 43})[0]}


def test_takes_differ_in_key_and_seed() -> None:
    takes = [seed_of(INPUT, take) for take in range(1, 50)]
    assert len({key for key, _ in takes}) == len({seed for _, seed in takes}) == 49


def test_a_derived_seed_of_one_take_is_an_own_seed_in_another() -> None:
    _, first = seed_of(INPUT, 1)
    key, seed = seed_of({**INPUT, "seed": first}, 2)
    assert seed == first
    assert key != seed_of(INPUT, 2)[0]


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 0), (7, 7), (1, 2), (-5, 5), (0, 2**64 - 1), (1, 9_999_999_999)])
def test_a_derived_seed_stays_inside_the_schemas_range(minimum: int, maximum: int) -> None:
    seeds = {derived_seed(f"{n:032x}", minimum, maximum) for n in range(500)}
    assert minimum <= min(seeds) <= max(seeds) <= maximum
    assert len(seeds) > min(maximum - minimum, 400) * 0.9


def test_derived_seeds_are_spread_over_the_default_range() -> None:
    seeds = [derived_seed(f"{n:032x}") for n in range(1000)]
    assert len(set(seeds)) == 1000
    assert min(seeds) < SEED_MAX // 100
    assert max(seeds) > SEED_MAX - SEED_MAX // 100


def test_without_a_seed_field_the_input_stays_as_it_is() -> None:
    assert seeded(ENDPOINT, INPUT, 1, seed_field=None) == (job_key(ENDPOINT, INPUT, 1), INPUT, None)


# --- files sent ---


def test_local_files_are_named_once_in_order() -> None:
    a, b = {"$file": "a"}, {"$file": "b"}
    assert local_files({"x": b, "l": [a, {"deep": b}], "prompt": "$file"}) == ("b", "a")


def test_the_body_has_a_url_for_every_mark_and_nothing_else_changed() -> None:
    input = {"x": {"$file": "a"}, "l": [{"$file": "b"}, {"k": {"$file": "a"}}], "n": 1.5, "t": None}
    body = body_with_urls(input, {"a": "https://a", "b": "https://b"})
    assert body == {"x": "https://a", "l": ["https://b", {"k": "https://a"}], "n": 1.5, "t": None}
    assert input["x"] == {"$file": "a"}


def test_a_mark_without_a_url_is_an_error_not_a_body_with_a_hole() -> None:
    with pytest.raises(KeyError):
        body_with_urls({"x": {"$file": "a"}}, {})


# --- files that come back ---


@pytest.mark.parametrize(
    ("result", "places"),
    [
        ({"video": {"url": "https://a/u.png"}, "seed": 1}, ["video"]),
        ({"images": [{"url": "https://a/u.png"}, {"url": "https://a/v.png"}], "x": "y"}, ["images.0", "images.1"]),
        ({"a": {"b": [{"c": {"url": "https://a/u.png"}}]}}, ["a.b.0.c"]),
        ([{"url": "https://a/u.png"}], ["0"]),
        ({"url": "https://a/u.png"}, [""]),
        ({"video": {"url": "https://a/u.png", "poster": {"url": "https://a/v.png"}}}, ["video"]),
        ({"video": {"url": ""}, "b": {"url": None}, "c": {"url": 5}, "d": {"url": ["u"]}}, []),
        ({"video_url": "https://x"}, []),
        ("text", []),
        (None, []),
        ({}, []),
        ([[[[]]]], []),
    ],
)
def test_every_file_object_is_found_wherever_it_stands(result: object, places: list[str]) -> None:
    assert [ref.place for ref in file_refs(result)] == places


def test_a_file_object_that_holds_others_under_a_url_that_is_none_is_looked_into() -> None:
    assert [ref.place for ref in file_refs({"a": {"url": {"url": "https://a/u.png"}}})] == ["a.url"]


def test_no_two_files_of_a_result_have_one_place() -> None:
    result = {
        "a.b": {"url": "https://a/1.png"},
        "a": {"b": {"url": "https://a/2.png"}, "": {"b": {"url": "https://a/3.png"}}},
        "a\\": {"b": {"url": "https://a/4.png"}},
        "a\\.b": {"url": "https://a/5.png"},
        "l": [{"url": "https://a/6.png"}],
        "l.0": {"url": "https://a/7.png"},
    }
    refs = file_refs(result)
    assert [ref.url for ref in refs] == [f"https://a/{n}.png" for n in range(1, 8)]
    assert len({ref.place for ref in refs}) == 7


def test_what_a_file_object_says_of_itself_is_taken_where_it_makes_sense() -> None:
    good = {"url": "https://a/u.png", "content_type": "video/mp4", "file_name": "x.mp4", "file_size": 5}
    assert file_refs({"v": good}) == (
        FileRef(place="v", url="https://a/u.png", content_type="video/mp4", file_name="x.mp4", file_size=5),
    )
    for size in (0, -1, True, "5", 5.0, None):
        bad = {"url": "https://a/u.png", "content_type": "", "file_name": 7, "file_size": size}
        assert file_refs({"v": bad}) == (FileRef(place="v", url="https://a/u.png"),)


def test_canonical_json_is_what_the_standard_library_writes() -> None:
    values: list[object] = [
        {"b": 1, "a": [True, False, None, {"z": 'ü\n"\\\u2028\x7f', "a": ""}], "ä": -5, "0": 10**20},
        {"float": 0.1, "third": 1 / 3, "small": -2.5e-7, "nested": {"deep": [(1, 2), {}, []]}},
        {7: "a number as a name", None: 1, True: 2},
        "data:text/plain,plain",
        "\ud800",
    ]
    for value in values:
        named = {str(name): child for name, child in value.items()} if isinstance(value, dict) else value
        told = json.dumps(named, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert told == canonical_json(value)
    assert canonical_json({"a": 5.0, "b": [1e22, -0.0]}) == '{"a":5,"b":[10000000000000000000000,0]}'
    for endless in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            canonical_json({"a": [endless]})
