"""What the README shows is what the program does."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from readme_diagram import README, with_diagram

from batch.cli import cli

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
    """A folder with the README's own sheet and campaign, and pictures of those names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for name, picture in (("cat", "chelsea"), ("pier", "rocket")):
        shutil.copy(IMAGES / f"{picture}.jpg", tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "shots.csv").write_text(blocks("csv")[0], encoding="utf-8")
    (tmp_path / "pier.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    return tmp_path


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
    assert "2 rows" in result.output


def test_the_campaign_that_is_shown_is_a_good_one(campaign: Path) -> None:
    result = CliRunner().invoke(cli, ["plan", "pier.yaml"], standalone_mode=False)
    assert result.exception is None
    assert "pier: 4 rows, 4 jobs, 4 to submit" in result.output


def test_the_mistakes_that_are_shown_are_told_so(campaign: Path) -> None:
    (shown,) = [block for block in blocks("") if "mistakes; nothing was submitted" in block]
    sheet = "id,prompt,image_url,duration,resolutoin,camera_fixed\n"
    sheet += "a,a cat,images/cat.jpg,13,,\nb,a pier,images/pier.jpg,5,,maybe\n"
    (campaign / "shots.csv").write_text(sheet, encoding="utf-8")
    result = CliRunner().invoke(cli, ["plan", "shots.csv"], standalone_mode=False)
    assert shown.splitlines()[:3] == str(result.exception).splitlines()
