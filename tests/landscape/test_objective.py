"""The loss as a function of the weights, against HookedTransformer's forward pass and finite differences."""

import pytest
import torch
import torch.nn.functional as F

from grokscope import Trajectory
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import Objective, objectives


@pytest.fixture(scope="module")
def trajectory(tiny_run) -> Trajectory:
    return Trajectory.open(tiny_run).thin(2)


def last(trajectory: Trajectory, **options: str) -> Objective:
    """Return the objective at the last checkpoint."""
    *_, (_, objective) = objectives(trajectory, **options)
    return objective


@pytest.mark.parametrize("part", ["train", "test"])
def test_value_is_hooked_transformers_mean_cross_entropy(trajectory, part):
    examples = getattr(trajectory.split, part)
    parameters = {name: tensor.double() for name, tensor in trajectory.last.parameters.items()}
    hooked = trajectory.model.hooked_transformer(parameters)
    logits = hooked(trajectory.task.inputs[examples])[:, -1]
    expected = F.cross_entropy(logits, trajectory.task.labels[examples]).item()
    objective = last(trajectory, part=part)
    assert objective.value(objective.point) == pytest.approx(expected, rel=1e-12)
    losses, is_correct = objective.evaluate_examples(objective.point)
    assert losses.mean().item() == pytest.approx(expected, rel=1e-12)
    assert is_correct.tolist() == (logits.argmax(-1) == trajectory.task.labels[examples]).tolist()


def test_to_tensors_is_the_inverse_of_to_vector(trajectory):
    objective = last(trajectory)
    x = torch.arange(len(objective.point)).double()
    tensors = objective.to_tensors(x)
    assert list(tensors) == list(trajectory.model.trained)
    assert all(tensor.shape == trajectory.model.shapes[name] for name, tensor in tensors.items())
    assert torch.equal(objective.to_vector(tensors), x)


def test_gradient_is_the_slope_of_the_value(trajectory):
    objective = last(trajectory)
    x = objective.point + 0.01
    direction = torch.randn(len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value, gradient = objective.value_and_gradient(x)
    step = 1e-6
    slope = (objective.value(x + step * direction) - objective.value(x - step * direction)) / (2 * step)
    assert value == pytest.approx(objective.value(x), rel=1e-12)
    assert float(gradient @ direction) == pytest.approx(slope, rel=1e-6)


def test_hessian_of_a_block_is_a_block_of_the_hessian(trajectory):
    objective = last(trajectory)
    names = ["unembed.W_U", "blocks.0.mlp.b_in"]
    whole, n = objective.hessian()
    block, m = objective.hessian(names)
    vector = torch.randn(m, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parts = dict(zip(names, vector.split([objective.parameters[name].numel() for name in names]), strict=True))
    zeros = {name: torch.zeros_like(tensor) for name, tensor in objective.to_tensors(objective.point).items()}
    image = objective.to_tensors(whole(objective.to_vector({**zeros, **parts})))
    expected = torch.cat([image[name].reshape(-1) for name in names])
    assert n == len(objective.point) and m == len(vector)
    assert torch.allclose(block(vector), expected, rtol=1e-10, atol=1e-14)


def test_unknown_dtype_or_part_and_empty_part_are_refused(trajectory):
    with pytest.raises(GrokscopeError, match="dtype: 'float16'. Allowed: float32 or float64"):
        last(trajectory, dtype="float16")
    with pytest.raises(GrokscopeError, match="part: 'all'. Allowed: train or test"):
        last(trajectory, part="all")
    n = len(trajectory.task.inputs)
    trained_on_all = Trajectory.from_state_dicts(
        trajectory.config, {0: trajectory.last.parameters}, (torch.arange(n), torch.arange(0))
    )
    with pytest.raises(GrokscopeError, match="no test equations"):
        last(trained_on_all, part="test")
