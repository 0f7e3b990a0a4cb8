"""The HTML of series, runs and snapshots in a notebook: numbers and escaped text, without slow computation."""

import re

import numpy as np
import pytest

from grokscope import measures, notebook, tasks
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.model import families
from grokscope.series import Series
from grokscope.trajectory import Trajectory

HOSTILE = "<script>alert(1)</script>"


def test_series_shows_shapes_options_and_end_values():
    arrays = {"loss": np.array([4.0, 0.5, 1e-7]), "points": np.zeros((3, 7, 2))}
    series = Series("m", np.array([0, 10, 2000]), arrays, {"frequencies": np.array([4, 29])}, {"seed": 3})
    html = series._repr_html_()
    assert "seed=3" in html and "3 checkpoints, steps 0 to 2,000" in html
    assert "<td>loss</td><td>4</td><td>1e-07</td><td><svg" in html
    assert "<td>points</td><td>7 × 2</td><td>7 × 2</td><td></td>" in html
    assert "<td>frequencies (constant)</td><td></td><td>4, 29</td>" in html


def test_short_vector_shows_numbers_and_long_one_its_length():
    assert notebook.format_number(np.array([1, 2, 4, 5, 13, 14, 20, 23, 29])) == "1, 2, 4, 5, 13, 14, 20, 23, 29"
    assert notebook.format_number(np.linspace(0, 1, 5)) == "0, 0.25, 0.5, 0.75, 1"
    assert notebook.format_number(np.linspace(0, 1, 10)) == "10 values"
    assert notebook.format_number(np.arange(3481)) == "3,481 values"
    assert notebook.format_number(np.empty((0, 2), np.int64)) == notebook.format_number(np.empty(0)) == "none"
    assert notebook.format_number(np.zeros((59, 3))) == "59 × 3"


def test_text_constants_show_words_and_bytes_show_numbers():
    constants = {
        "blocks": np.array(["attention", "mlp"]),
        "none": np.array([], str),
        "bytes": np.array([1, 255], np.uint8),
    }
    html = Series("m", np.array([0]), {"loss": np.array([1.0])}, constants)._repr_html_()
    for name, text in (("blocks", "attention, mlp"), ("none", "none"), ("bytes", "1, 255")):
        assert f"<td>{name} (constant)</td><td></td><td>{text}</td>" in html


def test_log_shows_rows_instead_of_checkpoints(tiny_run):
    run = Trajectory.open(tiny_run)
    assert f"log · {len(run.log)} rows, steps 0 to 60" in run.log._repr_html_()


def test_composition_shows_its_group():
    config = RunConfig(task=TaskConfig(name="composition", group="S3"), model=ModelConfig(d_model=8, n_heads=1))
    run = Trajectory.from_state_dicts(
        config, {0: families.build(config.model, tasks.build(config.task)).initialize(0)}
    )
    assert "a·b in S3, " in run._repr_html_()


def test_hostile_text_is_escaped():
    series = Series(
        HOSTILE, np.array([0]), {HOSTILE: np.array([1.0])}, {HOSTILE + "!": np.array(1)}, {HOSTILE: HOSTILE}
    )
    assert "<script" not in series._repr_html_() and series._repr_html_().count("&lt;script") >= 5
    assert "<script" not in notebook.html_table(HOSTILE, [HOSTILE], [[HOSTILE]])


def heights(curve: str) -> list[float]:
    """Return the vertical coordinates of a sparkline; they grow downwards."""
    (points,) = re.findall(r'points="([^"]*)"', curve)
    return [float(point.split(",")[1]) for point in points.split()]


def test_sparkline_rises_with_its_values_within_its_frame():
    steps = np.arange(0, 100_000, 10)
    curve = notebook.sparkline(steps, np.sqrt(steps))
    points = heights(curve)
    assert len(points) <= 120 and points == sorted(points, reverse=True) and (points[0], points[-1]) == (22, 2)
    assert len(curve) < 2500


def test_values_over_decades_get_a_logarithmic_axis():
    points = heights(notebook.sparkline(np.arange(5), np.array([1e0, 1e-2, 1e-4, 1e-6, 1e-8])))
    np.testing.assert_allclose(np.diff(points), 5)


@pytest.mark.parametrize("values", [[1.0], [np.nan, 1.0, np.inf], []])
def test_fewer_than_two_finite_values_give_no_sparkline(values):
    assert notebook.sparkline(np.arange(len(values)), np.array(values)) == ""


def test_constant_sparkline_is_flat():
    assert set(heights(notebook.sparkline(np.arange(3), np.ones(3)))) == {12.0}


def test_empty_series_has_html():
    assert "no step" in Series("m", np.empty(0, np.int64), {"a": np.empty(0)})._repr_html_()


def test_trajectory_is_shown_without_computation(tiny_run, monkeypatch):
    run = Trajectory.open(tiny_run)
    monkeypatch.setattr(measures, "evaluate", None)
    monkeypatch.setattr(tasks, "load", lambda *_: pytest.fail("the task is built again"))
    html = run._repr_html_()
    assert "7, steps 0 to 60" in html and "a + b mod 7, 59% trained on" in html and html.count("<svg") == 4
    assert f"{run.log['test_accuracy'][-1]:.4g}" in html


def test_snapshot_shows_its_parameters(tiny_run):
    snapshot = Trajectory.open(tiny_run).last
    html = snapshot._repr_html_()
    total = sum(parameter.numel() for parameter in snapshot.parameters.values())
    assert f"step 60 · {total:,} parameters" in html and "<td>embed.W_E</td><td>8 × 16</td>" in html
