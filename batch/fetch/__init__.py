"""fetch: from a result's URL to a whole file under its final name.

download.py brings the bytes into a `.part`, containers.py knows file types and checks that one is complete, files.py
puts files in their places, naming.py several of them together.
"""

from batch.fetch.containers import HEAD_BYTES, suffix_for, verify
from batch.fetch.download import Fetcher, Saved
from batch.fetch.files import (
    disk_trouble,
    install,
    link_or_copy,
    place,
    read_sidecar,
    sha256_of,
    sidecar_of,
    sync,
    write_sidecar,
)
from batch.fetch.naming import Namer
from batch.places import safe_stem

__all__ = [
    "HEAD_BYTES",
    "Fetcher",
    "Namer",
    "Saved",
    "disk_trouble",
    "install",
    "link_or_copy",
    "place",
    "read_sidecar",
    "safe_stem",
    "sha256_of",
    "sidecar_of",
    "suffix_for",
    "sync",
    "verify",
    "write_sidecar",
]
