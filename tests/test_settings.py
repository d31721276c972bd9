"""Where a setting comes from, and what is no setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batch.errors import InputError
from batch.settings import LOCAL_URL, OPTIONS, Settings, is_loopback, load_settings, parse_duration, parse_usd


def settings(
    cwd: Path, flags: dict[str, Any] | None = None, *, dotenv: str = "", project: str = "", **environ: str
) -> Settings:
    if dotenv:
        (cwd / ".env").write_text(dotenv)
    if project:
        (cwd / "pyproject.toml").write_text(project)
    return load_settings(flags or {}, environ=environ, cwd=cwd)


PROJECT = "[tool.fal-batch]\nconcurrency = 4\n"


def test_nothing_given_is_the_documented_default(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert (found.concurrency, found.start_timeout, found.run_timeout, found.history_delay) == (8, 3600, 3600, 600)
    assert (found.state, found.outputs) == (Path("state"), Path("state/outputs"))
    assert (found.queue_url, found.rest_url) == ("https://queue.fal.run", "https://rest.fal.ai")
    assert (found.cdn_url, found.api_url) == ("https://v3.fal.media", "https://api.fal.ai/v1")
    assert (found.limit, found.max_cost, found.max_duration, found.key) == (None, None, None, None)
    assert found.sources == {**dict.fromkeys(OPTIONS, "default"), "key": ""}


@pytest.mark.parametrize(
    ("flags", "environ", "dotenv", "project", "expected"),
    [
        ({"concurrency": "1"}, "2", "3", "4", (1, "--concurrency")),
        ({"concurrency": None}, "2", "3", "4", (2, "FAL_BATCH_CONCURRENCY")),
        ({}, None, "3", "4", (3, ".env FAL_BATCH_CONCURRENCY")),
        ({}, None, None, "4", (4, "pyproject.toml [tool.fal-batch] concurrency")),
        ({}, "", None, "4", (4, "pyproject.toml [tool.fal-batch] concurrency")),
        ({}, None, None, None, (8, "default")),
    ],
)
def test_a_flag_wins_over_the_environment_over_dotenv_over_the_project_over_the_default(
    tmp_path: Path,
    flags: dict[str, Any],
    environ: str | None,
    dotenv: str | None,
    project: str | None,
    expected: tuple[int, str],
) -> None:
    found = settings(
        tmp_path,
        flags,
        dotenv="" if dotenv is None else f"FAL_BATCH_CONCURRENCY={dotenv}\n",
        project="" if project is None else f"[tool.fal-batch]\nconcurrency = {project}\n",
        **({} if environ is None else {"FAL_BATCH_CONCURRENCY": environ}),
    )
    assert (found.concurrency, found.sources["concurrency"]) == expected


def test_every_option_can_be_set_by_flag_variable_and_project_key(tmp_path: Path) -> None:
    texts = {
        "concurrency": "3",
        "limit": "3",
        "max_cost": "3",
        "max_duration": "3",
        "start_timeout": "3",
        "price": "3",
        "fail_on_error": "3",
    }
    texts |= {"run_timeout": "3", "history_delay": "3", "queue_url": "https://a", "rest_url": "https://b"}
    texts |= {"cdn_url": "https://c", "api_url": "https://d"}
    texts |= {"webhook": "https://hooks.example.com/fal", "webhook_listen": "127.0.0.1:1"}
    for name, option in OPTIONS.items():
        text = texts.get(name, "no" if option.is_flag else "x")
        values = [
            settings(tmp_path, {name: text}),
            settings(tmp_path, **{option.variable: text}),
        ]
        for spelling in (name, name.replace("_", "-")):
            values.append(settings(tmp_path, project=f'[tool.fal-batch]\n{spelling} = "{text}"\n'))
            (tmp_path / "pyproject.toml").unlink()
        assert len({getattr(found, name) for found in values}) == 1, name
        assert all(found.sources[name] != "default" for found in values), name


def test_numbers_and_truths_of_the_project_file_need_no_quotes(tmp_path: Path) -> None:
    found = settings(tmp_path, project="[tool.fal-batch]\nwait = true\nmax-cost = 2.5\nstart_timeout = 90\n")
    assert (found.wait, found.max_cost, found.start_timeout) == (True, 2_500_000, 90.0)


def test_the_project_file_of_another_tool_is_nothing_to_us(tmp_path: Path) -> None:
    assert settings(tmp_path, project='tool = "x"\n').concurrency == 8
    assert settings(tmp_path, project="[tool.other]\nconcurrency = 2\n").concurrency == 8


def test_a_list_of_names_is_a_list_in_the_project_file_and_a_text_elsewhere(tmp_path: Path) -> None:
    assert settings(tmp_path, {"carry": "mood, notes"}).carry == ("mood", "notes")
    assert settings(tmp_path, project='[tool.fal-batch]\ncarry = ["mood", "notes"]\n').carry == ("mood", "notes")


@pytest.mark.parametrize(("text", "value"), [("20", 20), ("1", 1), ("0.1", 0.1), (".5", 0.5), ("10%", 0.1)])
def test_a_failure_limit_is_a_number_of_jobs_or_a_share(tmp_path: Path, text: str, value: float) -> None:
    found = settings(tmp_path, {"fail_on_error": text}).fail_on_error
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.default is not None])
def test_a_default_reads_back_from_its_text(name: str) -> None:
    option = OPTIONS[name]
    text = option.text(option.default)
    assert text == "" if option.default == () else option.parse(text) == option.default


# --- refused ---


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"flags": {"concurrency": "many"}}, r"--concurrency: expected a whole number, 1 or more, found 'many'"),
        ({"FAL_BATCH_LIMIT": "0"}, r"^FAL_BATCH_LIMIT: expected a whole number, 1 or more, found '0'"),
        ({"dotenv": "FAL_BATCH_WAIT=perhaps"}, r"^\.env FAL_BATCH_WAIT: expected yes or no, found 'perhaps'"),
        (
            {"project": "[tool.fal-batch]\nmax-cost = 'much'"},
            r"^pyproject\.toml \[tool\.fal-batch\] max_cost: expected dollars like 25 or 25\.00, found 'much'",
        ),
        ({"flags": {"start_timeout": "1"}}, r"--start-timeout: .*more than one second"),
        ({"flags": {"max_duration": "8 hours"}}, r"--max-duration: .*a time like 90s"),
        ({"flags": {"max_cost": "-1"}}, r"--max-cost: .*dollars"),
        ({"project": "[tool.fal-batch]\nconcurency = 2"}, r"'concurency' is not a setting; known are concurrency, "),
        ({"project": "[tool.fal-batch]\nlimit = [1]"}, r"pyproject\.toml \[tool\.fal-batch\] limit: .*found '\[1\]'"),
        ({"project": "[tool\n"}, r"pyproject\.toml: not readable as TOML"),
        ({"project": "[tool]\nfal-batch = 3\n"}, r"\[tool\.fal-batch\] is not a table"),
        ({"FAL_BATCH_QUEUE_URL": "queue.fal.run"}, r"FAL_BATCH_QUEUE_URL: 'queue\.fal\.run' is not an http"),
        ({"FAL_BATCH_QUEUE_URL": "ftp://queue.fal.run"}, r"is not an http\(s\) URL"),
        ({"FAL_BATCH_API_URL": "https://[fal"}, r"FAL_BATCH_API_URL: .*is not a URL"),
        ({"FAL_BATCH_API_URL": "https://fal.run:port"}, r"FAL_BATCH_API_URL: .*is not a URL"),
        ({"FAL_BATCH_API_URL": "https://me@fal.example"}, r"FAL_BATCH_API_URL: .*user name or a password"),
        ({"FAL_BATCH_API_URL": "https://:word@fal.example"}, r"FAL_BATCH_API_URL: .*user name or a password"),
        ({"FAL_BATCH_REST_URL": "http://rest.fal.ai"}, r"FAL_BATCH_REST_URL: .*in the clear; use https"),
        ({"FAL_BATCH_CDN_URL": "http://10.0.0.1"}, r"in the clear"),
        (
            {"FAL_BATCH_MAXCOST": "25"},
            r"^the environment: FAL_BATCH_MAXCOST is not a setting; did you mean FAL_BATCH_MAX_",
        ),
        ({"dotenv": "FAL_BATCH_COLOUR=red"}, r"^\.env: FAL_BATCH_COLOUR is not a setting; known are CONCURRENCY, "),
        ({"flags": {"fail_on_error": "1.5"}}, r"--fail-on-error: expected a number of jobs like 20, or a share"),
        ({"flags": {"fail_on_error": "0"}}, r"--fail-on-error: expected a number of jobs like 20, or a share"),
        ({"flags": {"carry": "mood,,notes"}}, r"--carry: expected names with commas between them"),
        ({"FAL_BATCH_CDN_URL": "http://127.0.0.1.example.com"}, r"in the clear"),
        ({"FAL_BATCH_CDN_URL": "http://localhost.example.com"}, r"in the clear"),
    ],
)
def test_a_bad_value_is_refused_with_its_source(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        settings(tmp_path, **given)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8319", "http://localhost:1", "http://[::1]:5", "http://x.localhost", "https://fal.example"],
)
def test_http_is_for_this_machine_only(tmp_path: Path, url: str) -> None:
    assert settings(tmp_path, FAL_BATCH_QUEUE_URL=url + "/").queue_url == url
    assert is_loopback(url) is not url.startswith("https")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("45m", 2700),
        ("8h", 28800),
        ("1h30m", 5400),
        ("2d", 172800),
        ("90", 90),
        ("1.5h", 5400),
        (" 5 ", 5),
    ],
)
def test_times_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "8x", "1h 30m", "-5", "5s5", "1e3", "inf", "nan", "8hours"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a time like"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "micros"), [("25", 25_000_000), ("25.00", 25_000_000), ("$0.5", 500_000), ("0.000001", 1), ("0", 0)]
)
def test_dollars_are_micro_dollars_to_the_last_digit(text: str, micros: int) -> None:
    assert parse_usd(text) == micros


@pytest.mark.parametrize("text", ["", "$", "-1", "1,000", "1e3", "0.0000001", "25 USD", "nan", "1."])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="dollars"):
        parse_usd(text)


# --- a rehearsal ---


def test_a_rehearsal_has_its_own_ledger_outputs_hosts_and_times(tmp_path: Path) -> None:
    found = settings(tmp_path, {"local": "yes"}, FAL_BATCH_QUEUE_URL="https://other.example")
    assert (found.state, found.outputs) == (Path("state/local"), Path("state/local/outputs"))
    assert {found.queue_url, found.rest_url, found.cdn_url, found.api_url} == {LOCAL_URL}
    assert (found.start_timeout, found.run_timeout, found.history_delay) == (60.0, 60.0, 0.0)
    assert found.proxy is None
    assert {found.sources[name] for name in ("queue_url", "start_timeout", "outputs")} == {"--local"}


def test_a_rehearsal_keeps_out_of_the_folder_of_the_real_films(tmp_path: Path) -> None:
    project = '[tool.fal-batch]\noutputs = "films"\nstate = "work"\n'
    assert settings(tmp_path, project=project).outputs == Path("films")
    assert settings(tmp_path, {"local": "yes"}).outputs == Path("work/local/outputs")
    assert settings(tmp_path, {"local": "yes"}, FAL_BATCH_OUTPUTS="films").outputs == Path("work/local/outputs")
    assert settings(tmp_path, {"local": "yes", "outputs": "previews"}).outputs == Path("previews")


def test_a_rehearsal_takes_times_that_were_given(tmp_path: Path) -> None:
    found = settings(tmp_path, {"local": "yes", "start_timeout": "5"}, FAL_BATCH_RUN_TIMEOUT="7s")
    assert (found.start_timeout, found.run_timeout, found.history_delay) == (5.0, 7.0, 0.0)
    assert found.sources["start_timeout"] == "--start-timeout"


# --- the key ---


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"FAL_KEY": "id:secret"}, "id:secret"),
        ({"FAL_KEY": " id:secret\n"}, "id:secret"),
        ({"FAL_KEY_ID": "id", "FAL_KEY_SECRET": "secret"}, "id:secret"),
        ({"FAL_KEY": "", "FAL_KEY_ID": "id", "FAL_KEY_SECRET": "secret\n"}, "id:secret"),
        ({"FAL_KEY": "whole", "FAL_KEY_ID": "id", "FAL_KEY_SECRET": "secret"}, "whole"),
        ({"FAL_KEY_ID": "id"}, None),
        ({"FAL_KEY_SECRET": "secret"}, None),
        ({"FAL_KEY": "  "}, None),
        ({}, None),
    ],
)
def test_the_key_is_fal_key_or_the_pair(tmp_path: Path, environ: dict[str, str], expected: str | None) -> None:
    assert settings(tmp_path, **environ).key == expected


def test_the_environments_key_wins_over_dotenv(tmp_path: Path) -> None:
    assert settings(tmp_path, dotenv="FAL_KEY=old:old\n", FAL_KEY="new:new").key == "new:new"


@pytest.mark.parametrize(
    "line",
    [
        "FAL_KEY=id:secret",
        "export FAL_KEY=id:secret",
        "FAL_KEY='id:secret'",
        'FAL_KEY="id:secret"',
        '  FAL_KEY = "id:secret"  # mine',
        "FAL_KEY=id:secret # mine",
        "\ufeffFAL_KEY=id:secret",
        "# FAL_KEY=old\nFAL_KEY=older\r\nFAL_KEY=id:secret\r\n",
    ],
)
def test_dotenv_is_read_as_people_write_it(tmp_path: Path, line: str) -> None:
    assert settings(tmp_path, dotenv=line).key == "id:secret"


def test_signs_inside_a_dotenv_value_are_kept(tmp_path: Path) -> None:
    assert settings(tmp_path, dotenv="FAL_KEY=id:a#b=c\n").key == "id:a#b=c"
    assert settings(tmp_path, dotenv="FAL_KEY='id: a # b'\n").key == "id: a # b"


def test_the_key_and_the_proxys_password_are_shown_nowhere(tmp_path: Path) -> None:
    found = settings(tmp_path, FAL_KEY="id:s3cret", HTTPS_PROXY="http://me:passw0rd@proxy")
    assert found.proxy == "http://me:passw0rd@proxy"
    for text in (repr(found), str(found), str(found.sources)):
        assert "s3cret" not in text
        assert "passw0rd" not in text


def test_a_dotenv_that_is_no_text_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"FAL_KEY=s3cret\xff")
    with pytest.raises(InputError, match=r"\.env cannot be read") as caught:
        settings(tmp_path)
    assert "s3cret" not in str(caught.value)


def test_no_proxy_is_used_to_this_machine(tmp_path: Path) -> None:
    found = settings(tmp_path, FAL_BATCH_QUEUE_URL="http://127.0.0.1:8319", HTTPS_PROXY="http://proxy")
    assert found.proxy is None


def test_half_a_pair_of_a_key_names_the_missing_half(tmp_path: Path) -> None:
    found = settings(tmp_path, FAL_KEY_SECRET="s3cret")
    assert (found.key, found.sources["key"]) == (None, "")
    assert found.no_key.startswith("no key: FAL_KEY_SECRET is set and FAL_KEY_ID is not")
    assert "s3cret" not in found.no_key


def test_the_source_of_a_key_is_told(tmp_path: Path) -> None:
    assert settings(tmp_path, FAL_KEY="a:b").sources["key"] == "FAL_KEY"
    assert settings(tmp_path, FAL_KEY_ID="a", FAL_KEY_SECRET="b").sources["key"] == "FAL_KEY_ID + FAL_KEY_SECRET"
    assert settings(tmp_path, dotenv="FAL_KEY=a:b\n").sources["key"] == ".env FAL_KEY"


# --- where webhooks arrive ---


@pytest.mark.parametrize(
    "address",
    [
        "https://hooks.example.com",
        "https://hooks.example.com:8443/fal/",
        "http://203.0.113.7.nip.io/x",
        "http://8.8.8.8",
    ],
)
def test_a_public_address_is_taken_for_webhooks(tmp_path: Path, address: str) -> None:
    assert settings(tmp_path, {"webhook": address}).webhook == address


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8320", "http://localhost/x", "http://10.0.0.7", "http://[::1]:8320/", "http://mine.local"],
)
def test_a_private_address_is_refused_because_fal_drops_it_without_a_word(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match="--webhook: fal cannot reach"):
        settings(tmp_path, {"webhook": address})
    at_home = settings(tmp_path, {"webhook": address}, FAL_BATCH_QUEUE_URL="http://127.0.0.1:8319")
    assert at_home.webhook == address


@pytest.mark.parametrize(
    "address",
    ["https://me:hush@example.com/", "https://example.com/?token=hush", "https://example.com/#hush", "https://e.com/?"],
)
def test_an_address_that_our_query_cannot_be_added_to_is_refused_and_not_shown(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match="FAL_BATCH_WEBHOOK: the address may hold no user name") as caught:
        settings(tmp_path, FAL_BATCH_WEBHOOK=address)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("address", ["example.com/fal", "ftp://example.com", "https://", "https://ex ample.com", "x"])
def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match="--webhook: expected the public address"):
        settings(tmp_path, {"webhook": address})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:8320", ("127.0.0.1", 8320)), ("[::1]:1", ("::1", 1)), ("0.0.0.0:80", ("0.0.0.0", 80))],
)
def test_a_place_to_listen_is_a_host_and_a_port(tmp_path: Path, text: str, expected: tuple[str, int]) -> None:
    found = settings(tmp_path, {"webhook_listen": text})
    assert found.webhook_listen == expected
    assert OPTIONS["webhook_listen"].text(found.webhook_listen) == text


@pytest.mark.parametrize("text", ["8320", "127.0.0.1", "127.0.0.1:99999", "::1:8320", "http://a:1"])
def test_anything_else_is_no_place_to_listen(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="--webhook-listen: expected HOST:PORT"):
        settings(tmp_path, {"webhook_listen": text})


def test_a_rehearsal_has_webhooks_only_by_the_flag(tmp_path: Path) -> None:
    address = "https://hooks.example.com"
    assert settings(tmp_path, {"local": "yes"}, FAL_BATCH_WEBHOOK=address).webhook is None
    assert settings(tmp_path, {"local": "yes", "webhook": address}).webhook == address
