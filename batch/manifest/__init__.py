"""A file the user wrote becomes rows with addresses and jobs, or every issue at once. It fetches nothing."""

from batch.manifest.columns import INPUT_PREFIX, OURS
from batch.manifest.head import Linked
from batch.manifest.lost import LookBack
from batch.manifest.manifest import Manifest, load
from batch.manifest.pictures import ids_of
from batch.manifest.report import KINDS

__all__ = ["INPUT_PREFIX", "KINDS", "OURS", "Linked", "LookBack", "Manifest", "ids_of", "load"]
