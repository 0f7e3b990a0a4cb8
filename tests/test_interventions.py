"""Interventions: where nothing is changed the checkpoints' own losses to the bit, and nothing else is changed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.shared import LOSSES, own_losses, row

from grokscope import Trajectory, figures, interventions, measures
from grokscope.errors import GrokscopeError
from grokscope.fourier import cyclic
from grokscope.model.components import COMPONENTS, component_of
from grokscope.series import LabelledArrays
from grokscope.tasks.circle import on_circle


@pytest.fixture(scope="module")
def trajectory(tiny_run: Path) -> Trajectory:
    return Trajectory.open(tiny_run)


@pytest.fixture(scope="module")
def own(trajectory: Trajectory):
    return own_losses(trajectory)


def test_every_component_transplanted_is_the_source(trajectory: Trajectory):
    a, b = (trajectory.at(step).parameters for step in (0, 60))
    model = interventions.transplanted(a, b, COMPONENTS)
    assert all(torch.equal(model[name], one) for name, one in b.items())
    for component in COMPONENTS:
        one = interventions.transplanted(a, b, [component])
        taken = {name for name in a if one[name] is b[name]}
        assert taken == {name for name in a if component_of(name) == component} != set()


@pytest.mark.parametrize("model", [{}, {"n_layers": 2, "normalization_type": "LN"}])
def test_every_parameter_belongs_to_one_component(model, plant):
    found = {name: component_of(name) for name in plant({0: {}}, **model).model.shapes}
    assert found["embed.W_E"] == "embedding" and found["unembed.W_U"] == found["unembed.b_U"] == "unembedding"
    assert found["pos_embed.W_pos"] == "positions" and found["blocks.0.attn.b_O"] == "attention"
    assert found["blocks.0.mlp.W_in"] == "mlp" and set(found.values()) == set(COMPONENTS)
    if model:
        assert (found["blocks.1.ln1.w"], found["blocks.1.ln2.b"]) == ("attention", "mlp")
        assert found["ln_final.w"] == "unembedding"


def test_a_component_of_the_same_step_changes_nothing_and_of_another_what_it_should(trajectory: Trajectory, own):
    scan = interventions.transplant(trajectory, [0, 30, 60], [30, 60])
    assert list(scan.axes) == ["component", "source", "host"] and scan["test_loss"].shape == (5, 3, 2)
    for i in range(5):
        assert row(scan, i, 1, 0) == own(30) and row(scan, i, 2, 1) == own(60)
    state = trajectory.at(60).parameters | {"embed.W_E": trajectory.at(0).parameters["embed.W_E"]}
    by_hand = measures.evaluate("loss", Trajectory.from_state_dicts(trajectory.config, {0: state}))
    assert row(scan, 0, 0, 1) == [float(by_hand[name][0]) for name in LOSSES]
    with pytest.raises(GrokscopeError, match="components: heads; allowed: embedding, positions"):
        interventions.transplant(trajectory, [0], [60], components=["heads"])


@pytest.mark.parametrize(("name", "p"), [("addition", 23), ("division", 23)])
def test_a_frequency_that_is_removed_is_gone_and_the_other_is_left(name: str, p: int, plant):
    """Of two planted circles; the rows of tokens on no circle stay as they were."""
    trajectory = plant({0: {}}, p=p, name=name)
    circle = on_circle(trajectory.task)
    n = len(circle)
    angle = 2 * torch.pi * torch.arange(n, dtype=torch.float64)[:, None] * torch.tensor([3, 7]) / n
    waves = torch.cat([angle.cos(), angle.sin()], 1)
    W_E = torch.randn(p + 1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    W_E[circle.tokens] = 1.5
    W_E[circle.tokens, :4] += waves
    planted = plant({0: {"embed.W_E": W_E}}, p=p, name=name)
    kept = interventions.embedding_of(planted.last.parameters, circle, torch.tensor([7]))
    norms = cyclic.fourier_norms(kept[circle.tokens])
    assert norms[6] == pytest.approx(n**0.5) and float(norms.sum() - norms[6]) < 1e-9
    others = torch.ones(p + 1, dtype=torch.bool)
    others[circle.tokens] = False
    assert torch.equal(kept[others], W_E[others])
    without, only = (
        interventions.without_frequencies(planted, frequencies=[3, 5, 7]),
        interventions.only_frequencies(planted, frequencies=[7]),
    )
    assert list(without.axes) == ["step", "frequency"] and list(only.axes) == ["step"]
    assert row(without, 0, 0) == pytest.approx(row(only, 0), rel=1e-9)
    whole = [float(measures.evaluate("loss", planted)[name][0]) for name in LOSSES]
    assert row(without, 0, 1) == pytest.approx(whole, rel=1e-9), "there is no frequency 5"
    assert row(without, 0, 2) != pytest.approx(whole, rel=1e-4)
    assert interventions.without_frequencies(planted)["frequency"].tolist() == [3, 7], "the key frequencies"
    assert row(interventions.only_frequencies(planted), 0) == pytest.approx(whole, rel=1e-9)


def test_with_no_frequency_at_all_the_embedding_is_constant(trajectory: Trajectory):
    found = interventions.only_frequencies(trajectory, frequencies=[])
    state = dict(trajectory.last.parameters)
    W_E = state["embed.W_E"].clone()
    W_E[:7] = W_E[:7].double().mean(0).float()
    constant = Trajectory.from_state_dicts(trajectory.config, {0: state | {"embed.W_E": W_E}})
    by_hand = measures.evaluate("loss", constant)
    assert row(found, -1) == pytest.approx([float(by_hand[name][0]) for name in LOSSES], rel=1e-6)
    everything = interventions.only_frequencies(trajectory, frequencies=[1, 2, 3])
    whole = measures.evaluate("loss", trajectory)
    np.testing.assert_allclose(everything["test_loss"], whole["test_loss"], rtol=1e-4)


def test_frequencies_that_are_none_and_tasks_without_any_are_refused(trajectory: Trajectory, plant):
    for frequency in (0, 4):
        with pytest.raises(GrokscopeError, match=rf"frequencies: \[{frequency}\]; allowed: 1 to 3"):
            interventions.without_frequencies(trajectory, frequencies=[frequency])
    with pytest.raises(GrokscopeError, match="is not circular"):
        interventions.only_frequencies(plant({0: {}}, name="a2_b2"))


def test_a_grid_knows_its_axes():
    with pytest.raises(ValueError, match="shape"):
        LabelledArrays({"t": np.zeros(3)}, {"x": np.zeros(2)})
    with pytest.raises(GrokscopeError, match="no 'y'; it has: t, x"):
        LabelledArrays({"t": np.zeros(3)}, {"x": np.zeros(3)})["y"]


def test_the_figures_show_the_numbers_that_were_given():
    axes = {"component": np.array(["mlp", "attention"]), "source": np.array([0, 10]), "host": np.array([0, 10, 20])}
    values = np.arange(1.0, 13.0).reshape(2, 2, 3)
    figure = figures.figure_transplant(LabelledArrays(axes, {"test_loss": values}))
    shown = [one for one in figure.axes if one.images and one.get_title()]
    assert [one.get_title() for one in shown] == ["mlp", "attention"]
    for one, expected in zip(shown, values, strict=True):
        np.testing.assert_array_equal(np.asarray(one.images[0].get_array()), expected)
        assert one.images[0].get_clim() == (1, 12)
        assert [label.get_text() for label in one.get_xticklabels()] == ["0", "10", "20"]
    figures.png(figure, dpi=40)
