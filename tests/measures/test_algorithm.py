"""Clock and pizza on logits in closed form, on models made by hand, and on planted trajectories.

The closed forms are sums of |cos| over all distances: for n odd Σ_d |cos(πd/n)| = 1/sin(π/2n), for n even
cot(π/2n). Brute-force oracles take one triple and one equation at a time, through HookedTransformer's own hooks.
"""

import math

import numpy as np
import pytest
import torch

from grokscope import Trajectory, figures, measures, tasks
from grokscope.circuits.clock_and_pizza import (
    clock_logits,
    distance_irrelevance,
    explained_variance,
    gradient_symmetricity,
    pizza_logits,
    verdict,
)
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.measures.algorithm import operand_gradients
from grokscope.model import transformer
from grokscope.series import Series


def grid(n: int, sign: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums and the distances of all n² pairs of positions."""
    i, j = torch.cartesian_prod(torch.arange(n), torch.arange(n)).unbind(1)
    return i + sign * j, i - sign * j


def of_each_other(n: int, frequency: int) -> float:
    """Return what a pizza explains of a clock: (mean |cos(πkd/n)|)² / mean cos²(πkd/n)."""
    m = n // math.gcd(n, frequency)
    total = 1 / math.sin(math.pi / (2 * m)) if m % 2 else 1 / math.tan(math.pi / (2 * m))
    return (total / m) ** 2 / 0.5


@pytest.mark.parametrize(("n", "frequency"), [(59, 7), (113, 56), (12, 5), (12, 3), (96, 45)])
@pytest.mark.parametrize("sign", [1, -1])
def test_each_formula_explains_itself_whatever_its_scale_and_offsets_and_the_other_by_its_closed_form(
    n: int, frequency: int, sign: int
):
    clock, pizza = (formula(n, frequency, *grid(n, sign)) for formula in (clock_logits, pizza_logits))
    # Softmax does not see what an equation's logits share, and what an answer's share says nothing of the operands.
    moved = 3.7 * clock + torch.arange(n * n)[:, None] + 5 * torch.arange(n).double()
    for one in (clock, moved):
        assert float(explained_variance(one, clock, n * n)[0]) == pytest.approx(1, abs=1e-9)
    assert float(explained_variance(-pizza, pizza, n * n)[0]) == pytest.approx(1, abs=1e-12)
    for one, other in ((clock, pizza), (pizza, clock)):
        assert float(explained_variance(one, other, n * n)[0]) == pytest.approx(of_each_other(n, frequency))
    if n > 50:
        assert of_each_other(n, frequency) == pytest.approx(8 / math.pi**2, rel=2e-3)
    share, error, variance = explained_variance(3.7 * clock, clock, n * n)
    assert float(variance) == pytest.approx(3.7**2 / 2) and float(error) == 0
    assert float(explained_variance(clock_logits(n, 1, *grid(n, sign)), clock, n * n)[0]) < 1e-12
    assert float(explained_variance(0 * clock, clock, n * n)[0]) == 0


def test_a_draw_of_equations_is_off_by_its_standard_error():
    n, generator = 59, torch.Generator().manual_seed(0)
    total, distance = grid(n, 1)
    noise = torch.randn(n * n, n, generator=generator, dtype=torch.float64)
    logits = pizza_logits(n, 5, total, distance) + 0.3 * noise
    planned = clock_logits(n, 5, total, distance)
    truth = float(explained_variance(logits, planned, n * n)[0])
    errors, deviations = [], []
    for _ in range(200):
        drawn = torch.randperm(n * n, generator=generator)[:500]
        share, error, _ = explained_variance(logits[drawn], planned[drawn], n * n)
        errors.append(float(error))
        deviations.append(float(share) - truth)
    assert np.mean(errors) == pytest.approx(np.std(deviations), rel=0.2)
    assert abs(np.mean(deviations)) < 4 * np.std(deviations) / 200**0.5 + 2e-3


@pytest.mark.parametrize("n", [11, 12])
@pytest.mark.parametrize("sign", [1, -1])
def test_distance_irrelevance_is_the_definition_taken_literally(n: int, sign: int):
    correct = torch.randn(3, n, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for one, found in zip(correct.numpy(), distance_irrelevance(correct, sign), strict=True):
        by_distance: dict[int, list[float]] = {}
        for i in range(n):
            for j in range(n):
                by_distance.setdefault((i - sign * j) % n, []).append(one[i, j])
        assert [len(values) for values in by_distance.values()] == [n] * n
        assert float(found) == pytest.approx(np.mean([np.std(v) for v in by_distance.values()]) / one.std())


@pytest.mark.parametrize("n", [59, 58])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_right_logit_of_a_pizza_is_the_distances_and_that_of_a_clock_is_not(n: int, sign: int):
    total, distance = grid(n, sign)
    rows = torch.arange(n * n)
    right = {
        formula: (formula(n, 3, total, distance) + formula(n, 8, total, distance))[rows, total % n].reshape(n, n)
        for formula in (clock_logits, pizza_logits)
    }
    assert float(distance_irrelevance(right[pizza_logits], sign)) < 1e-9
    assert float(distance_irrelevance(right[clock_logits], sign)) > 0.9, "it is always 2, but for rounding"
    assert float(distance_irrelevance(torch.full((n, n), 2.0, dtype=torch.float64), sign)) == 1
    # What the answer's position decides alone varies as much at every distance.
    assert float(distance_irrelevance((total % n).double().reshape(n, n), sign)) == pytest.approx(1, abs=0.02)
    # Taken for the other operation, a pizza's right logit is anything but the distance's.
    assert float(distance_irrelevance(right[pizza_logits], -sign)) > 0.5


def test_symmetricity_is_the_mean_cosine_with_its_standard_error():
    first = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 0.0]])
    second = torch.tensor([[2.0, 0.0], [0.0, -1.0], [3.0, 3.0], [1.0, 0.0]])
    mean, error = gradient_symmetricity(first, second)
    cosines = [1, -1, 0.5**0.5, 0]
    assert float(mean) == pytest.approx(np.mean(cosines))
    assert float(error) == pytest.approx(np.std(cosines, ddof=1) / 2)


ARCHITECTURES = {
    "one layer": ("a b =", ModelConfig(d_model=16, n_heads=2, d_mlp=24)),
    "with a sign": ("a ∘ b =", ModelConfig(d_model=16, n_heads=2, d_mlp=24)),
    "two layers, LayerNorm": (
        "a b =",
        ModelConfig(
            d_model=16, n_heads=2, d_mlp=24, n_layers=2, normalization_type="LN", act_fn="gelu", biases="all"
        ),
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_operands_gradients_are_those_at_hookedtransformers_embedding(name):
    """Its own forward, one equation at a time, with a hook that keeps what the embedding gives."""
    form, model = ARCHITECTURES[name]
    config = RunConfig(task=TaskConfig(p=7, form=form), model=model)
    parameters = transformer.build(model, tasks.build(config.task)).initialize(0)
    trajectory = Trajectory.from_state_dicts(config, {0: parameters})
    hooked = trajectory.model.hooked({name: one.double() for name, one in parameters.items()})
    equations, classes = trajectory.task.inputs[[0, 8, 11, 48]], torch.tensor([1, 0, 5, 6])
    first, second = operand_gradients(trajectory, parameters, equations, classes)
    kept = {}

    def keep(value, hook):
        kept["embed"] = value.detach().requires_grad_()
        return kept["embed"]

    for number, (tokens, its_class) in enumerate(zip(equations, classes, strict=True)):
        logits = hooked.run_with_hooks(tokens[None], fwd_hooks=[("hook_embed", keep)])
        logits[0, -1, its_class].backward()
        found = torch.stack([first[number], second[number]])
        torch.testing.assert_close(found, kept["embed"].grad[0, [0, -2]], rtol=1e-9, atol=1e-12)


def symmetric(trajectory) -> dict[str, torch.Tensor]:
    """Return parameters by which the model sees E_a + E_b only: no positions, and attention that looks at nothing."""
    parameters = dict(trajectory.first.parameters)
    parameters["pos_embed.W_pos"] = torch.zeros_like(parameters["pos_embed.W_pos"])
    for name in ("W_Q", "b_Q"):
        parameters[f"blocks.0.attn.{name}"] = torch.zeros_like(parameters[f"blocks.0.attn.{name}"])
    return parameters


def test_a_model_of_the_sum_of_the_embeddings_is_symmetric_and_an_asymmetric_one_is_not(plant):
    untouched = plant({0: {}})
    even = symmetric(untouched)
    generator = torch.Generator().manual_seed(0)
    lopsided = even | {"pos_embed.W_pos": 20 * torch.randn(3, 16, generator=generator)}
    series = measures.evaluate("algorithm", plant({0: even, 1: lopsided}))
    assert series["gradient_symmetricity"][0] == pytest.approx(1, abs=1e-12)
    assert series["gradient_symmetricity_stderr"][0] < 1e-12
    # Two equal attention weights, whatever the positions are: only the query sees them, and it is zero.
    assert series["gradient_symmetricity"][1] == pytest.approx(1, abs=1e-12)
    query = torch.randn(2, 16, 8, generator=generator)
    sharp = plant({0: lopsided | {"blocks.0.attn.W_Q": query}})
    assert measures.evaluate("algorithm", sharp)["gradient_symmetricity"][0] < 0.9


@pytest.mark.parametrize("name", ["addition", "subtraction", "multiplication", "division"])
def test_an_untrained_model_is_near_one_on_both(name, plant):
    series = measures.evaluate("algorithm", plant({0: {}}, p=23, name=name, d_model=64, d_mlp=64))
    assert series["gradient_symmetricity"][0] > 0.95
    assert series["distance_irrelevance"][0] > 0.9
    assert series["distance_irrelevance_shuffled"][0] > 0.9
    for control in ("gradient_symmetricity", "distance_irrelevance", "clock_explained_variance"):
        np.testing.assert_allclose(series[f"{control}_initialization"], series[control][0], rtol=1e-9)
    assert verdict(series).algorithm == "undecided"


def test_a_task_without_a_circle_and_options_out_of_range_are_refused(plant):
    with pytest.raises(GrokscopeError, match="is not circular"):
        measures.evaluate("algorithm", plant({0: {}}, name="a2_b2"))
    for option in ("n_triples", "n_pairs", "n_shuffles"):
        with pytest.raises(GrokscopeError, match=f"{option}: 1.*from 2"):
            measures.evaluate("algorithm", plant({0: {}}), **{option: 1})


def adding(plant, n: int, frequency: int):
    """Return a trajectory of a model whose neurons make cos(w(i + j)) of one frequency's circle.

    Attention is even over the operands, and hands the sum of two embeddings (cos wi, sin wi) to pairs of ReLU
    neurons r(z) + r(−z) = |z| in many directions φ, which are read out with cos(2φ) and sin(2φ) of half the angle:
    Σ_φ |⟨E_a + E_b, u_φ⟩| e^{2iφ} ∝ |E_a + E_b| e^{iw(i + j)}: a pizza of length |cos(w(i − j)/2)|.
    """
    width, n_directions = 16, 64
    t = torch.arange(n, dtype=torch.float64) * 2 * math.pi * frequency / n
    W_E = torch.zeros(n + 1, width, dtype=torch.float64)
    W_E[:n, 0], W_E[:n, 1] = t.cos(), t.sin()
    trajectory = plant({0: {}}, p=n, d_model=width, n_heads=1, d_mlp=2 * n_directions)
    parameters = {name: torch.zeros_like(one).double() for name, one in trajectory.first.parameters.items()}
    parameters["embed.W_E"] = W_E
    parameters["blocks.0.attn.W_V"] = torch.eye(width, dtype=torch.float64)[None]
    parameters["blocks.0.attn.W_O"] = 3 * torch.eye(width, dtype=torch.float64)[None]
    phi = torch.arange(n_directions, dtype=torch.float64) * math.pi / n_directions
    directions = torch.cat([torch.stack([phi.cos(), phi.sin()]), -torch.stack([phi.cos(), phi.sin()])], 1)
    parameters["blocks.0.mlp.W_in"][:2] = directions
    readout = torch.stack([(2 * phi).cos(), (2 * phi).sin()], 1).repeat(2, 1)
    parameters["blocks.0.mlp.W_out"][:, 2:4] = readout
    parameters["unembed.W_U"][2], parameters["unembed.W_U"][3] = t.cos(), t.sin()
    return plant({0: parameters}, p=n, d_model=width, n_heads=1, d_mlp=2 * n_directions)


@pytest.mark.parametrize("frequency", [1, 4])
def test_a_pizza_made_by_hand_is_called_a_pizza(frequency, plant):
    series = measures.evaluate("algorithm", adding(plant, 13, frequency), n_pairs=200)
    assert series["circle_frequencies"].tolist() == [frequency]
    assert series["gradient_symmetricity"][0] == pytest.approx(1)
    assert series["distance_irrelevance"][0] < 0.01
    assert series["pizza_explained_variance"][0, 0] == pytest.approx(1, abs=1e-3)
    assert series["clock_explained_variance"][0, 0] == pytest.approx(of_each_other(13, frequency), abs=1e-2)
    assert series["pizza_explained_variance_stderr"][0].tolist() == [0], "all 169 equations were taken"
    found = verdict(series)
    assert (found.algorithm, found.circles) == ("pizza", {frequency: "pizza"})
    assert f"pizza at {frequency}" in found.sentence and "untrained" in found.sentence


def series_of(symmetricity: float, irrelevance: float, clock: list[float], pizza: list[float], n: int = 59) -> Series:
    steps = np.array([0, 10])

    def twice(value):
        return np.stack([np.ones_like(np.array(value)), np.array(value)])

    arrays = {
        "gradient_symmetricity": twice(symmetricity),
        "gradient_symmetricity_stderr": np.array([0.0, 0.01]),
        "distance_irrelevance": twice(irrelevance),
        "distance_irrelevance_shuffled": np.ones(2),
        "clock_explained_variance": twice(clock),
        "pizza_explained_variance": twice(pizza),
        "clock_explained_variance_stderr": twice([0.004] * 3),
        "pizza_explained_variance_stderr": twice([0.004] * 3),
        "circle_logit_variance": twice([3.0, 1.0, 1.0]),
    }
    controls = {
        "gradient_symmetricity_initialization": np.array(1.0),
        "distance_irrelevance_initialization": np.ones(()),
    }
    return Series(
        "algorithm",
        steps,
        arrays,
        {"circle_frequencies": np.array([4, 23, 6]), "n_positions": np.array(n), **controls},
    )


@pytest.mark.parametrize(
    ("symmetricity", "irrelevance", "clock", "pizza", "said"),
    [
        (0.33, 0.85, [0.98, 0.81, 0.2], [0.80, 0.99, 0.3], "clock"),
        (0.99, 0.17, [0.80, 0.81, 0.2], [0.98, 0.99, 0.3], "pizza"),
        # One sign against the other two.
        (0.33, 0.17, [0.80, 0.81, 0.2], [0.98, 0.99, 0.3], "undecided"),
        (0.99, 0.85, [0.98, 0.81, 0.2], [0.80, 0.99, 0.3], "undecided"),
        (0.33, 0.85, [0.80, 0.81, 0.2], [0.98, 0.99, 0.3], "undecided"),
        # The strongest circle weighs three times as much as another.
        (0.33, 0.85, [0.98, 0.7, 0.2], [0.80, 0.99, 0.3], "clock"),
        (1.0, 1.0, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], "undecided"),
    ],
)  # fmt: skip
def test_the_verdict_is_its_rule(symmetricity, irrelevance, clock, pizza, said):
    found = verdict(series_of(symmetricity, irrelevance, clock, pizza))
    assert found.algorithm == said
    expected = {4: clock[0], 23: clock[1], 6: clock[2]}
    for i, (frequency, one) in enumerate(expected.items()):
        kind = "clock" if one >= 0.9 else "pizza" if pizza[i] >= 0.9 else "neither"
        assert found.circles[frequency] == kind
    assert f"{symmetricity:.2f} (untrained 1.00)" in found.sentence


@pytest.mark.parametrize(
    ("clock", "pizza", "n", "kind"),
    [
        (0.99, 0.99, 59, "either"),
        (0.930, 0.940, 59, "either"),  # Within two standard errors of each.
        (0.901, 0.956, 59, "pizza"),  # Both formulas pass, and one is better.
        (0.961, 0.903, 59, "clock"),
        (0.89, 0.80, 59, "neither"),
        (0.877, 0.877, 8, "either"),  # The frequency is n/2, where the formulas are the same.
        (0.01, 0.012, 59, "neither"),
    ],
)
def test_a_circle_is_of_the_kind_that_explains_it_better(clock: float, pizza: float, n: int, kind: str):
    found = verdict(series_of(0.33, 0.85, [clock, 0, 0], [pizza, 0, 0], n))
    assert found.circles == {4: kind, 23: "neither", 6: "neither"}
    assert f"{kind} at 4" in found.sentence


def test_the_sentence_does_not_hide_circles_of_the_other_kind():
    mixed = verdict(series_of(0.54, 0.78, [0.98, 0.90, 0.90], [0.85, 0.956, 0.961]))
    assert mixed.sentence.startswith("By its signs it adds by a clock, but not on all its circles: ")
    assert mixed.sentence.endswith("Circles by frequency: clock at 4; pizza at 23, 6.")
    pure = verdict(series_of(0.25, 0.94, [0.98, 0.95, 0.95], [0.80, 0.8, 0.8]))
    assert pure.sentence.startswith("It adds by a clock: ")


def test_the_frequencies_are_the_strongest_of_the_last_step(plant):
    n = 23
    t = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    waves = [(k * t + phase).cos() * radius for k, radius in ((3, 1.0), (7, 2.0)) for phase in (0.0, 1.3)]
    W_E = torch.zeros(n + 1, 16, dtype=torch.float64)
    W_E[:n, :4] = torch.stack(waves, 1)
    series = measures.evaluate("algorithm", plant({0: {}, 5: {"embed.W_E": W_E}}, p=n))
    assert series["circle_frequencies"].tolist() == [7, 3]


def test_the_figure_shows_the_numbers_that_were_given():
    log = Series(
        "log",
        np.array([0, 10]),
        {name: np.array([0.0, 1.0]) for name in ("train_accuracy", "test_accuracy")},
        {"gaps": np.empty((0, 2), np.int64)},
    )
    series = series_of(0.33, 0.85, [0.98, 0.81, 0.2], [0.80, 0.99, 0.3])
    figure = figures.figure_algorithm(log, series)
    drawn = [np.asarray(line.get_ydata())[-1] for line in figure.axes[2].lines]
    assert drawn == [0.98, 0.80, 0.81, 0.99, 0.2, 0.3]
    assert 0.33 in [np.asarray(line.get_ydata())[-1] for line in figure.axes[1].lines]
    legend = figure.axes[2].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["k = 4", "k = 23", "k = 6"]
    figures.png(figure, dpi=40)


def test_seeds_agree_within_their_standard_errors(plant):
    one, other = (measures.evaluate("algorithm", plant({0: {}}), seed=seed) for seed in (0, 1))
    for name in ("gradient_symmetricity", "distance_irrelevance_shuffled"):
        error = math.hypot(one[f"{name}_stderr"][0], other[f"{name}_stderr"][0])
        assert 0 < abs(one[name][0] - other[name][0]) < 5 * error
