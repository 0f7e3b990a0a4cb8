"""A headless Chromium, driven by Playwright, and a tab that records the errors and requests of a page."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Request, sync_playwright

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    # Tests may run as root, where Chromium's sandbox does not work.
    "--no-sandbox",
    "--disable-gpu",
    # Containers often have a small /dev/shm.
    "--disable-dev-shm-usage",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium for the duration of the context; skip the test if there is none."""
    program = next((path for path in map(shutil.which, _PROGRAMS) if path), None)
    if program is None:
        pytest.skip(f"needs Chromium: one of {', '.join(_PROGRAMS)} in PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A tab of a browser.

    Attributes:
        page: Playwright's page, for everything that this class does not wrap.
        errors: Errors and warnings of the open page: console messages, exceptions, violations of its policy.
        requests: The addresses that the open page has requested, without fragments.
    """

    def __init__(self, browser: Browser, **options: Any):
        self.page = browser.new_page(**options)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._record_message)
        self.page.on("pageerror", self._record_error)
        self.page.on("request", self._record_request)

    def open(self, page: Path | str, fragment: str = "", width: int = 1400, height: int = 900) -> None:
        """Open a file or an address, and wait until it is loaded and drawn."""
        self.resize(width, height)
        # Without this, a page with another fragment would not be loaded again.
        self.page.goto("about:blank")
        self.errors.clear()
        self.requests.clear()
        address = page if isinstance(page, str) else page.resolve().as_uri()
        self.page.goto(address + fragment)
        self.wait_for_frame()

    def resize(self, width: int, height: int) -> None:
        """Change the size of the window."""
        self.page.set_viewport_size({"width": width, "height": height})

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression or promise. An expression that is a function is called."""
        return self.page.evaluate(expression)

    def wait_for_frame(self) -> None:
        """Wait until everything requested so far is drawn."""
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def wait_until(self, condition: str, seconds: float = 30) -> None:
        """Wait until a JavaScript condition holds, also if the page reloads meanwhile.

        Playwright's own function for this evaluates a text in the page, which the page's policy forbids.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(Error):
                if self.evaluate(f"Boolean({condition})"):
                    return
            time.sleep(0.05)
        pytest.fail(f"not true within {seconds:g} s: {condition}")

    def press(self, key: str) -> None:
        """Press and release a key, and wait for the result."""
        self.page.keyboard.press(key)
        self.wait_for_frame()

    def click(self, x: float, y: float) -> None:
        """Click at a point of the window, and wait for the result."""
        self.page.mouse.click(x, y)
        self.wait_for_frame()

    def choose(self, select: str, value: str) -> None:
        """Choose an option of a list by the list's id."""
        self.page.select_option(f"#{select}", value)

    def scroll_to(self, selector: str) -> dict[str, float]:
        """Scroll to an element and return its rectangle in the window: x, y, width, height."""
        return self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return {x: b.x, y: b.y, width: b.width, height: b.height}; })()"
        )

    def visible_text(self, selector: str) -> str:
        """Return the text of an element; fail if the element is not visible."""
        element = f"document.querySelector({json.dumps(selector)})"
        assert self.evaluate(f"{element}.checkVisibility({{visibilityProperty: true}})")
        return self.evaluate(f"{element}.textContent")

    def assert_quiet(self, path: Path) -> None:
        """Assert that a page caused no error, and requested nothing but itself and its own blobs."""
        self.wait_for_frame()
        assert self.errors == []
        outside = [address for address in self.requests if not address.startswith("blob:")]
        assert outside == [path.resolve().as_uri()]

    def _record_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self.errors.append(message.text)

    def _record_error(self, error: Error) -> None:
        self.errors.append(str(error))

    def _record_request(self, request: Request) -> None:
        if not request.url.startswith("data:"):
            self.requests.append(request.url.partition("#")[0])


SAVE_PANELS = """(async () => {
  const downloads = [], blobs = new Map(), drawings = {};
  window.files = new Map();
  HTMLAnchorElement.prototype.click = function () { downloads.push([this.download, this.href]); };
  const createUrl = URL.createObjectURL.bind(URL);
  URL.createObjectURL = (blob) => { const url = createUrl(blob); blobs.set(url, blob); return url; };
  for (const button of document.querySelectorAll('button.save')) {
    button.click();
    const drawing = [...blobs.values()].findLast((blob) => blob.type === 'image/svg+xml');
    for (let i = 0; !downloads.length && i < 600; i++) await new Promise(requestAnimationFrame);
    const [name, url] = downloads.pop();
    window.files.set(name, blobs.get(url));
    drawings[name] = await drawing.text();
  }
  return drawings;
})()"""


def save_panels(tab: Tab) -> dict[str, str]:
    """Save every panel as a picture, and return by file name the SVG that the picture is or was made from."""
    return tab.evaluate(SAVE_PANELS)


def saved_size(tab: Tab, name: str) -> list[int]:
    """Return the width and height in pixels of a picture that `save_panels` saved."""
    script = f"createImageBitmap(files.get({json.dumps(name)})).then((image) => [image.width, image.height])"
    return tab.evaluate(script)
