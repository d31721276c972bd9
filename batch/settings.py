"""Every setting, where it may come from, and where it did come from. The only module that looks at the environment.

A value is the first of: a flag, `FAL_BATCH_<NAME>` in the environment (or in `.env`), a key of `[tool.fal-batch]` in
`pyproject.toml`, the default. Imports only errors.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch.errors import InputError

__all__ = ["LOCAL_URL", "OPTIONS", "Option", "Settings", "is_loopback", "load_settings", "parse_duration", "parse_usd"]

LOCAL_URL = "http://fal-batch.localhost"
"""The address of the queue inside the program. Nothing listens there: the requests never leave the process."""

LOCAL_START_TIMEOUT_S, LOCAL_RUN_TIMEOUT_S, LOCAL_HISTORY_DELAY_S = 60.0, 60.0, 0.0
"""A rehearsal's own times: its queue renders in seconds and its history is never late."""

_PROJECT = "pyproject.toml [tool.fal-batch]"
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
        return "FAL_BATCH_" + self.name.upper()


OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (
        Option(
            name="concurrency",
            default=8,
            parse=_count,
            metavar="N",
            help="How many jobs are meant to run at fal at once; a quarter more may wait in its queue.",
        ),
        Option(name="limit", default=None, parse=_count, metavar="N", help="Submit at most N jobs in this run."),
        Option(
            name="max_cost",
            default=None,
            parse=parse_usd,
            metavar="USD",
            help="Cap on the campaign: spent + reserved + in doubt never passes it.",
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
            help="How long a started job may run at fal. Only for the proof that a lost submit was never taken.",
        ),
        Option(
            name="history_delay",
            default=600.0,
            parse=parse_duration,
            metavar="TIME",
            help="How late fal's request history may be, when a lost answer is looked for in it.",
        ),
        Option(
            name="wait",
            default=False,
            parse=_flag,
            is_flag=True,
            help="Wait for jobs in doubt however long their proof takes (else ten minutes at most).",
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
        Option(name="endpoint", default=None, parse=str, metavar="ID", help="The endpoint of rows that name none."),
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
            help="Do not ask before spending (without a terminal there is no question).",
        ),
        Option(name="json", default=False, parse=_flag, is_flag=True, help="Print JSON for scripts."),
        Option(name="quiet", default=False, parse=_flag, is_flag=True, help="No progress, only what went wrong."),
        Option(name="queue_url", default="https://queue.fal.run", parse=str, metavar="URL", help="fal's queue."),
        Option(name="rest_url", default="https://rest.fal.ai", parse=str, metavar="URL", help="fal's storage control."),
        Option(name="cdn_url", default="https://v3.fal.media", parse=str, metavar="URL", help="fal's file store."),
        Option(name="api_url", default="https://api.fal.ai/v1", parse=str, metavar="URL", help="fal's platform API."),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one command. `sources` says where each came from; `key` is never shown."""

    concurrency: int
    limit: int | None
    max_cost: int | None
    max_duration: float | None
    start_timeout: float
    run_timeout: float
    history_delay: float
    wait: bool
    state: Path
    outputs: Path
    local: bool
    endpoint: str | None
    campaign: str | None
    yes: bool
    json: bool
    quiet: bool
    queue_url: str
    rest_url: str
    cdn_url: str
    api_url: str
    key: str | None = field(repr=False)
    proxy: str | None = field(repr=False)
    sources: Mapping[str, str]


def load_settings(flags: Mapping[str, Any], *, environ: Mapping[str, str], cwd: Path) -> Settings:
    """The settings of a command from its flags (None: not given), the environment and the project file in `cwd`.

    InputError names the source of a value that cannot be read.
    """
    dotenv = _dotenv(cwd / ".env")
    variables = {**dotenv, **environ}
    project = _project_table(cwd / "pyproject.toml")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for option in OPTIONS.values():
        where = "" if option.variable in environ else ".env "
        given = (
            (option.flag, flags.get(option.name)),
            (where + option.variable, variables.get(option.variable) or None),
            (_PROJECT, project.get(option.name, project.get(option.name.replace("_", "-")))),
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
    return Settings(**values, key=_key(variables), proxy=_proxy(variables, values["queue_url"]), sources=sources)


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
            raise InputError(f"{source}: {option.name} is {text!r}; {exc}") from exc
    return option.default, "default"


def _make_local(values: dict[str, Any], sources: dict[str, str]) -> None:
    """A rehearsal has its own ledger, outputs, hosts and times: it never counts as the real thing."""
    values["state"] = values["state"] / "local"
    if sources["outputs"] != OPTIONS["outputs"].flag:  # where the real films go is no place for its previews
        values["outputs"], sources["outputs"] = None, "--local"
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


def _key(variables: Mapping[str, str]) -> str | None:
    whole, key_id, secret = (variables.get(name, "").strip() for name in ("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET"))
    if whole:
        return whole
    return f"{key_id}:{secret}" if key_id and secret else None


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
    return {name: value if isinstance(value, str) else str(value) for name, value in table.items()}


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
