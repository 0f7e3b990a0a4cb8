"""What notebooks show: the numbers, escaped, and nothing that is slow."""

import re

import numpy as np
import pytest

from grokscope import measures, notebook, tasks
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.model import transformer
from grokscope.series import Series, spelled
from grokscope.trajectory import Trajectory

HOSTILE = "<script>alert(1)</script>"


def test_a_series_shows_keys_shapes_options_and_first_and_last_values():
    arrays = {"loss": np.array([4.0, 0.5, 1e-7]), "points": np.zeros((3, 7, 2))}
    series = Series("m", np.array([0, 10, 2000]), arrays, {"frequencies": np.array([4, 29])}, {"seed": 3})
    html = series._repr_html_()
    assert "seed=3" in html and "3 checkpoints, steps 0 to 2,000" in html
    assert "<td>loss</td><td>4</td><td>1e-07</td><td><svg" in html
    assert "<td>points</td><td>7 × 2</td><td>7 × 2</td><td></td>" in html
    assert "<td>frequencies (constant)</td><td></td><td>4, 29</td>" in html


def test_a_short_vector_shows_its_numbers_a_longer_one_its_length():
    assert notebook.number(np.array([1, 2, 4, 5, 13, 14, 20, 23, 29])) == "1, 2, 4, 5, 13, 14, 20, 23, 29"
    assert notebook.number(np.linspace(0, 1, 5)) == "0, 0.25, 0.5, 0.75, 1"
    assert (
        notebook.number(np.linspace(0, 1, 10)) == "10 values" and notebook.number(np.arange(3481)) == "3,481 values"
    )
    assert notebook.number(np.empty((0, 2), np.int64)) == notebook.number(np.empty(0)) == "none"
    assert notebook.number(np.zeros((59, 3))) == "59 × 3"


def test_words_are_shown_as_words_and_other_bytes_as_numbers():
    constants = {"blocks": spelled(["attention", "mlp"]), "none": spelled([]), "bytes": np.array([1, 255], np.uint8)}
    html = Series("m", np.array([0]), {"loss": np.array([1.0])}, constants)._repr_html_()
    for name, shown in (("blocks", "attention, mlp"), ("none", "none"), ("bytes", "1, 255")):
        assert f"<td>{name} (constant)</td><td></td><td>{shown}</td>" in html


def test_the_log_has_rows_not_checkpoints(tiny_run):
    run = Trajectory.open(tiny_run)
    assert f"log · {len(run.log)} rows, steps 0 to 60" in run.log._repr_html_()


def test_a_composition_is_shown_with_its_group():
    config = RunConfig(task=TaskConfig(name="composition", group="S3"), model=ModelConfig(d_model=8, n_heads=1))
    run = Trajectory.from_state_dicts(
        config, {0: transformer.build(config.model, tasks.build(config.task)).initialize(0)}
    )
    assert "a·b in S3, " in run._repr_html_()


def test_text_is_escaped():
    series = Series(
        HOSTILE, np.array([0]), {HOSTILE: np.array([1.0])}, {HOSTILE + "!": np.array(1)}, {HOSTILE: HOSTILE}
    )
    assert "<script" not in series._repr_html_() and series._repr_html_().count("&lt;script") >= 5
    assert "<script" not in notebook.table(HOSTILE, [HOSTILE], [[HOSTILE]])


def heights(curve: str) -> list[float]:
    (points,) = re.findall(r'points="([^"]*)"', curve)
    return [float(point.split(",")[1]) for point in points.split()]


def test_a_sparkline_goes_up_where_the_values_do_and_stays_in_its_frame():
    steps = np.arange(0, 100_000, 10)
    curve = notebook.sparkline(steps, np.sqrt(steps))
    there = heights(curve)
    assert len(there) <= 120 and there == sorted(there, reverse=True) and (there[0], there[-1]) == (22, 2)
    assert len(curve) < 2500


def test_a_loss_over_decades_is_logarithmic():
    there = heights(notebook.sparkline(np.arange(5), np.array([1e0, 1e-2, 1e-4, 1e-6, 1e-8])))
    np.testing.assert_allclose(np.diff(there), 5)


@pytest.mark.parametrize("values", [[1.0], [np.nan, 1.0, np.inf], []])
def test_there_is_no_curve_of_fewer_than_two_numbers(values):
    assert notebook.sparkline(np.arange(len(values)), np.array(values)) == ""


def test_a_constant_curve_is_flat():
    assert set(heights(notebook.sparkline(np.arange(3), np.ones(3)))) == {12.0}


def test_an_empty_series_can_be_shown():
    assert "no step" in Series("m", np.empty(0, np.int64), {"a": np.empty(0)})._repr_html_()


def test_a_trajectory_and_a_snapshot_are_shown_without_computing(tiny_run, monkeypatch):
    run = Trajectory.open(tiny_run)
    monkeypatch.setattr(measures, "evaluate", None)
    monkeypatch.setattr(tasks, "load", lambda *_: pytest.fail("the task is built again"))
    html = run._repr_html_()
    assert "7, steps 0 to 60" in html and "a + b mod 7, 60% trained on" in html and html.count("<svg") == 4
    assert f"{run.log['test_accuracy'][-1]:.4g}" in html


def test_a_snapshot_shows_its_parameters(tiny_run):
    snapshot = Trajectory.open(tiny_run).last
    html = snapshot._repr_html_()
    total = sum(one.numel() for one in snapshot.parameters.values())
    assert f"step 60 · {total:,} parameters" in html and "<td>embed.W_E</td><td>8 × 16</td>" in html
