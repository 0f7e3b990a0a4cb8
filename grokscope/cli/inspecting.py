"""Commands that read: measure, report, verify, log, list."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from grokscope import plugins
from grokscope.cli.arguments import ROOT, OfRun, UsageError, parse, shown, states, warned
from grokscope.disk import atomic
from grokscope.errors import GrokscopeError, quoted_name, unknown_name

if TYPE_CHECKING:
    from grokscope.config import RunConfig


def verify(arguments: list[str]) -> None:
    """Read everything that a run has saved and name whatever is damaged or lost."""

    @dataclass(frozen=True)
    class Verify(OfRun):
        """Read everything that a run has saved and name whatever is damaged or lost; exit status 1 if anything is."""

    asked = parse(Verify, "verify", arguments)

    from grokscope.store import verify as store_verify
    from grokscope.store.run_store import RunStore

    run = RunStore(asked.folder)
    found = list(store_verify.faults(run))
    for fault in found:
        print(shown(fault.sentence))
    open_faults = [fault for fault in found if not fault.is_mended]
    if open_faults:
        remedies = dict.fromkeys(fault.remedy for fault in open_faults if fault.remedy)
        rest = "Everything else is readable." if run.segments else "Nothing is readable."
        said = f"{asked.folder}: {len(open_faults)} fault{'s' * (len(open_faults) > 1)}. {rest}"
        raise GrokscopeError("\n".join([said, *(f"  {remedy}" for remedy in remedies)]))
    there = f"{asked.folder}: {len(run.steps):,} checkpoints in {len(run.segments):,} segments"
    print(f"{there}; all that can be had again is there." if found else f"{there}, all intact.")


def log(arguments: list[str]) -> None:
    """Print a run's log as JSON lines: losses and accuracies at every evaluated step."""

    @dataclass(frozen=True)
    class Log(OfRun):
        """Print a run's log as JSON lines. The row of step t belongs to the parameters after t updates."""

    asked = parse(Log, "log", arguments)

    from grokscope.store.run_store import LOG_COLUMNS, RunStore

    run = RunStore(asked.folder)
    rows = run.log.rows.tolist()
    warned(run)
    for row in rows:
        print(json.dumps({**dict(zip(LOG_COLUMNS, row, strict=True)), "step": int(row[0])}))


def list_(arguments: list[str]) -> None:
    """List the tasks, optimizers, measures, figures, presets or runs there are."""

    @dataclass(frozen=True)
    class List:
        """List the tasks, optimizers, measures, figures, presets or runs there are."""

        what: tyro.conf.Positional[str]
        """One of: tasks, optimizers, measures, figures, presets, runs."""
        root: Path = ROOT
        """The folder that holds the runs."""

    asked = parse(List, "list", arguments)
    kinds = [*plugins.BUILT_IN, "presets", "runs"]
    if asked.what in plugins.BUILT_IN:
        lines = plugins.names(asked.what)
    elif asked.what == "presets":
        from grokscope.config import presets

        width = max(map(len, presets.names())) + 2
        lines = [f"{name:<{width}}{_in_a_line(presets.get(name))}" for name in presets.names()]
    elif asked.what == "runs":
        folders = _folders(asked.root)
        runs = [folder for folder in folders if _is_run(folder)]
        lines = [_run_in_a_line(folder) for folder in runs]
        lines += [_sweep_in_a_line(one) for one in folders if one not in runs and atomic.is_there(one / "sweep.json")]
        lines = lines or [f"There is no run in {asked.root}."]
    else:
        raise UsageError(unknown_name("list", asked.what, kinds))
    print("\n".join(shown(line) for line in lines))


def _folders(root: Path) -> list[Path]:
    """Return what is in the root and not hidden; nothing if there is no root. Raise OSError if it cannot be read."""
    try:
        return sorted(root / name for name in os.listdir(root) if not name.startswith("."))
    except FileNotFoundError:
        return []


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run, or may be one and cannot be looked into, which its line then says."""
    try:
        return atomic.is_there(folder / "config.json")
    except GrokscopeError:
        return True


def _in_a_line(config: "RunConfig") -> str:
    model, optimizer = config.model, config.optimizer
    parts = [
        f"{_task_in_words(config)}",
        f"{config.task.train_fraction:.0%} trained on",
        f"{model.n_layers} layer{'s' if model.n_layers > 1 else ''}",
        f"{optimizer.name} lr {optimizer.lr:g}" + f" decay {optimizer.weight_decay:g}" * bool(optimizer.weight_decay),
        "to initialization" * (optimizer.decay_centre != "zero"),
        f"update noise {optimizer.update_noise:g}" * bool(optimizer.update_noise),
        f"weight noise {optimizer.weight_noise:g}" * bool(optimizer.weight_noise),
        f"dropout {config.residual_dropout:g}" * bool(config.residual_dropout),
        f"batch {config.batch_size}" if config.batch_size else "full batch",
        f"{config.n_steps:,} steps",
    ]
    return ", ".join(part for part in parts if part)


def _task_in_words(config: "RunConfig") -> str:
    """Return the task's name with what it is on; as short as can be said without building it."""
    domains = {"p": f" mod {config.task.p}", "group": f" in {config.task.group}"}
    return config.task.name + domains.get(plugins.domain_setting(config.task.name), "")


def _run_in_a_line(folder: Path) -> str:
    from grokscope.store.run_store import RunStore

    try:
        run = RunStore(folder)
        if not run.segments:
            raise GrokscopeError(" ".join(run.damaged))
        done = f"{run.last_step:,} of {run.record.config.n_steps:,} steps, {len(run.steps):,} checkpoints"
        if run.record.imported:
            done = f"imported, {len(run.steps):,} checkpoints to step {run.record.config.n_steps:,}"
        origin = run.record.origin
        done += f", forked from {origin['run']} at {origin['step']:,}" if origin else ""
        done += "; something is lost, see `grokscope verify`" if run.damaged or run.gaps else ""
        return f"{quoted_name(folder.name):<24} {_task_in_words(run.record.config)}, {done}"
    except GrokscopeError as error:
        return f"{quoted_name(folder.name):<24} {error}"


def _sweep_in_a_line(folder: Path) -> str:
    from grokscope.sweep import sweep_folder

    try:
        plan = sweep_folder.load(folder)
        return f"{quoted_name(folder.name):<24} sweep, {states(plan, folder)}"
    except GrokscopeError as error:
        return f"{quoted_name(folder.name):<24} {error}"
