"""What holds for every test."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM_BYTES = 2 * 2**30
"""What must be free in memory: twice what a whole run of all tests leaves where nothing is removed on the way."""


def pytest_configure() -> None:
    """Ctrl-C works, the tests' folders are in memory where there is room, and no host of the internet is trusted."""
    if threading.current_thread() is threading.main_thread():
        # A shell that starts the tests in the background has them ignore it, and so would every program they start.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
        # Thousands of ledgers that sync each commit wait for a disk twice as long as they compute. What is synced, and
        # when, is the power cuts' to judge, by a disk of their own.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    # A folder without certificates. Whoever needs one brings it; the internet is nobody's here, and hundreds of clients
    # that read its 140 roots read for longer than they ask.
    os.environ.pop("SSL_CERT_FILE", None)
    os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)
