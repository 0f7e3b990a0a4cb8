"""Commands that carry a run's results elsewhere: figure, export, wandb."""

import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from grokscope import plugins
from grokscope.cli.arguments import ROOT, OfRun, parse, warned
from grokscope.errors import GrokscopeError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grokscope.gallery.registry import Asked, Measured


def figure(arguments: list[str]) -> None:
    """Draw a figure of a run at a column's or a page's width, still or moving, with its data as CSV."""

    @dataclass(frozen=True)
    class Figure:
        """Draw a figure of RUN; what it needs and is not measured yet is measured first, and saved."""

        name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
        """A name that `grokscope list figures` prints."""
        run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
        """The run's folder, or its name under --root."""
        root: Path = ROOT
        """The folder that holds the runs."""
        output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FILE")] = None
        """The file to write: .pdf, .svg or .png, and .gif or .webp of a figure that moves; by default a PDF in
        RUN/figures."""
        width: Literal["column", "page"] = "page"
        """3.35 or 7 inches; the letters are as large in both."""
        step: Annotated[tyro.conf.UseAppendAction[tuple[int, ...]], tyro.conf.arg(metavar="STEP")] = ()
        """A step to show, the nearest that is measured; may be given several times where the figure is of several."""
        data: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
        """Where to write the numbers that are drawn."""

    asked = parse(Figure, "figure", arguments)
    if asked.name not in plugins.names("figures"):
        raise GrokscopeError(unknown_name("figure", asked.name, plugins.names("figures")))

    from grokscope import figures
    from grokscope.disk import atomic
    from grokscope.gallery import registry
    from grokscope.trajectory import Trajectory

    folder = OfRun(run=asked.run, root=asked.root).folder
    usual = f"{asked.name}{'-column' if asked.width == 'column' else ''}.pdf"
    output = asked.output or folder / "figures" / usual
    kind, allowed = output.suffix.lower().lstrip("."), registry.formats(asked.name)
    is_moving = kind in figures.MOVING
    if kind not in allowed:
        known = (
            f"this figure does not move, so not {output.suffix}" if is_moving else f"not {output.suffix or 'none'}"
        )
        raise GrokscopeError(f"{output}: allowed endings are .{', .'.join(allowed)}; {known}.")
    if asked.data and asked.data.suffix.lower() != ".csv":
        raise GrokscopeError(f"--data {asked.data}: the data are CSV; name a file that ends in .csv.")
    if asked.data and is_moving:
        raise GrokscopeError(f"--data is of a figure that stands still; {output} moves.")
    width = figures.COLUMN_WIDTH if asked.width == "column" else figures.PAGE_WIDTH
    request = registry.Asked(warned(Trajectory.open(folder)), asked.step, width)
    registry.check(asked.name, request)
    _measure(registry.get(asked.name).measured(is_moving), request)
    if is_moving:
        content = registry.moving(asked.name, request, kind)
    else:
        drawn = registry.figure(asked.name, request)
        content = figures.encoded(drawn, kind)
    atomic.make_folder(output.parent)
    atomic.write_atomic(output, content)
    print(f"figure  {output}")
    if asked.data:
        atomic.make_folder(asked.data.parent)
        atomic.write_atomic(asked.data, figures.data(drawn).encode())
        print(f"data    {asked.data}")


def export(arguments: list[str]) -> None:
    """Export checkpoints as folders that HookedTransformer loads without grokscope."""

    @dataclass(frozen=True)
    class Export(OfRun):
        """Write FOLDER/step-N with model.safetensors, config.json and tokens.json for each STEP of RUN."""

        step: Annotated[tyro.conf.UseAppendAction[tuple[int, ...]], tyro.conf.arg(metavar="STEP")] = ()
        """A step that has a checkpoint; may be given several times; by default the last."""
        output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FOLDER")] = None
        """The folder to write into; by default RUN/export."""

    asked = parse(Export, "export", arguments)

    from grokscope.interop import export as interop_export
    from grokscope.trajectory import Trajectory

    trajectory = warned(Trajectory.open(asked.folder))
    steps = asked.step or (int(trajectory.steps[-1]),)
    for path in interop_export.export(trajectory, steps, asked.output or asked.folder / "export"):
        print(f"saved {path}")
    print(f"In such a folder, HookedTransformer loads it by:\n\n{textwrap.indent(interop_export.LOADING, '    ')}")


def wandb(arguments: list[str]) -> None:
    """Upload a run's log and chosen measures to Weights & Biases."""

    @dataclass(frozen=True)
    class Wandb(OfRun):
        """Upload the log of RUN and chosen measures to Weights & Biases, as they are now, as a new run there."""

        project: str
        """The project there."""
        measure: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="MEASURE")] = ()
        """A measure to upload besides the log, measured first if it is not; may be given several times."""
        name: str | None = None
        """The run's name there; by default the one it has here."""
        entity: str | None = None
        """The user or team there; by default your own."""
        offline: bool = False
        """Write into RUN/wandb, and upload from there later by `wandb sync`."""

    asked = parse(Wandb, "wandb", arguments)

    from grokscope import measures
    from grokscope.gallery import registry
    from grokscope.interop import wandb as interop_wandb
    from grokscope.trajectory import Trajectory

    for name in asked.measure:
        measures.check(name)
    request = registry.Asked(warned(Trajectory.open(asked.folder)))
    needed = [registry.Measured(name) for name in asked.measure]
    _measure(needed, request)
    place = interop_wandb.log(
        request.trajectory,
        asked.project,
        series=[one(request) for one in needed],
        name=asked.name,
        entity=asked.entity,
        offline=asked.offline,
    )
    print(f"{'saved' if asked.offline else 'uploaded to'} {place}")


def _measure(needed: "Iterable[Measured]", request: "Asked") -> None:
    """Measure what is not there yet, and say on standard error what takes how long."""
    for one in needed:
        if one.is_there(request):
            continue
        print(f"{one.name:<16}", end="", file=sys.stderr, flush=True)
        started = time.monotonic()
        series = one(request)
        took = time.monotonic() - started
        said = f"{len(series):>6,} of {len(request.trajectory):,} checkpoints {took:6.1f} s"
        print(said, file=sys.stderr, flush=True)
