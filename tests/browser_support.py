"""Chromium without a window, driven over its own debugging pipe: real keys, real clicks, what a person would see.

No driver and no library: messages are JSON between zero bytes on two pipes. Without Chromium there is none of it.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Page", "chromium", "opened_page"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--remote-debugging-pipe",
]
ANSWER_S = 60.0

_KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), " ": (32, " "), "ArrowLeft": (37, ""), "ArrowUp": (38, "")}
_KEYS |= {"ArrowRight": (39, ""), "ArrowDown": (40, ""), "Tab": (9, ""), "End": (35, ""), "Home": (36, "")}


def chromium() -> str | None:
    """The program; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One page. `asked` are the addresses of everything that it has asked for, `said` what it logged or threw."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._ids = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        self.asked: list[str] = []
        self.said: list[str] = []
        self._downloads = Path()

    def attach(self, downloads: Path) -> None:
        """Open a page in the browser, whose downloads go into the folder."""
        self._downloads = downloads
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command, and its answer."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def open(self, path: Path, hash: str = "") -> None:
        """The page at `path` as a file, loaded afresh and ready for keys."""
        self.call("Page.navigate", url="about:blank")  # else another hash alone loads nothing
        self.call("Page.navigate", url=path.resolve().as_uri() + hash)
        self.wait("document.readyState === 'complete' && !!document.querySelector('#counts')?.textContent")

    def js(self, expression: str) -> Any:
        """What an expression comes to in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until an expression holds."""
        deadline = time.monotonic() + ANSWER_S
        while not self.js(expression):
            assert time.monotonic() < deadline, f"{expression} never held"
            time.sleep(0.02)

    def key(self, *keys: str) -> None:
        """Keys as a person presses them."""
        for key in keys:
            code, text = _KEYS.get(key, (ord(key.upper()[0]), key))
            event = {"key": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def at(self, selector: str) -> tuple[float, float]:
        """The middle of the first element that fits."""
        box = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        return box[0], box[1]

    def hover(self, selector: str) -> None:
        x, y = self.at(selector)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        x, y = self.at(selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def look(self, width: int, height: int, **media: str) -> None:
        """The window's size, and media features such as `prefers_color_scheme="dark"`."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self, out: Path) -> None:
        """What the window shows, as PNG."""
        out.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def downloaded_file(self, name: str) -> Path:
        """A file that the page has saved, once it is whole."""
        deadline = time.monotonic() + ANSWER_S
        while not (self._downloads / name).is_file():  # it has another name until then
            assert time.monotonic() < deadline, f"{name} was never saved; there is {list(self._downloads.iterdir())}"
            time.sleep(0.02)
        return self._downloads / name

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._in], [], [], ANSWER_S)[0], "the browser does not answer"
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser has gone"
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        message = dict(json.loads(text))
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.said.append(json.dumps(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.said.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled":
            self.said.append(json.dumps(params["args"]))


@contextlib.contextmanager
def opened_page(folder: Path) -> Iterator[Page]:
    """A page in a browser of its own, whose profile and downloads are in `folder`."""
    program = chromium()
    assert program is not None
    (folder / "downloads").mkdir(parents=True)
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # Out of the way of the two numbers that the browser takes its pipes from.
    first, second = (fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs_in, theirs_out))

    def pipes() -> None:
        os.dup2(first, 3)
        os.dup2(second, 4)

    command = [program, *QUIET, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    process = subprocess.Popen(
        command, pass_fds=(3, 4), preexec_fn=pipes, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for one in (theirs_in, theirs_out, first, second):
        os.close(one)
    try:
        page = Page(ours_out, ours_in)
        page.attach(folder / "downloads")
        yield page
    finally:
        process.terminate()
        process.wait(30)
        os.close(ours_out)
        os.close(ours_in)
