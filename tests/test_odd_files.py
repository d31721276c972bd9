"""Sheets as people's programs write them: each is read right, or refused with its name, its row and what to do."""

from __future__ import annotations

import base64
import io
import os
import random
import shutil
import socket
import tempfile
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batch import manifest
from batch.errors import InputError, ManifestError
from batch.jobs import Row
from batch.manifest import text
from batch.manifest.name import campaign_name
from batch.manifest.sheets import open_sheet
from batch.manifest.sheets.delimited import CHUNK_ROWS
from batch.manifest.text import BLOCK_BYTES, LINE_CHARS_MAX, look_at

IMAGES = Path(__file__).parent.parent / "manifests" / "images"
URL = "https://example.com/cat.png"
TEXT = f'id,prompt,image_url\na,"café, slow",{URL}\n\nb,"two\nlines",{URL}\n'

Read = Callable[..., list[Row]]
Refusal = Callable[..., str]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes bytes as a sheet and reads its rows."""

    def rows_of(content: bytes | str, name: str = "shots.csv") -> list[Row]:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return list(manifest.load(path).rows())

    return rows_of


@pytest.fixture
def refusal(read: Read, tmp_path: Path) -> Refusal:
    """The message of a sheet that is refused, the folder left out."""

    def message_of(content: bytes | str, name: str = "shots.csv") -> str:
        with pytest.raises(InputError) as caught:
            read(content, name)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return message_of


def prompts(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.address, str(row.job.input["prompt"])) for row in rows]


# Encodings.


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_every_encoding_and_line_end_says_the_same(read: Read, encoding: str, line_end: str) -> None:
    rows = read(TEXT.replace("\n", line_end).encode(encoding))
    assert prompts(rows) == [("shots.csv:2", "café, slow"), ("shots.csv:4", f"two{line_end}lines")]


def test_big_endian_utf_16_with_its_mark_is_read(read: Read) -> None:
    assert len(read(b"\xfe\xff" + TEXT.encode("utf-16-be"))) == 2


def test_only_what_is_read_as_windows_1252_is_told(tmp_path: Path) -> None:
    path = tmp_path / "shots.csv"
    path.write_bytes(TEXT.encode("cp1252"))
    assert manifest.load(path).notes == (
        "shots.csv is not UTF-8; it was read as Windows-1252: its first accent is in 'café'. "
        "If that is wrong, save it as UTF-8.",
    )
    for encoding in ("utf-8", "utf-16"):
        path.write_bytes(TEXT.encode(encoding))
        assert manifest.load(path).notes == ()


def test_a_campaign_in_windows_1252_is_read_and_told(tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    path.write_bytes(f'rows: [{{prompt: "café", image_url: {URL}}}]\n'.encode("cp1252"))
    loaded = manifest.load(path)
    assert [row.job.input["prompt"] for row in loaded.rows()] == ["café"]
    (note,) = loaded.notes
    assert note.startswith("night.yaml is not UTF-8; it was read as Windows-1252: its first accent is in 'café'")


def test_a_letter_far_down_decides_how_the_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "shots.csv"
    filler = f"plain,{URL}\n" * (BLOCK_BYTES // 20)
    path.write_bytes(f"prompt,image_url\n{filler}né,{URL}\n".encode("cp1252"))
    assert look_at(path).encoding == "cp1252"
    path.write_text(f"prompt,image_url\n{filler}né,{URL}\n", encoding="utf-8")
    assert look_at(path).encoding == "utf-8"


def test_a_byte_that_is_in_neither_encoding_is_named_by_its_cell(refusal: Refusal) -> None:
    sheet = f"id,prompt,image_url\na,x,{URL}\nb,".encode() + b"caf\xe9 \x8d," + URL.encode() + b"\nc,,x.jpg\n"
    first, *rest = refusal(sheet).splitlines()
    assert first == (
        "shots.csv:3 prompt: 'café �' holds the byte 0x8D, which is not Windows-1252; save the sheet as CSV UTF-8"
    )
    assert [line.partition(":")[2][:11] for line in rest] == ["4 prompt: i", "4 image_url"]


def test_a_bad_byte_in_a_sheet_that_is_utf_8_does_not_turn_its_good_letters(refusal: Refusal) -> None:
    sheet = f"id,prompt,image_url\na,é ü ñ,{URL}\nb,".encode() + b"caf\xe9," + URL.encode() + b"\n"
    assert refusal(sheet) == (
        "shots.csv:3 prompt: 'caf�' holds the byte 0xE9, which is not UTF-8; save the sheet as CSV UTF-8"
    )


def test_nul_bytes_are_named_by_their_cells_and_never_cut_a_text_short(refusal: Refusal) -> None:
    assert refusal(f"id,prompt,image_url\na,x,{URL}\nb,left\0right,{URL}\n") == (
        "shots.csv:3 prompt: 'left�right' holds a NUL byte; save the sheet as CSV UTF-8"
    )


def test_damage_in_the_header_and_damaged_utf_16_are_refused(refusal: Refusal) -> None:
    assert refusal(b"prompt,im\xe9\x8dge_url\nx,y\n") == (
        "shots.csv: in row 1, 'imé�ge_url' holds the byte 0x8D, which is not Windows-1252; save the sheet as CSV UTF-8"
    )
    assert "is damaged UTF-16 text (truncated data)" in refusal(TEXT.encode("utf-16")[:-1])


def test_damage_in_a_campaign_is_named_by_its_line(refusal: Refusal) -> None:
    assert refusal(b"name: caf\xe9\nrows: \x8d.csv\n", "night.yaml") == (
        "night.yaml:2: holds the byte 0x8D, which is not Windows-1252; save the file as UTF-8"
    )


WESTERN = [
    "« L’été à la plage… », où l’élève créée par Noël", "“café…” très\xa0« fini\xa0»", "l’été\xa0»", "ÉTÉ", "à", "ÄÖÜ",
    "Ein großer Hund läuft – „schön“, Spaß”", "¿Dónde está el niño? ¡Ahí! “AÑO”", "Não come maçãs; “MAÇÔ",
    "Två åsnor på en ö – “åäö”", "Ærøskøbing, æøå", "“x” — €5… 20° ½¼¾ ©®™", "Hääyöaie", "ÉÉÉÉ",
]  # fmt: skip


@pytest.mark.parametrize("text", WESTERN)
def test_western_european_text_is_read_as_windows_1252(read: Read, text: str) -> None:
    (row,) = read(f'prompt,image_url\n"{text}",{URL}\n'.encode("cp1252"))
    assert row.job.input["prompt"] == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("kočka běží žlutě po příští louce", "iso8859_2"),
        ("Żółta łódź płynie", "cp1250"),
        ("güneş ışığı", "cp1254"),
        ("un café doré à Paris", "mac_roman"),
        ("un café doré à Paris", "cp850"),
    ],
)
def test_single_accents_of_another_encoding_are_read_and_told(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "shots.csv"
    path.write_bytes(f"prompt,image_url\n{text},{URL}\n".encode(encoding))
    (note,) = manifest.load(path).notes
    assert "was read as Windows-1252: its first accent is in" in note


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *(("кот идёт по улице", name) for name in ("cp1251", "koi8-r", "cp866", "iso8859_5")),
        ("КОТ ИДЁТ", "cp1251"),
        ("a cat, in Russian кот", "cp1251"),
        ("η γάτα περπατά", "cp1253"),
        ("一只猫在走路", "gbk"),
        ("镜头缓慢推进，阳光洒在她的脸上", "gbk"),
        ("猫が歩く", "cp932"),
        ("カメラがズームイン", "cp932"),
        ("鏡頭緩慢推進，陽光灑在她的臉上", "big5"),
        ("고양이가 걷는다", "cp949"),
    ],
)
def test_other_alphabets_are_not_taken_for_western_european(refusal: Refusal, text: str, encoding: str) -> None:
    message = refusal(f'prompt,image_url\nx,{URL}\n"{text}",{URL}\n'.encode(encoding))
    start = "shots.csv is not UTF-8, and does not look like Windows-1252 (Western European) either: "
    assert message.startswith(f"{start}line 3 holds the bytes ")
    assert message.endswith("; save the sheet as CSV UTF-8")


@pytest.mark.parametrize("text", ["dog é", "dog — x", "猫", "à"])
def test_one_row_of_utf_8_among_others_is_not_read_as_windows_1252(refusal: Refusal, text: str) -> None:
    western = f"prompt,image_url\n“doré” à là élève,{URL}\n".encode("cp1252")
    message = refusal(western + f"{text},{URL}\n".encode())
    assert message.startswith("shots.csv:2 prompt: ")
    assert message.endswith("holds the byte 0x93, which is not UTF-8; save the sheet as CSV UTF-8")


# Delimiters.


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_outside_quotation_marks(read: Read, sign: str) -> None:
    header = sign.join(['"a,;|b, c;d|e"', '"say ""x;y"""', "prompt", "image_url"])
    (row,) = read(f'{header}\n1{sign}2{sign}"x{sign} y"{sign}{URL}\n')
    assert list(row.cells) == ["a,;|b, c;d|e", 'say "x;y"', "prompt", "image_url"]
    assert row.job.input["prompt"] == f"x{sign} y"


def test_a_header_may_have_line_ends_in_quotation_marks_and_blanks_round_its_names(read: Read) -> None:
    (row,) = read(f'id , prompt,"shot\n no. 1",image_url,"mood\r\nboard"\na,x,,{URL},calm\n')
    assert list(row.cells) == ["id", "prompt", "shot no. 1", "image_url", "mood board"]
    assert row.address == "shots.csv:2"


def test_the_sheet_of_one_column_is_read(read: Read) -> None:
    path = "rows: shots.csv\ndefaults: {image_url: " + URL + "}\n"
    with pytest.raises(InputError, match="image_url"):
        read("prompt\na cat\n")
    assert prompts(read(path, "night.yaml")) == [("shots.csv:2", "a cat")]


@pytest.mark.parametrize("line", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n', "\ufeffsep=;\n", "sep=~\n"])
def test_excels_first_line_is_an_instruction_and_no_row(read: Read, line: str) -> None:
    sign = "~" if "~" in line else ";"
    rows = read(line + f"id;prompt;image_url\na;x, y, z;{URL}\n\nb;y;{URL}\n".replace(";", sign))
    assert prompts(rows) == [("shots.csv:2", "x, y, z"), ("shots.csv:4", "y")]


def test_a_tsv_is_separated_by_tabs_whatever_else_its_header_holds(read: Read) -> None:
    assert prompts(read(f"prompt\timage_url\ta,b,c,d\nx, y\t{URL}\t1\n", "shots.tsv")) == [("shots.tsv:2", "x, y")]


def test_a_semicolon_too_many_is_told_as_one(refusal: Refusal) -> None:
    assert refusal(f"prompt;image_url\nx;{URL};y;z\n") == (
        "shots.csv:2: has more cells than the header; a semicolon inside a cell needs quotes round it"
    )


# Cells.


@pytest.mark.parametrize("text", ["NA", "N/A", "null", "None", "nan", "NaN", "TRUE", "-", "#1", "1e5", "007"])
def test_no_text_means_nothing_or_a_number_by_itself(read: Read, text: str) -> None:
    (row,) = read(f"id,prompt,image_url\n{text},{text},{URL}\n")
    assert (row.id, row.job.input["prompt"]) == (text, text)


def test_two_hundred_columns_are_carried_along(read: Read) -> None:
    names = [f"note {number}" for number in range(198)]
    (row,) = read(",".join(["prompt", "image_url", *names]) + f"\nx,{URL}," + ",".join(map(str, range(198))) + "\n")
    assert list(row.cells.values())[2:] == [str(number) for number in range(198)]


@pytest.mark.parametrize("size", [100_000, 200_000])
def test_a_cell_of_many_kilobytes_is_whole(read: Read, size: int) -> None:
    text = "a cat, " * (size // 7) + "ends"
    rows = read(f'id,prompt,image_url\na,"{text}",{URL}\nb,y,{URL}\n')
    assert prompts(rows) == [("shots.csv:2", text), ("shots.csv:3", "y")]


def test_a_data_uri_of_megabytes_is_a_picture(read: Read) -> None:
    content = (IMAGES / "moon.jpg").read_bytes() + bytes(3_000_000)
    (row,) = read(f'prompt,image_url\nx,"data:image/jpeg;base64,{base64.b64encode(content).decode()}"\n')
    assert len(row.job.input["image_url"]) > 4_000_000


def test_blank_lines_and_trailing_commas_are_counted_and_nothing_else(read: Read) -> None:
    rows = read(f"id,prompt,image_url,,\na,x,{URL},,\n,,,,\n\n  ,,\nb,y,{URL},,,,,\n")
    assert prompts(rows) == [("shots.csv:2", "x"), ("shots.csv:6", "y")]


def test_rows_of_a_sheet_are_numbered_without_the_blank_ones(read: Read) -> None:
    rows = read(f"id,prompt,image_url,takes\na,x,{URL},2\n\nb,y,{URL},\n")
    assert [(row.number, row.position, row.address) for row in rows] == [
        (1, 1, "shots.csv:2"), (1, 2, "shots.csv:2"), (2, 3, "shots.csv:4"),
    ]  # fmt: skip


# What both readers must agree about.


def sheets() -> Iterator[str]:
    good = f'a,"x ""y"", z",{URL}\n'
    yield f'id,prompt,image_url\n{good}\n,,\nb,"two\nlines",{URL}\r\nc,it\'s 5" wide,{URL}\n'
    yield f'id;prompt;image_url\r\na;"x";{URL}\r\nb;;{URL}\r\n\r\n'
    yield f"id,prompt,image_url\ra,x,{URL}\r\rb,y,{URL}"
    yield 'id,prompt\n"",\n"a"b,c\n d ,"e"\n'


@pytest.mark.parametrize("text", list(sheets()))
def test_the_reader_of_odd_sheets_says_what_the_quick_one_says(tmp_path: Path, text: str) -> None:
    from batch.manifest.report import Report

    path = tmp_path / "shots.csv"
    path.write_bytes(text.encode())
    sheet = open_sheet(path)
    width = len(sheet.header)
    quick = [(number, list(cells)[:width]) for number, cells in sheet._in_chunks(Report())]
    careful = [(number, list(cells)[:width]) for number, cells in sheet._one_by_one(2, Report())]
    assert [row for row in quick if any(row[1])] == [row for row in careful if any(row[1])]
    assert len(quick) > 1


def test_a_long_line_is_seen_wherever_its_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "LINE_CHARS_MAX", 5)
    rng = random.Random(7)
    for _ in range(3000):
        whole = "".join(rng.choices("ab\n", [2, 2, rng.choice([1, 3])], k=rng.randint(0, 30)))
        blocks, rest, seen, open_chars = [], whole, False, 0
        while rest:
            size = rng.randint(1, 12)
            blocks, rest = [*blocks, rest[:size]], rest[size:]
        for block in blocks:
            open_chars = text._last_line(block, open_chars)
            seen = seen or open_chars > 5
        assert seen is any(len(line) > 5 for line in whole.split("\n"))


def test_a_quotation_mark_that_is_never_closed_is_told_with_what_is_wrong_above_it(refusal: Refusal) -> None:
    never = "a quotation mark opens in this row and is never closed; the rows below it were not read"
    rows = f"x,{URL},5\n" * CHUNK_ROWS
    sheet = f'prompt,image_url,duration\n{rows}"two\nlines",{URL},13\n"open,{URL},5\nx,{URL},14\n'
    assert refusal(sheet).splitlines() == [
        f"shots.csv:{CHUNK_ROWS + 2} duration: '13' is not one of 2 … 12",
        f"shots.csv:{CHUNK_ROWS + 3}: {never}",
    ]
    long = "y" * (LINE_CHARS_MAX + 1)
    assert refusal(f'prompt,image_url\n{long},{URL}\n"open,{URL}\n') == f"shots.csv:3: {never}"
    assert refusal('"prompt,image_url\nx,y\n') == "shots.csv: a quotation mark opens in row 1 and is never closed"


MULTI_LINE = [
    'Scene 1: a cat, a dog, "a bird"\nScene 2: "Hi," she says, "bye", and goes\nend, slowly',
    'The man says, "I came, and\n"I saw."',
    'He said,\n"I came\n"and I saw."',
    "masterpiece,best quality,8k\nred hair,blue eyes,smile\nsoft light,bokeh,film",
    'A pipe, 2,5" wide\nbeside one of 1,000 by 12"',
    '{"a":"b","c":"d"}\n{"e":"https://example.com/x.png","f":"g"}\n{}',
    "1. red, green\n2. blue, yellow\n\n3. black, white,",
    "first https://example.com/a.png, then\nhttps://example.com/b.png, then\nend",
]


@pytest.mark.parametrize("header", ["id,prompt,image_url", "prompt,image_url", "image_url,prompt"])
@pytest.mark.parametrize("text", MULTI_LINE)
def test_a_prompt_of_several_lines_is_no_swallowed_row(read: Read, header: str, text: str) -> None:
    values = {"id": "a", "prompt": '"' + text.replace('"', '""') + '"', "image_url": URL}
    (row,) = read(f"{header}\n{','.join(values[name] for name in header.split(','))}\n")
    assert row.job.input["prompt"] == text


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (f'id,prompt,image_url\na,"a cat,{URL}\nb,a dog,{URL}\nc,"a bird",{URL}', f"b,a dog,{URL}"),
        (f'id,prompt,image_url\na,"a cat, slow,{URL}\nb,a dog,{URL}\nc,"a bird, fast",{URL}', f"b,a dog,{URL}"),
        (f'id,prompt,image_url\na,"a cat,{URL}\nb,"a dog",{URL}', 'b,a dog"'),
        (f'id,prompt,image_url\na,"a cat,{URL}\nb,a 5" dog,{URL}', "b,a 5 dog"),
        (f'prompt,image_url\n"a cat, slow,{URL}\n"a dog",{URL}', 'a dog"'),
        (f'image_url,prompt\n{URL},"a cat\n{URL},a dog\n{URL},"a bird"', f"{URL},a dog"),
    ],
)
def test_rows_that_a_lost_quotation_mark_swallows_are_told(
    refusal: Refusal, lines: str, line: str, line_end: str
) -> None:
    first, *rest = refusal(lines.replace("\n", line_end) + line_end).splitlines()
    assert rest == []
    assert first.startswith(f"shots.csv:2 prompt: holds '{line}' in a line of its own, which looks like a row")
    assert "a quotation mark before it is not closed, or one is missing" in first


def flat(path: Path) -> int:
    """The most memory that reading a sheet's records holds at once, without the imports."""
    from batch.manifest.report import Report

    sheet, report = open_sheet(path), Report()
    next(sheet.records(report))
    tracemalloc.start()
    try:
        for _ in sheet.records(report):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_memory_does_not_grow_with_the_sheet(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "shots.csv"
    peaks = []
    for rows in (12 * CHUNK_ROWS, 36 * CHUNK_ROWS):  # several blocks of the file in both cases
        path.write_text("prompt,image_url\n" + f"a cat on a mat,{URL}\n" * rows, encoding=encoding)
        peaks.append(flat(path))
    assert peaks[1] < 1.3 * peaks[0]


def test_memory_does_not_grow_with_a_sheet_of_data_uris(tmp_path: Path) -> None:
    path = tmp_path / "shots.csv"
    cell = "A" * 200_000
    path.write_text("prompt,image_url\n" + f"x,{cell}\n" * 100)
    assert flat(path) < 20 * len(cell)


# What is no sheet.


def archive(*names: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        for name in names:
            file.writestr(name, "x")
    return held.getvalue()


SAVE = "save it as CSV UTF-8"
NOT_READ = "is not read here; .csv, .tsv, .xlsx, .jsonl, .parquet and .yaml are."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "shots.csv is empty"),
        (b" \r\n\n\t ", "shots.csv holds nothing but blanks; its first row must name the columns"),
        (b"\xef\xbb\xbf\n", "shots.csv holds nothing but blanks; its first row must name the columns"),
        (b",,\nprompt,image_url\n", "shots.csv: row 1 is blank; it must name the columns"),
        (b"prompt,image_url", "shots.csv:1: names the columns, and no row follows"),
        (b"prompt,image_url\n\n,\n", "shots.csv:1: names the columns, and no row follows"),
        (archive("xl/workbook.xml"), "shots.csv is called .csv but is an Excel workbook: call it .xlsx"),
        (archive("content.xml"), f"shots.csv is called .csv but is a LibreOffice sheet: {SAVE}"),
        (archive("Index/Tables.iwa"), "shots.csv is called .csv but is a Numbers sheet: export it as CSV UTF-8"),
        (archive("a.csv"), "shots.csv is called .csv but is a zip archive: unpack it first"),
        (b"PK\x03\x04", "shots.csv is called .csv but is a zip archive: unpack it first"),
        (
            b"\xd0\xcf\x11\xe0" + bytes(99),
            "shots.csv is called .csv but is an old Excel workbook (.xls): open it and save it as .xlsx",
        ),
        (b"PAR1" + bytes(99), "shots.csv is called .csv but is a Parquet file: call it .parquet"),
        (
            b"\x1f\x8b\x08" + bytes(99),
            "shots.csv is called .csv but is a gzip archive: add .gz to its name, or unpack it",
        ),
        (b"\x89PNG\r\n\x1a\n", "shots.csv is called .csv but is a PNG picture"),
        (b"\xff\xd8\xff\xe0", "shots.csv is called .csv but is a JPEG picture"),
        (
            b"\n<!DOCTYPE html>\n<title>Sign in</title>",
            f"shots.csv is called .csv but is a web page, perhaps of a download that needed a login: "
            f"{SAVE.replace('it', 'the sheet itself')}",
        ),
        (bytes(range(256)) * 9, "shots.csv is not text; save the sheet as CSV UTF-8"),
    ],
)
def test_what_is_no_sheet_is_said_to_be_what_it_is(refusal: Refusal, content: bytes, message: str) -> None:
    assert refusal(content) == message


def test_a_text_file_with_tabs_is_told_its_name(refusal: Refusal) -> None:
    """As Excel saves a sheet as "Unicode Text"."""
    refused = f"shots.txt: .txt {NOT_READ}"
    hint = " Tabs stand between its cells: rename it shots.tsv."
    assert refusal(f"prompt\timage_url\nx\t{URL}\n".encode("utf-16"), "shots.txt") == refused + hint
    assert refusal(b"a text\n\twith a tab", "shots.txt") == refusal(b"", "shots.txt") == refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shots.ods", f"shots.ods: .ods {NOT_READ} Save the sheet as .xlsx or CSV UTF-8."),
        (
            "shots.xls",
            f"shots.xls: .xls {NOT_READ} An old Excel workbook: open it and save it as .xlsx or CSV UTF-8.",
        ),
        (
            "shots.json",
            f"shots.json: .json {NOT_READ} Write one object a line and call it .jsonl "
            "(jq -c '.[]' makes that of a list).",
        ),
        ("shots.txt", f"shots.txt: .txt {NOT_READ}"),
        ("shots", f"shots: a file without a suffix {NOT_READ}"),
    ],
)
def test_another_kind_of_file_is_refused_by_its_suffix(refusal: Refusal, name: str, message: str) -> None:
    assert refusal(b"prompt", name) == message


def message_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        list(manifest.load(path).rows())
    return str(caught.value).replace(f"{path.parent}/", "")


def test_what_is_no_file_is_said_to_be_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "shots.csv").write_text("x")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to("nowhere.csv")
    assert message_of(tmp_path / "folder.csv") == "folder.csv is a folder; name the sheet or the campaign in it"
    assert message_of(tmp_path / "Shot.csv") == "Shot.csv does not exist; did you mean shots.csv?"
    assert message_of(tmp_path / "another.csv") == "another.csv does not exist"
    assert message_of(tmp_path / "shots.csv" / "x.csv") == "x.csv does not exist"
    assert message_of(tmp_path / "link.csv") == "link.csv is a link to nowhere.csv, which does not exist"
    assert message_of(tmp_path / ("x" * 300 + ".csv")).endswith("cannot be read: File name too long")
    assert message_of(tmp_path / "a\0b.csv").endswith("cannot be read: embedded null byte")


def made(folder: Path, name: bytes, content: bytes = b"prompt,image_url\nx,https://e.com/a.jpg\n") -> Path:
    """A file whose name is these bytes. Some file systems hold none but UTF-8."""
    path = folder / os.fsdecode(name)
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    return path


@pytest.mark.parametrize("name", [b"caf\xe9.csv", b"caf\xe9/shots.csv"])
def test_a_name_that_is_no_utf_8_is_refused_before_anything_would_have_to_write_it_down(
    tmp_path: Path, name: bytes
) -> None:
    message = "the name of this file, or of a folder above it, is not UTF-8; rename it"
    assert message_of(made(tmp_path, name)).endswith(
        f"{name.decode(errors='replace')}: {message}".replace("\ufffd", "?")
    )


def test_pictures_with_such_a_name_are_told(tmp_path: Path) -> None:
    made(tmp_path, b"caf\xe9.jpg")
    (tmp_path / "p.yaml").write_text("rows: '*.jpg'\ndefaults: {prompt: x}\n")
    assert (
        message_of(tmp_path / "p.yaml") == "p.yaml:1 rows: the name of the picture 'caf?.jpg' is not UTF-8; rename it"
    )
    (tmp_path / "shots.csv").write_text("prompt,image_url\nx,café.jpg\n", encoding="utf-8")
    assert "(the name of a file there is nearly this, and is not UTF-8: rename it)" in message_of(
        tmp_path / "shots.csv"
    )


@pytest.mark.parametrize(("on_disk", "in_cell"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_picture_is_found_however_its_accents_are_written(
    read: Read, tmp_path: Path, on_disk: str, in_cell: str
) -> None:
    """An accent may be part of its letter or a sign of its own: the same to the eye, and other bytes in a name."""
    folder, name = (unicodedata.normalize(on_disk, text) for text in ("photos é", "café.jpg"))
    (tmp_path / folder).mkdir()
    shutil.copy(IMAGES / "moon.jpg", tmp_path / folder / name)
    (row,) = read(f"prompt,image_url\nx,{unicodedata.normalize(in_cell, 'photos é/café.jpg')}\n")
    assert [file.path.name for file in row.job.files] == [name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this file system")
def test_a_pipe_and_a_socket_are_refused_before_anything_waits_for_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    once = "a manifest is read more than once, so save it as a file first"
    assert message_of(tmp_path / "pipe.csv") == f"pipe.csv is a pipe; {once}"
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(tmp_path)  # the name of a socket may be no longer than 108 bytes
        try:
            listener.bind("socket.csv")
        finally:
            os.chdir(here)
        assert message_of(tmp_path / "socket.csv") == f"socket.csv is no ordinary file; {once}"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read")
def test_a_file_that_cannot_be_read_is_refused_with_the_systems_words(tmp_path: Path) -> None:
    (tmp_path / "shots.csv").symlink_to("/proc/self/mem")
    assert message_of(tmp_path / "shots.csv") == "shots.csv cannot be read: Input/output error"
    (tmp_path / "shots.yaml").symlink_to("/proc/self/mem")
    assert message_of(tmp_path / "shots.yaml") == "shots.yaml cannot be read: Input/output error"


@contextmanager
def nobody() -> Iterator[None]:
    """Without root's rights, where we have them: root may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no file modes of this kind")
def test_a_sheet_without_permission_is_refused_and_so_is_one_in_a_closed_folder() -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are closed to others
    try:
        folder.chmod(0o755)
        (folder / "closed").mkdir()
        for path in (folder / "shots.csv", folder / "shots.yaml", folder / "closed" / "shots.csv"):
            path.write_text(TEXT)
            path.chmod(0)
        (folder / "closed").chmod(0)
        with nobody():
            assert message_of(folder / "shots.csv") == "shots.csv cannot be read: Permission denied"
            assert message_of(folder / "shots.yaml") == "shots.yaml cannot be read: Permission denied"
            assert message_of(folder / "closed" / "shots.csv") == "shots.csv cannot be read: Permission denied"
        (folder / "closed").chmod(0o755)
    finally:
        shutil.rmtree(folder)


def test_a_sheet_that_changes_its_encoding_between_two_readings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shots.csv"
    path.write_text(TEXT)
    loaded = manifest.load(path)
    path.write_bytes(TEXT.encode("cp1252"))
    with pytest.raises(InputError) as caught:
        list(loaded.rows())
    assert not isinstance(caught.value, ManifestError)
    assert str(caught.value) == f"{path} changed while it was read; type the same command again"
    path.unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        list(loaded.rows())


def test_the_name_alone_is_read_in_the_same_encodings_and_whatever_else_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    for encoding in ("utf-8", "utf-16", "cp1252"):
        path.write_bytes("rows: nowhere.csv\nname: café\nnme: x\n".encode(encoding))
        assert campaign_name(path) == "café"
    path.write_text("name:\nrows: [\n")
    with pytest.raises(InputError, match=r"night\.yaml:3: is not YAML"):
        campaign_name(path)
    path.write_text("- name: x\n")
    assert campaign_name(path) == campaign_name(tmp_path / "night.csv") == "night"
