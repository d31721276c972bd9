"""How long commands take that have nothing to do, beside the interpreter that starts for them."""

from __future__ import annotations

import tempfile

from long_sheets import in_a_process
from side_by_side import compare, given

FAL_BATCH = "from batch.cli import main; main()"


def main() -> None:
    options = given(__doc__, rounds=7)
    with tempfile.TemporaryDirectory() as folder:
        state = ("--state", folder)
        compare(
            "start_up",
            "Starting",
            {
                "fal-batch --help": lambda: in_a_process(FAL_BATCH, "--help"),
                "fal-batch --version": lambda: in_a_process(FAL_BATCH, "--version"),
                "fal-batch status": lambda: in_a_process(FAL_BATCH, "status", *state),
                "python": lambda: in_a_process("pass"),
                "python, import click": lambda: in_a_process("import click"),
                "python, import fal_client": lambda: in_a_process("import fal_client"),
            },
            ours="fal-batch --help",
            rounds=options.rounds,
            packages=("click", "fal-client"),
            out=options.json,
        )


if __name__ == "__main__":
    main()
