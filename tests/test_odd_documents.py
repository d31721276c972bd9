"""No document is too odd to be read, shown and worked with, and what is not understood is said."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from endpoint_support import document_of
from odd_documents import CELLS, odd_document

from batch import endpoints, manifest
from batch.cli.schema import endpoint_lines, template_lines
from batch.endpoints import Endpoint, Problem
from batch.errors import ManifestError
from batch.pin import Described
from batch.pricing import PriceBasis

PICTURE = Path(__file__).parents[1] / "manifests" / "images" / "moon.jpg"
SEEDS = 300
ID = "acme/odd"


def odd(seed: int) -> Endpoint:
    return endpoints.parsed(ID, odd_document(seed), source=f"seed {seed}")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_an_odd_document_is_read_shown_and_compared(seed: int) -> None:
    endpoint = odd(seed)
    described = Described(endpoint=endpoint, path=None)
    shown = list(endpoint_lines(described, PriceBasis(endpoint=ID, source="unknown")))
    assert all(any(line.startswith(field.name) for line in shown) for field in endpoint.fields)
    header, row = csv.reader(io.StringIO(next(template_lines(described))))
    assert len(header) == len(row) == 1 + len(endpoints.template(endpoint))
    assert endpoints.differences(endpoint, odd(seed)) == ()
    assert isinstance(endpoints.differences(endpoint, odd(seed + 1)), tuple)
    assert isinstance(endpoint.output_has_files, bool)


@pytest.mark.parametrize("seed", range(0, SEEDS, 3))
def test_every_cell_of_an_odd_document_is_read_or_told(seed: int) -> None:
    rng, endpoint = random.Random(seed), odd(seed)
    names = [field.name for field in endpoint.fields]
    names += [name for field in endpoint.fields for name in endpoints.names_of(field)][:30]
    for name in names:
        field = endpoint.field(name)
        assert field is not None, name
        for cell in rng.sample(CELLS, k=12):
            read = endpoints.read_cell(field, cell)
            if not isinstance(read, Problem):
                json.dumps(read)
                assert all(problem.message for problem in endpoints.check_value(field, read))
                assert endpoints.with_files(field, read, lambda part, text: text) == read
            else:
                assert read.message
                assert read.loc[:1] == field.path[:1]


@pytest.mark.parametrize("seed", range(0, SEEDS, 10))
def test_a_sheet_for_an_odd_document_is_planned_or_told_by_its_cells(seed: int, tmp_path: Path) -> None:
    (tmp_path / "acme__odd.json").write_text(json.dumps(odd_document(seed)), encoding="utf-8")
    shutil.copy(PICTURE, tmp_path / "cat.jpg")
    endpoint = endpoints.load(ID, pinned_dir=tmp_path)
    (template,) = template_lines(Described(endpoint=endpoint, path=None))
    rng = random.Random(seed)
    width = len(next(csv.reader([template.splitlines()[0]])))
    with (tmp_path / "shots.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(template + "\n")
        texts = [cell for cell in CELLS if isinstance(cell, str) and len(cell) < 400]
        for number in range(20):
            csv.writer(file).writerow([f"row{number}", *rng.choices(texts, k=width - 1)])
    found = manifest.load(tmp_path / "shots.csv", endpoint=ID, pinned_dir=tmp_path)
    try:
        rows, issues = list(found.rows()), ()
    except ManifestError as exc:
        rows, issues = [], exc.issues
    assert issues or len(rows) == 21
    assert all(str(issue).startswith("shots.csv:") for issue in issues)


def said(properties: dict[str, Any]) -> tuple[str, ...]:
    document = document_of({"type": "object", "properties": properties}, endpoint_id=ID)
    return endpoints.parsed(ID, document, source="here").notes


@pytest.mark.parametrize(
    ("schema", "note"),
    [
        ({"type": "file"}, "a: `type: file` is not understood, and not checked before the run"),
        ({"type": "string", "pattern": "\\p{L}+("}, "a: `pattern: \\p{L}+(` is not understood, and not checked"),
        ({"minimum": "0"}, "a: `minimum: 0` is not understood, and not checked before the run"),
        ({"not": {"const": 1}}, "a: `not` is not understood, and not checked before the run"),
        ({"$ref": "#/components/schemas/Gone"}, "a: the document has no #/components/schemas/Gone; passed on as JSON"),
        ({"items": {"type": "x"}, "type": "array"}, "a[]: `type: x` is not understood, and not checked before the run"),
        (5, "a: its schema is no object; passed on as JSON"),
    ],
)
def test_what_is_not_understood_is_said(schema: Any, note: str) -> None:
    (found,) = said({"a": schema, "b": {"type": "string"}})
    assert found.startswith(note)


def test_a_document_of_endless_references_ends() -> None:
    schemas = {
        f"S{n}": {"type": "object", "properties": {side: {"$ref": f"#/components/schemas/S{n + 1}"} for side in "ab"}}
        for n in range(40)
    }
    wanted = {"type": "object", "properties": {"a": {"$ref": "#/components/schemas/S0"}}}
    endpoint = endpoints.parsed(ID, document_of(wanted, schemas=schemas, endpoint_id=ID), source="here")
    assert any("too deep or too long" in note for note in endpoint.notes)
    assert endpoints.check_input(endpoint, {"a": {"a": {"b": {}}}}) == ()
    (problem,) = endpoints.check_input(endpoint, {"a": {"a": {"c": {}}}})
    assert problem.kind == "extra_forbidden"


def test_a_number_without_end_is_no_document() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        said({"a": {"enum": [float("inf")]}})


def test_an_input_of_which_nothing_is_said_takes_any_column_as_json(tmp_path: Path) -> None:
    (tmp_path / "acme__odd.json").write_text(json.dumps(document_of({}, endpoint_id=ID)))
    assert "the document names no field" in endpoints.load(ID, pinned_dir=tmp_path).notes[0]
