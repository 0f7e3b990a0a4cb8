"""Readers of a report's page, and a report in which every text is hostile."""

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from grokscope import plugins, report
from grokscope.series import Series
from grokscope.store.record import Record
from grokscope.tasks.modular import addition
from grokscope.trajectory import Trajectory

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&{{ 7*7 }}<!--"
HOSTILE_NAME = HOSTILE.replace("/", "∕")
"""The hostile text as a folder's name, which cannot contain a slash."""
PAYLOAD = re.compile(r'<script type="application/json" id="numbers">(.*?)</script>', re.DOTALL)


class ParsedPage(HTMLParser):
    """The elements of a page with their attributes, and the text inside each kind of element."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            self.text[tag] = self.text.get(tag, "") + data


def read_page(path: Path) -> ParsedPage:
    return ParsedPage(path.read_text(encoding="utf-8"))


def read_payload(page: Path | bytes) -> dict[str, Any]:
    """Return the numbers of a page as its script parses them."""
    match = PAYLOAD.search((page.read_bytes() if isinstance(page, Path) else page).decode())
    assert match
    return json.loads(match[1])


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """Return an array of the payload, decoded by the format's description rather than the page's script."""
    numbers = np.frombuffer(base64.b64decode(packed["data"]), f"<{packed['type']}").reshape(packed["shape"])
    return packed["offset"] + packed["scale"] * numbers.astype(float) if "scale" in packed else numbers


def assert_harmless(text: str) -> None:
    """Assert that a page can run only its own script and request nothing but itself."""
    page = ParsedPage(text)
    assert {tag for tag, _ in page.elements}.isdisjoint(
        {"iframe", "object", "embed", "link", "base", "form", "audio", "video", "img"}
    )
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name in ("style", "srcset", "src") for name in attributes)
        assert attributes.get("href", "#").startswith("#")
        assert not (tag == "meta" and attributes.get("http-equiv", "").lower() == "refresh")
    assert "url(" not in page.text["style"] and "@import" not in page.text["style"]
    (policy,) = [
        attributes["content"]
        for _, attributes in page.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1 and len(re.findall(r"<script\b", text)) == 2
    for kind, content in (("script", scripts[0]), ("style", page.text["style"])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy


def write_hostile_report(folder: Path) -> Path:
    """Make every text of a run hostile: formula, origin, environment, drift, a measure and its keys; report it."""
    record = Record.read(folder)
    fork = {"event": "forked", "step": 0, "run": HOSTILE, "changed": {"checkpoints": [HOSTILE, "every 10"]}}
    drift = {"event": "drift allowed", "step": 10, "drift": [HOSTILE]}
    environment = {**record.environment, HOSTILE: HOSTILE}
    history = (fork | {"other_data": False}, drift)
    dataclasses.replace(record, environment=environment, history=history).write(folder)
    sorted((folder / "segments").glob("*.safetensors"))[-1].write_bytes(b"damaged")
    with pytest.MonkeyPatch.context() as patch:
        task = SimpleNamespace(load=lambda: lambda config: dataclasses.replace(addition(config), formula=HOSTILE))
        patch.setitem(plugins._registered("tasks"), "addition", task)
        trajectory = Trajectory.open(folder)
        series = Series(HOSTILE, trajectory.steps, {HOSTILE: trajectory.steps * 1.0}, {}, {HOSTILE: HOSTILE})
        gaps = np.array(trajectory.gaps, np.int64).reshape(-1, 2)
        series = dataclasses.replace(series, digest=trajectory.digest, constants={"gaps": gaps})
        (folder / "measures").mkdir(exist_ok=True)
        series.save(folder / "measures" / "hostile.safetensors")
        return report.write(trajectory)
