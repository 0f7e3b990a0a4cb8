"""Eigenvalue and trace of a small transformer's Hessian against the dense Hessian in float64.

The dense Hessian is independent: it is torch's own, over HookedTransformer's forward and `F.cross_entropy`, and so
shares neither the model's code nor the loss's nor the products' with the measure.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import aslinearoperator, eigsh
from support.dense import TINY, dense_hessian, memorized

from grokscope import Snapshot, curvature, measures
from grokscope.errors import GrokscopeError
from grokscope.model import losses


@pytest.fixture(scope="module", params=["plain", "normalized"])
def measured(request, plant_once):
    """A tiny run: untrained, memorized, and so far beyond that its loss is tiny; with its dense Hessians."""
    form, ahead = {
        "plain": ({"biases": "mlp"}, 1.2),
        "normalized": (
            {"biases": "all", "normalization_type": "LN", "act_fn": "gelu", "n_layers": 2, "d_mlp": 4},
            2.0,
        ),
    }[request.param]
    start = plant_once({0: {}}, **TINY | form)
    steps = {0: {}, 25: memorized(start, 25), 400: memorized(start, 200, ahead)}
    trajectory = plant_once(steps, **TINY | form)
    return trajectory, [dense_hessian(trajectory, i) for i in range(3)]


def test_the_late_loss_is_tiny(measured):
    """Or the tests of this module would not see what float32 loses."""
    _, dense = measured
    found = [loss for loss, _ in dense]
    assert found[0] > 1 > found[1] > 1e-5 > 1e-6 > found[2] > 1e-9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sharpness_is_the_top_eigenvalue_of_the_dense_hessian_to_a_thousandth(measured, dtype):
    trajectory, dense = measured
    series = measures.evaluate("sharpness", trajectory, dtype=dtype)
    for i, (_, H) in enumerate(dense):
        largest = np.linalg.eigvalsh(H.numpy())[-1]
        assert series["sharpness"][i] == pytest.approx(largest, rel=1e-3)
        assert 0 <= series["sharpness_residual"][i] <= 1e-3 * series["sharpness"][i]


def test_the_trace_is_the_dense_hessians_within_four_standard_errors(measured):
    trajectory, dense = measured
    series = measures.evaluate("sharpness", trajectory, n_probes=50, dtype="float64")
    for i, (_, H) in enumerate(dense):
        error, stderr = series["hessian_trace"][i] - H.trace().item(), series["hessian_trace_stderr"][i]
        assert abs(error) < 4 * stderr
        # One probe's variance is 2·Σ_{i≠j} H_ij², so the stated error is neither too small nor too large.
        expected = (2 * (H.square().sum() - H.diagonal().square().sum()).item() / 50) ** 0.5
        assert stderr == pytest.approx(expected, rel=0.5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_are_the_dense_hessians_also_where_the_loss_is_tiny(measured, dtype):
    trajectory, dense = measured
    names, train = trajectory.model.trained, trajectory.split.train
    inputs, labels = trajectory.task.inputs[train], trajectory.task.labels[train]
    for snapshot, (_, H) in zip(trajectory, dense, strict=True):
        parameters = {name: one.to(getattr(torch, dtype)) for name, one in snapshot.parameters.items()}
        leaves = [parameters[name].requires_grad_() for name in names]
        loss = losses.cross_entropy(trajectory.model.logits(parameters, inputs), labels).mean()
        product, n = curvature.hvp(loss, leaves)
        assert n == len(H)
        top = torch.linalg.eigh(H).eigenvectors[:, -1]
        generator = torch.Generator().manual_seed(0)
        for vector in (top, torch.randn(n, generator=generator, dtype=torch.float64)):
            expected = H @ vector
            error = (product(vector).double() - expected).norm() / expected.norm()
            assert error < (1e-3 if dtype == "float32" else 1e-7)


def test_a_larger_transformer_agrees_with_arpack(plant):
    """ARPACK's implicitly restarted Lanczos shares with ours the products alone, tested above."""
    start = plant({0: {}})
    trajectory = plant({0: {}, 40: memorized(start, 40)})
    series = measures.evaluate("sharpness", trajectory, dtype="float64", tolerance=1e-5)
    train = trajectory.split.train

    def largest(snapshot: Snapshot) -> float:
        parameters = {name: one.double() for name, one in snapshot.parameters.items()}
        leaves = [parameters[name].requires_grad_() for name in trajectory.model.trained]
        logits = trajectory.model.logits(parameters, trajectory.task.inputs[train])
        product, n = curvature.hvp(F.cross_entropy(logits, trajectory.task.labels[train]), leaves)
        operator = aslinearoperator(
            SimpleNamespace(shape=(n, n), dtype=float, matvec=lambda v: product(torch.from_numpy(v.ravel())).numpy())
        )
        return eigsh(operator, k=1, which="LA", v0=np.random.default_rng(0).standard_normal(n))[0][0]

    assert series["sharpness"].tolist() == pytest.approx([largest(one) for one in trajectory], rel=1e-7)


def test_only_trained_parameters_are_directions(plant):
    """With the attention's and the unembedding's biases among them the eigenvalue is another."""
    mlp, every = (measures.evaluate("sharpness", plant({0: {}}, biases=b, **TINY)) for b in ("mlp", "all"))
    assert every["sharpness"][0] > mlp["sharpness"][0] * 1.001


def test_the_probes_are_the_same_at_every_step(plant):
    """So equal checkpoints give equal traces, and differences along a run are not the probes'."""
    series = measures.evaluate("sharpness", plant({0: {}, 10: {}}, **TINY))
    for name in ("hessian_trace", "hessian_trace_stderr"):
        assert series[name][0] == series[name][1], name
    assert series["sharpness"][0] == pytest.approx(series["sharpness"][1], rel=1e-6)


@pytest.fixture
def products(monkeypatch) -> list[int]:
    """The number of products of each run of Lanczos' recurrence."""
    counted, lanczos = [], curvature.lanczos

    def noting(*arguments, **options):
        pair = lanczos(*arguments, **options)
        counted.append(pair.n_products)
        return pair

    monkeypatch.setattr(curvature, "lanczos", noting)
    return counted


def test_a_checkpoint_begins_near_the_one_before_and_finds_what_it_finds_alone(measured):
    """The checkpoints are an untrained model, a memorized one and one far beyond: as unlike as neighbours can be."""
    trajectory, _ = measured
    together = measures.evaluate("sharpness", trajectory[1:], dtype="float64")
    alone = [measures.evaluate("sharpness", trajectory[i : i + 1], dtype="float64") for i in (1, 2)]
    for i, one in enumerate(alone):
        assert together["sharpness"][i] == pytest.approx(one["sharpness"][0], rel=1e-6)
        assert together["hessian_trace"][i] == one["hessian_trace"][0]


def test_a_neighbour_saves_products(plant, products):
    start = plant({0: {}})
    late = memorized(start, 40)
    moved = {name: one * 1.001 for name, one in late.items()}
    exactly = {"dtype": "float64", "tolerance": 1e-10}
    measures.evaluate("sharpness", plant({0: late, 1: moved}), **exactly)
    measures.evaluate("sharpness", plant({1: moved}), **exactly)
    _, warm, cold = products
    assert warm < cold


def test_a_loose_tolerance_begins_each_checkpoint_afresh(plant):
    """Begun near the one before, it could end on a second eigenvalue that was the first there."""
    series = measures.evaluate("sharpness", plant({0: {}, 10: {}}, **TINY), tolerance=1e-4)
    assert series["sharpness"][0] == series["sharpness"][1]


def test_the_seed_is_an_option(plant):
    trajectory = plant({0: {}}, **TINY)
    first, other = (measures.evaluate("sharpness", trajectory, seed=seed) for seed in (0, 1))
    assert first["hessian_trace"][0] != other["hessian_trace"][0]
    assert first["sharpness"][0] == pytest.approx(other["sharpness"][0], rel=1e-3)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_global_switch_of_gradients_does_not_matter(plant, n_layers):
    """Notebooks that explore a model with TransformerLens begin by switching gradients off."""
    trajectory = plant({0: {}}, **TINY, n_layers=n_layers)
    expected = measures.evaluate("sharpness", trajectory)
    with torch.no_grad():
        found = measures.evaluate("sharpness", trajectory)
    assert found["sharpness"].tolist() == expected["sharpness"].tolist()


@pytest.mark.parametrize("option", [{"dtype": "float16"}, {"n_probes": 0}, {"n_probes": 1}, {"tolerance": -1.0}])
def test_an_option_out_of_range_is_refused_by_name(plant, option):
    """One probe has no standard error, and no residual is below zero."""
    with pytest.raises(GrokscopeError, match=next(iter(option))):
        measures.evaluate("sharpness", plant({0: {}}, **TINY), **option)
