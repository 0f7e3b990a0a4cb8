"""`grokscope sweep`: its output and its files; a wrong command writes no file."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from support.shared import Command
from support.sweeps import Probe

from grokscope import training
from grokscope.disk.lock import LOCK_NAME, Lock
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import Sweep, read_sweep

Read = Callable[[Path], dict[tuple[Any, ...], tuple[Any, ...]]]
PartialSweep = tuple[Sweep, Path]
WriteSweep = Callable[..., Path]

SEEDS = "[sweep]\nseeds = [0, 1, 2]\nabout = 'Its purpose.'"


def everything(folder: Path) -> dict[Path, bytes]:
    """Return every file in a folder, except locks, with its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LOCK_NAME}


def test_sweep_trains_writes_tables_and_repeats_nothing(
    grokscope: Command,
    write_sweep: WriteSweep,
    make_probe: Callable[[str], Probe],
    install_probe: Callable[[Probe], None],
    uninterrupted: Path,
    saved: Read,
    tmp_path: Path,
):
    install_probe(probe := make_probe(""))
    path, root = write_sweep(SEEDS.replace("[0, 1, 2]", "[1]"), "mine.toml"), tmp_path / "runs"
    status, output, errors = grokscope("sweep", path, "--root", root, "--jobs", 1)
    assert (status, errors) == (0, "")
    assert output.startswith(f"{root / 'mine'}: 1 cell, 1 new. Its purpose.\n")
    assert "\n1 cell, 1 finished\n" in output
    names = ("results.csv", "summary.csv", "results.parquet")
    assert f"saved {' and '.join(str(root / 'mine' / name) for name in names)}" in output
    assert sorted(path.name for path in (root / "mine").iterdir()) == [
        *("results.csv", "results.parquet", "seed=1", "summary.csv", "sweep.json"),
    ]
    assert saved(root / "mine" / "seed=1") == saved(uninterrupted / "seed=1")
    # Control: other settings give other bits.
    assert saved(root / "mine" / "seed=1") != saved(uninterrupted / "seed=0")
    table = pandas.read_csv(root / "mine" / "results.csv")
    assert table["seed"].tolist() == [1] and table["state"].tolist() == ["finished"]
    assert sweep_folder.load(root / "mine") == read_sweep(path)
    condition = (
        "sweep-table",
        "mine",
        "--root",
        root,
        "--where",
        "seed = 1",
        "--column",
        "seed",
        "--column",
        "state",
    )
    assert grokscope(*condition)[1] == " seed    state\n    1 finished\n1 of 1 cell\n"
    assert grokscope(*condition, "--csv")[1] == "seed,state\n1,finished\n"
    status, _, errors = grokscope("sweep-table", "mine", "--root", root, "--where", "sed = 1")
    assert status == 2 and "no such column: sed" in errors and "Columns: cell, seed" in errors

    before = everything(root)
    status, output, _ = grokscope("sweep", path, "--root", root)
    assert status == 0 and "1 cell, 1 finished. Its purpose." in output
    assert probe.notes() == ["seed=1"], "nothing is trained twice"
    assert everything(root) == before


def test_dry_run_prints_states_and_changes_nothing(
    grokscope: Command, partial_sweep: PartialSweep, write_sweep: WriteSweep
):
    _, folder = partial_sweep
    before = everything(folder)
    status, output, _ = grokscope("sweep", write_sweep(SEEDS), "--root", folder.parent, "--dry-run")
    assert status == 0
    heading, *lines = output.splitlines()
    assert heading == f"{folder}: 3 cells, 1 finished, 1 unfinished, 1 new. Its purpose."
    assert [line.split() for line in lines] == [["finished", "seed=0"], ["unfinished", "seed=1"], ["new", "seed=2"]]
    assert everything(folder) == before
    with Lock(folder / "seed=1"):
        _, output, _ = grokscope("sweep", write_sweep(SEEDS), "--root", folder.parent, "--dry-run")
    assert "running" in output and output.splitlines()[2].split() == ["running", "seed=1"]


def test_dry_run_of_a_new_sweep_makes_no_folder(grokscope: Command, write_sweep: WriteSweep, tmp_path: Path):
    status, output, _ = grokscope("sweep", write_sweep(SEEDS), "--root", tmp_path / "runs", "--run", "x", "--dry-run")
    assert status == 0 and output.startswith(f"{tmp_path / 'runs' / 'x'}: 3 cells, 3 new.")
    assert not (tmp_path / "runs").exists()


def test_shard_trains_only_its_cells(
    grokscope: Command,
    partial_sweep: PartialSweep,
    write_sweep: WriteSweep,
    make_probe: Callable[[str], Probe],
    install_probe: Callable,
):
    plan, folder = partial_sweep
    install_probe(probe := make_probe(""))
    names = []
    for i in (1, 2, 3):
        _, output, _ = grokscope(
            "sweep", write_sweep(SEEDS), "--root", folder.parent, "--shard", f"{i}/3", "--dry-run"
        )
        names += [line.split()[1] for line in output.splitlines()[1:]]
    assert names == [cell.name for cell in plan.cells]
    # The only cell of this shard is finished; the tables contain all cells.
    status, output, _ = grokscope("sweep", write_sweep(SEEDS), "--root", folder.parent, "--shard", "1/3")
    assert status == 0 and output.startswith(f"{folder}: 1 cell, 1 finished.") and probe.notes() == []
    assert "3 cells, 1 finished, 1 unfinished, 1 new" in output
    assert len(pandas.read_csv(folder / "results.csv")) == 3


def test_sweep_is_listed_among_runs(grokscope: Command, partial_sweep: PartialSweep):
    _, folder = partial_sweep
    status, output, _ = grokscope("list", "runs", "--root", folder.parent)
    assert status == 0 and re.fullmatch(r"small +sweep, 3 cells, 1 finished, 1 unfinished, 1 new\n", output)


def test_failed_cells_are_named_and_not_retried(
    grokscope: Command,
    partial_sweep: PartialSweep,
    write_sweep: WriteSweep,
    make_probe: Callable[[str], Probe],
    install_probe: Callable,
):
    plan, folder = partial_sweep
    install_probe(probe := make_probe(""))
    for cell in plan.cells[1:]:
        sweep_folder.mark_failed(cell, folder, f"The reason of {cell.name}.")
    status, output, errors = grokscope("sweep", write_sweep(SEEDS), "--root", folder.parent)
    assert (status, errors) == (
        1,
        "grokscope: 2 cells failed. To try again, add --retry to the same command:\n"
        "  seed=1: The reason of seed=1.\n  seed=2: The reason of seed=2.\n",
    )
    assert "3 cells, 2 failed, 1 finished" in output and probe.notes() == []
    table = pandas.read_csv(folder / "results.csv")
    assert table["reason"].tolist()[1:] == ["The reason of seed=1.", "The reason of seed=2."]


def test_damaged_cell_must_be_moved_away_first(
    grokscope: Command,
    partial_sweep: PartialSweep,
    write_sweep: WriteSweep,
    make_probe: Callable[[str], Probe],
    install_probe: Callable,
):
    plan, folder = partial_sweep
    install_probe(probe := make_probe(""))
    (folder / "seed=1" / "config.json").write_text("{")
    sweep_folder.mark_failed(plan.cells[2], folder, "So.")
    status, _, errors = grokscope("sweep", write_sweep(SEEDS), "--root", folder.parent)
    heading, reason, advice, damage = errors.splitlines()
    assert status == 1 and (heading, reason) == (
        "grokscope: 1 cell failed. To try again, add --retry to the same command:",
        "  seed=2: So.",
    )
    assert advice.startswith("1 cell cannot be read. To train again, move the folder away and add --retry to the")
    assert damage.startswith(f"  seed=1: {folder / 'seed=1' / 'config.json'} is damaged")
    assert probe.notes() == []


def test_unwritable_tables_do_not_hide_failures(
    grokscope: Command, partial_sweep: PartialSweep, write_sweep: WriteSweep
):
    plan, folder = partial_sweep
    for cell in plan.cells[1:]:
        sweep_folder.mark_failed(cell, folder, f"The reason of {cell.name}.")
    (folder / "results.csv").mkdir()
    status, output, errors = grokscope("sweep", write_sweep(SEEDS), "--root", folder.parent)
    assert status == 1 and "saved" not in output and "3 cells, 2 failed, 1 finished" in output
    assert "  seed=1: The reason of seed=1.\n  seed=2: The reason of seed=2.\n" in errors
    assert f"Could not replace {folder / 'results.csv'}: " in errors


def test_cells_in_use_are_named(
    grokscope: Command,
    partial_sweep: PartialSweep,
    write_sweep: WriteSweep,
    make_probe: Callable[[str], Probe],
    install_probe: Callable,
):
    _, folder = partial_sweep
    install_probe(probe := make_probe(""))
    with Lock(folder / "seed=1"):
        status, output, errors = grokscope("sweep", write_sweep(SEEDS), "--root", folder.parent, "--shard", "2/3")
    assert (status, errors, probe.notes()) == (0, "", [])
    assert "The tables are incomplete, because another process trains 1 cell: seed=1." in output
    assert "seed=2" not in output, "seed=2 belongs to another shard"


def test_summary_without_finished_cells_is_not_printed(
    grokscope: Command, partial_sweep: PartialSweep, write_sweep: WriteSweep
):
    plan, folder = partial_sweep
    for cell in plan.cells:
        sweep_folder.mark_failed(cell, folder, "So.")
    (folder / "seed=0").rename(folder.parent / "away")
    output = grokscope("sweep", write_sweep(SEEDS), "--root", folder.parent)[1]
    assert "edian" not in output and "3 cells, 3 failed" in output


def test_summary_has_a_line_per_setting_with_intervals(
    grokscope: Command, partial_sweep: PartialSweep, write_sweep: WriteSweep
):
    plan, folder = partial_sweep
    training.resume(folder / "seed=1")
    training.train(plan.cells[2].config, "seed=2", folder)
    status, output, _ = grokscope("sweep", write_sweep(SEEDS), "--root", folder.parent)
    assert status == 0
    heading, line, legend = output.splitlines()[1:4]
    assert heading.split() == ["seeds", "train", "99%", "test", "99%", "best", "test"]
    assert re.fullmatch(r" *3  +∞ \[∞ – ∞\]  +∞ \[∞ – ∞\]  +\d+\.\d%", line)
    assert "Median" in legend and "∞" in legend


@pytest.mark.slow
def test_cells_with_more_steps_resume(
    grokscope: Command, partial_sweep: PartialSweep, write_sweep: WriteSweep, uninterrupted: Path, saved: Read
):
    _, folder = partial_sweep
    path = write_sweep("[sweep]\nseeds = [0]")
    path.write_text(path.read_text().replace("n_steps = 40", "n_steps = 60"))
    status, output, _ = grokscope("sweep", path, "--root", folder.parent)
    assert status == 0 and "1 cell, 1 unfinished." in output and "\n1 cell, 1 finished\n" in output
    assert saved(folder / "seed=0") == saved(uninterrupted / "long")


@pytest.mark.parametrize(("setting", "replacement"), [("lr = 1e-2", "lr = 2e-2"), ("n_steps = 40", "n_steps = 39")])
def test_other_settings_or_fewer_steps_are_refused(
    setting: str, replacement: str, grokscope: Command, partial_sweep: PartialSweep, write_sweep: WriteSweep
):
    _, folder = partial_sweep
    before = everything(folder)
    path = write_sweep(SEEDS)
    path.write_text(path.read_text().replace(setting, replacement))
    for options in ([], ["--dry-run"]):
        status, output, errors = grokscope("sweep", path, "--root", folder.parent, *options)
        assert (status, output) == (1, "")
        assert re.search(
            r"2 cells of these names with other settings or more steps, such as seed=0\. .*--run name", errors
        )
    assert everything(folder) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "0"], r"--jobs 0; allowed: a whole number from 1"),
        (["--jobs", "-2"], r"--jobs -2; allowed"),
        *(
            (["--shard", shard], rf"--shard {shard}: allowed: i/n with i from 1 to n")
            for shard in ("0/3", "4/3", "3", "a/b", "1/0", "/", "1/2/3", "-1/3")
        ),
        (["--run", "a/b"], "'a/b' is not a valid name for a run"),
        (["--run", ".."], "not a valid name for a run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_argument_writes_no_file(
    arguments: list[str], message: str, grokscope: Command, write_sweep: WriteSweep, tmp_path: Path
):
    status, _, errors = grokscope("sweep", write_sweep(SEEDS), "--root", tmp_path / "runs", *arguments)
    assert status == 2 and re.search(message, errors) and errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_unknown_backend_is_refused_with_the_allowed_names(
    grokscope: Command, write_sweep: WriteSweep, tmp_path: Path
):
    status, _, errors = grokscope("sweep", write_sweep(SEEDS), "--root", tmp_path / "runs", "--backend", "slurm")
    assert status == 2 and all(word in errors for word in ("slurm", "local", "ray"))
    assert not (tmp_path / "runs").exists()


def test_missing_ray_is_an_error_and_writes_no_file(
    grokscope: Command, write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, errors = grokscope("sweep", write_sweep(SEEDS), "--root", tmp_path / "runs", "--backend", "ray")
    assert (status, errors) == (
        1,
        "grokscope: backend: 'ray' is not installed; `pip install 'grokscope[ray]'` adds it.\n",
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("varies", "message"),
    [
        ("[sweep]\nseeds = []", "sweep.seeds: []"),
        ("[sweep.grid]\noptimizer.lrr = [1]", "'optimizer.lrr'"),
        ("[sweep.grid]\ntask.train_fraction = [0.001]", "training set empty"),
        ("", "no table [sweep]"),
    ],
)
def test_wrong_file_is_an_error_and_writes_no_file(
    varies: str, message: str, grokscope: Command, write_sweep: WriteSweep, tmp_path: Path
):
    path = write_sweep(varies)
    if "train_fraction" in varies:
        path.write_text(path.read_text().replace("train_fraction = 0.6\n", ""))
    status, output, errors = grokscope("sweep", path, "--root", tmp_path / "runs")
    assert (status, output) == (2, "") and message in errors and errors.startswith(f"grokscope: {path}: ")
    assert not (tmp_path / "runs").exists()


def test_missing_file_is_named(grokscope: Command, tmp_path: Path):
    status, _, errors = grokscope("sweep", tmp_path / "none.toml")
    assert (status, errors) == (
        1,
        f"grokscope: {tmp_path / 'none.toml'} cannot be read: No such file or directory.\n",
    )


def test_root_that_is_a_file_is_an_error(grokscope: Command, write_sweep: WriteSweep, tmp_path: Path):
    (tmp_path / "runs").write_text("")
    status, _, errors = grokscope("sweep", write_sweep(SEEDS), "--root", tmp_path / "runs")
    assert status == 1 and str(tmp_path / "runs") in errors and errors.count("\n") == 1


def test_help_names_every_option(grokscope: Command):
    status, output, _ = grokscope("sweep", "--help")
    assert status == 0
    for option in ("--run", "--root", "--jobs", "--backend", "--shard", "--retry", "--allow-drift", "--dry-run"):
        assert option in output
    assert "sweep" in grokscope("--help")[1]
