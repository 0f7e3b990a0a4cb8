"""Published checkpoint files give the published numbers; the tests skip where the files are absent."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from grokscope import Trajectory, measures
from grokscope.config import TaskConfig, presets
from grokscope.config.run_config import RunConfig, from_dict
from grokscope.errors import GrokscopeError
from grokscope.interop.import_run import import_checkpoints
from grokscope.store.record import Record

FOREIGN = Path(os.environ.get("GROKSCOPE_FOREIGN", Path(__file__).parents[3] / "shared" / "foreign"))
NANDA = FOREIGN / "nanda2023"
ROOT = Path(__file__).parents[2]
needs_files = pytest.mark.skipif(not FOREIGN.is_dir(), reason="the published files are not here")
RESULTS = ROOT / "analyses" / "results" / "published_checkpoints.json"


def import_nanda(name: str, folder: Path, split: str | None, train_fraction: float = 0.3) -> Trajectory:
    (path,) = NANDA.glob(name)
    config = from_dict({"task": {"train_fraction": train_fraction}}, presets.get("nanda2023"))
    return import_checkpoints([path], config, "nanda", folder, answers_only=True, split=split)


def event_of(run: Trajectory) -> Any:
    assert run.path is not None
    return Record.read(run.path).imported


@needs_files
def test_nanda_file_gives_its_published_numbers(tmp_path: Path):
    run = import_nanda("wd_10-1_*.pth", tmp_path, "random-shuffle:1")
    assert run.steps.tolist() == [107_791] and len(run.split.train) == 3830
    losses = {name: float(measures.evaluate("loss", run)[name][0]) for name in ("train_loss", "test_loss", "loss")}
    assert losses["train_loss"] == pytest.approx(9.2024e-9, rel=1e-4)
    assert losses["test_loss"] == pytest.approx(4.988e-7, rel=2e-4)
    assert losses["loss"] == pytest.approx(3.520e-7, rel=2e-4)
    progress, fourier = measures.evaluate("progress", run), measures.evaluate("fourier", run)
    assert progress["key_frequencies"].tolist() == [6, 23, 37, 39, 41]
    assert float(progress["excluded_loss"][0]) == pytest.approx(8.385, abs=5e-4)
    assert float(progress["restricted_loss"][0]) == pytest.approx(2.201e-9, rel=3e-4)
    assert float(fourier["W_E_gini"][0]) == pytest.approx(0.5353, abs=5e-5)
    assert float(fourier["W_L_gini"][0]) == pytest.approx(0.7555, abs=5e-5)
    event = event_of(run)
    assert run.config.optimizer.weight_decay == 0.1
    assert "The file's config says weight_decay 1, but its optimizer 0.1." in event["notes"]
    assert "epoch 107,790 was read as step 107,791: its optimizer has counted them" in event["notes"][0]
    assert "agree with ours" in event["notes"][-1] and event["doubts"] == []


@needs_files
def test_nanda_file_without_a_split_tells_its_share(tmp_path: Path):
    run = import_nanda("wd_10-1_*.pth", tmp_path, None)
    assert list(run.log.arrays) == ["loss", "accuracy"]
    assert float(run.log["loss"][0]) == pytest.approx(3.520e-7, rel=2e-4)
    assert "fits if 30.0% of the equations were trained on" in event_of(run)["notes"][-1]


@needs_files
def test_wrong_split_of_a_nanda_file_is_reported(tmp_path: Path):
    run = import_nanda("mod_addition_no_wd.pth", tmp_path, "random-shuffle:0", 0.9)
    assert run.steps.tolist() == [5000] and event_of(run)["doubts"] == []
    for name, loss in (("train_loss", 1.6809e-10), ("test_loss", 1.1097e-6)):
        assert float(run.log[name][0]) == pytest.approx(loss, rel=1e-4)
    with pytest.warns(UserWarning, match="the training set is probably another one, because the losses over all"):
        import_nanda("mod_addition_no_wd.pth", tmp_path / "wrong", "grokscope:0", 0.9)


@needs_files
@pytest.mark.filterwarnings("ignore:.*above chance")
def test_copies_of_embeddings_are_left_out(tmp_path: Path):
    path = FOREIGN / "chughtai2023" / "A5_T_seed1" / "model.pt"
    config = RunConfig(task=TaskConfig("composition", group="A5"))
    run = import_checkpoints([path], config, "a5", tmp_path, steps=[250_000])
    assert "x_embed was left out, because it copies embed.W_E." in event_of(run)["notes"]


@needs_files
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zhong2023/model_l8k1hzciux.pt", "it has positions for 2 tokens; allowed: 3"),
        ("chughtai2023/S5_MLP_seed2/model.pt", "it contains W_x, W_y, W, W_U. Allowed"),
        ("y_agent/200.pth", "it contains W_in, W_out, basis. Allowed"),
    ],
)
def test_other_kinds_of_model_are_refused_in_one_sentence(name: str, message: str, tmp_path: Path):
    with pytest.raises(GrokscopeError, match=message) as refusal:
        import_checkpoints([FOREIGN / name], RunConfig(), "run", tmp_path, steps=[100])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("row", json.loads(RESULTS.read_text()), ids=lambda row: row["model"])
def test_table_of_published_models_shows_its_data(row: dict[str, Any]):
    text = (ROOT / "docs" / "outlets.md").read_text(encoding="utf-8")
    for name, published, ours in row["numbers"]:
        assert f"{name} {published:.6g}" in text and f"{ours:.6g}" in text
        assert ours == pytest.approx(published, rel=2e-4)


@needs_files
def test_nanogpt_like_file_gives_its_published_numbers(tmp_path: Path):
    config = from_dict({"model": {"n_heads": 4, "act_fn": "gelu"}})
    for name, step, loss, norm in (("", 11_100, 0.00689287, 25.767276), ("_memorize", 100, 3.56001, 24.066395)):
        path = FOREIGN / "nanogpt_like" / f"p97_frac0.30_wd1_seed0{name}.pt"
        given = {"model.n_heads", "model.act_fn"}
        run = import_checkpoints([path], config, f"n{step}", tmp_path, steps=[step], given=given, is_described=False)
        assert float(run.log["loss"][0]) == pytest.approx(loss, rel=1e-5)
        squares = sum(float((value.double() ** 2).sum()) for value in run.last.parameters.values())
        assert squares**0.5 == pytest.approx(norm, rel=1e-6)
