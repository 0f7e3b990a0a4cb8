"""What the tests read off a report's page, and hostile names to put on it."""

import base64
import dataclasses
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


class Page(HTMLParser):
    """A page's elements with their attributes, and the text inside each kind."""

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


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def numbers(path: Path) -> dict[str, Any]:
    """Return a page's payload as its script reads it."""
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', path.read_text("utf-8"), re.S)
    assert found
    return json.loads(found[1])


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    """Return an array as the page's script does, by the format's description."""
    whole = np.frombuffer(base64.b64decode(packed["data"]), f"<{packed['type']}").reshape(packed["shape"])
    return packed["offset"] + packed["scale"] * whole.astype(float) if "scale" in packed else whole


def write_hostile(folder: Path) -> Path:
    record = Record.read(folder)
    event = {"event": "forked", "step": 0, "run": HOSTILE, "changed": {"checkpoints": [HOSTILE, "every 10"]}}
    drift = {"event": "drift allowed", "step": 10, "drift": [HOSTILE]}
    environment = {**record.environment, HOSTILE: HOSTILE}
    dataclasses.replace(record, environment=environment, history=(event | {"other_data": False}, drift)).write(folder)
    sorted((folder / "segments").glob("*.safetensors"))[-1].write_bytes(b"damaged")
    with pytest.MonkeyPatch.context() as patch:
        bad = SimpleNamespace(load=lambda: lambda config: dataclasses.replace(addition(config), formula=HOSTILE))
        patch.setitem(plugins._table("tasks"), "addition", bad)
        trajectory = Trajectory.open(folder)
        made_up = Series(HOSTILE, trajectory.steps, {HOSTILE: trajectory.steps * 1.0}, {}, {HOSTILE: HOSTILE})
        made_up = dataclasses.replace(
            made_up,
            digest=trajectory.digest,
            constants={"gaps": np.array(trajectory.gaps, np.int64).reshape(-1, 2)},
        )
        (folder / "measures").mkdir(exist_ok=True)
        made_up.save(folder / "measures" / "hostile.safetensors")
        return report.write(trajectory)
