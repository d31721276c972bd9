"""The command line: parse, one library call, print, exit code. The only package that prints.

`commands` has one function a command, `options` turns settings into flags, `standing` knows the words for where a row
stands, `words` says things to people, `documents` to programs, `progress` shows how a run goes. Data goes to stdout,
talk and progress to stderr.
"""

from batch.cli.commands import cli, entry, main

__all__ = ["cli", "entry", "main"]
