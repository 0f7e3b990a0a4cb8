"""The commands `measure` and `report`."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.shared import Command, refuse

from grokscope import measures, plugins
from grokscope.errors import DamagedError, GrokscopeError
from grokscope.series import Series


def test_measure_takes_options_and_saves_results(run_copy: Path, grokscope: Command):
    names, options = ("embedding", "unembedding"), ("--set", "seed=2", "--set", "n_components=3", "--thin", "2")
    status, output, errors = grokscope("measure", run_copy, *names, *options)
    assert status == 0, errors
    assert re.search(r"^embedding +2 of 7 checkpoints .*\nunembedding +2 of 7 checkpoints", output)
    files = {path.name: Series.load(path) for path in (run_copy / "measures").iterdir()}
    assert [series.options["seed"] for series in files.values()] == [2, 2]
    assert all(re.fullmatch(r"(un)?embedding-[0-9a-f]{12}\.safetensors", name) for name in files)


def test_unreadable_measure_is_named(run_copy: Path, grokscope: Command, monkeypatch: pytest.MonkeyPatch):
    refuse(monkeypatch, run_copy / "measures")
    status, _, errors = grokscope("measure", run_copy, "loss")
    assert status == 1 and f"{run_copy / 'measures' / 'loss.safetensors'} cannot be reached" in errors


@pytest.fixture
def few_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave three quick measures, two that refuse the task, and two faulty ones of another package."""

    def refused(trajectory: Any) -> Series:
        raise GrokscopeError("The task is not circular.")

    def as_dict(trajectory: Any) -> Any:
        return {"loss": 1.0}

    def broken() -> None:
        raise ImportError("no module named 'knots'")

    registered = plugins._registered("measures")
    few = {name: registered[name] for name in ("path", "weight_norm", "embedding")}
    few |= {name: SimpleNamespace(load=lambda: refused) for name in ("circular", "also_circular")}
    few |= {"as_dict": SimpleNamespace(load=lambda: as_dict), "broken": SimpleNamespace(load=broken)}
    for name in set(registered) - set(few):
        monkeypatch.delitem(registered, name)
    for name, point in few.items():
        monkeypatch.setitem(registered, name, point)


@pytest.mark.usefixtures("few_measures")
def test_measure_without_names_skips_and_lists_refusals(run_copy: Path, grokscope: Command):
    status, output, errors = grokscope("measure", run_copy, "--thin", 2)
    assert status == 0, errors
    skipped = output.partition("4 measures skipped:")[2]
    for reason in (
        "broken: The measure 'broken' cannot be loaded: ImportError: no module named 'knots'",
        "also_circular, circular: The task is not circular.",
        "as_dict: The measure 'as_dict' returned {'loss': 1.0}; allowed: a grokscope.Series.",
    ):
        assert reason in skipped
    saved = {path.name for path in (run_copy / "measures").iterdir()}
    assert saved == {"path.safetensors", "weight_norm.safetensors", "embedding.safetensors"}


@pytest.mark.usefixtures("few_measures")
def test_measures_skipped_for_one_reason_share_a_line(run_copy: Path, grokscope: Command):
    _, _, errors = grokscope("measure", run_copy, "circular", "also_circular", "path", "--thin", 2)
    assert "2 measures skipped:\n  circular, also_circular: The task is not circular." in errors


@pytest.mark.usefixtures("few_measures")
def test_option_without_names_goes_to_measures_that_have_it(run_copy: Path, grokscope: Command):
    status, output, errors = grokscope("measure", run_copy, "--thin", 2, "--set", "seed=3")
    assert status == 0, errors
    assert "embedding" in output and "weight_norm: Unknown option" in output
    (path,) = (run_copy / "measures").iterdir()
    assert Series.load(path).options["seed"] == 3
    status, _, errors = grokscope("measure", run_copy, "--set", "sede=3")
    assert status == 2 and "'sede'" in errors
    status, _, errors = grokscope("measure", run_copy, "--set", "seed=first")
    assert status == 2 and "seed = 'first'; allowed: a whole number" in errors


@pytest.mark.usefixtures("few_measures")
def test_only_named_measure_that_refuses_ends_its_line(run_copy: Path, grokscope: Command):
    status, output, errors = grokscope("measure", run_copy, "circular")
    assert status == 1 and errors.startswith("grokscope: The task is not circular.")
    assert output == "circular     not measured\n"


@pytest.mark.usefixtures("few_measures")
def test_named_measure_that_refuses_fails_after_the_others(run_copy: Path, grokscope: Command):
    status, output, errors = grokscope("measure", run_copy, "circular", "path", "--thin", 2)
    assert status == 1 and re.search("^path +2 of 7", output, re.MULTILINE)
    assert "1 measure skipped:\n  circular: The task is not circular." in errors


def test_errors_of_the_run_are_not_refusals_of_a_measure():
    assert measures.is_refusal(GrokscopeError("The task is not circular."))
    assert not measures.is_refusal(DamagedError("damaged"))
    full = GrokscopeError("The disk is full.")
    full.__cause__ = OSError()
    assert not measures.is_refusal(full)
