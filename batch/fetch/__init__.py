"""fetch: from a result's URL to a whole file under its final name.

download.py brings the bytes into a `.part`, containers.py knows file types and checks that one is complete, files.py
puts files in their places.
"""

from batch.fetch.containers import suffix_for, verify
from batch.fetch.download import Fetcher, Saved
from batch.fetch.files import disk_trouble, install, link_or_copy, read_sidecar, sha256_of, write_sidecar
from batch.places import safe_stem

__all__ = [
    "Fetcher",
    "Saved",
    "disk_trouble",
    "install",
    "link_or_copy",
    "read_sidecar",
    "safe_stem",
    "sha256_of",
    "suffix_for",
    "verify",
    "write_sidecar",
]
