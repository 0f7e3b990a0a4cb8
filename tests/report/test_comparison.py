"""The page of several runs as HTML: what distinguishes the runs, and what became of each."""

import shutil

import numpy as np
import pytest
from support.pages import read_page, read_payload, unpack

from grokscope import cli, report
from grokscope.errors import GrokscopeError
from grokscope.report import comparison
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import read_sweep
from grokscope.trajectory import Trajectory


def test_runs_are_distinguished_by_their_differences(seeds_page):
    payload = read_payload(seeds_page)
    assert seeds_page.name == "comparison-tiny-other-slow.html" and payload["axes"] == ["optimizer.lr", "seed"]
    assert [run["settings"]["seed"] for run in payload["runs"]] == [0, 1, 0]
    assert [run["settings"]["optimizer.lr"] for run in payload["runs"]] == [0.01, 0.01, 0.0001]


def test_settings_that_a_task_does_not_use_are_left_out(tasks_page):
    settings = {run["name"]: run["settings"] for run in read_payload(tasks_page)["runs"]}
    assert settings["a_sum"] == {"task.name": "addition", "task.p": 11, "model.d_mlp": 24}
    assert settings["a_product_in_some_group"] == {
        "task.name": "composition",
        "task.group": "D4",
        "model.d_mlp": 32,
    }
    assert "—" in read_page(tasks_page).text["td"]


def test_curves_are_those_of_the_log_and_saved_measures(seeds_page):
    for run in read_payload(seeds_page)["runs"]:
        trajectory = Trajectory.open(seeds_page.parent / run["name"])
        curve = run["curves"]["log.test_loss"]
        assert unpack(curve["steps"]).tolist() == trajectory.log.steps.tolist()
        np.testing.assert_allclose(unpack(curve["values"]), trajectory.log["test_loss"], rtol=1e-6)
        assert ("weight_norm.weight_norm" in run["curves"]) == (run["name"] != "slow")


def test_sweep_page_states_each_cell_and_links_to_its_page(sweep):
    page = read_page(sweep / "report.html")
    assert "Tiny runs." in page.text["p"] and page.text["h1"] == "small"
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a" and "class" not in attributes]
    assert links == ["weight_decay%3D0%2Blr%3D0.01%2Bseed%3D0/report.html"]
    assert "grokscope report small --cells" in page.text["code"]
    assert "not started" in page.text["td"] and "config.json is damaged" in page.text["td"]
    assert sum(tag == "tr" and "data-name" in attributes for tag, attributes in page.elements) == 4
    assert len(read_payload(sweep / "report.html")["runs"]) == 2


def test_summary_counts_phases_and_delays():
    rows = [
        {"phase": "grokking", "memorized": 10, "generalised": 100},
        {"phase": "grokking", "memorized": 10, "generalised": 300},
        {"phase": "memorization", "memorized": 10, "generalised": None},
        {"phase": "", "memorized": None, "generalised": None},
    ]
    summary = comparison.summary(rows)
    assert summary.startswith("4 runs: 2 grokking, 1 memorization, 1 without a phase")
    assert "a median of 20 times" in summary
    assert "(10 to 30)." in summary
    assert comparison.summary(rows[1:3]).endswith("Generalisation took 30 times as many steps as memorization.")
    assert comparison.summary(rows[2:]).startswith("2 runs: 1 memorization, 1 without a phase")


def test_folders_without_a_run_are_refused(tmp_path, tiny_run):
    with pytest.raises(GrokscopeError, match="not a run|no folder"):
        report.write_comparison([tiny_run, tmp_path / "none"])


def test_sweep_without_a_log_is_refused(sweep, tmp_path):
    folder = tmp_path / "empty"
    sweep_folder.save(read_sweep(sweep.parent / "sweep.toml"), folder)
    with pytest.raises(GrokscopeError, match="no run with a readable log"):
        report.write_comparison([folder])


def test_command_compares_several_runs(tiny_run, tmp_path, capsys):
    for name in ("first", "second"):
        shutil.copytree(tiny_run, tmp_path / name)
    cli.main(["report", "first", "second", "--root", str(tmp_path)])
    assert f"report   {tmp_path / 'comparison-first-second.html'}" in capsys.readouterr().out


def test_comparisons_of_other_runs_have_other_pages(tiny_run, tmp_path):
    folders = [shutil.copytree(tiny_run, tmp_path / name) for name in ("a", "b", "c" * 50, "d" * 50)]
    paths = [report.write_comparison([folders[0], other]) for other in folders[1:]]
    paths += [report.write_comparison(folders[2:]), report.write_comparison(folders[:1:-1])]
    assert len({path.name for path in paths}) == 5 and max(len(path.name) for path in paths) < 120


def test_command_needs_a_run():
    with pytest.raises(SystemExit) as ended:
        cli.main(["report"])
    assert ended.value.code == 2


def test_damaged_cell_does_not_stop_pages_of_other_cells(sweep, tmp_path, capsys):
    folder = shutil.copytree(sweep, tmp_path / "again")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    damaged = next(name for name in names if (folder / name / "config.json").read_text() == "damaged")
    (folder / names[0] / "report.html").unlink()
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(folder), "--cells"])
    output, errors = capsys.readouterr()
    assert ended.value.code == 1
    assert "1 cell could not be reported:" in errors and f"  {damaged}: " in errors and "Traceback" not in errors
    assert output.splitlines()[-1] == f"report   {folder / 'report.html'}"
    undamaged = [name for name in names if name != damaged]
    assert [name for name in names if (folder / name / "report.html").is_file()] == undamaged
    linked = {run["name"] for run in read_payload(folder / "report.html")["runs"] if run["link"]}
    assert linked == set(undamaged)
    assert len(undamaged) == 2
