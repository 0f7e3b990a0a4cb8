"""The page itself: one HTML file of text, style, script and numbers, under a policy that lets nothing else run.

The policy names the style and the script by their hashes and forbids everything else, requests included; only a page
that is watched may ask where it came from. Text goes through Jinja's escaping or, from the script, into text
nodes; the numbers are JSON that no parser of HTML can leave.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from typing import Any

import jinja2
from markupsafe import Markup

from grokscope._version import __version__
from grokscope.report.commands import again, toml
from grokscope.report.data import payload
from grokscope.report.sentences import details, findings, summary
from grokscope.series import Series
from grokscope.store.record import Record
from grokscope.trajectory import Trajectory

_COMMON = ("numbers", "elements", "shown", "stages", "chart", "tables", "canvas", "saving", "sheet")
SCRIPTS = {
    "page.html": (*_COMMON, "clouds", "spectrum", "heads", "grid", "controls", "run"),
    "comparison.html": (*_COMMON, "aligned", "comparison"),
}
"""Each page's scripts in their order; they share one scope."""


@dataclass(frozen=True)
class Live:
    """What a page that is watched says and knows of itself."""

    version: int
    """Another for each page: when the server's is another, the page loads itself anew."""
    every: float
    """The seconds from one question to the next."""
    sentence: str
    """How the run stands."""


def of_run(
    trajectory: Trajectory,
    series: Mapping[str, Series],
    found: Sequence[Series],
    record: Record,
    live: Live | None = None,
    refused: Sequence[str] = (),
) -> bytes:
    """Return the page of one run: `series` are the measures by name, `found` everything there is to choose from.

    `refused` says what is missing on it, and why. One that is `live` asks where it came from whether there is a newer
    one; any other asks nothing of the network.
    """
    assert trajectory.path is not None
    name, log, task = trajectory.path.name, trajectory.log, trajectory.task
    return render(
        "page.html",
        {"name": name, **payload(trajectory, series, found)},
        title=name,
        task=task,
        n_train=len(trajectory.split.train),
        summary=summary(log, trajectory.config.n_steps),
        details=details(log, series),
        findings=findings(log, series, trajectory.config.n_steps),
        gaps=trajectory.gaps,
        origin=trajectory.origin,
        damaged=[*trajectory.damaged, *refused],
        again=again(record, name),
        config=toml(trajectory.config),
        environment=record.environment,
        measured=[(one.measure, len(one), one.options) for one in found],
        digest=trajectory.digest,
        n_checkpoints=len(trajectory),
        last_step=int(log.steps[-1]),
        n_steps=trajectory.config.n_steps,
        has_circle=task.circle is not None,
        version=__version__,
        live=live,
        more=("live",) if live else (),
    )


def render(template: str, numbers: Mapping[str, Any], *, more: Sequence[str] = (), **words: Any) -> bytes:
    """Return a page of a template, with the numbers for its script, `more` scripts, and the words for itself."""
    style, script = _text("page.css"), _script([*SCRIPTS[template], *more])
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["number"] = lambda value: f"{value:,}"
    return (
        environment.from_string(_text(template))
        .render(
            style=Markup(style),
            script=Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
            numbers=Markup(_json(numbers)),
            **words,
        )
        .encode()
    )


def _script(names: Sequence[str]) -> str:
    parts = [_text(f"{name}.js") for name in names]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "\n})();"


def _json(values: Any) -> str:
    """Return values as JSON in which no tag, comment or line separator can stand; null is what is no number."""
    text = json.dumps(_finite(values), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _finite(one) for name, one in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(one) for one in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(name: str) -> str:
    return (resources("grokscope.report") / "assets" / name).read_text(encoding="utf-8")
