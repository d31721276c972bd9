"""The nouns of the line: rows, jobs, attempts, tickets, outcomes, artifacts. Pure; imports nothing of the project.

Parsed once at the border (a sheet, an answer of fal, a ledger row) and never re-checked after it. JSON values are plain
Python: dict, list, str, int, float, bool, None. Times are seconds since 1970, UTC. Money is integer micro-dollars.
"""

from __future__ import annotations

import base64
import binascii
import bisect
import enum
import hashlib
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring as _quoted
from pathlib import Path
from typing import Any

__all__ = [
    "FILE_MARK",
    "Artifact",
    "Attempt",
    "FalStatus",
    "FileRef",
    "Input",
    "Job",
    "LocalFile",
    "Outcome",
    "PastRequest",
    "Row",
    "Status",
    "Ticket",
    "Upload",
    "body_with_urls",
    "canonical_json",
    "derived_seed",
    "file_refs",
    "job_key",
    "local_file_mark",
    "local_files",
    "member_text",
    "result_text",
    "seeded",
    "short_url",
]

Input = Mapping[str, Any]

FILE_MARK = "$file"
"""A local file inside a job's input is `{"$file": <sha256>}`: the content is what is wanted, not the path."""

_DATA = "data:"
_URL = re.compile(r"https?://", re.IGNORECASE)
_MEDIA_URI = re.compile(r"data:(image|video|audio|model|font|application)/[\w.+-]+(;[^,;]*)*;base64,", re.IGNORECASE)
_MEDIA_ENDING = re.compile(
    r"\.(png|jpe?g|webp|gif|bmp|tiff?|avif|heic|svg|mp4|mov|webm|mkv|avi|wav|mp3|ogg|opus|flac|m4a|aac|glb|gltf|obj|fbx|stl"
    r"|ply|usdz|splat|zip|tar|gz|json|txt|srt|vtt|csv|pdf|safetensors|npz|npy|bin)$",
    re.IGNORECASE,
)
_FILE_NAME = re.compile(
    r"ur[il]s?$|image|video|audio|file|mask|mesh|model|frame|output|result|artifact|sample|archive|texture|gif",
    re.IGNORECASE,
)
_MEDIA_NAME = re.compile(r"image|video|audio|file|mask|mesh|archive|texture|gif", re.IGNORECASE)
_ANY_NAME = re.compile(r"model|frame|output|result|artifact|sample", re.IGNORECASE)  # of pages and links, too
_FILE_SIGNS = frozenset({"content_type", "file_name", "file_size", "width", "height"})
_PAGE_SIGNS = frozenset({"title", "snippet", "content", "text", "favicon", "published_date", "score"})
_TEXT_NAMES = (
    "text",
    "output",
    "caption",
    "transcript",
    "transcription",
    "answer",
    "description",
    "response",
    "content",
)

SEED_MIN, SEED_MAX = 0, 2**31 - 1
"""Range of a derived seed where the schema states none: what every model that takes a seed is known to accept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    """A file of the user's that a job sends, known by the hash of its bytes."""

    sha256: str
    path: Path
    size_bytes: int
    media_type: str


@dataclass(slots=True, kw_only=True)  # not frozen: a million are made, and that makes each take twice as long
class Job:
    """One thing wanted once: endpoint + input + take.

    `input` is what will be sent, the derived seed included, a local file standing in it as its mark; `text` is its
    canonical JSON where that was made on the way, else None. `price_micros` is None where no price is known.
    """

    key: str
    endpoint: str
    input: Input
    take: int
    files: tuple[LocalFile, ...] = ()
    price_micros: int | None = None
    text: str | None = field(default=None, compare=False, repr=False)


@dataclass(slots=True, kw_only=True)  # not frozen: a million are made, and that makes each take twice as long
class Row:
    """One line of the sheet (one take of it), and the job it wants.

    `address` is where it stands (`shots.csv:17`), `position` its order among the rows, `stem` the wanted file name
    without its ending, `cells` the line as the user wrote it (every column of the sheet, in order, as text). `number`
    counts the manifest's rows from 1, blank ones left out: takes and combinations of one row share it; `line` is its
    number in the file that the rows stand in, as that counts. `image_size` (width, height) is that of its picture,
    where it is a local file.
    """

    id: str
    address: str
    position: int
    cells: Mapping[str, str]
    stem: str
    job: Job
    number: int = 0
    line: int = 0
    image_size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A local file as fal knows it. `expires_at` is None when fal named no end."""

    sha256: str
    url: str
    uploaded_at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One submission of a job: at most one paid request.

    `body` is exactly what is sent. `submitting_at` was committed before the POST, with fal's clock minus ours where an
    answer had told it; `closed_at` is when the POST could at the latest still have been open (None while it is).
    `over_at_fal` is a moment by fal's own clock at which it was over, whatever ours said: None until fal answered a
    question about it.
    `request_id` is also set when a damaged answer carried one: the attempt is then in doubt all the same. `unit_usd` is
    what one of fal's billable units costs, an exact decimal; None where nobody knows. `webhook` is the user's address
    that fal was asked to deliver to, without our query.
    """

    id: int
    job_id: int
    job_key: str
    number: int
    endpoint: str
    body: Input
    price_micros: int | None
    start_timeout_s: float
    run_timeout_s: float
    submitting_at: float
    unit_usd: str | None = None
    clock_offset_s: float | None = None
    closed_at: float | None = None
    over_at_fal: float | None = None
    request_id: str | None = None
    webhook: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """An accepted attempt, as fal names it."""

    request_id: str
    status_url: str
    response_url: str
    cancel_url: str


class FalStatus(enum.Enum):
    """The three status words that fal has. COMPLETED is not success: the result's own answer decides."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One answer to a status question. `inference_time_s` comes only with COMPLETED, and not always; `logs` are the
    entries as fal wrote them, None where none were asked for or shown."""

    status: FalStatus
    queue_position: int | None = None
    inference_time_s: float | None = None
    error: str | None = None
    error_type: str | None = None
    logs: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The model's own good answer: the result JSON, and the units fal says it bills (text, in the endpoint's unit)."""

    result: Mapping[str, Any]
    billable_units: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A File object somewhere in a result. `place` is its path in the JSON (`video`, `images.0`), no two alike."""

    place: str
    url: str
    content_type: str | None = None
    file_name: str | None = None
    file_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One saved file. `path` is relative to the state folder where it lies inside it, else absolute."""

    path: str
    place: str
    url: str
    sha256: str
    size_bytes: int
    media_type: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRequest:
    """One item of fal's request history. `json_input` is None where fal kept or showed no payload."""

    request_id: str
    endpoint: str
    sent_at: float
    ended_at: float | None = None
    status_code: int | None = None
    json_input: Mapping[str, Any] | None = None
    json_output: Any = None


def canonical_json(value: object) -> str:
    """The one text of a JSON value: sorted keys, no spaces, UTF-8 kept, whole floats as integers (5.0 is 5)."""
    # By hand, because a million rows come through here three times: json.dumps takes twice as long for an input.
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict):
        return _object_text(_members(_texts_of(value)))
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join([canonical_json(child) for child in value])}]"
    return json.dumps(_normal(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def job_key(endpoint: str, input: Input, take: int) -> str:
    """The job's name for ever: 32 hex digits of the SHA-256 of endpoint, input and take.

    Data URIs (in base64, as fal takes them) enter by the hash of their bytes, local files already stand in the input
    by theirs, so neither a moved file nor another spelling of the same bytes makes a new job.
    """
    return _key(endpoint, _members(_content_texts(input)), take)


def _key(endpoint: str, members: Sequence[str], take: int) -> str:
    """The key of an input with these members, each by its content."""
    wanted = f'{{"endpoint":{_quoted(endpoint)},"input":{_object_text(members)},"take":{take}}}'
    return hashlib.sha256(wanted.encode()).hexdigest()[:32]


def _content_texts(input: Input) -> dict[str, str]:
    """The canonical text of each field, data URIs by their content."""
    return {
        name: _quoted(value) if type(value) is str and value[:5].lower() != _DATA else canonical_json(_content(value))
        for name, value in input.items()
    }


def _texts_of(value: Mapping[Any, Any]) -> dict[str, str]:
    """The canonical text of each member."""
    return {str(name): _quoted(child) if type(child) is str else canonical_json(child) for name, child in value.items()}


def _members(texts: Mapping[str, str]) -> list[str]:
    """The members of an object, in the order of their names."""
    return [f"{_quoted(name)}:{text}" for name, text in sorted(texts.items())]


def _object_text(members: Sequence[str]) -> str:
    return f"{{{','.join(members)}}}"


def derived_seed(key: str, minimum: int = SEED_MIN, maximum: int = SEED_MAX) -> int:
    """The seed of a job whose row names none: a number from its key, `minimum` to `maximum` inclusive."""
    assert minimum <= maximum
    digest = hashlib.sha256(b"seed:" + key.encode()).digest()
    return minimum + int.from_bytes(digest[:8], "big") % (maximum - minimum + 1)


def seeded(
    endpoint: str,
    input: Input,
    take: int,
    *,
    seed_field: str | None,
    minimum: int = SEED_MIN,
    maximum: int = SEED_MAX,
    members: Sequence[str] | None = None,
) -> tuple[str, Input, str | None]:
    """The key of a job, its input with the seed in place, and the canonical text of that where `members` are given.

    The key of a row without a seed (or with -1) is the key of the input without one; a row whose seed *is* the derived
    one has the same key, so writing the derived seed into the sheet changes nothing.

    `members` are the canonical text of the input, if that is known already: a `member_text` each, sorted. There must be
    no data URI among them, which enters the key otherwise than the text, and no name but of letters, digits, `_`, `.`
    and `-`: such names stand in the same order with the rest of their member behind them.
    """
    has_text = members is not None
    said = _members(_content_texts(input)) if members is None else members
    if seed_field is None:
        return _key(endpoint, said, take), input, _object_text(said) if has_text else None
    head = f"{_quoted(seed_field)}:"
    others = [member for member in said if not member.startswith(head)] if seed_field in input else said
    key = _key(endpoint, others, take)
    seed = derived_seed(key, minimum, maximum)
    if input.get(seed_field) not in (None, -1, seed):
        return _key(endpoint, said, take), input, _object_text(said) if has_text else None
    sent = [*others]
    bisect.insort(sent, f"{head}{seed}")
    return key, {**input, seed_field: seed}, _object_text(sent) if has_text else None


def member_text(name: str, value: object) -> str:
    """One member of an input's canonical JSON."""
    return f"{_quoted(name)}:{canonical_json(value)}"


def local_file_mark(file: LocalFile) -> dict[str, str]:
    """What stands for a local file inside a job's input."""
    return {FILE_MARK: file.sha256}


def local_files(input: Input) -> tuple[str, ...]:
    """The hashes of the local files in an input, each once, in order."""
    return tuple(dict.fromkeys(_marks(input)))


def body_with_urls(input: Input, urls: Mapping[str, str]) -> dict[str, Any]:
    """The body to send: every file mark replaced by its URL. KeyError when a hash has none."""
    body = _replace_marks(input, urls)
    assert isinstance(body, dict)
    return body


def file_refs(result: object, sent: object = None) -> tuple[FileRef, ...]:
    """Every file anywhere in a result, in document order.

    That is a data URI, and a URL with a second sign of a file. An object with a `url` has one in what else it says
    (`content_type`, `width`), in the URL's ending or host, or in the name it stands under; a bare URL needs two of its
    ending, its host and its name (`images: ["https://…/a.png"]`). What was `sent` is the user's, told back; so is plain
    http beside https. The links of a web search are pages.
    """
    refs = tuple(_file_refs(result, (), frozenset(_texts(sent))))
    return tuple(ref for ref in refs if not _is_plain_http(ref.url)) or refs


def _is_plain_http(url: str) -> bool:
    return url[:5].lower() == "http:"


def short_url(url: str) -> str:
    """The URL itself; of a data URI its head and the hash of the rest, for it may have millions of characters."""
    if url[:5].lower() != "data:":
        return url
    head, _, data = url.partition(",")
    return f"{head[:100]},sha256-{hashlib.sha256(data.encode()).hexdigest()[:16]}"


def result_text(result: object, sent: object = None) -> str:
    """What a result says in words: the text of a caption, a transcript, an answer. Empty where none can be told from
    what was sent, from names and from files."""
    texts = {} if not isinstance(result, Mapping) else {k: v for k, v in result.items() if isinstance(v, str) and v}
    said = frozenset(_texts(sent))
    texts = {name: text for name, text in texts.items() if text not in said and not _URL.match(text)}
    known = next((texts[name] for name in _TEXT_NAMES if name in texts), None)
    if known is not None:
        return known
    return next(iter(texts.values())) if len(texts) == 1 and not file_refs(result, sent) else ""


def _file_refs(value: object, place: tuple[str, ...], sent: frozenset[str]) -> Iterator[FileRef]:
    if isinstance(value, Mapping):
        url = value.get("url")
        if isinstance(url, str) and url not in sent and _is_file_object(value, url, place):
            name, kind, size = value.get("file_name"), value.get("content_type"), value.get("file_size")
            yield FileRef(
                place=".".join(place),
                url=url,
                content_type=kind if isinstance(kind, str) and kind else None,
                file_name=name if isinstance(name, str) and name else None,
                file_size=size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None,
            )
            return
        for name, child in value.items():
            yield from _file_refs(child, (*place, str(name).replace("\\", "\\\\").replace(".", "\\.")), sent)
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from _file_refs(child, (*place, str(index)), sent)
    elif isinstance(value, str) and place and value not in sent and _is_bare_file(value, place):
        yield FileRef(place=".".join(place), url=value)


def _is_bare_file(text: str, place: tuple[str, ...]) -> bool:
    """Whether a text in a result is a file: by its own form, and for a URL by its host and the name it stands under."""
    if text[:5].lower() == "data:":
        return _MEDIA_URI.match(text) is not None
    if not _URL.match(text) or any(sign.isspace() for sign in text):
        return False
    signs = (*_signs_of_url(text), _FILE_NAME.search(_name_at(place)) is not None)
    return sum(signs) >= 2  # one alone may be a page, a status URL, a link in somebody's text


def _is_file_object(value: Mapping[Any, Any], url: str, place: tuple[str, ...]) -> bool:
    """Whether an object with a URL is a file, and not a page that it links to."""
    if url[:5].lower() == "data:":
        return True
    if not _URL.match(url) or any(sign.isspace() for sign in url):
        return False
    name = _name_at(place)
    if not _FILE_SIGNS.isdisjoint(value) or any(_signs_of_url(url)) or _MEDIA_NAME.search(name):
        return True
    return (not name or _ANY_NAME.search(name) is not None) and _PAGE_SIGNS.isdisjoint(value)


def _name_at(place: tuple[str, ...]) -> str:
    """What a value is called, or the list that it is in; nothing where it is the result itself."""
    return next((step for step in reversed(place) if not step.isdecimal()), "")


def _signs_of_url(url: str) -> tuple[bool, bool]:
    """Whether it ends like a file, and whether fal's own store has it."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return False, False
    return _MEDIA_ENDING.search(parts.path) is not None, f".{parts.hostname}".endswith(".fal.media")


def _texts(value: object) -> Iterator[str]:
    """Every text in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from _texts(child)
    elif isinstance(value, (list, tuple)):
        for child in value:
            yield from _texts(child)


def _normal(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(name): _normal(child) for name, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normal(child) for child in value]
    return value


def _content(value: object) -> object:
    """The value with every data URI replaced by the mark of its bytes."""
    if isinstance(value, str):
        content = _data_uri_content(value)
        return value if content is None else {FILE_MARK: hashlib.sha256(content).hexdigest()}
    if value is None or isinstance(value, (int, float)):  # before Mapping, which takes long to say no
        return value
    if isinstance(value, (dict, Mapping)):
        return {str(name): _content(child) for name, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_content(child) for child in value]
    return value


def _data_uri_content(text: str) -> bytes | None:
    """The bytes in a base64 data URI; None for anything else, of which `data: a chart, growing` may be a prompt."""
    if text[:5].lower() != _DATA:
        return None
    head, _, data = text.partition(",")
    if not head.lower().endswith(";base64"):
        return None
    try:
        return base64.b64decode(urllib.parse.unquote_to_bytes(data), validate=True)
    except binascii.Error:
        return None


def _marks(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        if set(value) == {FILE_MARK}:
            yield str(value[FILE_MARK])
            return
        for child in value.values():
            yield from _marks(child)
    elif isinstance(value, (list, tuple)):
        for child in value:
            yield from _marks(child)


def _replace_marks(value: object, urls: Mapping[str, str]) -> object:
    if isinstance(value, Mapping):
        if set(value) == {FILE_MARK}:
            return urls[str(value[FILE_MARK])]
        return {str(name): _replace_marks(child, urls) for name, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_marks(child, urls) for child in value]
    return value
