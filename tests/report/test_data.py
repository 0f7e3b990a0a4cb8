"""The payload of a run's page: the measured numbers, thinned without losing an extreme."""

import dataclasses

import numpy as np
import pytest
from support.pages import assert_harmless, read_page, read_payload, unpack
from support.plugin_tasks import both_signs, three_operands, two_tokens
from support.plugin_tasks import register_task as register_task

import grokscope
from grokscope import measures, report
from grokscope.config import TaskConfig
from grokscope.report import data
from grokscope.series import Series
from grokscope.trajectory import Trajectory

COLUMNS = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def test_payload_contains_the_measured_numbers(reported_run):
    trajectory, payload = Trajectory.open(reported_run), read_payload(reported_run / "report.html")
    series = report.default_series(measures.kept(trajectory), trajectory)
    assert unpack(payload["steps"]).tolist() == trajectory.steps.tolist()
    for name, array in trajectory.log.arrays.items():
        np.testing.assert_allclose(unpack(payload["log"][name]), array, rtol=1e-6)
    assert payload["names"] is None
    clouds, plane = payload["clouds"], payload["clouds"]["planes"][1]
    points = series["embedding"]["frequency_planes"][:, 0]
    np.testing.assert_allclose(unpack(plane["points"]), points, atol=plane["points"]["scale"] * 0.51)
    assert clouds["labels"] == [str(token) for token in series["embedding"]["tokens"]]
    grid, losses = payload["grid"], series["example_loss"]
    np.testing.assert_allclose(unpack(grid["log_loss"]), np.log10(losses["example_loss"]), atol=0.03)
    bits = np.unpackbits(unpack(grid["right"]), axis=1, bitorder="little")[:, : len(trajectory.task.inputs)]
    assert np.array_equal(bits.astype(bool), losses["is_right"])
    assert np.flatnonzero(unpack(grid["is_train"])).tolist() == trajectory.split.train.tolist()
    quantities = {quantity["key"]: quantity for quantity in payload["quantities"]}
    (line,) = quantities["sharpness.hessian_trace"]["lines"]
    np.testing.assert_allclose(unpack(line["values"]), series["sharpness"]["hessian_trace"], rtol=1e-6)
    np.testing.assert_allclose(unpack(line["error"]), series["sharpness"]["hessian_trace_stderr"], rtol=1e-6)
    (line,) = quantities["embedding.circularity"]["lines"]
    np.testing.assert_allclose(unpack(line["shuffled"]), series["embedding"]["circularity_shuffled"], rtol=1e-6)
    assert line["untrained"] == pytest.approx(float(series["embedding"]["circularity_initialization"]))


def test_group_without_circle_has_no_frequencies(tiny_config, tmp_path):
    task = TaskConfig("composition", group="S3")
    config = dataclasses.replace(tiny_config, task=task, n_steps=10, checkpoints="every 5")
    path = report.write(grokscope.train(config, "s3", tmp_path))
    assert_harmless(path.read_text(encoding="utf-8"))
    payload = read_payload(path)
    assert payload["spectra"] == [] and len(payload["clouds"]["planes"]) == 1
    assert "(0 1 2)" in payload["clouds"]["labels"] and len(set(payload["clouds"]["classes"])) == 3
    assert payload["names"] == payload["clouds"]["labels"]
    assert "circularity" not in read_page(path).text["dl"]
    quantities = {quantity["key"]: quantity for quantity in payload["quantities"]}
    names = ["standard", "sign"]
    for key, labels in (
        ("losses", ["softmax train loss", "softmax restricted loss", "softmax excluded loss"]),
        ("embedding_shares", names),
        ("n_neurons_of_representation", names),
    ):
        assert [line["label"] for line in quantities[f"representations.{key}"]["lines"]] == labels
    # S3 has two classes of proper subgroups apart from the trivial one: of order 2 and 3.
    silhouettes = quantities["representations.embedding_left_silhouette"]
    assert len({line["label"] for line in silhouettes["lines"]}) == 2


@pytest.mark.parametrize("function", [three_operands, both_signs, two_tokens])
def test_grid_needs_one_equation_per_pair_of_operands(function, register_task, tiny_config, tmp_path):
    task = dataclasses.replace(register_task(function), p=5)
    config = dataclasses.replace(tiny_config, task=task, n_steps=2, checkpoints="every 1")
    trajectory = grokscope.train(config, "run", tmp_path)
    series = {name: measures.evaluate(name, trajectory) for name in ("embedding", "example_loss", "attention")}
    payload = data.run_payload(trajectory, series, list(series.values()))
    cells = trajectory.task.operands.unique(dim=0)
    if function is two_tokens:
        assert unpack(payload["grid"]["operands"]).tolist() == trajectory.task.operands.tolist() == cells.tolist()
    else:
        assert payload["grid"] is None
    expected = {
        three_operands: ["operand a", "operand b", "operand c", "“=”"],
        both_signs: ["operand a", "“sign”", "operand b", "“=”"],
        two_tokens: ["operand a", "operand b"],
    }
    assert payload["attention"]["positions"] == expected[function]


def test_number_of_frames_fits_the_budget():
    assert data.n_frames(10, 1000) == 100 and data.n_frames(100, 20_000) == 200
    assert data.n_frames(1, 10**9) == 600 and data.n_frames(1, 10**9, n_max=60) == 60
    assert data.n_frames(10**9, 1000) == data.n_frames(0, 0) == 2


def test_long_log_keeps_its_extremes():
    n = 50_000
    columns = {name: np.random.default_rng(i).uniform(1, 2, n) for i, name in enumerate(COLUMNS)}
    columns["train_loss"][31_234] = 99.0
    columns["test_accuracy"][777] = -1.0
    rows = data.thinned_rows(Series("log", np.arange(n), columns))
    assert {0, 777, 31_234, n - 1} <= set(rows.tolist()) and len(rows) <= 4_000
    assert (np.diff(rows) > 0).all()


def test_short_log_keeps_every_row():
    log = Series("log", np.arange(9), {name: np.ones(9) for name in COLUMNS})
    assert data.thinned_rows(log).tolist() == list(range(9))
