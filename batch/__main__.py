"""`python -m batch` is `fal-batch`."""

from batch.cli import entry

if __name__ == "__main__":
    entry()
