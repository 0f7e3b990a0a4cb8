"""The commands that write results for other programs: `figure`, `export` and `wandb`."""

import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from grokscope.cli.arguments import (
    ROOT,
    RunOptions,
    UsageError,
    measured_line,
    parse,
    print_damage,
    require_names,
    require_run,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grokscope.gallery.registry import FigureRequest, Measured


def figure(arguments: list[str]) -> None:
    """Draw a figure of a run at the width of a column or page, still or animated, with its data as CSV."""

    @dataclass(frozen=True)
    class Figure:
        """Draw a figure of RUN. Measures that it needs and that are missing are computed first, and saved."""

        name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
        """A name that `grokscope list figures` prints."""
        run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
        """The run's folder, or its name under --root."""
        root: Path = ROOT
        """The folder that contains the runs."""
        output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FILE")] = None
        """The file to write: .pdf, .svg or .png; for an animation .gif or .webp. By default a PDF in RUN/figures."""
        width: Literal["column", "page"] = "page"
        """3.35 or 7 inches, with the same font size."""
        step: Annotated[tyro.conf.UseAppendAction[tuple[int, ...]], tyro.conf.arg(metavar="STEP")] = ()
        """A step to show; the nearest measured step is used. Figures of several steps accept the flag repeatedly."""
        data: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
        """A file for the plotted numbers."""

    options = parse(Figure, "figure", arguments)
    require_names("figures", [options.name])
    folder = require_run(RunOptions(run=options.run, root=options.root).folder)

    from grokscope import figures
    from grokscope.disk import atomic
    from grokscope.gallery import registry
    from grokscope.trajectory import Trajectory

    default_name = f"{options.name}{'-column' if options.width == 'column' else ''}.pdf"
    output = options.output or folder / "figures" / default_name
    kind, allowed = output.suffix.lower().lstrip("."), registry.formats(options.name)
    is_moving = kind in figures.MOVING
    if kind not in allowed:
        reason = "this figure has no animation" if is_moving else f"{output.suffix or 'no ending'} is not one of them"
        raise UsageError(f"{output}: allowed endings are .{', .'.join(allowed)}; {reason}.")
    if options.data and options.data.suffix.lower() != ".csv":
        raise UsageError(f"--data {options.data}: allowed: a file that ends in .csv.")
    if options.data and is_moving:
        raise UsageError(f"--data: {output} is an animation; allowed: a figure in .pdf, .svg or .png.")
    width = figures.COLUMN_WIDTH if options.width == "column" else figures.PAGE_WIDTH
    request = registry.FigureRequest(print_damage(Trajectory.open(folder)), options.step, width)
    registry.check(options.name, request)
    if is_moving:
        registry.check_moving(options.name, request)
    _measure(registry.get(options.name).measured(is_moving), request)
    if is_moving:
        content = registry.moving(options.name, request, kind)
    else:
        drawn = registry.figure(options.name, request)
        content = figures.encoded(drawn, kind)
    atomic.make_folder(output.parent)
    atomic.write_atomic(output, content)
    print(f"figure  {output}")
    if options.data:
        atomic.make_folder(options.data.parent)
        atomic.write_atomic(options.data, figures.data(drawn).encode())
        print(f"data    {options.data}")


def export(arguments: list[str]) -> None:
    """Export checkpoints as folders that TransformerLens loads without grokscope."""

    @dataclass(frozen=True)
    class Export(RunOptions):
        """Write FOLDER/step-N with model.safetensors, config.json and tokens.json for each STEP of RUN."""

        step: Annotated[tyro.conf.UseAppendAction[tuple[int, ...]], tyro.conf.arg(metavar="STEP")] = ()
        """A step with a checkpoint; may be repeated. By default the last step."""
        output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FOLDER")] = None
        """The folder to write into; by default RUN/export."""

    options = parse(Export, "export", arguments)
    require_run(options.folder)

    from grokscope.interop import export as interop_export
    from grokscope.trajectory import Trajectory

    trajectory = print_damage(Trajectory.open(options.folder))
    steps = options.step or (int(trajectory.steps[-1]),)
    for path in interop_export.export(trajectory, steps, options.output or options.folder / "export"):
        print(f"saved {path}")
    for version, code in (("3.9", interop_export.LOADING), ("4", interop_export.LOADING_4)):
        print(f"\nLoad a checkpoint from inside its folder, with TransformerLens {version}:\n")
        print(textwrap.indent(code, "    "))


def wandb(arguments: list[str]) -> None:
    """Upload a run's log and chosen measures to Weights & Biases."""

    @dataclass(frozen=True)
    class Wandb(RunOptions):
        """Upload the current log of RUN and chosen measures to Weights & Biases, as a new run of a project."""

        project: str
        """The project on the server."""
        measure: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="MEASURE")] = ()
        """A measure to upload with the log, computed first if it is missing; may be repeated."""
        name: str | None = None
        """The run's name on the server; by default the name of its folder."""
        entity: str | None = None
        """The user or team on the server; by default the one that is logged in."""
        offline: bool = False
        """Write to RUN/wandb instead, for a later `wandb sync`."""

    options = parse(Wandb, "wandb", arguments)
    require_names("measures", options.measure)
    require_run(options.folder)

    from grokscope import measures
    from grokscope.gallery import registry
    from grokscope.interop import wandb as interop_wandb
    from grokscope.trajectory import Trajectory

    for name in options.measure:
        measures.check(name)
    request = registry.FigureRequest(print_damage(Trajectory.open(options.folder)))
    sources = [registry.Measured(name) for name in options.measure]
    _measure(sources, request)
    address = interop_wandb.log(
        request.trajectory,
        options.project,
        series=[source(request) for source in sources],
        name=options.name,
        entity=options.entity,
        offline=options.offline,
    )
    print(f"{'saved' if options.offline else 'uploaded to'} {address}")


def _measure(sources: "Iterable[Measured]", request: "FigureRequest") -> None:
    """Compute missing measures, and print their names and times to standard error."""
    for source in sources:
        if source.find(request) is not None:
            continue
        print(f"{source.name:<16}", end="", file=sys.stderr, flush=True)
        started = time.monotonic()
        series = source(request)
        seconds = time.monotonic() - started
        print(measured_line(series, request.trajectory, seconds), file=sys.stderr, flush=True)
