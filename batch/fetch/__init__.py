"""fetch: from a result's URL to a whole file under its final name.

download.py brings the bytes into a `.part`, containers.py knows file types and checks that one is complete, files.py
gives names and puts files there.
"""

from batch.fetch.containers import suffix_for, verify
from batch.fetch.download import Fetcher, Saved
from batch.fetch.files import disk_trouble, install, link_or_copy, read_sidecar, safe_stem, sha256_of, write_sidecar

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
