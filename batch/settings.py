"""Every setting, where it may come from, and where it did come from. The only module that looks at the environment.

A value is the first of: a flag, `FAL_BATCH_<NAME>` in the environment (or in `.env`), a key of `[tool.fal-batch]` in
`pyproject.toml`, the default. Imports only errors.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch.errors import InputError

__all__ = [
    "KEY_VARIABLES",
    "LOCAL_URL",
    "OPTIONS",
    "Option",
    "Settings",
    "is_loopback",
    "load_settings",
    "parse_duration",
    "parse_usd",
]

LOCAL_URL = "http://fal-batch.localhost"
"""The address of the queue inside the program. Nothing listens there: the requests never leave the process."""

LOCAL_START_TIMEOUT_S, LOCAL_RUN_TIMEOUT_S, LOCAL_HISTORY_DELAY_S = 60.0, 60.0, 0.0
"""A rehearsal's own times: its queue renders in seconds and its history is never late."""

KEY_VARIABLES = ("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET")

_PROJECT = "pyproject.toml [tool.fal-batch]"
_PREFIX = "FAL_BATCH_"
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `45m`, `8h`, `1h30m`, or a bare number of seconds. ValueError otherwise."""
    text = str(text).strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("expected a time like 90s, 45m or 8h")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def parse_usd(text: str) -> int:
    """Micro-dollars of `25`, `25.00` or `$25`. ValueError otherwise."""
    text = str(text).strip().removeprefix("$")
    match = re.fullmatch(r"(\d+)(?:\.(\d{1,6}))?", text)
    if not match:
        raise ValueError("expected dollars like 25 or 25.00")
    return int(match[1]) * 1_000_000 + int((match[2] or "").ljust(6, "0"))


def _count(text: str) -> int:
    if not re.fullmatch(r"\d+", str(text).strip()) or int(text) < 1:
        raise ValueError("expected a whole number, 1 or more")
    return int(text)


def _flag(text: str) -> bool:
    word = str(text).strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off", ""}:
        return False
    raise ValueError("expected yes or no")


def _share(text: str) -> int | float:
    """A number of jobs (a whole one), or a share of them (between 0 and 1)."""
    text = str(text).strip()
    if re.fullmatch(r"[1-9][0-9]*", text):
        return int(text)
    if re.fullmatch(r"[0-9]{1,2}(\.[0-9]+)?%", text):
        share = float(text[:-1]) / 100
    elif re.fullmatch(r"0?\.[0-9]+", text):
        share = float(text)
    else:
        share = 0.0
    if not 0 < share < 1:
        raise ValueError("expected a number of jobs like 20, or a share like 0.1 or 10%")
    return share


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in str(text).split(",")))
    if not all(names):
        raise ValueError("expected names with commas between them, like mood,notes")
    return names


def _listen(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):([0-9]{1,5})", str(text).strip())
    if not match or int(match[2]) > 65535:
        raise ValueError("expected HOST:PORT, like 127.0.0.1:8320 or [::1]:8320")
    return match[1].strip("[]"), int(match[2])


def _start_timeout(text: str) -> float:
    seconds = parse_duration(text)
    if seconds <= 1:  # both official clients refuse 1 and less, fal asks for more than 0.1
        raise ValueError("expected more than one second")
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting: its name, default, how text becomes a value, and what it is for."""

    name: str
    default: Any
    parse: Callable[[str], Any]
    help: str
    metavar: str = "TEXT"
    is_flag: bool = False

    @property
    def flag(self) -> str:
        """`--start-timeout` for `start_timeout`."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """`FAL_BATCH_START_TIMEOUT` for `start_timeout`."""
        return _PREFIX + self.name.upper()

    def text(self, value: Any) -> str:
        """A value as a person would write it, empty for one that is not set."""
        if value is None or value == ():
            return ""
        if self.is_flag:
            return "yes" if value else "no"
        if self.parse is parse_usd:
            return f"{value / 1_000_000:.2f}" if value % 10_000 == 0 else f"{value / 1_000_000:f}"
        if self.parse is _listen:
            host, port = value
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if isinstance(value, tuple):
            return ",".join(value)
        return f"{value:g}s" if self.parse in (parse_duration, _start_timeout) else str(value)


OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (
        Option(
            name="concurrency",
            default=8,
            parse=_count,
            metavar="N",
            help="How many jobs run at fal at once; a quarter more are kept waiting in its queue.",
        ),
        Option(
            name="limit",
            default=None,
            parse=_count,
            metavar="N",
            help="Submit N jobs at the most, and leave the rest for another run.",
        ),
        Option(
            name="max_cost",
            default=None,
            parse=parse_usd,
            metavar="USD",
            help="Cap on the campaign: spent + reserved + in doubt never passes it.",
        ),
        Option(
            name="price",
            default=None,
            parse=parse_usd,
            metavar="USD",
            help="What each job costs, whatever fal's price list and the built-in rules say.",
        ),
        Option(
            name="fail_on_error",
            default=None,
            parse=_share,
            metavar="N|SHARE",
            help="Submit nothing more once so many jobs of this run have failed: a number, or a share (0.1 or 10%).",
        ),
        Option(
            name="max_duration",
            default=None,
            parse=parse_duration,
            metavar="TIME",
            help="Stop like Ctrl-C after this time (90s, 45m, 8h).",
        ),
        Option(
            name="start_timeout",
            default=3600.0,
            parse=_start_timeout,
            metavar="TIME",
            help="fal drops a job that has not started by then, free of charge.",
        ),
        Option(
            name="run_timeout",
            default=3600.0,
            parse=parse_duration,
            metavar="TIME",
            help="How long fal lets a started job run. After both times a submit whose answer was lost, and that fal's "
            "history does not show, is proved to have never been taken.",
        ),
        Option(
            name="history_delay",
            default=600.0,
            parse=parse_duration,
            metavar="TIME",
            help="How late fal's request history may be; a submit whose answer was lost is looked for in it.",
        ),
        Option(
            name="wait",
            default=False,
            parse=_flag,
            is_flag=True,
            help="Wait for jobs in doubt however long their proof takes (else ten minutes at most).",
        ),
        Option(
            name="webhook",
            default=None,
            parse=str,
            metavar="URL",
            help="Have fal tell when a job is done, at this public address of yours, instead of asking it.",
        ),
        Option(
            name="webhook_listen",
            default=("127.0.0.1", 8320),
            parse=_listen,
            metavar="HOST:PORT",
            help="Where what arrives at that address is received on this machine.",
        ),
        Option(
            name="no_download",
            default=False,
            parse=_flag,
            is_flag=True,
            help="Save no files: a row is done when fal has its result. Without this flag a later run fetches them.",
        ),
        Option(
            name="carry",
            default=(),
            parse=_names,
            metavar="COLUMNS",
            help="Columns of your own that look like misspelt fields, with commas between them.",
        ),
        Option(
            name="state",
            default=Path("state"),
            parse=Path,
            metavar="DIR",
            help="The folder of the ledger, below the folder you are in.",
        ),
        Option(
            name="outputs",
            default=None,
            parse=Path,
            metavar="DIR",
            help="The folder that gets one sub-folder of files per campaign (default: outputs/ in the state folder).",
        ),
        Option(
            name="local",
            default=False,
            parse=_flag,
            is_flag=True,
            help="The rehearsal: the queue inside the program, real previews, no key, no cost, a ledger of its own.",
        ),
        Option(
            name="endpoint",
            default=None,
            parse=str,
            metavar="ID",
            help="The endpoint of rows that name none; by default that of the last run.",
        ),
        Option(
            name="sheet",
            default=None,
            parse=str,
            metavar="NAME",
            help="Which sheet of an Excel workbook to read, instead of the first that is visible.",
        ),
        Option(
            name="campaign",
            default=None,
            parse=str,
            metavar="NAME",
            help="The campaign's name, instead of the manifest's own.",
        ),
        Option(
            name="yes",
            default=False,
            parse=_flag,
            is_flag=True,
            help="Do not ask before spending. Without a terminal there is no question: the run spends at once.",
        ),
        Option(name="json", default=False, parse=_flag, is_flag=True, help="Print JSON for scripts."),
        Option(name="quiet", default=False, parse=_flag, is_flag=True, help="No progress, only what went wrong."),
        Option(name="verbose", default=False, parse=_flag, is_flag=True, help="A line for every step of every job."),
        Option(name="queue_url", default="https://queue.fal.run", parse=str, metavar="URL", help="fal's queue."),
        Option(name="rest_url", default="https://rest.fal.ai", parse=str, metavar="URL", help="fal's storage control."),
        Option(name="cdn_url", default="https://v3.fal.media", parse=str, metavar="URL", help="fal's file store."),
        Option(name="api_url", default="https://api.fal.ai/v1", parse=str, metavar="URL", help="fal's platform API."),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one command. `sources` says where each came from; `key` is never shown, and `no_key` says what is
    missing where it is None. Money in micro-dollars, times in seconds; `fail_on_error` is a number of jobs or, as a
    float, a share of them.
    """

    concurrency: int
    limit: int | None
    max_cost: int | None
    price: int | None
    fail_on_error: int | float | None
    max_duration: float | None
    start_timeout: float
    run_timeout: float
    history_delay: float
    wait: bool
    webhook: str | None
    webhook_listen: tuple[str, int]
    no_download: bool
    carry: tuple[str, ...]
    state: Path
    outputs: Path
    local: bool
    endpoint: str | None
    sheet: str | None
    campaign: str | None
    yes: bool
    json: bool
    quiet: bool
    verbose: bool
    queue_url: str
    rest_url: str
    cdn_url: str
    api_url: str
    key: str | None = field(repr=False)
    no_key: str
    proxy: str | None = field(repr=False)
    sources: Mapping[str, str]

    @property
    def pinned(self) -> Path:
        """The folder of pinned documents: one for rehearsals and for the real thing, which are judged by the same."""
        return (self.state.parent if self.local else self.state) / "endpoints"


def load_settings(flags: Mapping[str, Any], *, environ: Mapping[str, str], cwd: Path) -> Settings:
    """The settings of a command from its flags (None: not given), the environment and the project file in `cwd`.

    InputError names the source of a value that cannot be read.
    """
    dotenv = _dotenv(cwd / ".env")
    variables = {**dotenv, **environ}
    for place, names in (("the environment", environ), (".env", dotenv)):
        _refuse_unknown(place, names)
    project = _project_table(cwd / "pyproject.toml")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for option in OPTIONS.values():
        where = "" if option.variable in environ else ".env "
        given = (
            (option.flag, flags.get(option.name)),
            (where + option.variable, variables.get(option.variable) or None),
            (f"{_PROJECT} {option.name}", project.get(option.name, project.get(option.name.replace("_", "-")))),
        )
        values[option.name], sources[option.name] = _pick(option, given)
    if values["local"]:
        _make_local(values, sources)
    if values["outputs"] is None:
        values["outputs"] = values["state"] / "outputs"
    for name in ("state", "outputs"):
        if values[name].exists() and not values[name].is_dir():
            raise InputError(f"{sources[name]}: {values[name]} is no folder")
    for name in ("queue_url", "rest_url", "cdn_url", "api_url"):
        values[name] = _url(values[name], sources[name])
    _check_webhook(values["webhook"], values["queue_url"], sources["webhook"])
    key, sources["key"], no_key = _key(variables, dotenv, environ)
    proxy = _proxy(variables, values["queue_url"])
    return Settings(**values, key=key, no_key=no_key, proxy=proxy, sources=sources)


def _check_webhook(url: str | None, queue_url: str, source: str) -> None:
    """InputError where our own query cannot be added, or where fal would drop every delivery without a word: it sends
    none to private addresses. The address is not shown where it may hold a secret of the user's."""
    if url is None:
        return
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urllib.parse.urlsplit(""), ""
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment or url[-1] in "?#":
        raise InputError(f"{source}: the address may hold no user name, query or fragment (a query of ours is added)")
    if parts.scheme not in {"http", "https"} or not host or not re.fullmatch(r"[!-~]+", url):
        raise InputError(f"{source}: expected the public address of this run, like https://example.com/fal")
    if is_loopback(queue_url):
        return
    try:
        is_public = ipaddress.ip_address(host).is_global
    except ValueError:
        is_public = "." in host and not host.endswith((".localhost", ".local", ".internal", ".lan"))
    if not is_public:
        raise InputError(
            f"{source}: fal cannot reach {host}, which only machines here can; expected a public address, of a tunnel "
            "for example (docs/webhooks.md)"
        )


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine, by name or number."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _pick(option: Option, given: Iterable[tuple[str, str | None]]) -> tuple[Any, str]:
    """The first value that is there, and its source."""
    for source, text in given:
        if text is None:
            continue
        try:
            return option.parse(text), source
        except (ValueError, TypeError) as exc:
            raise InputError(f"{source}: {exc}, found {text!r}") from exc
    return option.default, "default"


def _make_local(values: dict[str, Any], sources: dict[str, str]) -> None:
    """A rehearsal has its own ledger, outputs, hosts and times: it never counts as the real thing."""
    values["state"] = values["state"] / "local"
    if sources["outputs"] != OPTIONS["outputs"].flag:  # where the real films go is no place for its previews
        values["outputs"], sources["outputs"] = None, "--local"
    if sources["webhook"] != OPTIONS["webhook"].flag:  # a rehearsal beside a real run would want the same port
        values["webhook"], sources["webhook"] = None, "--local"
    for name in ("queue_url", "rest_url", "cdn_url", "api_url"):
        values[name], sources[name] = LOCAL_URL, "--local"
    times = (
        ("start_timeout", LOCAL_START_TIMEOUT_S),
        ("run_timeout", LOCAL_RUN_TIMEOUT_S),
        ("history_delay", LOCAL_HISTORY_DELAY_S),
    )
    for name, seconds in times:
        if sources[name] == "default":
            values[name], sources[name] = seconds, "--local"


def _url(text: str, source: str) -> str:
    try:
        parts = urllib.parse.urlsplit(text)
        _ = parts.port
    except ValueError as exc:
        raise InputError(f"{source}: {text!r} is not a URL: {exc}") from exc
    if parts.username is not None or parts.password is not None:
        raise InputError(f"{source}: the URL may not hold a user name or a password")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InputError(f"{source}: {text!r} is not an http(s) URL")
    if parts.scheme == "http" and not is_loopback(text):
        raise InputError(f"{source}: {text!r} would send the key in the clear; use https (http only for this machine)")
    return text.rstrip("/")


def _refuse_unknown(place: str, names: Iterable[str]) -> None:
    """A misspelt FAL_BATCH_MAX_COST would be no cap at all, without a word."""
    known = [name.upper() for name in OPTIONS]
    for name in names:
        if name.startswith(_PREFIX) and (own := name.removeprefix(_PREFIX)) not in known:
            close = difflib.get_close_matches(own, known, n=1)
            hint = f"did you mean {_PREFIX}{close[0]}?" if close else f"known are {', '.join(known)} after {_PREFIX}"
            raise InputError(f"{place}: {name} is not a setting; {hint}")


def _key(
    variables: Mapping[str, str], dotenv: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[str | None, str, str]:
    """The key, where it is from, and what is missing where there is none."""
    whole, key_id, secret = (variables.get(name, "").strip() for name in KEY_VARIABLES)
    for names, key in ((KEY_VARIABLES[:1], whole), (KEY_VARIABLES[1:], key_id and secret and f"{key_id}:{secret}")):
        if key:
            where = ".env " if any(name in dotenv and name not in environ for name in names) else ""
            return key, where + " + ".join(names), ""
    told = "no key: set FAL_KEY, or FAL_KEY_ID and FAL_KEY_SECRET (in a .env too), or rehearse with --local"
    if key_id or secret:
        there, missing = KEY_VARIABLES[1:] if key_id else KEY_VARIABLES[:0:-1]
        told = f"no key: {there} is set and {missing} is not; set both, or FAL_KEY alone, or rehearse with --local"
    return None, "", told


def _proxy(variables: Mapping[str, str], queue_url: str) -> str | None:
    if is_loopback(queue_url):
        return None
    names = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    return next((variables[name] for name in names if variables.get(name)), None)


def _project_table(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        tools = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as exc:
        raise InputError(f"{path}: not readable as TOML: {exc}") from exc
    table = tools.get("fal-batch", {}) if isinstance(tools, dict) else {}
    if not isinstance(table, dict):
        raise InputError(f"{path}: [tool.fal-batch] is not a table")
    known = set(OPTIONS) | {name.replace("_", "-") for name in OPTIONS}
    for name in table:
        if name not in known:
            raise InputError(f"{path} [tool.fal-batch]: {name!r} is not a setting; known are {', '.join(OPTIONS)}")
    lists = {name for name, option in OPTIONS.items() if isinstance(option.default, tuple)}
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) and name in lists else str(value)
        for name, value in table.items()
    }


def _dotenv(path: Path) -> dict[str, str]:
    """`NAME=value` lines of a .env file; `export `, quotes and comment lines as people write them."""
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as exc:
        raise InputError(f"{path} cannot be read: {type(exc).__name__}") from None  # its bytes are in no message
    values: dict[str, str] = {}
    for line in lines:
        match = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*", line)
        if match:
            quoted = re.fullmatch(r"(['\"])(.*?)\1(?:\s+#.*)?", match[2])
            values[match[1]] = quoted[2] if quoted else re.sub(r"(^|\s+)#.*$", "", match[2])
    return values
