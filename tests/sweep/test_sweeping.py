"""`grokscope sweep`: what it prints, what it leaves on the disk, and that a mistake leaves nothing."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from support.shared import Command

from grokscope import training
from grokscope.disk.lock import LOCK, Lock
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import Sweep, read_sweep

Hand = Any
Read = Callable[[Path], dict[tuple[Any, ...], tuple[Any, ...]]]
Trained = tuple[Sweep, Path]
Written = Callable[..., Path]

SEEDS = "[sweep]\nseeds = [0, 1, 2]\nabout = 'Why it is swept.'"


def everything(folder: Path) -> dict[Path, bytes]:
    """Return every file in a folder with its bytes, but for the locks."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LOCK}


def test_a_sweep_from_its_file_to_its_tables_and_once_more(
    grokscope: Command,
    written: Written,
    make_hand: Callable[[str], Hand],
    hold: Callable[[Hand], None],
    whole: Path,
    saved: Read,
    tmp_path: Path,
):
    hold(hand := make_hand(""))
    path, root = written(SEEDS.replace("[0, 1, 2]", "[1]"), "mine.toml"), tmp_path / "runs"
    status, output, errors = grokscope("sweep", path, "--root", root, "--jobs", 1)
    assert (status, errors) == (0, "")
    assert output.startswith(f"{root / 'mine'}: 1 cell, 1 new. Why it is swept.\n")
    assert "\n1 cell, 1 finished\n" in output
    assert f"saved {root / 'mine' / 'results.csv'} and {root / 'mine' / 'summary.csv'}" in output
    assert sorted(path.name for path in (root / "mine").iterdir()) == [
        *("results.csv", "seed=1", "summary.csv", "sweep.json"),
    ]
    assert saved(root / "mine" / "seed=1") == saved(whole / "seed=1")
    # The control: other settings are other bits.
    assert saved(root / "mine" / "seed=1") != saved(whole / "seed=0")
    table = pandas.read_csv(root / "mine" / "results.csv")
    assert table["seed"].tolist() == [1] and table["state"].tolist() == ["finished"]
    assert sweep_folder.load(root / "mine") == read_sweep(path)

    before = everything(root)
    status, output, _ = grokscope("sweep", path, "--root", root)
    assert status == 0 and "1 cell, 1 finished. Why it is swept." in output
    assert hand.noted() == ["seed=1"], "nothing is done twice"
    assert everything(root) == before


def test_a_dry_run_says_the_state_of_every_cell_and_does_nothing(
    grokscope: Command, trained: Trained, written: Written
):
    _, folder = trained
    before = everything(folder)
    status, output, _ = grokscope("sweep", written(SEEDS), "--root", folder.parent, "--dry-run")
    assert status == 0
    said, *lines = output.splitlines()
    assert said == f"{folder}: 3 cells, 1 finished, 1 unfinished, 1 new. Why it is swept."
    assert [line.split() for line in lines] == [["finished", "seed=0"], ["unfinished", "seed=1"], ["new", "seed=2"]]
    assert everything(folder) == before
    with Lock(folder / "seed=1"):
        _, output, _ = grokscope("sweep", written(SEEDS), "--root", folder.parent, "--dry-run")
    assert "running" in output and output.splitlines()[2].split() == ["running", "seed=1"]


def test_a_dry_run_of_a_new_sweep_makes_no_folder(grokscope: Command, written: Written, tmp_path: Path):
    status, output, _ = grokscope("sweep", written(SEEDS), "--root", tmp_path / "runs", "--run", "x", "--dry-run")
    assert status == 0 and output.startswith(f"{tmp_path / 'runs' / 'x'}: 3 cells, 3 new.")
    assert not (tmp_path / "runs").exists()


def test_a_shard_does_its_part_alone(
    grokscope: Command, trained: Trained, written: Written, make_hand: Callable[[str], Hand], hold: Callable
):
    plan, folder = trained
    hold(hand := make_hand(""))
    seen = []
    for i in (1, 2, 3):
        _, output, _ = grokscope("sweep", written(SEEDS), "--root", folder.parent, "--shard", f"{i}/3", "--dry-run")
        seen += [line.split()[1] for line in output.splitlines()[1:]]
    assert seen == [cell.name for cell in plan.cells]
    # The first is finished, so there is nothing to do; the tables are of all cells.
    status, output, _ = grokscope("sweep", written(SEEDS), "--root", folder.parent, "--shard", "1/3")
    assert status == 0 and output.startswith(f"{folder}: 1 cell, 1 finished.") and hand.noted() == []
    assert "3 cells, 1 finished, 1 unfinished, 1 new" in output
    assert len(pandas.read_csv(folder / "results.csv")) == 3


def test_a_sweep_is_in_the_list_of_runs(grokscope: Command, trained: Trained):
    _, folder = trained
    status, output, _ = grokscope("list", "runs", "--root", folder.parent)
    assert status == 0 and re.fullmatch(r"small +sweep, 3 cells, 1 finished, 1 unfinished, 1 new\n", output)


def test_failed_cells_are_named_with_their_reasons_and_left(
    grokscope: Command, trained: Trained, written: Written, make_hand: Callable[[str], Hand], hold: Callable
):
    plan, folder = trained
    hold(hand := make_hand(""))
    for cell in plan.cells[1:]:
        sweep_folder.mark_failed(cell, folder, f"The reason of {cell.name}.")
    status, output, errors = grokscope("sweep", written(SEEDS), "--root", folder.parent)
    assert (status, errors) == (
        1,
        "grokscope: 2 cells failed; the same command with --retry tries them again:\n"
        "  seed=1: The reason of seed=1.\n  seed=2: The reason of seed=2.\n",
    )
    assert "3 cells, 2 failed, 1 finished" in output and hand.noted() == []
    table = pandas.read_csv(folder / "results.csv")
    assert table["reason"].tolist()[1:] == ["The reason of seed=1.", "The reason of seed=2."]


def test_a_cell_that_is_damaged_is_to_be_moved_away_first(
    grokscope: Command, trained: Trained, written: Written, make_hand: Callable[[str], Hand], hold: Callable
):
    plan, folder = trained
    hold(hand := make_hand(""))
    (folder / "seed=1" / "config.json").write_text("{")
    sweep_folder.mark_failed(plan.cells[2], folder, "So.")
    status, _, errors = grokscope("sweep", written(SEEDS), "--root", folder.parent)
    tried, reason, moved, damage = errors.splitlines()
    assert status == 1 and (tried, reason) == (
        "grokscope: 1 cell failed; the same command with --retry tries them again:",
        "  seed=2: So.",
    )
    assert moved.startswith("1 cell cannot be read; move the folder away, and the same command with --retry trains")
    assert damage.startswith(f"  seed=1: {folder / 'seed=1' / 'config.json'} is damaged")
    assert hand.noted() == []


def test_tables_that_cannot_be_written_hide_no_failure(grokscope: Command, trained: Trained, written: Written):
    plan, folder = trained
    for cell in plan.cells[1:]:
        sweep_folder.mark_failed(cell, folder, f"The reason of {cell.name}.")
    (folder / "results.csv").mkdir()
    status, output, errors = grokscope("sweep", written(SEEDS), "--root", folder.parent)
    assert status == 1 and "saved" not in output and "3 cells, 2 failed, 1 finished" in output
    assert "  seed=1: The reason of seed=1.\n  seed=2: The reason of seed=2.\n" in errors
    assert f"Could not replace {folder / 'results.csv'}: " in errors


def test_cells_that_another_process_trains_are_named(
    grokscope: Command, trained: Trained, written: Written, make_hand: Callable[[str], Hand], hold: Callable
):
    _, folder = trained
    hold(hand := make_hand(""))
    with Lock(folder / "seed=1"):
        status, output, errors = grokscope("sweep", written(SEEDS), "--root", folder.parent, "--shard", "2/3")
    assert (status, errors, hand.noted()) == (0, "", [])
    assert "1 cell is in the hands of another process, so the tables are not whole: seed=1." in output
    assert "seed=2" not in output, "it is of another shard"


def test_a_table_of_no_finished_cell_is_not_printed(grokscope: Command, trained: Trained, written: Written):
    plan, folder = trained
    for cell in plan.cells:
        sweep_folder.mark_failed(cell, folder, "So.")
    (folder / "seed=0").rename(folder.parent / "away")
    output = grokscope("sweep", written(SEEDS), "--root", folder.parent)[1]
    assert "median" not in output and "3 cells, 3 failed" in output


def test_the_summary_has_a_line_for_each_setting_with_its_interval(
    grokscope: Command, trained: Trained, written: Written
):
    plan, folder = trained
    training.resume(folder / "seed=1")
    training.train(plan.cells[2].config, "seed=2", folder)
    status, output, _ = grokscope("sweep", written(SEEDS), "--root", folder.parent)
    assert status == 0
    heading, line, legend = output.splitlines()[1:4]
    assert heading.split() == ["seeds", "train", "99%", "test", "99%", "best", "test"]
    assert re.fullmatch(r" *3  +∞ \[∞ – ∞\]  +∞ \[∞ – ∞\]  +\d+\.\d%", line)
    assert "median" in legend and "∞" in legend


@pytest.mark.slow
def test_longer_cells_go_on_where_they_ended(
    grokscope: Command, trained: Trained, written: Written, whole: Path, saved: Read
):
    _, folder = trained
    path = written("[sweep]\nseeds = [0]")
    path.write_text(path.read_text().replace("n_steps = 40", "n_steps = 60"))
    status, output, _ = grokscope("sweep", path, "--root", folder.parent)
    assert status == 0 and "1 cell, 1 unfinished." in output and "\n1 cell, 1 finished\n" in output
    assert saved(folder / "seed=0") == saved(whole / "long")


@pytest.mark.parametrize(("setting", "other"), [("lr = 1e-2", "lr = 2e-2"), ("n_steps = 40", "n_steps = 39")])
def test_other_settings_or_fewer_steps_are_refused_by_a_dry_run_too_and_change_nothing(
    setting: str, other: str, grokscope: Command, trained: Trained, written: Written
):
    _, folder = trained
    before = everything(folder)
    path = written(SEEDS)
    path.write_text(path.read_text().replace(setting, other))
    for more in ([], ["--dry-run"]):
        status, output, errors = grokscope("sweep", path, "--root", folder.parent, *more)
        assert (status, output) == (1, "")
        assert re.search(
            r"2 cells of these names with other settings or more steps, such as seed=0; .*--run name", errors
        )
    assert everything(folder) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--jobs", "0"], r"--jobs 0; allowed: a whole number from 1"),
        (["--jobs", "-2"], r"--jobs -2; allowed"),
        *(
            (["--shard", shard], rf"--shard {shard}: allowed: i/n with i from 1 to n")
            for shard in ("0/3", "4/3", "3", "a/b", "1/0", "/", "1/2/3", "-1/3")
        ),
        (["--run", "a/b"], "'a/b' is no name for a run"),
        (["--run", ".."], "no name for a run"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_a_wrong_argument_is_refused_before_any_file_exists(
    arguments: list[str], said: str, grokscope: Command, written: Written, tmp_path: Path
):
    status, _, errors = grokscope("sweep", written(SEEDS), "--root", tmp_path / "runs", *arguments)
    assert status == 1 and re.search(said, errors) and errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_backend_that_nobody_knows_is_refused_with_those_there_are(
    grokscope: Command, written: Written, tmp_path: Path
):
    status, _, errors = grokscope("sweep", written(SEEDS), "--root", tmp_path / "runs", "--backend", "slurm")
    assert status == 2 and all(word in errors for word in ("slurm", "local", "ray"))
    assert not (tmp_path / "runs").exists()


def test_ray_that_is_not_installed_is_one_error_before_any_file_exists(
    grokscope: Command, written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, errors = grokscope("sweep", written(SEEDS), "--root", tmp_path / "runs", "--backend", "ray")
    assert (status, errors) == (
        1,
        "grokscope: backend: 'ray' is not installed; `pip install 'grokscope[ray]'` adds it.\n",
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("varies", "said"),
    [
        ("[sweep]\nseeds = []", "sweep.seeds: []"),
        ("[sweep.grid]\noptimizer.lrr = [1]", "'optimizer.lrr'"),
        ("[sweep.grid]\ntask.train_fraction = [0.001]", "training set empty"),
        ("", "no table [sweep]"),
    ],
)
def test_a_wrong_file_is_one_message_and_no_file_is_written(
    varies: str, said: str, grokscope: Command, written: Written, tmp_path: Path
):
    path = written(varies)
    if "train_fraction" in varies:
        path.write_text(path.read_text().replace("train_fraction = 0.6\n", ""))
    status, output, errors = grokscope("sweep", path, "--root", tmp_path / "runs")
    assert (status, output) == (1, "") and said in errors and errors.startswith(f"grokscope: {path}: ")
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_not_there_is_named(grokscope: Command, tmp_path: Path):
    status, _, errors = grokscope("sweep", tmp_path / "none.toml")
    assert (status, errors) == (
        1,
        f"grokscope: {tmp_path / 'none.toml'} cannot be read: No such file or directory.\n",
    )


def test_the_folder_that_should_hold_the_sweep_is_a_file(grokscope: Command, written: Written, tmp_path: Path):
    (tmp_path / "runs").write_text("")
    status, _, errors = grokscope("sweep", written(SEEDS), "--root", tmp_path / "runs")
    assert status == 1 and str(tmp_path / "runs") in errors and errors.count("\n") == 1


def test_help_says_what_every_option_does(grokscope: Command):
    status, output, _ = grokscope("sweep", "--help")
    assert status == 0
    for option in ("--run", "--root", "--jobs", "--backend", "--shard", "--retry", "--allow-drift", "--dry-run"):
        assert option in output
    assert "sweep" in grokscope("--help")[1]
