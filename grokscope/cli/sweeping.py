"""The command that sweeps."""

import math
import shlex
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from grokscope.cli.arguments import ROOT, announce, parse, states
from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from grokscope.sweep.plan import Sweep
    from grokscope.sweep.results import Row


def sweep(arguments: list[str]) -> None:
    """Train every cell of a SWEEP.toml, side by side; the same command does what is left."""

    @dataclass(frozen=True)
    class Sweep:
        """Train every cell of SWEEP.toml. Finished cells are skipped, stopped ones gone on with."""

        source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SWEEP.toml")]
        """A run's settings with a table [sweep] of what varies."""
        run: str | None = None
        """The sweep's name; by default the file's."""
        root: Path = ROOT
        """The folder that holds the runs."""
        jobs: int | None = None
        """How many cells, or ensembles of them, at a time; by default one for each core."""
        ensemble: int = 1
        """Train up to this many cells that are alike in one program: for a GPU, or many small models."""
        backend: Literal["local", "ray"] = "local"
        """"local" for processes here, or "ray" for the Ray cluster that RAY_ADDRESS names, or one made here."""
        shard: str = "1/1"
        """Do the i-th of n parts only, as i/n: for a cluster's array of jobs."""
        retry: bool = False
        """Try cells again that have failed."""
        allow_drift: bool = False
        """Go on with cells although the environment differs in what decides bits; each run records it."""
        dry_run: bool = False
        """Say what there is to do, and do nothing."""

    asked = parse(Sweep, "sweep", arguments)

    from grokscope.cli.progress_bar import SweepProgress
    from grokscope.store.run_store import checked_name
    from grokscope.sweep import results, sweep_folder, workers
    from grokscope.sweep.plan import read_sweep
    from grokscope.training.signals import InterruptedRunError

    plan = read_sweep(asked.source)
    folder = asked.root / checked_name(asked.source.stem if asked.run is None else asked.run)
    part = plan.shard(*_shard(asked.shard))
    if asked.jobs is not None and asked.jobs < 1:
        raise GrokscopeError(f"--jobs {asked.jobs}; allowed: a whole number from 1.")
    if asked.ensemble < 1:
        raise GrokscopeError(f"--ensemble {asked.ensemble}; allowed: a whole number from 1.")
    workers.require(asked.backend)
    sweep_folder.check(plan, folder)
    announce(f"{folder}: {states(part, folder)}. {plan.about}".strip())
    if asked.dry_run:
        print("\n".join(f"  {sweep_folder.state(cell, folder).status:<11}{cell.name}" for cell in part.cells))
        return
    sweep_folder.save(plan, folder)
    try:
        with SweepProgress(part, folder):
            failed = workers.run(
                part,
                folder,
                jobs=asked.jobs,
                backend=asked.backend,
                retry=asked.retry,
                allow_drift=asked.allow_drift,
                ensemble=asked.ensemble,
            )
    except KeyboardInterrupt as interrupt:
        again = shlex.join(["grokscope", "sweep", *arguments])
        raise InterruptedRunError(folder, getattr(interrupt, "signal_number", signal.SIGINT), again) from interrupt
    rows = results.table(plan, folder)
    failed = {row["cell"]: row["reason"] for row in rows if row["state"] == "failed"} | failed
    said = _failures(failed, plan, folder)
    summary = results.summary(rows, plan.axes)
    if summary:
        _print_summary(summary, [axis for axis in plan.axes if axis != "seed"])
    print(states(plan, folder))
    ours = {cell.name for cell in part.cells} - set(failed)
    taken = [row["cell"] for row in rows if row["state"] != "finished" and row["cell"] in ours]
    if taken:
        print(
            f"{len(taken)} cell{'s are' if len(taken) > 1 else ' is'} in the hands of another process, so the tables "
            f"are not whole: {', '.join(taken)}. The same command makes them whole later."
        )
    try:
        written = results.write(rows, plan.axes, folder)
    except GrokscopeError as error:
        said.append(str(error))
    else:
        print(f"saved {' and '.join(map(str, written))}")
    if said:
        raise GrokscopeError("\n".join(said))


def _failures(failed: Mapping[str, str], plan: "Sweep", folder: Path) -> list[str]:
    """Return in words which cells failed and why: those to try again, and those that would only fail once more."""
    from grokscope.sweep import sweep_folder

    there = {cell.name: sweep_folder.state(cell, folder) for cell in plan.cells if cell.name in failed}
    # One that is finished, and from which nothing can be read, is not tried again either.
    lost = [name for name, state in there.items() if state.is_lost or state.status == "finished"]
    said = []
    for names, what in (
        ([name for name in failed if name not in lost], "failed; the same command with --retry tries them again"),
        (lost, "cannot be read; move the folder away, and the same command with --retry trains them anew"),
    ):
        if names:
            reasons = "".join(f"\n  {name}: {failed[name]}" for name in names)
            said.append(f"{len(names)} cell{'s' * (len(names) > 1)} {what}:{reasons}")
    return said


def _shard(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal()):
        raise GrokscopeError(f"--shard {text}: allowed: i/n with i from 1 to n, such as 2/8.")
    return int(i), int(n)


def _print_summary(rows: "list[Row]", axes: list[str]) -> None:
    """Print medians over seeds with their intervals, a setting a line."""
    lines = [[*(axis.rpartition(".")[2] for axis in axes), "seeds", "train 99%", "test 99%", "best test"]]
    for row in rows:
        settings = ["" if row[axis] is None else str(row[axis]) for axis in axes]
        steps = [_with_interval(row, event) for event in ("memorized", "generalised")]
        lines.append([*settings, str(row["n"]), *steps, f"{row['best_test_accuracy_median']:.1%}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{text:>{width}}" for text, width in zip(line, widths, strict=True)))
    print(
        "median steps to 99% over seeds [bootstrap interval, of 3 to 5 seeds their range]; ∞: later than the budget"
    )


def _with_interval(row: "Row", event: str) -> str:
    median, low, high = (
        f"{value:,.0f}" if math.isfinite(value) else "∞"
        for value in (row[f"{event}_{part}"] for part in ("median", "low", "high"))
    )
    return f"{median} [{low} – {high}]" if row["n"] > 1 else median
