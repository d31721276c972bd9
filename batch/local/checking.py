"""What a model says of an input it does not take: fal's 422, a list of details in fal's own words.

Of the project it imports only `endpoints` and its neighbours. What is wrong is found by the endpoint's schema; here it
is worded as fal's framework words it, and our own sheets word it otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batch.endpoints import Endpoint, Problem, check_input
from batch.local.store import Ended

__all__ = ["Loc", "Refused", "check", "refusal"]

Loc = tuple[str | int, ...]

_WORDS = {
    "missing": "Field required",
    "string_type": "Input should be a valid string",
    "int_type": "Input should be a valid integer",
    "float_type": "Input should be a valid number",
    "bool_type": "Input should be a valid boolean",
    "list_type": "Input should be a valid list",
    "dict_type": "Input should be a valid dictionary",
    "greater_than": "Input should be greater than {gt}",
    "greater_than_equal": "Input should be greater than or equal to {ge}",
    "less_than": "Input should be less than {lt}",
    "less_than_equal": "Input should be less than or equal to {le}",
    "multiple_of": "Input should be a multiple of {multiple_of}",
    "string_pattern_mismatch": "String should match pattern '{pattern}'",
}


class Refused(Exception):
    """The model says no: the answer it gives."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.code)
        self.ended = ended


def check(endpoint: Endpoint, wanted: Mapping[str, Any]) -> None:
    """Refused, with everything that is wrong, when the endpoint's schema does not allow the input."""
    # fal ignores fields that a model does not have; only our own sheets treat them as mistakes.
    problems = [problem for problem in check_input(endpoint, wanted) if problem.kind != "extra_forbidden"]
    if problems:
        headers = {"x-fal-billable-units": "0", "x-fal-retryable": "false"}
        raise Refused(Ended(code=422, body={"detail": [_detail(problem) for problem in problems]}, headers=headers))


def refusal(kind: str, loc: Loc, message: str, value: object, ctx: Mapping[str, Any] | None = None) -> Refused:
    """What a model says that looked at the input's files and did not like them."""
    problem = Problem(loc=loc, kind=kind, message=message, ctx=ctx or {}, input=value)
    # No billable units here: fal says of such a 422 only that it may be charged.
    return Refused(Ended(code=422, body={"detail": [_detail(problem)]}, headers={"x-fal-retryable": "false"}))


def _detail(problem: Problem) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "loc": ["body", *problem.loc],
        "msg": _message(problem),
        "type": problem.kind,
        "url": f"https://docs.fal.ai/errors/#{problem.kind}",
    }
    if problem.ctx:
        entry["ctx"] = dict(problem.ctx)
    return {**entry, "input": problem.input}


def _message(problem: Problem) -> str:
    if problem.kind == "one_of":
        return f"Input should be {_either(problem.ctx['expected'])}"
    if problem.kind in ("sequence_too_short", "sequence_too_long"):
        return _length(problem)
    words = _WORDS.get(problem.kind)
    return words.format(**problem.ctx) if words else problem.message


def _either(expected: Sequence[Any]) -> str:
    names = [repr(member) for member in expected]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _length(problem: Problem) -> str:
    few = problem.kind == "sequence_too_short"
    limit = problem.ctx["min_length" if few else "max_length"]
    bound = f"at {'least' if few else 'most'} {limit}"
    if isinstance(problem.input, str):
        return f"String should have {bound} character{'s' * (limit != 1)}"
    return f"List should have {bound} item{'s' * (limit != 1)} after validation, not {len(problem.input)}"
