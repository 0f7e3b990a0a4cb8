"""The process of a cell: its exit status tells the sweep how the training ended."""

import io
import json
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from support.shared import refuse

from grokscope.disk.lock import Lock
from grokscope.sweep import train_cell
from grokscope.sweep.plan import Sweep
from grokscope.sweep.sweep_folder import BUSY, IO_ERROR


@pytest.mark.parametrize("is_taken", [True, False])
def test_status_of_a_cell_in_use_is_busy(
    is_taken: bool, partial_sweep: tuple[Sweep, Path], monkeypatch: pytest.MonkeyPatch
):
    plan, folder = partial_sweep
    monkeypatch.setattr(train_cell, "_stop_with_parent", lambda parent: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(plan.cells[1].config.to_dict())))
    with Lock(folder / "seed=1") if is_taken else nullcontext():
        assert train_cell.main([str(folder / "seed=1"), "1"]) == (BUSY if is_taken else 0)


def test_status_of_an_unreadable_folder_is_io_error(
    partial_sweep: tuple[Sweep, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    plan, folder = partial_sweep
    monkeypatch.setattr(train_cell, "_stop_with_parent", lambda parent: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(plan.cells[1].config.to_dict())))
    refuse(monkeypatch, folder / "seed=1")
    assert train_cell.main([str(folder / "seed=1"), "1"]) == IO_ERROR
    assert "Permission denied" in capsys.readouterr().err
