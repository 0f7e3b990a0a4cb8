"""The commands that inspect runs: `verify`, `log` and `list`."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from grokscope import plugins
from grokscope.cli.arguments import (
    ROOT,
    RunOptions,
    UsageError,
    counted,
    parse,
    print_damage,
    printable,
    state_counts,
)
from grokscope.disk import atomic
from grokscope.errors import GrokscopeError, quoted_name, unknown_name

if TYPE_CHECKING:
    from grokscope.config import RunConfig


def verify(arguments: list[str]) -> None:
    """Read everything that a run has saved, and name all damage."""

    @dataclass(frozen=True)
    class Verify(RunOptions):
        """Read everything that a run has saved, and name all damage. The exit status is 1 if data are lost."""

    options = parse(Verify, "verify", arguments)

    from grokscope.store import verify as store_verify
    from grokscope.store.run_store import RunStore

    run = RunStore(options.folder)
    faults = list(store_verify.faults(run))
    for fault in faults:
        print(printable(fault.sentence))
    open_faults = [fault for fault in faults if not fault.is_mended]
    if open_faults:
        remedies = dict.fromkeys(fault.remedy for fault in open_faults if fault.remedy)
        rest = "Everything else is readable." if run.segments else "Nothing is readable."
        heading = f"{options.folder}: {counted(len(open_faults), 'fault')}. {rest}"
        raise GrokscopeError("\n".join([heading, *(f"  {remedy}" for remedy in remedies)]))
    contents = f"{options.folder}: {counted(len(run.steps), 'checkpoint')} in {counted(len(run.segments), 'segment')}"
    print(f"{contents}; everything recoverable is stored." if faults else f"{contents}, all intact.")


def log(arguments: list[str]) -> None:
    """Print a run's log as JSON lines: losses and accuracies at every evaluated step."""

    @dataclass(frozen=True)
    class Log(RunOptions):
        """Print a run's log as JSON lines. The row of step t belongs to the parameters after t updates.

        "loss_function" is the function of its losses, "softmax" or "stablemax".
        If the rule `stop` has ended the run, the last line states the step and the reason.
        """

    options = parse(Log, "log", arguments)

    import numpy as np

    from grokscope.store.run_store import RunStore

    run = RunStore(options.folder)
    rows, columns = run.log.rows, run.log.columns
    if not run.record.has_split:
        from grokscope.trajectory import Trajectory

        series = Trajectory.of_store(run).log
        rows, columns = np.column_stack([series.steps, *series.arrays.values()]), ("step", *series.arrays)
    print_damage(run)
    for row in rows.tolist():
        numbers = {**dict(zip(columns, row, strict=True)), "step": int(row[0])}
        print(json.dumps({**numbers, "loss_function": run.record.config.loss}))
    if run.stopped:
        print(json.dumps({"stopped_at": run.stopped.step, "reason": run.stopped.reason}, ensure_ascii=False))


def list_(arguments: list[str]) -> None:
    """List the tasks, models, optimizers, measures, figures, presets or runs."""

    @dataclass(frozen=True)
    class List:
        """List the tasks, models, optimizers, measures, figures, presets or runs."""

        what: tyro.conf.Positional[str]
        """One of: tasks, models, optimizers, measures, figures, presets, runs."""
        root: Path = ROOT
        """The folder that contains the runs."""

    options = parse(List, "list", arguments)
    kinds = [*plugins.BUILT_IN, "presets", "runs"]
    if options.what in plugins.BUILT_IN:
        from grokscope.cli import catalogue

        lines = catalogue.lines(options.what)
    elif options.what == "presets":
        from grokscope.config import presets

        width = max(map(len, presets.names())) + 2
        lines = [f"{name:<{width}}{_in_a_line(presets.get(name))}" for name in presets.names()]
    elif options.what == "runs":
        folders = _folders(options.root)
        runs = [folder for folder in folders if _is_run(folder)]
        lines = [_run_in_a_line(folder) for folder in runs]
        others = [folder for folder in folders if folder not in runs]
        lines += [_sweep_in_a_line(folder) for folder in others if atomic.path_exists(folder / "sweep.json")]
        lines = lines or [f"There is no run in {options.root}."]
    else:
        raise UsageError(unknown_name("list", options.what, kinds))
    print("\n".join(printable(line) for line in lines))


def _folders(root: Path) -> list[Path]:
    """Return the root's entries that are not hidden, or an empty list without a root; raise OSError if unreadable."""
    try:
        return sorted(root / name for name in os.listdir(root) if not name.startswith("."))
    except FileNotFoundError:
        return []


def _is_run(folder: Path) -> bool:
    """Return whether a folder is a run, or cannot be read and may be a run; its line then names the error."""
    try:
        return atomic.path_exists(folder / "config.json")
    except GrokscopeError:
        return True


def _in_a_line(config: "RunConfig") -> str:
    model, optimizer = config.model, config.optimizer
    decay = f" decay {optimizer.weight_decay:g}" if optimizer.weight_decay else ""
    parts = [
        _task_in_words(config),
        f"{config.task.train_fraction:.0%} trained on",
        counted(model.n_layers, "layer"),
        f"{optimizer.name} lr {optimizer.lr:g}{decay}",
        "to initialization" if optimizer.decay_centre != "zero" else "",
        f"update noise {optimizer.update_noise:g}" if optimizer.update_noise else "",
        f"weight noise {optimizer.weight_noise:g}" if optimizer.weight_noise else "",
        f"dropout {config.residual_dropout:g}" if config.residual_dropout else "",
        f"batch {config.batch_size}" if config.batch_size else "full batch",
        counted(config.n_steps, "step"),
    ]
    return ", ".join(part for part in parts if part)


def _task_in_words(config: "RunConfig") -> str:
    """Return the task's name with its modulus or group, without building the task."""
    settings = plugins.task_settings(config.task.name)
    domains = {"p": f" mod {config.task.p}", "group": f" in {config.task.group}"}
    return config.task.name + "".join(text for setting, text in domains.items() if setting in settings)


def _run_in_a_line(folder: Path) -> str:
    from grokscope.store.run_store import RunStore

    try:
        run = RunStore(folder)
        if not run.segments:
            raise GrokscopeError(" ".join(run.damaged))
        checkpoints = counted(len(run.steps), "checkpoint")
        progress = f"{run.last_step:,} of {counted(run.record.config.n_steps, 'step')}, {checkpoints}"
        if run.record.imported:
            progress = f"imported, {checkpoints} to step {run.record.config.n_steps:,}"
        progress += f", {run.stopped}" if run.stopped else ""
        origin = run.record.origin
        progress += f", forked from {origin['run']} at {origin['step']:,}" if origin else ""
        progress += "; damaged, see `grokscope verify`" if run.damaged or run.gaps else ""
        return f"{quoted_name(folder.name):<24} {_task_in_words(run.record.config)}, {progress}"
    except GrokscopeError as error:
        return f"{quoted_name(folder.name):<24} {error}"


def _sweep_in_a_line(folder: Path) -> str:
    from grokscope.sweep import sweep_folder

    try:
        plan = sweep_folder.load(folder)
        return f"{quoted_name(folder.name):<24} sweep, {state_counts(plan, folder)}"
    except GrokscopeError as error:
        return f"{quoted_name(folder.name):<24} {error}"
