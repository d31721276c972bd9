"""A file the user wrote becomes rows with addresses and jobs, or every issue at once. It fetches nothing."""

from batch.manifest.report import KINDS
from batch.manifest.rows import Manifest, load

__all__ = ["KINDS", "Manifest", "load"]
