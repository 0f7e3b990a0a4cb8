"""The page of an imported run shows its files, what was found in them and what was asserted, and no training."""

import hashlib
import re
from pathlib import Path

import pytest
import torch

from grokscope import Trajectory, report
from grokscope.interop.import_run import import_checkpoints
from grokscope.report.provenance import Provenance
from grokscope.store.record import Record

pytestmark = pytest.mark.filterwarnings("ignore:.*above chance")


@pytest.fixture
def imported(tiny_run: Path, tmp_path: Path) -> Path:
    """An import of the tiny run's last checkpoint under a name that is also HTML."""
    original = Trajectory.open(tiny_run)
    path = tmp_path / "step_60 <b>.pt"
    torch.save({"model": original.last.parameters, "config": {"lr": 0.5}}, path)
    run = import_checkpoints([path], original.config, "imported", tmp_path, split="grokscope:0").path
    assert run is not None
    return run


def test_page_of_an_import_claims_no_training(imported: Path):
    page = report.write(Trajectory.open(imported)).read_text(encoding="utf-8")
    text = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    assert "grokscope train" not in text and "bit for bit" not in text and "Reproduce this run" not in text
    assert "never trained it, so no command reproduces it" in text
    file = imported.parent / "step_60 <b>.pt"
    assert hashlib.sha256(file.read_bytes()).hexdigest() in text and "step_60 &lt;b&gt;.pt" in text
    assert "config of the file: lr" in text and "--split grokscope:0 with train_fraction" in text
    assert "The files do not name the activation function" in text


def test_asserted_settings_are_those_not_found(imported: Path):
    provenance = Provenance.of(Record.read(imported))
    assert provenance is not None
    properties = dict(provenance.properties)
    assert properties["model.n_heads"] == "2" and properties["model.normalization_type"] == "none"
    assert 'name = "addition"' in provenance.asserted and "p = 7" in provenance.asserted
    assert "act_fn" in provenance.asserted and "d_model" not in provenance.asserted
    assert "n_steps" not in provenance.asserted and "checkpoints" not in provenance.asserted


def test_import_of_grokscope_0_2_0_has_files_only(imported: Path):
    record = Record.read(imported)
    event = {"event": "imported", "files": [{"name": "a.pt", "sha256": "00"}], "answers_only": True}
    old = Provenance.of(Record(record.config, {}, record.data_digest, (event,)))
    assert old is not None and old.files == (("a.pt", "00"),) and old.split == "unknown" and old.notes == ()
    forged = {**event, "files": "x", "found": [], "notes": {"a": 1}, "doubts": None}
    nothing = Provenance.of(Record(record.config, {}, record.data_digest, (forged,)))
    assert nothing is not None and nothing.files == () and nothing.properties == () and nothing.doubts == ()


def test_trained_run_has_no_provenance(tiny_run: Path):
    assert Provenance.of(Record.read(tiny_run)) is None


def test_doubts_are_alarms_on_the_page(tiny_run: Path, tmp_path: Path):
    original = Trajectory.open(tiny_run)
    torch.save(original.last.parameters, tmp_path / "step_60.pt")
    run = import_checkpoints([tmp_path / "step_60.pt"], original.config, "run", tmp_path)
    page = report.write(run).read_text(encoding="utf-8")
    assert re.search(r'<p class="alarm">At step 60 the softmax loss over all equations is [\d.]+, above chance', page)


def test_import_has_no_recipe(imported: Path):
    recipe = report.retraining_recipe(Record.read(imported), "imported")
    assert recipe.commands == () and not recipe.is_exact
    assert recipe.remarks == ("grokscope imported this run and never trained it.",)
