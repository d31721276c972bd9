"""Puts the state diagram, made from the transition table, between its marks in the README."""

from pathlib import Path

from batch import states

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- diagram -->\n```mermaid\n", "```\n<!-- /diagram -->"


def with_diagram(text: str) -> str:
    """The README's text with today's diagram in it."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + states.diagram() + "\n" + END + after


if __name__ == "__main__":
    README.write_text(with_diagram(README.read_text(encoding="utf-8")), encoding="utf-8")
