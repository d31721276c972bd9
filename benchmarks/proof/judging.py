"""What came of a contestant: the queue's word about what was paid for, held against the files on the disk. Pure.

A request is paid for when fal took it and it ended with 200. A row's video is right when its bytes are those of a video
that the queue made for that very row. So, for each contestant:

    paid requests = videos saved and right + paid twice + paid and lost
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

__all__ = ["Finding", "Life", "Request", "judged", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that the queue accepted. `sha256` is that of its video; None where it has none."""

    id: str
    row: str
    code: int
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One start of a contestant's program. `accepted` is the queue's count at its end, over all lives."""

    exit_code: int
    accepted: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One column of the table."""

    rows: int
    paid: int
    twice: int
    twice_by_itself: int
    twice_by_restart: int
    lost: int
    right: int
    broken: int
    restarts: int
    says_done: bool
    calls: int
    seconds: float
    lives: tuple[Life, ...]

    @property
    def wasted(self) -> float:
        """The share of the money that bought nothing."""
        return (self.paid - self.right) / self.paid if self.paid else 0.0

    def document(self) -> dict[str, object]:
        """The same as JSON."""
        return asdict(self)


def judged(
    rows: Collection[str],
    requests: Sequence[Request],
    saved: Mapping[str, str],
    *,
    lives: Sequence[Life],
    calls: int,
) -> Finding:
    """The finding about one contestant. `requests` in the order in which they were accepted; `saved` has the SHA-256 of
    each row's file."""
    assert {request.row for request in requests} <= set(rows) and set(saved) <= set(rows)
    life_of_request = [sum(number > life.accepted for life in lives) for number in range(1, len(requests) + 1)]
    paid: dict[str, list[int]] = {row: [] for row in rows}
    made: dict[str, set[str | None]] = {row: set() for row in rows}
    for request, life in zip(requests, life_of_request, strict=True):
        if request.code == 200:
            paid[request.row].append(life)
            made[request.row].add(request.sha256)
    right = {row for row, sha256 in saved.items() if sha256 in made[row]}
    # A double within one life was made by the program itself, whatever its user did.
    doubles = [now == before for times in paid.values() for before, now in itertools.pairwise(times)]
    return Finding(
        rows=len(rows),
        paid=sum(map(len, paid.values())),
        twice=len(doubles),
        twice_by_itself=sum(doubles),
        twice_by_restart=len(doubles) - sum(doubles),
        lost=sum(bool(times) and row not in right for row, times in paid.items()),
        right=len(right),
        broken=len(saved) - len(right),
        restarts=len(lives) - 1,
        says_done=lives[-1].exit_code == 0,
        calls=calls,
        seconds=sum(life.seconds for life in lives),
        lives=tuple(lives),
    )


def table(columns: Mapping[str, Finding | str]) -> str:
    """The findings side by side, as Markdown; a text in place of a finding says why there is none."""
    lines = [["", *columns], ["---", *("---:" for _ in columns)]]
    for number, (title, words) in enumerate(_LINES.items()):
        missing = "" if number else "not run: {}"
        cells = (words(found) if isinstance(found, Finding) else missing.format(found) for found in columns.values())
        lines.append([title, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_LINES: Mapping[str, Callable[[Finding], str]] = {
    "rows of the sheet": lambda found: f"{found.rows}",
    "paid requests": lambda found: f"{found.paid}",
    "**paid twice**": lambda found: f"**{found.twice}**",
    "… the POST repeated by the program itself": lambda found: f"{found.twice_by_itself}",
    "… the row submitted again after a restart": lambda found: f"{found.twice_by_restart}",
    "**paid and lost**": lambda found: f"**{found.lost}**",
    "videos saved and right": lambda found: f"{found.right}",
    "videos saved and broken": lambda found: f"{found.broken}",
    "money that bought nothing": lambda found: f"{found.wasted:.1%}",
    "restarts by hand": lambda found: f"{found.restarts}" + ("" if found.says_done else ", not done"),
    "calls made": lambda found: f"{found.calls:,}",
    "wall time": lambda found: f"{found.seconds:.0f} s",
}
