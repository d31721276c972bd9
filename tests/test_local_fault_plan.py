"""The fault plan as a value: what can be written, every kind of mistake, and what strikes when."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import yaml
from local_support import APP, ENDPOINT, hits, plan

from batch.local import PlanError, drawn_plan, read_plan
from batch.local.breaks import _ACTS, IN_STREAM, section_of
from batch.local.fault_file import document_of
from batch.local.faults import KINDS, By

EXAMPLE = Path(__file__).parents[1] / "manifests" / "faults.yaml"


# --- what can be written ---


def test_the_example_holds_every_fault_or_names_it() -> None:
    written = {fault.kind.path for fault in read_plan(str(EXAMPLE)).faults}
    text = EXAMPLE.read_text(encoding="utf-8")
    for kind in KINDS:
        assert kind.path in written or f"{kind.name}:" in text, f"{kind.path} is not in the example"


def test_the_example_says_the_defaults() -> None:
    """What a line of it leaves out has the value that another line shows."""
    for fault in read_plan(str(EXAMPLE)).faults:
        if fault.kind.by is not By.SWITCH:
            assert dict(fault.options) == {name: option.default for name, option in fault.kind.options.items()}
    document = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    for kind in KINDS:
        entry = document.get(kind.section, {}).get(kind.name)
        if isinstance(entry, dict) and kind.name not in ("forgotten", "answer_cut"):
            assert set(entry) == {"rate", *kind.options}, f"{kind.path} is not shown whole"


def test_a_plan_is_a_file_or_a_seed(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("seed: 3\nsubmit: {reset: 5%}\n", encoding="utf-8")
    assert [*read_plan(str(file)).rows()] == [
        ("submit.reset", "5%", "not done; connection reset before anything is read")
    ]
    assert read_plan(str(file)).seed == 3
    assert read_plan("seed=7") == drawn_plan(7)


def test_a_rate_is_a_share_or_a_percentage() -> None:
    for text in ("0.1", "10%", "10 %", "{rate: 0.1}", "{rate: 10%}", ".1", "1e-1"):
        assert plan(f"submit: {{reset: {text}}}").faults[0].rate == pytest.approx(0.1), text


def test_a_time_has_a_unit_or_is_in_seconds() -> None:
    for text, seconds in (("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("forever", math.inf)):
        assert plan(f"queue: {{stuck: {{rate: 1, for: {text}}}}}").faults[0].number("for") == seconds


@pytest.mark.parametrize("text", ["", "# nothing\n", "seed: 4\n", "submit:\n", "submit: {reset: 0}\n", "submit: {}"])
def test_a_plan_may_let_nothing_go_wrong(text: str) -> None:
    assert plan(text).faults == ()


def test_the_order_in_a_file_changes_nothing() -> None:
    one = plan("submit: {reset: 0.3, answer_lost: 0.3}\nstatus: {reset: 0.1}")
    assert plan("status: {reset: 0.1}\nsubmit: {answer_lost: 0.3, reset: 0.3}") == one


MISTAKES = [
    ("seed: x", "plan.yaml:1 seed: a seed is a whole number from 0, such as 7; found 'x'"),
    ("seed: 1\nsumbit: {reset: 1}", "plan.yaml:2: no such key: sumbit; did you mean submit?"),
    ("submit:\n  answer_lots: 1", "plan.yaml:2 submit: no such fault: answer_lots; did you mean answer_lost?"),
    ("submit:\n  unknown: 1", "plan.yaml:2 submit: no such fault: unknown; it belongs to status"),
    (
        "submit: {reset: 10}",
        "plan.yaml:1 submit.reset: expected a number from 0 to 1 or a percentage, such as 0.1 or 10%; found '10'; "
        "did you mean 10%?",
    ),
    (
        "submit: {reset: often}",
        "plan.yaml:1 submit.reset: expected a number from 0 to 1 or a percentage, such as 0.1 or 10%; found 'often'",
    ),
    ("submit: {reset: {}}", "plan.yaml:1 submit.reset: rate is missing: how often it happens, such as rate: 10%"),
    ("submit: {reset: {rate: 1, for: 3s}}", "plan.yaml:1 submit.reset: no such option: for; there are rate"),
    (
        "file:\n  slow:\n    rate: 1\n    four: 3s",
        "plan.yaml:4 file.slow: no such option: four; did you mean for?",
    ),
    (
        "file: {slow: {rate: 1, for: for ever}}",
        "plan.yaml:1 file.slow for: expected a time, such as 30s, 5m or forever; found 'for ever'; "
        "did you mean forever?",
    ),
    (
        "submit: {gateway_after: {rate: 1, codes: [502, 505]}}",
        "plan.yaml:1 submit.gateway_after codes: no such value: 505; there are 502, 503, 504",
    ),
    (
        "verdict: {runner_error: {rate: 1, types: runner_disconected}}",
        "plan.yaml:1 verdict.runner_error types: no such value: runner_disconected; did you mean runner_disconnected?",
    ),
    (
        "account: {locked_after: soon}",
        "plan.yaml:1 account.locked_after: expected a whole number, such as 300; found 'soon'",
    ),
    ("history: {refused: 0.5}", "plan.yaml:1 history.refused: expected true or false; found '0.5'"),
    ("history: {late: [1]}", "plan.yaml:1 history.late: expected one value, found a list or a mapping"),
    ("status: 3", "plan.yaml:1 status: expected names with values, such as answer_lost: 10%"),
    ("status:\n  reset: 1%\n  reset: 2%", "plan.yaml:3 status: reset is there twice, first on line 2"),
    (
        "submit: {reset: 1%",
        "plan.yaml:1: is not YAML: while parsing a flow mapping expected ',' or '}', but got '<stream end>'",
    ),
    (
        "\nsubmit: {reset: 60%, answer_lost: 60%}",
        "plan.yaml:2 submit: only one of these can happen at a time, yet they add up to 120%: "
        "reset 60% + answer_lost 60%",
    ),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[str(number) for number in range(len(MISTAKES))])
def test_a_mistake_is_named_with_its_line_and_what_was_meant(text: str, message: str) -> None:
    with pytest.raises(PlanError) as refusal:
        plan(text)
    assert str(refusal.value) == message


def test_all_mistakes_come_together() -> None:
    with pytest.raises(PlanError) as refusal:
        plan("seed: x\nsubmit: {reset: often}\nsttaus: 3\n")
    assert [issue.split(":")[1].split()[0] for issue in refusal.value.issues] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("seed=x", "seed=x: a seed is a whole number from 0, such as 7; found 'x'"),
        (
            "no/such.yaml",
            "no/such.yaml cannot be read: No such file or directory; a plan is a YAML file, or seed=NUMBER",
        ),
    ],
)
def test_what_is_no_plan_at_all_is_said(source: str, message: str) -> None:
    with pytest.raises(PlanError) as refusal:
        read_plan(source)
    assert str(refusal.value) == message


def test_a_file_in_another_encoding_is_said(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"seed: 1\n# caf\xe9\n")
    with pytest.raises(PlanError, match=r"p\.yaml:2: is not UTF-8"):
        read_plan(str(tmp_path / "p.yaml"))


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_as_a_document_is_the_same_plan(seed: int) -> None:
    assert plan(json.dumps(document_of(drawn_plan(seed)))) == drawn_plan(seed)
    example = read_plan(str(EXAMPLE))
    assert plan(json.dumps(document_of(example))) == example


# --- what strikes when ---


def test_the_same_seed_strikes_at_the_same_calls_and_another_at_others() -> None:
    text = "submit: {answer_lost: 10%, reset: 10%}"
    assert hits(plan(f"seed: 1\n{text}"), "submit") == hits(plan(f"seed: 1\n{text}"), "submit")
    assert hits(plan(f"seed: 1\n{text}"), "submit") != hits(plan(f"seed: 2\n{text}"), "submit")


def test_what_hits_a_call_does_not_hang_on_other_kinds_of_calls() -> None:
    alone = plan("seed: 1\nsubmit: {answer_lost: 10%}")
    among = plan("seed: 1\nsubmit: {answer_lost: 10%}\nstatus: {reset: 50%}\nverdict: {internal_error: 20%}")
    assert hits(alone, "submit") == hits(among, "submit")
    elsewhere = plan("seed: 1\nstatus: {reset: 10%}")
    assert hits(elsewhere, "status") != hits(plan("seed: 1\nsubmit: {reset: 10%}"), "submit")


def test_a_rate_is_kept() -> None:
    found = Counter(hits(plan("submit: {answer_lost: 10%, reset: 30%}"), "submit", 20_000))
    assert found["answer_lost"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert found["reset"] / 20_000 == pytest.approx(0.3, abs=0.01)
    assert hits(plan("submit: {answer_lost: 40%, reset: 60%}"), "submit").count(None) == 0


def test_the_details_of_a_strike_are_drawn_apart_from_the_strike() -> None:
    """A rare fault has both sides of its coin, and all of its codes."""
    of = plan("submit: {answer_cut: 5%, gateway_after: 5%}")
    strikes = [strike for number in range(1, 1001) if (strike := of.strike("submit", number)) is not None]
    cuts = [strike.coin("with_request_id") for strike in strikes if strike.fault.kind.name == "answer_cut"]
    codes = [strike.pick("codes") for strike in strikes if strike.fault.kind.name == "gateway_after"]
    assert 0.25 < sum(cuts) / len(cuts) < 0.75
    assert set(codes) == {"502", "503", "504"}


def test_a_drawn_plan_is_moderate_and_needs_no_hand() -> None:
    drawn = [drawn_plan(seed) for seed in range(200)]
    assert {fault.kind.path for one in drawn for fault in one.faults} == {k.path for k in KINDS if not k.is_final}
    for one in drawn:
        assert all(0 < fault.rate <= 0.05 for fault in one.faults)
        assert all(not math.isinf(v) for fault in one.faults for v in fault.options.values() if isinstance(v, float))
    assert len({tuple(one.rows()) for one in drawn}) == 200


def test_every_call_fault_does_something() -> None:
    assert {kind.name for kind in KINDS if kind.by is By.CALL} == {*_ACTS, *IN_STREAM}


@pytest.mark.parametrize(
    ("method", "path", "section"),
    [
        ("POST", f"/{ENDPOINT}", "submit"),
        ("GET", f"/{APP}/requests/1/status", "status"),
        ("GET", f"/{ENDPOINT}/requests/1/status", "status"),
        ("GET", f"/{APP}/requests/1", "result"),
        ("GET", f"/{APP}/requests/1/response", "result"),
        ("PUT", f"/{APP}/requests/1/cancel", "cancel"),
        ("GET", f"/{APP}/requests/1/cancel", None),
        ("GET", "/v1/models/requests/by-endpoint", "history"),
        ("GET", "/models/requests/by-endpoint", "history"),
        ("GET", "/files/b/1/video.mp4", "file"),
        ("HEAD", "/files/b/1/video.mp4", None),
        ("POST", "/storage/auth/token", "upload"),
        ("POST", "/files/upload", "upload"),
        ("PUT", "/upload/1", "upload"),
        ("PUT", "/upload/1/2", "upload"),
        ("POST", "/storage/upload/initiate-multipart", "upload"),
        ("POST", "/files/upload/multipart", "upload"),
        ("PUT", "/files/b/1/video.mp4/multipart/1/2", "upload"),
        ("POST", "/files/b/1/video.mp4/multipart/1/complete", "upload"),
        ("POST", f"/run/{ENDPOINT}", "submit"),
        ("GET", f"/{APP}/requests/1/status/stream", "stream"),
        ("PUT", f"/{APP}/requests/1/status/stream", None),
        ("GET", "/.well-known/jwks.json", None),
        ("GET", "/v1/meta", None),
        ("GET", "/local/accepted", None),
        ("PUT", "/local/faults", None),
        ("POST", "/local/anything", None),
    ],
)
def test_a_call_is_of_the_section_that_its_path_says(method: str, path: str, section: str | None) -> None:
    assert section_of(method, path) == section
