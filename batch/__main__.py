"""`python -m batch` is `fal-batch`."""

from batch.cli import main

if __name__ == "__main__":
    main()
