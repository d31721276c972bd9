"""What can go wrong at the local queue, and a plan of how often it does: a value, drawn from one seed. Pure.

What happens to the n-th call of a kind (or to the n-th accepted request) depends on the seed, the kind and n alone: not
on time, and not on calls of other kinds. Imports nothing of the project; it reads no file and answers no call.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "KINDS",
    "NO_FAULTS",
    "READS",
    "RUNNER_ERRORS",
    "SECTIONS",
    "By",
    "Fault",
    "FaultPlan",
    "Kind",
    "Option",
    "Strike",
    "Unit",
    "Value",
    "drawn_plan",
    "kind_of",
    "shown",
]

Value = float | tuple[str, ...]

RUNNER_ERRORS: Mapping[str, int] = {
    "runner_disconnected": 503,
    "runner_scheduling_failure": 503,
    "runner_connection_timeout": 503,
    "runner_connection_refused": 503,
    "runner_connection_error": 503,
    "runner_incomplete_response": 502,
    "runner_server_error": 500,
    "internal_error": 500,
    "request_timeout": 504,
    "startup_timeout": 504,
    "generation_timeout": 504,
    "downstream_service_error": 500,
    "downstream_service_unavailable": 500,
}
"""The failures that fal does not bill, and their codes."""


class By(enum.Enum):
    """What a fault is drawn for."""

    CALL = "call"  # each call of its section
    REQUEST = "request"  # each accepted request, once: it is the same at every look, and after a restart
    SWITCH = "switch"  # nothing is drawn: it holds for all


class Unit(enum.Enum):
    """What an option's value is."""

    SHARE = "share"  # 0 to 1
    SECONDS = "seconds"
    COUNT = "count"
    FLAG = "flag"
    CODES = "codes"  # one of them is drawn
    TYPES = "types"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting of a fault. `among` are the words that codes and types may be."""

    unit: Unit
    default: Value
    among: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One thing that can go wrong. Faults of a group exclude one another; `means` may name options in braces.

    `is_final`: nobody gets what it took by the same command again, so that a drawn plan leaves it out.
    """

    section: str
    name: str
    by: By
    means: str
    group: str
    options: Mapping[str, Option] = field(default_factory=dict)
    is_final: bool = False

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A kind of fault in a plan: its rate (1 for a switch) and its options, all of them."""

    kind: Kind
    rate: float
    options: Mapping[str, Value]

    def number(self, option: str) -> float:
        """Seconds, a share or a count."""
        value = self.options[option]
        assert not isinstance(value, tuple), f"{self.kind.path} {option} is a list"
        return value

    def words(self, option: str) -> tuple[str, ...]:
        """Codes or types."""
        value = self.options[option]
        assert isinstance(value, tuple), f"{self.kind.path} {option} is a number"
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A fault that hits, and the chance left over for its details."""

    fault: Fault
    chance: bytes

    def coin(self, option: str) -> bool:
        """Whether it falls into the share that the option says."""
        return _fraction(self.chance, 8) < self.fault.number(option)

    def pick(self, option: str) -> str:
        """One of the option's words."""
        words = self.fault.words(option)
        return words[int(_fraction(self.chance, 16) * len(words))]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """What goes wrong, how often, and the seed that says when."""

    seed: int = 0
    faults: tuple[Fault, ...] = ()

    def strike(self, group: str, number: int) -> Strike | None:
        """What hits the `number`-th (from 1) call or request by the faults of that group."""
        faults = [fault for fault in self.faults if fault.kind.group == group]
        if not faults:
            return None
        chance = hashlib.sha256(f"{self.seed} {group} {number}".encode()).digest()
        left = _fraction(chance, 0)
        for fault in faults:
            left -= fault.rate
            if left < 0:
                return Strike(fault=fault, chance=chance)
        return None

    def switch(self, path: str) -> float | None:
        """The value of a switch; None when the plan does not have it."""
        name = path.partition(".")[2]
        return next((fault.number(name) for fault in self.faults if fault.kind.path == path), None)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """The plan for people: the fault, how often, what it means."""
        for fault in self.faults:
            kind = fault.kind
            often = "always" if kind.by is By.SWITCH else shown(Unit.SHARE, fault.rate)
            words = {name: shown(option.unit, fault.options[name]) for name, option in kind.options.items()}
            yield kind.path, often, kind.means.format_map(words)


NO_FAULTS = FaultPlan()


def shown(unit: Unit, value: Value) -> str:
    """An option's value as it is written in a plan."""
    if isinstance(value, tuple):
        return ", ".join(value)
    if unit is Unit.SECONDS:
        return "forever" if math.isinf(value) else f"{value:g}s"
    return f"{value * 100:g}%" if unit is Unit.SHARE else f"{value:g}"


def _fraction(chance: bytes, start: int) -> float:
    return int.from_bytes(chance[start : start + 6]) / 2**48


# --- what there is ---

_GATEWAY_CODES = Option(unit=Unit.CODES, default=("502", "503", "504"), among=("502", "503", "504"))
_SERVER_CODES = Option(unit=Unit.CODES, default=("500", "502", "503"), among=("500", "501", "502", "503", "504"))
_WITH_ID = Option(unit=Unit.SHARE, default=0.5)
_HANG = Option(unit=Unit.SECONDS, default=90.0)

READS = ("status", "result", "history")
_WRITES = ("submit", "cancel", "upload")


def _seconds(default: float) -> Option:
    return Option(unit=Unit.SECONDS, default=default)


def _calls(section: str, table: Iterable[tuple[str, str, Mapping[str, Option]]]) -> list[Kind]:
    return [
        Kind(section=section, name=name, by=By.CALL, means=means, group=section, options=options)
        for name, means, options in table
    ]


def _asking(table: Sequence[tuple[str, str, Mapping[str, Option]]]) -> Iterator[tuple[str, str, Mapping[str, Option]]]:
    """The same faults in the words of a call that only asks: there is nothing to be done or not done."""
    for name, means, options in table:
        yield name, means.removeprefix("not ").removeprefix("done; "), options


def _requests(section: str, group: str, table: Sequence[tuple[str, str, Mapping[str, Option], bool]]) -> list[Kind]:
    return [
        Kind(section=section, name=name, by=By.REQUEST, means=means, group=group, options=options, is_final=is_final)
        for name, means, options, is_final in table
    ]


def _switches(section: str, table: Sequence[tuple[str, str, Unit]]) -> list[Kind]:
    return [
        Kind(
            section=section,
            name=name,
            by=By.SWITCH,
            means=means,
            group=f"{section}.{name}",
            options={name: Option(unit=unit, default=0.0)},
            is_final=True,
        )
        for name, means, unit in table
    ]


_EITHER: Sequence[tuple[str, str, Mapping[str, Option]]] = (
    ("reset", "not done; connection reset before anything is read", {}),
    (
        "too_many",
        "not done; 429, with Retry-After: {retry_after} in {with_retry_after} of them",
        {"retry_after": _seconds(5.0), "with_retry_after": Option(unit=Unit.SHARE, default=0.5)},
    ),
)
_OF_JSON: Sequence[tuple[str, str, Mapping[str, Option]]] = (
    (
        "answer_cut",
        "done; connection reset after the head and half of the body; x-fal-request-id in {with_request_id} of them",
        {"with_request_id": _WITH_ID},
    ),
    (
        "cut_json",
        "done; a 200 whose body is half of the JSON; x-fal-request-id in {with_request_id} of them",
        {"with_request_id": _WITH_ID},
    ),
)
_OF_WRITES: Sequence[tuple[str, str, Mapping[str, Option]]] = (
    ("answer_lost", "done; connection reset before a byte of the answer", {}),
    ("hang_before", "not done; no answer for {for}, then the connection is closed", {"for": _HANG}),
    ("hang_after", "done; no answer for {for}, then the right one", {"for": _HANG}),
    ("gateway_before", "not done; nginx HTML {codes}", {"codes": _GATEWAY_CODES}),
    ("gateway_after", "done; nginx HTML {codes}", {"codes": _GATEWAY_CODES}),
    ("error_before", "not done; JSON {codes}", {"codes": _SERVER_CODES}),
    (
        "error_after",
        "done; JSON {codes}; x-fal-request-id in {with_request_id} of them",
        {"codes": _SERVER_CODES, "with_request_id": _WITH_ID},
    ),
)
_OF_READS: Sequence[tuple[str, str, Mapping[str, Option]]] = (
    ("hang", "no answer for {for}, then the right one", {"for": _HANG}),
    ("gateway", "nginx HTML {codes}", {"codes": _GATEWAY_CODES}),
    ("error", "JSON {codes} with no type: a gateway's, not fal's verdict", {"codes": _SERVER_CODES}),
)
_GONE_CODES = Option(unit=Unit.CODES, default=("404",), among=("404", "410"))
_GONE = {"after": _seconds(0.0), "codes": _GONE_CODES}
_RUNNER_TYPES = Option(
    unit=Unit.TYPES,
    default=(
        "runner_disconnected",
        "runner_incomplete_response",
        "runner_server_error",
        "startup_timeout",
        "generation_timeout",
        "downstream_service_unavailable",
    ),
    among=tuple(RUNNER_ERRORS),
)

_RERUN_TYPES = Option(
    unit=Unit.TYPES,
    default=("runner_disconnected", "runner_connection_timeout", "startup_timeout"),
    among=tuple(name for name, code in RUNNER_ERRORS.items() if code in (503, 504)),  # those that fal runs again
)
_FORGERIES = Option(
    unit=Unit.TYPES,
    # another's key; the truth's signature over another body; no signature; a true one of an hour ago
    default=("key", "body", "unsigned", "stale"),
    among=("key", "body", "unsigned", "stale"),
)

KINDS: tuple[Kind, ...] = (
    *(kind for name in _WRITES for kind in _calls(name, (*_OF_WRITES, *_OF_JSON, *_EITHER))),
    *(kind for name in READS for kind in _calls(name, (*_OF_READS, *_asking((*_OF_JSON, *_EITHER))))),
    *_calls(
        "stream",
        (
            ("cut", "the connection is closed after the first event", {}),
            ("bad_event", "the first event is half of its JSON", {}),
            *(entry for entry in _OF_READS if entry[0] != "hang"),
            *_asking(_EITHER),
        ),
    ),
    *_calls(
        "file",
        (
            ("short", "the connection is closed after half of the bytes that were announced", {}),
            ("truncated", "half of the file under a length that is right for the half", {}),
            ("slow", "the bytes drip in over {for}", {"for": _seconds(20.0)}),
            ("hang", "no answer for {for}, then the file", {"for": _HANG}),
            ("gateway", "nginx HTML {codes}", {"codes": _GATEWAY_CODES}),
            *_asking(_EITHER),
        ),
    ),
    *_requests(
        "file", "file.missing", [("missing", "404 for {for} after it was made", {"for": _seconds(60.0)}, False)]
    ),
    *_requests(
        "status", "status.unknown", [("unknown", "404 for {for} after the submit", {"for": _seconds(10.0)}, False)]
    ),
    *_requests("queue", "queue", [("stuck", "IN_QUEUE for {for}, whoever is free", {"for": _seconds(120.0)}, False)]),
    *_requests(
        "queue",
        "queue.rerun",
        [
            (
                "rerun",
                "its runner fails {times} times by one of {types} and it runs again; with X-Fal-No-Retry it ends so",
                {"times": Option(unit=Unit.COUNT, default=1.0), "types": _RERUN_TYPES},
                False,
            )
        ],
    ),
    *_requests(
        "verdict",
        "verdict",
        [
            ("invalid_input", "422 of the schema, 0 billable units", {}, False),
            ("content_policy", "422 content_policy_violation, billed", {}, False),
            ("internal_error", "500 internal_server_error of the model, not billed", {}, False),
            ("runner_error", "not billed, one of {types}", {"types": _RUNNER_TYPES}, False),
            ("start_timeout", "504 of the start timeout, never started", {}, False),
        ],
    ),
    *_requests(
        "result",
        "result.gateway_first",
        [
            (
                "gateway_first",
                "nginx HTML {codes} at the first {times} questions, then the answer",
                {
                    "times": Option(unit=Unit.COUNT, default=2.0),
                    "codes": Option(unit=Unit.CODES, default=("504",), among=_GATEWAY_CODES.among),
                },
                False,
            )
        ],
    ),
    *_requests(
        "result",
        "result.gone",
        [
            ("expired", "{codes} from {after} after its end; the history still has it", _GONE, False),
            ("forgotten", "{codes} from {after} after its end; the history does not have it either", _GONE, True),
        ],
    ),
    *_requests(
        "webhook",
        "webhook",
        [
            ("lost", "never sent", {}, False),
            ("late", "sent {for} after the end", {"for": _seconds(60.0)}, False),
            (
                "duplicate",
                "sent again {times} times, {after} after it was taken",
                {"times": Option(unit=Unit.COUNT, default=1.0), "after": _seconds(5.0)},
                False,
            ),
            ("forged", "a lie is sent before it, by one of {how}", {"how": _FORGERIES}, False),
            ("no_payload", "sent without the payload, which could not be made JSON", {}, False),
        ],
    ),
    *_switches(
        "webhook",
        [("rotated_after", "signed with another key, once {rotated_after} were taken", Unit.COUNT)],
    ),
    *_switches(
        "account",
        [
            ("locked_after", "403, the account is locked, once {locked_after} submits were accepted", Unit.COUNT),
            ("key_refused_after", "401 to every call, once {key_refused_after} submits were accepted", Unit.COUNT),
        ],
    ),
    *_switches(
        "history",
        [
            ("late", "shows a request {late} late", Unit.SECONDS),
            ("only_ended", "shows only requests that have ended", Unit.FLAG),
            ("refused", "403, the key may not read it", Unit.FLAG),
            ("other_account", "is another account's: it shows nothing of ours", Unit.FLAG),
        ],
    ),
)
"""Everything that a plan can hold, in the order in which a group's faults share its chance."""

SECTIONS: tuple[str, ...] = tuple(dict.fromkeys(kind.section for kind in KINDS))

_BY_PATH = {kind.path: kind for kind in KINDS}
_DRAWN_RATES = (0.0, 0.0, 0.01, 0.02, 0.05)


def kind_of(path: str) -> Kind | None:
    """The kind of that name (`submit.answer_lost`)."""
    return _BY_PATH.get(path)


def drawn_plan(seed: int) -> FaultPlan:
    """A whole plan of moderate rates, drawn from the seed. Nothing in it needs a person's hand to end well."""
    faults = []
    for kind in KINDS:
        chance = hashlib.sha256(f"{seed} rate of {kind.path}".encode()).digest()
        rate = _DRAWN_RATES[int(_fraction(chance, 0) * len(_DRAWN_RATES))]
        if rate and not kind.is_final:
            options = {name: option.default for name, option in kind.options.items()}
            faults.append(Fault(kind=kind, rate=rate, options=options))
    return FaultPlan(seed=seed, faults=tuple(faults))
