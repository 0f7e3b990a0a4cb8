"""Published checkpoint files give the published numbers; the tests skip where the files are absent."""

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.scripts import import_script

from grokscope import Trajectory, measures
from grokscope.config import presets
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


def import_file(name: str, folder: Path, *steps: int, **options: Any) -> Trajectory:
    given = options.pop("given", {})
    config = from_dict(given) if given else RunConfig()
    names = {f"{table}.{name}" for table, values in given.items() for name in values if name != "mlp"}
    names |= {f"model.mlp.{name}" for name in given.get("model", {}).get("mlp", {})}
    return import_checkpoints(
        [FOREIGN / name], config, "run", folder, steps=steps, given=names, is_described=False, **options
    )


@needs_files
def test_zhong_files_give_their_published_numbers(tmp_path: Path):
    for name, norm, symmetricity, irrelevance, circularity in (
        ("p99zdpze5l", None, 0.99366517, 0.17173646, 0.99781845),
        ("l8k1hzciux", 24.814, 0.3336, 0.8483, 0.9989),
        ("4asyr7ht1p", None, 0.9955, 0.9078, 0.9655),
    ):
        run = import_file(f"zhong2023/model_{name}.pt", tmp_path / name, 20_000)
        assert run.config.task.form == "a b" and float(run.log["accuracy"][0]) == 1
        algorithm, embedding = measures.evaluate("algorithm", run), measures.evaluate("embedding", run)
        assert float(algorithm["distance_irrelevance"][0]) == pytest.approx(irrelevance, abs=5e-5)
        assert float(embedding["circularity"][0]) == pytest.approx(circularity, abs=5e-5)
        # Ours averages other random triples than theirs.
        spread = 4 * float(algorithm["gradient_symmetricity_stderr"][0])
        assert float(algorithm["gradient_symmetricity"][0]) == pytest.approx(symmetricity, abs=spread)
        if norm is not None:
            squares = sum(float((value.double() ** 2).sum()) for value in run.last.parameters.values())
            assert squares**0.5 == pytest.approx(norm, abs=5e-4)
        else:
            assert run.config.model.attention_alpha < 0.01
        if name == "p99zdpze5l":
            assert float(run.log["loss"][0]) == pytest.approx(1.38e-7, rel=5e-3)


@needs_files
def test_a5_transformer_gives_its_published_numbers(tmp_path: Path):
    run = import_file("chughtai2023/A5_T_seed1/model.pt", tmp_path, 250_000, given={"model": {"act_fn": "relu"}})
    notes = " ".join(event_of(run)["notes"])
    assert "x_embed was left out, because it copies embed.W_E." in notes and "form the table of A5" in notes
    known = json.loads((FOREIGN / "chughtai2023/A5_T_seed1/summary_metrics.json").read_text())
    assert float(run.log["loss"][0]) == pytest.approx(known["all_loss"], rel=1e-6)
    series = measures.evaluate("representations", run)
    shares = sorted(series["embedding_shares"][0].tolist(), reverse=True)
    assert shares[:2] == pytest.approx([0.99786, 0.00117], abs=5e-6)
    assert float((series["logit_similarity"][0] ** 2).sum()) == pytest.approx(0.702808, abs=5e-6)


@needs_files
def test_s5_mlp_gives_its_published_numbers(tmp_path: Path):
    name = "chughtai2023/S5_MLP_seed2"
    run = import_file(f"{name}/model.pt", tmp_path, 250_000, given={"model": {"mlp": {"act_fn": "relu"}}})
    known = json.loads((FOREIGN / name / "summary_metrics.json").read_text())
    assert float(run.log["loss"][0]) == pytest.approx(known["all_loss"], rel=1e-5)
    squares = sum(float((value.double() ** 2).sum()) for value in run.last.parameters.values())
    assert squares == pytest.approx(known["sum_of_squared_weights"], rel=1e-6)
    series = measures.evaluate("representations", run)
    similarity = sorted(series["logit_similarity"][0].tolist(), reverse=True)
    expected = [known[f"logit_{name}_rep_trace_similarity"] for name in ("standard", "sign")]
    assert similarity[:2] == pytest.approx(expected, rel=1e-5)
    assert float(series["logit_variance_explained"][0]) == pytest.approx(known["percent_logits_explained"], rel=1e-4)


@needs_files
def test_y_agent_files_become_one_trajectory(tmp_path: Path):
    folder = FOREIGN / "y_agent"
    names = ("0", "200", "1000", "2200", "5000", "10400", "20000", "49800")
    run = import_checkpoints(
        [folder / f"{name}.pth" for name in names],
        from_dict({"model": {"family": "mlp", "mlp": {"act_fn": "relu"}}}),
        "run",
        tmp_path,
        given={"model.mlp.act_fn"},
        is_described=False,
        train_indices=folder / "train_data.pth",
    )
    # An epoch is saved after its update.
    assert run.steps.tolist() == [int(name) + 1 for name in names]
    assert run.config.task.p == 23 and len(run.split.train) == 396
    accuracies = [0.0601504, 0, 0, 0.7068, 0.7068, 0.9624, 0.9774, 0.9774]
    assert run.log["test_accuracy"] == pytest.approx(accuracies, abs=5e-5)
    assert float(run.log["train_loss"][0]) == pytest.approx(3.135622262954712, rel=1e-6)


@needs_files
def test_sequence_classifier_is_refused_without_its_data(tmp_path: Path):
    name = "transformerlens_2/palindrome_repair01.pt"
    with pytest.raises(GrokscopeError, match=r"33 tokens and 2 outputs, .* --task\.name data") as refusal:
        import_file(name, tmp_path, 1)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("row", json.loads(RESULTS.read_text()), ids=lambda row: row["model"])
def test_published_numbers_equal_ours(row: dict[str, Any]):
    for name, published, ours in row["numbers"]:
        # A random mean differs by its standard error; other numbers only by the digits that are published.
        exponent = Decimal(repr(published)).normalize().as_tuple().exponent
        assert isinstance(exponent, int)
        digit = 10.0**exponent
        tolerance = 0.03 if name == "gradient symmetricity" else max(0.6 * digit, 5e-6 * abs(published))
        assert ours == pytest.approx(published, rel=0, abs=tolerance), name


def test_page_shows_the_table_of_the_results():
    module = import_script(ROOT / "analyses" / "published" / "published_models.py")
    rows = json.loads(RESULTS.read_text())
    assert module.table(rows) in (ROOT / "docs" / "published_models.md").read_text(encoding="utf-8")
    assert [row["flags"] for row in rows] == [published.flags for published in module.MODELS]


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
