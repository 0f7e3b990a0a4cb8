"""A headless Chromium, driven by its DevTools protocol over a pipe: nothing to install beside the browser itself."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # The tests may run as root, where Chromium has none.
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
)


def program() -> str:
    """Return the browser's path, or skip the test."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip(f"needs a Chromium: one of {', '.join(NAMES)} in PATH")
    return found


class Browser:
    """A browser with one page; whatever the page complains of or asks of the network is kept."""

    def __init__(self, profile: Path):
        here, there = os.pipe(), os.pipe()
        # Chromium reads its commands from descriptor 3 and answers on 4; a plain sh knows descriptors up to 9 alone.
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec "$0" "$@" 3<&{here[0]} 4>&{there[1]}',
                program(),
                *FLAGS,
                f"--user-data-dir={profile}",
            ],
            pass_fds=(here[0], there[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(here[0])
        os.close(there[1])
        self._commands, self._answers = os.fdopen(here[1], "wb"), os.fdopen(there[0], "rb")
        self._buffer, self._number, self._session = b"", 0, ""
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.loaded = self._is_pressed = False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._commands.close()
        self._process.kill()
        self._process.wait()
        self._answers.close()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result, having noted what happened meanwhile."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def open(self, page: Path | str, fragment: str = "", width: int = 1400, height: int = 900) -> None:
        """Open a file or an address and wait until it is loaded."""
        self.resize(width, height)
        # From one fragment to another a page is not loaded anew.
        self.send("Page.navigate", url="about:blank")
        self.complaints.clear()
        self.requests.clear()
        self.loaded = False
        self.send("Page.navigate", url=(page if isinstance(page, str) else page.resolve().as_uri()) + fragment)
        while not self.loaded:
            self._note(self._read())
        self.frame()

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Give the window another size."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def run(self, expression: str) -> Any:
        """Return what a JavaScript expression, or the promise that it gives, comes to."""
        result = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def frame(self) -> None:
        """Wait until what was asked for is drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def key(self, key: str) -> None:
        """Press and release a key."""
        text = {"text": " "} if key == " " else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.frame()

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Do one thing with the mouse: "mouseMoved", "mousePressed" or "mouseReleased"."""
        self._is_pressed = kind == "mousePressed" or (kind == "mouseMoved" and self._is_pressed)
        button = {"button": "left"} if self._is_pressed or kind == "mouseReleased" else {}
        count = 0 if kind == "mouseMoved" else 1
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, clickCount=count, **button)

    def click(self, x: float, y: float) -> None:
        """Click at a place of the window."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)
        self.frame()

    def box(self, selector: str) -> dict[str, float]:
        """Scroll to an element and return where it then is: x, y, width, height."""
        return self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return {x: b.x, y: b.y, width: b.width, height: b.height}; })()"
        )

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Save the page, or what of it is in the window, as PNG."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def printed(self) -> bytes:
        """Return the page as a PDF."""
        return base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._answers.fileno(), 1 << 16)
            assert more, "Chromium has ended"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        if event.get("method") == "Page.loadEventFired":
            self.loaded = True
        elif event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(about["args"]))
        elif event.get("method") == "Log.entryAdded":
            self.complaints.append(about["entry"]["text"])
        elif event.get("method") == "Network.requestWillBeSent" and not about["request"]["url"].startswith("data:"):
            self.requests.append(about["request"]["url"])


SAVE = """(async () => {
  const files = [];
  window.files = new Map();
  HTMLAnchorElement.prototype.click = function () { files.push([this.download, this.href]); };
  const [made, ask] = [new Map(), URL.createObjectURL];
  URL.createObjectURL = (blob) => { const address = ask.call(URL, blob); made.set(address, blob); return address; };
  const found = {};
  for (const button of document.querySelectorAll('button.save')) {
    button.click();
    const drawing = [...made.values()].findLast((one) => one.type === 'image/svg+xml');
    for (let i = 0; !files.length && i < 600; i++) await new Promise(requestAnimationFrame);
    const [name, address] = files.pop();
    window.files.set(name, made.get(address));
    found[name] = await drawing.text();
  }
  return found;
})()"""


def saved(browser: Browser) -> dict[str, str]:
    """Save every panel, and return by the file's name the drawing that it is, or that it was made of."""
    return browser.run(SAVE)


def saved_size(browser: Browser, name: str) -> list[int]:
    """Return the width and height in pixels of a picture that `saved` saved."""
    script = f"createImageBitmap(files.get({json.dumps(name)})).then((one) => [one.width, one.height])"
    return browser.run(script)


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Start a browser for as long as the context lasts."""
    with Browser(profile) as browser:
        yield browser
