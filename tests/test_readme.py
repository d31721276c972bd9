"""What the README shows is what the program does."""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from readme_diagram import README, with_diagram
from test_cli import Call, call

from batch.cli import cli

__all__ = ["call"]  # a fixture

TEXT = README.read_text(encoding="utf-8")
IMAGES = README.parent / "manifests" / "images"


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language ("" for those that name none)."""
    fenced = TEXT.split("```")[1::2]
    return [block.split("\n", 1)[1] for block in fenced if block.split("\n", 1)[0] == language]


def commands() -> list[list[str]]:
    """Every fal-batch command line in a fenced block, without its comment."""
    lines = [line.split("#")[0].strip() for block in blocks("") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("fal-batch ")]


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the README's own sheet and campaign, and the pictures as it says how to come by them."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(IMAGES, tmp_path / "manifests" / "images")
    assert "`cp -r manifests/images .`" in TEXT
    shutil.copytree(tmp_path / "manifests" / "images", tmp_path / "images")
    (tmp_path / "shots.csv").write_text(blocks("csv")[0], encoding="utf-8")
    (tmp_path / "launch.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    return tmp_path


def test_every_example_can_be_typed_in_order_and_ends_as_it_says(campaign: Path, call: Call) -> None:
    (block,) = [block for block in blocks("") if "completion bash" in block]
    verbs = set()
    for line in block.splitlines():
        command, _, comment = line.partition("  #")
        told = re.search(r"exit code (\d+)", comment)
        words = shlex.split(command)[1:]
        verbs.add(words[0])
        assert call(*words).code == (int(told[1]) if told else 0), command
    assert verbs == set(cli.commands) - {"serve"}, "serve goes on until Ctrl-C; the tests of the local queue use it"
    assert len(list((campaign / "state" / "local" / "outputs" / "shots").glob("*.mp4"))) == 2


def test_the_first_steps_can_be_typed_one_after_the_other(campaign: Path, call: Call) -> None:
    block = next(block for block in blocks("") if "fal-batch init" in block)
    lines = [line.partition("  #")[0] for line in block.splitlines()]
    assert [call(*shlex.split(line)[1:]).code for line in lines] == [0] * 3


def test_the_ledger_has_the_tables_and_answers_the_questions_that_are_shown(campaign: Path, call: Call) -> None:
    row = "cat,a cat looks up,images/chelsea.jpg,480p,2\n"
    (campaign / "shots.csv").write_text(f"id,prompt,image_url,resolution,duration\n{row}", encoding="utf-8")
    assert call("run", "shots.csv", "--local", "-q").code == 0
    with sqlite3.connect(campaign / "state" / "local" / "ledger.db") as db:
        found = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        section = TEXT.partition("\n## The ledger\n")[2].partition("\n## ")[0]
        named = set(re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE))
        assert named == {name for name in found if not name.startswith(("_", "sqlite_"))}
        for query in blocks("sql")[0].splitlines():
            assert db.execute(query).fetchall(), query
    db.close()


def test_the_state_diagram_is_the_transition_table() -> None:
    assert with_diagram(TEXT) == TEXT, "run `make diagram`"


def test_every_command_of_the_table_exists_and_none_is_missing() -> None:
    table = set(re.findall(r"^\| `fal-batch (\w+)", TEXT, flags=re.MULTILINE))
    assert table == set(cli.commands)


def test_every_option_that_is_named_exists() -> None:
    known = {flag for command in cli.commands.values() for option in command.params for flag in option.opts}
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", TEXT))
    assert named - known - {"--help"} == set()


@pytest.mark.parametrize("words", [words for words in commands() if words[0] in {"plan", "export"}], ids=" ".join)
def test_the_first_commands_do_what_they_say(campaign: Path, words: list[str]) -> None:
    result = CliRunner().invoke(cli, words, standalone_mode=False)
    assert result.exception is None
    assert "2 rows" in result.output or "left out: 2 not planned" in result.output


def test_the_campaign_that_is_shown_is_a_good_one(campaign: Path) -> None:
    result = CliRunner().invoke(cli, ["plan", "launch.yaml"], standalone_mode=False)
    assert result.exception is None
    assert "launch: 2 rows x 2 takes = 4 rows, 4 jobs, 4 to submit" in result.output


def test_the_mistakes_that_are_shown_are_told_so(campaign: Path) -> None:
    (shown,) = [block for block in blocks("") if "mistakes; nothing was submitted" in block]
    sheet = "id,prompt,image_url,duration,resolutoin,camera_fixed\n"
    sheet += "a,a cat,images/chelsea.jpg,13,,\nb,a rocket,images/rocket.jpg,5,,maybe\n"
    (campaign / "shots.csv").write_text(sheet, encoding="utf-8")
    result = CliRunner().invoke(cli, ["plan", "shots.csv"], standalone_mode=False)
    assert shown.splitlines()[:3] == str(result.exception).splitlines()


def test_the_python_that_is_shown_makes_a_video(campaign: Path) -> None:
    (sample,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(sample, "README.md", "exec"), names)
    names["queue"].close()
    assert (campaign / "videos" / "cat.mp4").is_file()
