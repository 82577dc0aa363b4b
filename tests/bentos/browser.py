"""A headless chromium driven over its own DevTools protocol: no driver, no download."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
START_S = 60.0
WAIT_S = 60.0

# A mouse, which a headless machine has not: the page shows its buttons on hover.
_MOUSE = "primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"


class PageError(AssertionError):
    """The page did not do what it was waited for, or its script raised."""


class Browser:
    """One tab. Use it as a context manager; errors of the page's scripts are collected in `errors`."""

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        self.width, self.height = width, height
        self.errors: list[str] = []
        self.requests: list[str] = []

    def __enter__(self) -> Browser:
        self._profile = tempfile.mkdtemp(prefix="corkboard-browser-")
        assert CHROMIUM is not None, "no chromium on this machine"
        self._process = subprocess.Popen(
            [
                CHROMIUM,
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--hide-scrollbars", "--remote-debugging-port=0", f"--blink-settings={_MOUSE}"),
                f"--window-size={self.width},{self.height}",
                f"--user-data-dir={self._profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._socket = self._attach()
        self._number = 0
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def go(self, url: str) -> None:
        """Open `url`; returns at once."""
        self.call("Page.navigate", url=url)

    def eval(self, script: str) -> Any:
        """The value of a JavaScript expression. Raises PageError where it throws."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise PageError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression is true.

        Raises PageError naming the condition and the page's errors.
        """
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            if self.eval(f"Boolean({condition})"):
                return
            time.sleep(0.05)
        raise PageError(f"never came true: {condition}; errors: {self.errors}")

    def screenshot(self, path: str | Path) -> None:
        """PNG of the window as it is."""
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One DevTools command; events that arrive meanwhile are noted."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=WAIT_S))
            if message.get("id") == self._number:
                if "error" in message:
                    raise PageError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def _attach(self) -> ClientConnection:
        port_file = Path(self._profile) / "DevToolsActivePort"
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if port_file.exists() and (text := port_file.read_text().split()):
                with urllib.request.urlopen(f"http://127.0.0.1:{text[0]}/json/list", timeout=10) as answer:
                    pages = [tab for tab in json.load(answer) if tab["type"] == "page"]
                if pages:
                    return connect(pages[0]["webSocketDebuggerUrl"], max_size=None)
            time.sleep(0.1)
        raise PageError(f"chromium did not open its port in {START_S:.0f} s")
