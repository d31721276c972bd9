"""fal-batch: run a spreadsheet of generations on the fal queue and pay for each of them once.

The folder list is the pipeline; README.md shows it as a picture. Nothing is imported here, so that
`fal-batch --help` stays quick.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
