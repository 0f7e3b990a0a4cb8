"""The commands `sweep` and `sweep-table`."""

import math
import shlex
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from grokscope.cli.arguments import (
    ROOT,
    RunOptions,
    announce,
    counted,
    parse,
    printable,
    state_counts,
    usage_errors,
)
from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from grokscope.sweep.plan import Sweep
    from grokscope.sweep.results import Row


def sweep(arguments: list[str]) -> None:
    """Train every cell of a SWEEP.toml in parallel; the same command trains what is left."""

    @dataclass(frozen=True)
    class Sweep:
        """Train every cell of SWEEP.toml. Finished cells are skipped, and unfinished cells are resumed."""

        source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SWEEP.toml")]
        """A config file with a table [sweep] of the settings that vary."""
        run: str | None = None
        """The sweep's name; by default the file's name."""
        root: Path = ROOT
        """The folder that contains the runs."""
        jobs: int | None = None
        """The number of cells, or ensembles, at a time; by default one per core."""
        ensemble: int = 1
        """Train up to this many similar cells in one program; for a GPU, or many small models.
        The bits of a cell depend on its group, so densify cannot add checkpoints to it later."""
        backend: Literal["local", "ray"] = "local"
        """"local": processes on this machine. "ray": the Ray cluster that RAY_ADDRESS names, or a new local one."""
        shard: str = "1/1"
        """Train only part i of n, written i/n; for an array of jobs on a cluster."""
        retry: bool = False
        """Train failed cells again."""
        allow_drift: bool = False
        """Resume cells although the environment has changed, so that the bits may differ; each run records this."""
        dry_run: bool = False
        """Print the state of every cell and train nothing."""

    options = parse(Sweep, "sweep", arguments)

    from grokscope.store.run_names import checked_name, valid_name
    from grokscope.sweep.plan import read_sweep

    with usage_errors():
        plan = read_sweep(options.source)

    from grokscope.cli.progress_bar import SweepProgress
    from grokscope.sweep import results, sweep_folder, workers
    from grokscope.training.signals import InterruptedRunError

    with usage_errors():
        folder = options.root / (
            valid_name(options.source.stem) if options.run is None else checked_name(options.run)
        )
        part = plan.shard(*_shard(options.shard))
        if options.jobs is not None and options.jobs < 1:
            raise GrokscopeError(f"--jobs {options.jobs}; allowed: a whole number from 1.")
        if options.ensemble < 1:
            raise GrokscopeError(f"--ensemble {options.ensemble}; allowed: a whole number from 1.")
        workers.require_backend(options.backend)
    sweep_folder.require_compatible(plan, folder)
    announce(f"{folder}: {state_counts(part, folder)}. {plan.about}".strip())
    if options.dry_run:
        print("\n".join(f"  {sweep_folder.cell_state(cell, folder).condition:<11}{cell.name}" for cell in part.cells))
        return
    sweep_folder.save(plan, folder)
    try:
        with SweepProgress(part, folder):
            failed = workers.run_sweep(
                part,
                folder,
                jobs=options.jobs,
                backend=options.backend,
                retry=options.retry,
                allow_drift=options.allow_drift,
                ensemble=options.ensemble,
            )
    except KeyboardInterrupt as interrupt:
        command = shlex.join(["grokscope", "sweep", *arguments])
        raise InterruptedRunError(folder, getattr(interrupt, "signal_number", signal.SIGINT), command) from interrupt
    rows = results.cell_rows(plan, folder)
    failed = {row["cell"]: row["reason"] for row in rows if row["state"] in ("failed", "diverged")} | failed
    messages = _failure_messages(failed, plan, folder)
    summary = results.summarize(rows, plan.axes)
    if summary:
        _print_summary(summary, [axis for axis in plan.axes if axis != "seed"])
    print(state_counts(plan, folder))
    own = {cell.name for cell in part.cells} - set(failed)
    in_use = [row["cell"] for row in rows if row["state"] != "finished" and row["cell"] in own]
    if in_use:
        print(
            f"The tables are incomplete, because another process trains {counted(len(in_use), 'cell')}: "
            f"{', '.join(in_use)}. Run the same command again when it has finished."
        )
    try:
        written = results.write_tables(rows, plan.axes, folder)
    except GrokscopeError as error:
        messages.append(str(error))
    else:
        print(f"saved {' and '.join(map(str, written))}")
    if messages:
        raise GrokscopeError("\n".join(messages))


def sweep_table(arguments: list[str]) -> None:
    """Print the cells of a sweep that fulfil a condition, with their settings and results."""

    @dataclass(frozen=True)
    class SweepTable:
        """Print the cells of SWEEP as a table: settings, state, and the results in each cell's log.

        Sweeps also write this table to SWEEP/results.parquet, which pandas and duckdb read.
        """

        sweep: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SWEEP")]
        """The sweep's folder, or its name under --root."""
        root: Path = ROOT
        """The folder that contains the runs."""
        where: str = ""
        """A condition in SQL, such as "test_accuracy > 0.99"; a name with a dot needs double quotes."""
        column: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME")] = ()
        """A column to print; may be repeated. By default all."""
        csv: bool = False
        """Print CSV instead of an aligned table."""

    options = parse(SweepTable, "sweep-table", arguments)

    from grokscope.sweep import results, sweep_folder

    folder = RunOptions(run=options.sweep, root=options.root).folder
    rows = results.cell_rows(sweep_folder.load(folder), folder)
    with usage_errors():
        table = results.query(rows, options.where, options.column)
    text = table.to_csv(index=False) if options.csv else table.to_string(index=False)
    print(printable(text.rstrip("\n")))
    if not options.csv:
        print(f"{len(table):,} of {counted(len(rows), 'cell')}")


def _failure_messages(failed: Mapping[str, str], plan: "Sweep", folder: Path) -> list[str]:
    """Return a message on the cells that a retry may finish, and one on those that cannot be read."""
    from grokscope.sweep import sweep_folder

    states = {cell.name: sweep_folder.cell_state(cell, folder) for cell in plan.cells if cell.name in failed}
    # A finished cell that cannot be read is not retried either.
    lost = [name for name, state in states.items() if state.is_lost or state.status == "finished"]
    messages = []
    for names, advice in (
        ([name for name in failed if name not in lost], "failed. To try again, add --retry to the same command"),
        (lost, "cannot be read. To train again, move the folder away and add --retry to the same command"),
    ):
        if names:
            reasons = "".join(f"\n  {name}: {failed[name]}" for name in names)
            messages.append(f"{counted(len(names), 'cell')} {advice}:{reasons}")
    return messages


def _shard(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal()):
        raise GrokscopeError(f"--shard {text}: allowed: i/n with i from 1 to n, such as 2/8.")
    return int(i), int(n)


def _print_summary(rows: "list[Row]", axes: list[str]) -> None:
    """Print a line for each combination of settings: medians over its seeds, with intervals."""
    lines = [[*(axis.rpartition(".")[2] for axis in axes), "seeds", "train 99%", "test 99%", "best test"]]
    for row in rows:
        settings = ["" if row[axis] is None else str(row[axis]) for axis in axes]
        steps = [_with_interval(row, event) for event in ("memorized", "generalised")]
        lines.append([*settings, str(row["n"]), *steps, f"{row['best_test_accuracy_median']:.1%}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{text:>{width}}" for text, width in zip(line, widths, strict=True)))
    print("Median steps to 99% over seeds [95% bootstrap interval; of 3 to 5 seeds their range]. ∞: not reached.")


def _with_interval(row: "Row", event: str) -> str:
    median, low, high = (
        f"{value:,.0f}" if math.isfinite(value) else "∞"
        for value in (row[f"{event}_{part}"] for part in ("median", "low", "high"))
    )
    return f"{median} [{low} – {high}]" if row["n"] > 1 else median
