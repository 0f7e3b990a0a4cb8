"""The quantities that a reader can choose: their labels, their axes, and which arrays are left out."""

import numpy as np

from grokscope import measures
from grokscope.report.quantities import quantities
from grokscope.series import Series, Variable, with_companions
from grokscope.trajectory import Trajectory


def test_columns_are_labelled_by_their_names(tiny_run):
    trajectory = Trajectory.open(tiny_run).thin(3)
    series = [measures.evaluate(name, trajectory) for name in ("weight_norm", "numerics", "hessian", "neurons")]
    by_key = {quantity.key: quantity for quantity in quantities(series)}
    parts = ["embedding", "positions", "attention", "mlp", "unembedding"]
    for key, labels in (
        ("weight_norm.component_norms", parts),
        ("hessian.block_traces", parts),
        ("numerics.component_naive_loss_cosines", parts),
        ("numerics.gradient_norm", ["bfloat16", "float32", "float64"]),
        ("neurons.mean_neuron_share", ["neurons' mean share of one frequency"]),
    ):
        assert [line["label"] for line in by_key[key].lines] == labels
    assert by_key["numerics.test_margins"].lines[4]["label"] == "50%"


def test_axis_is_logarithmic_if_the_array_says_so():
    arrays = {"wide": np.array([1.0, 2.0, 5e3]), "plain": np.array([1.0, 2.0, 5e3])}
    variables = {"wide": Variable("wide one", "nats", is_logarithmic=True)}
    series = Series("mine", np.arange(3), arrays, variables=variables)
    wide, plain = quantities([series])
    assert (wide.title, wide.unit, wide.logarithmic) == ("wide one", "nats", True)
    assert (plain.title, plain.unit, plain.logarithmic) == ("plain", "", False)


def test_companions_are_drawn_with_their_curve_only():
    variables = with_companions({"x": Variable("x")}, stderr=("x",), shuffled=("x",), initialization=("x",))
    arrays = {
        "x": np.ones(2),
        "x_stderr": np.full(2, 0.1),
        "x_shuffled": np.zeros(2),
        "x_shuffled_stderr": np.ones(2),
    }
    series = Series("mine", np.arange(2), arrays, {"x_initialization": np.array(0.5)}, variables=variables)
    (quantity,) = quantities([series])
    (line,) = quantity.lines
    assert line["untrained"] == 0.5 and {"error", "shuffled"} <= line.keys()


def test_few_columns_are_joint_curves_and_many_are_left_out():
    series = Series(
        "made_up",
        np.array([0, 1]),
        {"excluded_loss_by_frequency": np.ones((2, 2)), "many": np.ones((2, 400)), "pictures": np.ones((2, 3, 3))},
        {"key_frequencies": np.array([4, 17])},
        variables={
            "excluded_loss_by_frequency": Variable("excluded loss", dims=("key_frequency",)),
            "key_frequencies": Variable("frequency", dims=("key_frequency",), role="coordinate"),
        },
    )
    (quantity,) = quantities([series])
    assert [line["label"] for line in quantity.lines] == ["frequency 4", "frequency 17"]
