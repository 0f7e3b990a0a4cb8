"""Interventions: an unchanged model has the checkpoint's own losses bit for bit, and only the named part changes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.shared import LOSSES, own_losses, row

from grokscope import Trajectory, interventions, measures
from grokscope.errors import GrokscopeError
from grokscope.fourier import cyclic
from grokscope.model.components import COMPONENTS, component_of
from grokscope.tasks.circle import on_circle


@pytest.fixture(scope="module")
def trajectory(tiny_run: Path) -> Trajectory:
    return Trajectory.open(tiny_run)


@pytest.fixture(scope="module")
def own(trajectory: Trajectory):
    return own_losses(trajectory)


def losses_of(trajectory: Trajectory) -> list[float]:
    """Return the losses and accuracies of the first checkpoint, by the measure `loss`."""
    series = measures.evaluate("loss", trajectory)
    return [float(series[name][0]) for name in LOSSES]


def test_transplant_of_all_components_is_the_source(trajectory: Trajectory):
    host, source = (trajectory.at(step).parameters for step in (0, 60))
    model = interventions.transplanted(host, source, COMPONENTS)
    assert all(torch.equal(model[name], tensor) for name, tensor in source.items())
    for component in COMPONENTS:
        model = interventions.transplanted(host, source, [component])
        taken = {name for name in host if model[name] is source[name]}
        assert taken == {name for name in host if component_of(name) == component} != set()


def test_transplant_changes_only_the_named_component(trajectory: Trajectory, own):
    scan = interventions.transplant(trajectory, [0, 30, 60], [30, 60])
    assert list(scan.axes) == ["component", "source", "host"] and scan["test_loss"].shape == (5, 3, 2)
    for i in range(5):
        assert row(scan, i, 1, 0) == own(30) and row(scan, i, 2, 1) == own(60)
    parameters = trajectory.at(60).parameters | {"embed.W_E": trajectory.at(0).parameters["embed.W_E"]}
    by_hand = Trajectory.from_state_dicts(trajectory.config, {0: parameters})
    assert row(scan, 0, 0, 1) == losses_of(by_hand)
    with pytest.raises(GrokscopeError, match="components: heads. Allowed: embedding, positions"):
        interventions.transplant(trajectory, [0], [60], components=["heads"])


def planted_circles(plant, name: str) -> Trajectory:
    """Return a run mod 23 whose W_E has circles of the frequencies 3 and 7, and noise off the task's circle."""
    p = 23
    circle = on_circle(plant({0: {}}, p=p, name=name).task)
    n = len(circle)
    angle = 2 * torch.pi * torch.arange(n, dtype=torch.float64)[:, None] * torch.tensor([3, 7]) / n
    W_E = torch.randn(p + 1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    W_E[circle.tokens] = 1.5
    W_E[circle.tokens, :4] += torch.cat([angle.cos(), angle.sin()], 1)
    return plant({0: {"embed.W_E": W_E}}, p=p, name=name)


@pytest.mark.parametrize("name", ["addition", "division"])
def test_removed_frequency_is_gone_and_others_remain(name: str, plant):
    planted = planted_circles(plant, name)
    without = interventions.without_frequencies(planted, frequencies=[3, 5, 7])
    only = interventions.only_frequencies(planted, frequencies=[7])
    assert list(without.axes) == ["step", "frequency"] and list(only.axes) == ["step"]
    assert row(without, 0, 0) == pytest.approx(row(only, 0), rel=1e-9)
    unchanged = losses_of(planted)
    assert row(without, 0, 1) == pytest.approx(unchanged, rel=1e-9), "frequency 5 is absent"
    assert row(without, 0, 2) != pytest.approx(unchanged, rel=1e-4)
    assert interventions.without_frequencies(planted)["frequency"].tolist() == [3, 7], "the key frequencies"
    assert row(interventions.only_frequencies(planted), 0) == pytest.approx(unchanged, rel=1e-9)


@pytest.mark.parametrize("name", ["addition", "division"])
def test_deprecated_embedding_of_keeps_one_frequency(name: str, plant):
    """Rows of tokens off the circle do not change."""
    planted = planted_circles(plant, name)
    circle, W_E = on_circle(planted.task), planted.last.parameters["embed.W_E"]
    with pytest.warns(DeprecationWarning, match="restricted_embedding"):
        restricted = interventions.embedding_of(planted.last.parameters, circle, torch.tensor([7]))
    norms = cyclic.fourier_norms(restricted[circle.tokens])
    assert norms[6] == pytest.approx(len(circle) ** 0.5) and float(norms.sum() - norms[6]) < 1e-9
    off_circle = torch.ones(len(W_E), dtype=torch.bool)
    off_circle[circle.tokens] = False
    assert torch.equal(restricted[off_circle], W_E[off_circle])


def test_embedding_without_frequencies_is_constant(trajectory: Trajectory):
    scan = interventions.only_frequencies(trajectory, frequencies=[])
    parameters = dict(trajectory.last.parameters)
    W_E = parameters["embed.W_E"].clone()
    W_E[:7] = W_E[:7].double().mean(0).float()
    constant = Trajectory.from_state_dicts(trajectory.config, {0: parameters | {"embed.W_E": W_E}})
    assert row(scan, -1) == pytest.approx(losses_of(constant), rel=1e-6)
    all_frequencies = interventions.only_frequencies(trajectory, frequencies=[1, 2, 3])
    unchanged = measures.evaluate("loss", trajectory)
    np.testing.assert_allclose(all_frequencies["test_loss"], unchanged["test_loss"], rtol=1e-4)


def test_absent_frequencies_and_tasks_are_refused(trajectory: Trajectory, plant):
    for frequency in (0, 4):
        with pytest.raises(GrokscopeError, match=rf"frequencies: \[{frequency}\]. Allowed: 1 to 3"):
            interventions.without_frequencies(trajectory, frequencies=[frequency])
    with pytest.raises(GrokscopeError, match="is not circular"):
        interventions.only_frequencies(plant({0: {}}, name="a2_b2"))
