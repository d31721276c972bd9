"""A file the user wrote becomes rows with addresses and jobs, or every issue at once. It fetches nothing."""

from batch.manifest.manifest import Manifest, load
from batch.manifest.report import KINDS

__all__ = ["KINDS", "Manifest", "load"]
