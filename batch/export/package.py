"""The parts of a workbook that say where things are: which part is a sheet, what its links lead to, which formats cells
have. Bytes in, bytes out; everything that is not named here stays as it is.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from batch.errors import InputError
from batch.export.cells import DATE_FORMAT, LINK_COLOR, MONEY_FORMAT
from batch.export.result import Kind

__all__ = ["RELATIONSHIPS", "SheetPart", "find_sheet", "with_links", "with_styles"]

RELATIONSHIPS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
_EMPTY_RELATIONSHIPS = f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Relationships xmlns="{_PACKAGE}"/>'

_COUNT = re.compile(rb'(\scount=")([0-9]+)(")')
_NO_FORMATS = re.compile(rb"\s*<(\w+:)?numFmts\b[^>]*/>")
_FORMAT_ID = re.compile(rb'\snumFmtId="([0-9]+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetPart:
    """Where one sheet is in a workbook. `relationships` is the part with its links, which may not be there yet,
    `styles` that with the formats of cells; `kind` begins the names of relationship types; `is_1904` says from which
    day dates are counted."""

    name: str
    relationships: str
    styles: str | None
    kind: str
    is_1904: bool


def find_sheet(archive: zipfile.ZipFile, title: str, path: Path) -> SheetPart:
    """The part of the sheet of that title. InputError where the workbook is damaged."""
    try:
        root = _relations(archive.read("_rels/.rels"))
        book = next(target.lstrip("/") for kind, target in root.values() if kind.endswith("/officeDocument"))
        relations = _relations(archive.read(_relationships_of(book)))
        content = ElementTree.fromstring(archive.read(book))
        sheet = next(
            element for element in content.iter() if _local(element.tag) == "sheet" and element.get("name") == title
        )
        id = next(value for name, value in sheet.attrib.items() if _local(name) == "id" and name != "id")
        kind, target = relations[id]
    except (KeyError, StopIteration, ElementTree.ParseError) as exc:
        raise InputError(f"{path} is a damaged workbook; open it and save it again as .xlsx") from exc
    name = _resolved(book, target)
    styles = next((_resolved(book, target) for kind, target in relations.values() if kind.endswith("/styles")), None)
    settings = next((element for element in content.iter() if _local(element.tag) == "workbookPr"), None)
    return SheetPart(
        name=name,
        relationships=_relationships_of(name),
        styles=styles if styles in archive.namelist() else None,
        kind=kind.removesuffix("worksheet"),
        is_1904=settings is not None and settings.get("date1904") in ("1", "true"),
    )


def with_links(content: bytes | None, links: Mapping[str, str], dropped: Collection[str], kind: str) -> bytes:
    """The relationships of a sheet with these links in it (their targets by id), and without the dropped ones."""
    root = ElementTree.fromstring(content or _EMPTY_RELATIONSHIPS)
    for element in list(root):
        if element.get("Id") in dropped:
            root.remove(element)
    for id, target in links.items():
        names = {"Id": id, "Type": f"{kind}hyperlink", "Target": target, "TargetMode": "External"}
        ElementTree.SubElement(root, f"{{{_PACKAGE}}}Relationship", names)
    ElementTree.register_namespace("", _PACKAGE)
    return bytes(ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True))


def with_styles(content: bytes) -> tuple[bytes, Mapping[Kind, int]]:
    """The styles of a workbook with ours behind its own, and the number of each; none where there is no place."""
    fonts, formats = _List.of(content, b"fonts"), _List.of(content, b"cellXfs")
    start = re.search(rb"<(\w+:)?styleSheet\b[^>]*>", content)
    if fonts is None or formats is None or start is None or b"<fonts" not in content[: formats.start]:
        return content, {}
    used = [int(id) for id in _FORMAT_ID.findall(content)]
    money, date = (max([164, *used]) + place for place in (1, 2))
    x = fonts.prefix
    own = f'<{x}numFmt numFmtId="{money}" formatCode="{MONEY_FORMAT}"/>'
    own += f'<{x}numFmt numFmtId="{date}" formatCode="{DATE_FORMAT}"/>'
    font = f'<{x}font><{x}u/><{x}sz val="11"/><{x}color rgb="{LINK_COLOR}"/><{x}name val="Calibri"/></{x}font>'
    xf = f'<{x}xf numFmtId="{{}}" fontId="{{}}" fillId="0" borderId="0" xfId="0" apply{{}}="1"/>'
    xfs = [
        (Kind.MONEY, xf.format(money, 0, "NumberFormat")),
        (Kind.TIME, xf.format(date, 0, "NumberFormat")),
        (Kind.LINK, xf.format(0, fonts.count, "Font")),
    ]
    # From the end on, so that places found before stay right.
    content = formats.appended(content, "".join(xml for _, xml in xfs), len(xfs))
    content = fonts.appended(content, font, 1)
    known = _List.of(content, b"numFmts")
    if known is not None:
        content = known.appended(content, own, 2)
    else:
        made = f'<{x}numFmts count="2">{own}</{x}numFmts>'.encode()
        behind = _NO_FORMATS.match(content, start.end())
        content = content[: start.end()] + made + content[behind.end() if behind else start.end() :]
    return content, {kind: formats.count + place for place, (kind, _) in enumerate(xfs)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _List:
    """An element that counts its children: its opening tag stands from `start` to `inside`, they end at `end`."""

    start: int
    inside: int
    end: int
    count: int
    prefix: str

    @classmethod
    def of(cls, content: bytes, name: bytes) -> _List | None:
        opening = re.search(rb"<(\w+:)?" + name + rb"\b[^>]*[^/]>|<(\w+:)?" + name + rb">", content)
        if opening is None:
            return None
        prefix = opening[1] or opening[2] or b""
        end = content.find(b"</" + prefix + name, opening.end())
        child = {b"fonts": rb"font", b"cellXfs": rb"xf", b"numFmts": rb"numFmt"}[name]
        count = len(re.findall(rb"<" + prefix + child + rb"[\s/>]", content[opening.end() : end]))
        return cls(start=opening.start(), inside=opening.end(), end=end, count=count, prefix=prefix.decode())

    def appended(self, content: bytes, xml: str, more: int) -> bytes:
        tag = _COUNT.sub(
            lambda found: found[1] + str(self.count + more).encode() + found[3], content[self.start : self.inside]
        )
        return content[: self.start] + tag + content[self.inside : self.end] + xml.encode() + content[self.end :]


def _relations(content: bytes) -> dict[str, tuple[str, str]]:
    """The type and the target of each relationship, by its id."""
    found = ElementTree.fromstring(content)
    return {one.attrib["Id"]: (one.attrib["Type"], one.attrib["Target"]) for one in found}


def _relationships_of(part: str) -> str:
    folder, name = posixpath.split(part)
    return posixpath.join(folder, "_rels", f"{name}.rels")


def _resolved(part: str, target: str) -> str:
    if target.startswith("/"):
        return target.lstrip("/")
    return posixpath.normpath(posixpath.join(posixpath.dirname(part), target))


def _local(name: str) -> str:
    return name.rpartition("}")[2]
