"""The transition table: the full product of states and events."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from batch.states import FINAL, OPEN, TRANSITIONS, Event, IllegalTransition, State, diagram, next_state

ALLOWED = {
    ("planned", "claimed"): "submitting",
    ("waiting", "claimed"): "submitting",
    ("submitting", "accepted"): "submitted",
    ("submitting", "unsent"): "waiting",
    ("submitting", "released"): "planned",
    ("submitting", "refused"): "failed",
    ("submitting", "doubted"): "in_doubt",
    ("in_doubt", "adopted"): "submitted",
    ("planned", "taken_back"): "submitted",
    ("waiting", "taken_back"): "submitted",
    ("in_doubt", "proved_absent"): "planned",
    ("in_doubt", "given_up"): "planned",
    ("submitted", "completed"): "completed",
    ("submitted", "retryable"): "waiting",
    ("submitted", "failed"): "failed",
    ("submitted", "cancelled"): "cancelled",
    ("completed", "fetched"): "fetched",
    ("completed", "lost"): "failed",
    ("failed", "retried"): "planned",
    ("cancelled", "retried"): "planned",
}
"""Written out once more by hand: what the table of the program must say, no more and no less."""

PRODUCT = [pytest.param(state, event, id=f"{state.value}-{event.value}") for state in State for event in Event]


@pytest.mark.parametrize(("state", "event"), PRODUCT)
def test_what_the_table_allows_leads_where_it_says_and_anything_else_is_refused(state: State, event: Event) -> None:
    expected = ALLOWED.get((state.value, event.value))
    if expected is not None:
        assert State(expected) is next_state(state, event)
        return
    with pytest.raises(IllegalTransition, match=rf"{state.value} cannot be {event.value}"):
        next_state(state, event)


def test_the_table_has_a_line_for_every_state() -> None:
    assert set(State) == set(TRANSITIONS)


def test_every_event_leads_somewhere() -> None:
    assert set(Event) == {event for steps in TRANSITIONS.values() for event in steps}


def test_final_states_lead_nowhere_but_by_retried() -> None:
    assert {"fetched", "failed", "cancelled"} == {state.value for state in FINAL}
    for state in FINAL:
        assert set(TRANSITIONS[state]) <= {Event.RETRIED}
    assert TRANSITIONS[State.FETCHED] == {}


def test_open_and_final_states_are_all_states() -> None:
    assert set(State) == FINAL | OPEN
    assert not FINAL & OPEN


def test_every_state_can_be_reached() -> None:
    assert set(State) == set(_reachable(State.PLANNED))


def test_every_open_state_can_come_to_a_final_one() -> None:
    for state in OPEN:
        assert FINAL & set(_reachable(state)), state


def test_no_state_leads_back_to_planned_without_the_attempt_being_over() -> None:
    back = {event.value for steps in TRANSITIONS.values() for event, now in steps.items() if now is State.PLANNED}
    assert {"released", "proved_absent", "given_up", "retried"} == back


def test_only_a_claim_leads_to_a_paid_post() -> None:
    into = {event for steps in TRANSITIONS.values() for event, now in steps.items() if now is State.SUBMITTING}
    assert {Event.CLAIMED} == into


def test_doubt_is_left_only_by_a_proof_or_by_the_user() -> None:
    assert {Event.ADOPTED, Event.PROVED_ABSENT, Event.GIVEN_UP} == set(TRANSITIONS[State.IN_DOUBT])


def test_the_diagram_has_every_arrow_once_and_finals_in_capitals() -> None:
    arrows = re.findall(r"^    (\S+) --> (\S+): (.+)$", diagram(), re.MULTILINE)
    expected = sorted((_shown(was), _shown(now), event.replace("_", " ")) for (was, event), now in ALLOWED.items())
    assert expected == sorted(arrows)
    assert "[*] --> planned" in diagram()
    assert diagram().splitlines()[0] == "stateDiagram-v2"


def test_every_state_says_what_it_means_where_it_is_defined() -> None:
    from inspect import getsource

    source = getsource(State)
    for state in State:
        assert re.search(rf'{state.name} = "{state.value}"\n    """\w', source), state


def _shown(state: str) -> str:
    return state.upper() if State(state) in FINAL else state


def _reachable(start: State) -> Iterator[State]:
    seen, left = {start}, [start]
    while left:
        state = left.pop()
        yield state
        for after in TRANSITIONS[state].values():
            if after not in seen:
                seen.add(after)
                left.append(after)
