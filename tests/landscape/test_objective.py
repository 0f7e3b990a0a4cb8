"""The loss as a function of the weights, against HookedTransformer's forward and torch's own derivatives."""

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
    *_, (_, found) = objectives(trajectory, **options)
    return found


@pytest.mark.parametrize("part", ["train", "test"])
def test_its_value_is_hooked_transformers_mean_cross_entropy(trajectory, part):
    examples = getattr(trajectory.split, part)
    hooked = trajectory.model.hooked({k: v.double() for k, v in trajectory.last.parameters.items()})
    logits = hooked(trajectory.task.inputs[examples])[:, -1]
    expected = F.cross_entropy(logits, trajectory.task.labels[examples]).item()
    objective = last(trajectory, part=part)
    assert objective.value(objective.point) == pytest.approx(expected, rel=1e-12)
    loss, right = objective.examples(objective.point)
    assert loss.mean().item() == pytest.approx(expected, rel=1e-12)
    assert right.tolist() == (logits.argmax(-1) == trajectory.task.labels[examples]).tolist()


def test_a_vector_and_its_tensors_are_two_forms_of_one_thing(trajectory):
    objective = last(trajectory)
    x = torch.arange(len(objective.point)).double()
    tensors = objective.unflat(x)
    assert list(tensors) == list(trajectory.model.trained)
    assert all(one.shape == trajectory.model.shapes[name] for name, one in tensors.items())
    assert torch.equal(objective.flat(tensors), x)


def test_its_gradient_is_the_slope_of_its_value(trajectory):
    objective = last(trajectory)
    x = objective.point + 0.01
    direction = torch.randn(len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value, gradient = objective.value_and_gradient(x)
    step = 1e-6
    slope = (objective.value(x + step * direction) - objective.value(x - step * direction)) / (2 * step)
    assert value == pytest.approx(objective.value(x), rel=1e-12)
    assert float(gradient @ direction) == pytest.approx(slope, rel=1e-6)


def test_a_blocks_hessian_is_that_block_of_the_whole(trajectory):
    objective = last(trajectory)
    names = ["unembed.W_U", "blocks.0.mlp.b_in"]
    whole, n = objective.hessian()
    block, m = objective.hessian(names)
    vector = torch.randn(m, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parts = dict(zip(names, vector.split([objective.parameters[name].numel() for name in names]), strict=True))
    zeros = {name: torch.zeros_like(one) for name, one in objective.unflat(objective.point).items()}
    image = objective.unflat(whole(objective.flat({**zeros, **parts})))
    expected = torch.cat([image[name].reshape(-1) for name in names])
    assert n == len(objective.point) and m == len(vector)
    assert torch.allclose(block(vector), expected, rtol=1e-10, atol=1e-14)


def test_what_there_is_not_is_refused(trajectory):
    with pytest.raises(GrokscopeError, match="dtype: 'float16'; allowed: float32 or float64"):
        last(trajectory, dtype="float16")
    with pytest.raises(GrokscopeError, match="part: 'all'; allowed: train or test"):
        last(trajectory, part="all")
    n = len(trajectory.task.inputs)
    everything = Trajectory.from_state_dicts(
        trajectory.config, {0: trajectory.last.parameters}, (torch.arange(n), torch.arange(0))
    )
    with pytest.raises(GrokscopeError, match="no test equations"):
        last(everything, part="test")
