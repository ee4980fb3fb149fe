"""A real headless Chromium, driven over a pipe with the DevTools protocol; needs no other package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One tab. `log` holds what the page complained of, `requests` every address it asked for."""

    def __init__(self, *, width: int = 1280, height: int = 900, scheme: Literal["light", "dark"] = "light") -> None:
        assert CHROMIUM, "there is no Chromium here"
        self.log: list[str] = []
        self.requests: list[str] = []
        self._number, self._answers = 0, dict[int, dict[str, Any]]()
        self._rest = b""
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # It reads commands from descriptor 3 and writes answers to 4.
        flags = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
            *(f"--user-data-dir={self._folder.name}", "--hide-scrollbars", "about:blank"),
        ]
        redirect = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", redirect, "bash", CHROMIUM, *flags],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._size = width, height
        self._resize(height)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._out)
        os.close(self._in)
        self._folder.cleanup()

    def open(self, path: Path, *, until: str = "document.readyState === 'complete'") -> None:
        """Open a file and wait for a JavaScript expression to hold."""
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.wait(f"document.readyState === 'complete' && ({until})")

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression; a promise is waited for."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str, *, seconds: float = 30) -> None:
        """Return when a JavaScript expression holds."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"did not come true: {condition}; log: {self.log}"
            time.sleep(0.02)

    def press(self, key: str, *, code: int = 0, text: str = "") -> None:
        """Press and release a key, as a person would."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def click(self, selector: str) -> None:
        """Click with the mouse in the middle of an element."""
        at = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{at}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.run(
            f"(() => {{ const b = {at}.getBoundingClientRect(); return [b.x+b.width/2, b.y+b.height/2]; }})()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def screenshot(self, path: Path, *, full: bool = True, limit: int = 16_000) -> None:
        """Write a PNG of the page, or of what is in view."""
        if full:
            self._resize(min(int(self.run("document.documentElement.scrollHeight")), limit))
            time.sleep(0.3)  # charts follow the width of the window
        picture = self.send("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(picture))
        self._resize(self._size[1])

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 60
        while self._number not in self._answers:
            assert select.select([self._in], [], [], end - time.monotonic())[0], f"no answer to {method}"
            piece = os.read(self._in, 1 << 20)
            assert piece, "Chromium ended"
            self._take(piece)
        answer = self._answers.pop(self._number)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _take(self, piece: bytes) -> None:
        *whole, self._rest = (self._rest + piece).split(b"\0")
        for message in map(json.loads, whole):
            if "id" in message:
                self._answers[message["id"]] = message
                continue
            method, params = message["method"], message.get("params", {})
            if method == "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            elif method == "Log.entryAdded":
                self.log.append(params["entry"]["text"])
            elif method == "Runtime.exceptionThrown":
                self.log.append(json.dumps(params["exceptionDetails"])[:2000])
            elif method == "Runtime.consoleAPICalled":
                self.log.append(" ".join(str(arg.get("value", arg)) for arg in params["args"]))

    def _resize(self, height: int) -> None:
        width = self._size[0]
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
