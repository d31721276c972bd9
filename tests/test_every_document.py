"""Every document that comes with the program: a good sheet is planned, bad ones are told by their cells."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest

from batch import endpoints, manifest
from batch.endpoints import Endpoint
from batch.errors import ManifestError
from batch.jobs import FILE_MARK

PICTURE = Path(__file__).parents[1] / "manifests" / "images" / "moon.jpg"

SEEDANCE = "fal-ai/bytedance/seedance/"
LONG = "x" * 20_001

# Five bad cells of each, and how the message about them begins.
SEEDANCE_BAD = (
    ("duration", "13", "'13' is not one of"),
    ("resolution", "720", "'720' is not one of 480p, 720p"),
    ("aspect_ratio", "16/9", "'16/9' is not one of"),
    ("camera_fixed", "maybe", "'maybe' is not true or false"),
    ("seed", "1.5", "'1.5' is not a whole number"),
)
BAD: dict[str, tuple[tuple[str, str, str], ...]] = {
    **{name: SEEDANCE_BAD for name in endpoints.built_in() if name.startswith(SEEDANCE)},
    "fal-ai/bytedance/seedream/v4/text-to-image": (
        ("image_size", "huge", "'huge' is not one of square_hd"),
        ("image_size.width", "20000", "20000 is more than 14142"),
        ("num_images", "7", "7 is more than 6"),
        ("max_images", "0", "0 is less than 1"),
        ("enhance_prompt_mode", "slow", "'slow' is not one of standard, fast"),
    ),
    "fal-ai/flux-pro/v1.1": (
        ("image_size", '{"width": 0}', "width: 0 is not more than 0"),
        ("num_images", "5", "5 is more than 4"),
        ("output_format", "webp", "'webp' is not one of jpeg, png"),
        ("safety_tolerance", "9", "'9' is not one of 1 … 6"),
        ("enhance_prompt", "perhaps", "'perhaps' is not true or false"),
    ),
    "fal-ai/flux/dev": (
        ("image_size.height", "tall", "'tall' is not a whole number"),
        ("image_size", '{"hight": 512}', "hight: is not a part of it (did you mean 'height'?)"),
        ("guidance_scale", "20.5", "20.5 is more than 20"),
        ("num_inference_steps", "0,5", "'0,5' is not a whole number"),
        ("seed", "any", "'any' is not a whole number"),
    ),
    "fal-ai/kling-video/v2.5-turbo/pro/image-to-video": (
        ("duration", "6", "'6' is not one of 5, 10"),
        ("prompt", "x" * 2501, "has 2501 characters, at most 2500 are allowed"),
        ("cfg_scale", "1.5", "1.5 is more than 1"),
        ("tail_image_url", "nothing.jpg", "'nothing.jpg' does not exist"),
        ("image_url", "ftp://example.com/a.jpg", "'ftp://example.com/a.jpg': fal fetches http and https only"),
    ),
    "fal-ai/ltx-2/image-to-video": (
        ("duration", "7", "'7' is not one of 6, 8, 10"),
        ("fps", "24", "'24' is not one of 25, 50"),
        ("resolution", "4k", "'4k' is not one of 1080p, 1440p, 2160p"),
        ("aspect_ratio", "9:16", "'9:16' is not one of 16:9"),
        ("image_url", "words.jpg", "'words.jpg' is text, not an image"),
    ),
    "fal-ai/minimax/hailuo-02/standard/image-to-video": (
        ("resolution", "768", "'768' is not one of 512P, 768P (did you mean '768P'?)"),
        ("duration", "5", "'5' is not one of 6, 10"),
        ("prompt", "x" * 2001, "has 2001 characters, at most 2000 are allowed"),
        ("prompt_optimizer", "2", "'2' is not true or false"),
        ("end_image_url", "images", "'images' is a folder"),
    ),
    "fal-ai/nano-banana": (
        ("prompt", "ab", "has 2 characters, at least 3 are needed"),
        ("num_images", "half", "'half' is not a whole number"),
        ("aspect_ratio", "03:02:00 PM", "'03:02:00 PM' is not one of"),
        ("output_format", "gif", "'gif' is not one of jpeg, png, webp"),
        ("sync_mode", "true", "true leaves no trace in fal's history"),
    ),
    "fal-ai/pixverse/v5/image-to-video": (
        ("style", "noir", "'noir' is not one of anime, 3d_animation, clay, comic, cyberpunk"),
        ("duration", "10", "'10' is not one of 5, 8"),
        ("resolution", "480p", "'480p' is not one of 360p, 540p, 720p, 1080p"),
        ("image_url", "cut.jpg", "'cut.jpg' is a damaged image"),
        ("seed", "1,000", "'1,000' is not a whole number (write it with nothing between its digits)"),
    ),
    "fal-ai/sora-2/image-to-video": (
        ("duration", "10", "'10' is not one of 4, 8, 12"),
        ("model", "sora", "'sora' is not one of sora-2"),
        ("prompt", "x" * 5001, "has 5001 characters, at most 5000 are allowed"),
        ("delete_video", "vielleicht", "'vielleicht' is not true or false"),
        ("image_url", "empty.jpg", "'empty.jpg' is an empty file"),
    ),
    "fal-ai/veo3.1/fast/image-to-video": (
        ("duration", "5", "'5' is not one of 4s, 6s, 8s"),
        ("resolution", "2160p", "'2160p' is not one of 720p, 1080p, 4k"),
        ("prompt", LONG, "has 20001 characters, at most 20000 are allowed"),
        ("generate_audio", "-", "'-' is not true or false"),
        ("image_url", "data:image/png,abc", "is not a data URI of the form data:image/png;base64,"),
    ),
    "fal-ai/wan-25-preview/image-to-video": (
        ("image_url", "small.png", "'small.png': its width is 100 pixels, and must be at least 360 and at most 2000"),
        ("audio_url", "nothing.mp3", "'nothing.mp3' does not exist"),
        ("resolution", "4k", "'4k' is not one of 480p, 720p, 1080p"),
        ("enable_prompt_expansion", "10", "'10' is not true or false"),
        ("seed", "02. Mai", "'02. Mai' is not a whole number (a spreadsheet program made a date of it"),
    ),
    "fal-ai/wan-effects": (
        ("effect_type", "squash", "'squash' is not one of squish"),
        ("num_frames", "80", "80 is less than 81"),
        ("frames_per_second", "25", "25 is more than 24"),
        ("lora_scale", "0.05", "0.05 is less than 0.1"),
        ("turbo_mode", "fast", "'fast' is not true or false"),
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from PIL import Image

    (tmp_path / "images").mkdir()
    shutil.copy(PICTURE, tmp_path / "moon.jpg")
    (tmp_path / "cut.jpg").write_bytes(PICTURE.read_bytes()[:15_000])
    (tmp_path / "words.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    Image.new("RGB", (100, 400)).save(tmp_path / "small.png")
    return tmp_path


def good_row(endpoint: Endpoint) -> dict[str, str]:
    """A row made from the template alone, with a picture of ours where one is needed."""
    row = {"id": "a"}
    for column in endpoints.template(endpoint):
        field = endpoint.field(column.name)
        assert field is not None, column.name
        row[column.name] = "moon.jpg" if field.is_file and field.is_required else column.example
    return row


def sheet(folder: Path, row: dict[str, str]) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(row))
    writer.writeheader()
    writer.writerow(row)
    path = folder / "shots.csv"
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def test_the_table_has_five_bad_cells_of_every_document() -> None:
    assert set(BAD) == set(endpoints.built_in())
    assert {len(bad) for bad in BAD.values()} == {5}


@pytest.mark.parametrize("endpoint_id", sorted(BAD))
def test_the_template_of_every_document_filled_in_is_a_good_sheet(folder: Path, endpoint_id: str) -> None:
    endpoint = endpoints.load(endpoint_id)
    row = good_row(endpoint)
    assert {field.name for field in endpoint.fields} - {column.partition(".")[0] for column in row} <= {"sync_mode"}
    (made,) = manifest.load(sheet(folder, row), endpoint=endpoint_id).rows()
    assert {field.name for field in endpoint.fields if field.is_required} <= set(made.job.input)
    needed = [field for field in endpoint.fields if field.is_file and field.is_required]
    sent = [made.job.input[field.name] for field in needed]
    assert all(FILE_MARK in (value[0] if isinstance(value, list) else value) for value in sent)
    assert len(made.job.files) == bool(needed)


@pytest.mark.parametrize(
    ("endpoint_id", "column", "cell", "message"),
    [(name, *bad) for name in sorted(BAD) for bad in BAD[name]],
)
def test_a_bad_cell_of_every_document_is_told(
    folder: Path, endpoint_id: str, column: str, cell: str, message: str
) -> None:
    path = sheet(folder, {**good_row(endpoints.load(endpoint_id)), column: cell})
    with pytest.raises(ManifestError) as caught:
        list(manifest.load(path, endpoint=endpoint_id).rows())
    (issue,) = caught.value.issues
    assert str(issue).startswith(f"shots.csv:2 {column}: {message}")


@pytest.mark.parametrize("endpoint_id", sorted(BAD))
def test_a_needed_cell_that_is_empty_and_a_misspelt_column_are_told(folder: Path, endpoint_id: str) -> None:
    endpoint = endpoints.load(endpoint_id)
    row = good_row(endpoint)
    needed = next(field.name for field in endpoint.fields if field.is_required)
    path = sheet(folder, {**row, needed: ""})
    with pytest.raises(ManifestError, match=f"shots.csv:2 {needed}: is empty, and {endpoint_id} needs it"):
        list(manifest.load(path, endpoint=endpoint_id).rows())
    other = next(field.name for field in endpoint.fields if not field.is_required and len(field.name) > 4)
    misspelt = other[:-2] + other[-1] + other[-2] + "s"
    with pytest.raises(ManifestError, match=f"shots.csv:1 {misspelt}: (did you mean|is nearly) '"):
        list(manifest.load(sheet(folder, {**row, misspelt: "1"}), endpoint=endpoint_id).rows())
