"""A headless Chromium for tests of pages, spoken to over a pipe in its DevTools protocol."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions "
    "--disable-background-networking --disable-component-update --disable-sync --remote-debugging-pipe "
    "--proxy-server=127.0.0.1:9"
).split()  # whatever would still go out meets a proxy that is not there


def find_browser() -> str:
    """The path of a Chromium; without one the test is skipped, but under CI it fails."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        reason = f"no browser here: none of {', '.join(NAMES)}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return found


class Browser:
    """One page. ``events`` holds everything the browser said of it: console, exceptions, requests."""

    def __enter__(self) -> Self:
        self._profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        (its_in, our_out), (our_in, its_out) = os.pipe(), os.pipe()
        # The browser reads from descriptor 3 and writes to 4; ours are moved out of their way first.
        its_in, its_out = (fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (its_in, its_out))
        words = [find_browser(), *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{its_in} 4>&{its_out}', *words],
            pass_fds=(its_in, its_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (its_in, its_out):
            os.close(fd)
        self._out, self._in, self._rest, self._number = our_out, our_in, b"", 0
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        os.close(self._out)
        os.close(self._in)
        self._process.terminate()
        self._process.wait(20)
        self._profile.cleanup()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def open(self, page: Path) -> None:
        """Load ``page``; what was said of the one before is forgotten."""
        self.events = []
        address = page.resolve().as_uri()
        self.call("Page.navigate", url=address)
        while not self._loaded(address):
            self.events.append(self._next())
        self.run("1")  # what loading set off has been said by now

    def _loaded(self, address: str) -> bool:
        """Whether a load has ended since the page became ``address``: the empty page before it ends one too."""
        methods = [event.get("method") for event in self.events]
        here = [e.get("params", {}).get("frame", {}).get("url") == address for e in self.events]
        return True in here and "Page.loadEventFired" in methods[here.index(True) :]

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def said(self, method: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def _next(self, seconds: float = 60.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(self._in, 1 << 20) if ready else b""
            assert piece, f"the browser says nothing any more (exit code {self._process.poll()})"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))
