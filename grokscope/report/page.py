"""Render a page: one HTML file of text, style, script and numbers, under a policy that runs nothing else.

The policy names the style and the script by their hashes and forbids everything else, including every request. Only a
watched page may ask its own server for news. Texts pass through Jinja's escaping, or become text nodes in the script.
The numbers are JSON that contains no character with a meaning in HTML.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from grokscope._version import __version__
from grokscope.report.bundle import bundle
from grokscope.report.commands import format_toml, retraining_recipe
from grokscope.report.data import run_payload
from grokscope.report.provenance import Provenance
from grokscope.report.sentences import details, headlines, summary
from grokscope.series import Series
from grokscope.store.record import Record
from grokscope.trajectory import Trajectory


@dataclass(frozen=True)
class LiveStatus:
    """The status line of a watched page, and when the page asks for news."""

    version: int
    """The number of the page. It reloads itself when the server's number differs."""
    interval: float
    """The seconds between two requests."""
    sentence: str
    """The state of the training."""


def render_run(
    trajectory: Trajectory,
    series: Mapping[str, Series],
    all_series: Sequence[Series],
    record: Record,
    live: LiveStatus | None = None,
    warnings: Sequence[str] = (),
) -> bytes:
    """Return the page of one run.

    Args:
        trajectory: The run, with a folder.
        series: The measures that have a panel of their own, by name; the embedding is required.
        all_series: Everything that the reader can choose to plot.
        record: The run's config, environment and history.
        live: The status line of a watched page; None for a page that makes no requests.
        warnings: Sentences on what is missing from the page, and why.
    """
    assert trajectory.path is not None
    name, log, task = trajectory.path.name, trajectory.log, trajectory.task
    n_steps, stopped, provenance = trajectory.end_step, trajectory.stopped, Provenance.of(record)
    return render(
        "page.html",
        ["run", "live"] if live else ["run"],
        {"name": name, **run_payload(trajectory, series, all_series)},
        title=name,
        task=task,
        loss=trajectory.config.loss,
        is_fresh=trajectory.config.task.fresh,
        n_train=len(trajectory.split.train) if trajectory.has_split else None,
        summary=" ".join(
            [
                summary(log, n_steps, is_fresh=trajectory.config.task.fresh),
                *([stopped.sentence(int(log.steps[-1]))] if stopped else []),
            ]
        ),
        details=details(log, series),
        headlines=headlines(log, series, n_steps),
        gaps=trajectory.gaps,
        origin=trajectory.origin,
        warnings=[*trajectory.damaged, *warnings, *(provenance.doubts if provenance else ())],
        provenance=provenance,
        recipe=retraining_recipe(record, name),
        config=format_toml(trajectory.config),
        environment=record.environment,
        measured=[(measured.measure, len(measured), measured.options) for measured in all_series],
        digest=trajectory.digest,
        n_checkpoints=len(trajectory),
        last_step=int(log.steps[-1]),
        n_steps=n_steps,
        live=live,
    )


def render(template: str, modules: Sequence[str], numbers: Mapping[str, Any], **values: Any) -> bytes:
    """Return a page as UTF-8.

    Args:
        template: The name of the HTML template in assets/.
        modules: The names of the JavaScript modules to run, in order.
        numbers: The payload that the script draws, as JSON values.
        **values: The variables of the template.
    """
    style = _read_asset("page.css")
    script = bundle(modules, lambda name: _read_asset(f"{name}.js"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["number"] = lambda value: f"{value:,}"
    page = environment.from_string(_read_asset(template)).render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_sha256(style),
        script_hash=_sha256(script),
        numbers=Markup(_json(numbers)),
        version=__version__,
        **values,
    )
    return page.encode()


def _json(values: Any) -> str:
    """Return values as JSON without tags, comments and line separators; numbers that are not finite become null."""
    text = json.dumps(_finite(values), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read_asset(name: str) -> str:
    return (files("grokscope.report") / "assets" / name).read_text(encoding="utf-8")
