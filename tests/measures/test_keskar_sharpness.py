"""Keskar's sharpness against closed forms: a linear and a convex separable function are largest at a known corner.

On a transformer the oracle is projected gradient ascent over HookedTransformer's forward and `F.cross_entropy`,
which shares neither the maximiser nor the model's code with the measure.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.memorizing import memorized

from grokscope import Trajectory, measures
from grokscope.errors import GrokscopeError
from grokscope.measures.keskar_sharpness import box, largest_in_box, subspace, within

TINY = {"p": 5, "d_model": 8, "d_mlp": 8}
EPSILON = 1e-3


def centre(n: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n) * 3


def linear(g: np.ndarray):
    return lambda x: (float(g @ x), g)


def quadratic(x: np.ndarray, g: np.ndarray, a: np.ndarray):
    """Return Σ g_i y_i + a_i y_i²/2 with y the way from x."""
    return lambda at: (float(g @ (at - x) + a @ (at - x) ** 2 / 2), g + a * (at - x))


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("epsilon", [1e-4, 1e-3, 0.5])
def test_a_linear_function_rises_by_its_gradient_times_the_sides(scale, epsilon):
    x, g = centre(), scale * centre(seed=1)
    found = largest_in_box(linear(g), x, epsilon=epsilon, n_iterations=1)
    expected = epsilon * (np.abs(g) * (np.abs(x) + 1)).sum()
    # What is lost is the value's own rounding.
    assert found.value - found.at_centre == pytest.approx(expected, rel=1e-9, abs=1e-13 * abs(found.at_centre))
    np.testing.assert_array_equal(found.point, np.sign(g) * box(x, epsilon))
    assert found.residual == pytest.approx(0, abs=1e-12 * expected)


@pytest.mark.parametrize("scale", [1e-10, 1.0])
def test_a_separable_convex_quadratic_is_largest_at_its_corner(scale):
    x, g = centre(), scale * centre(seed=1)
    a = scale * 100 * np.abs(centre(seed=2))
    found = largest_in_box(quadratic(x, g, a), x, epsilon=EPSILON)
    sides = EPSILON * (np.abs(x) + 1)
    assert found.value == pytest.approx((np.abs(g) * sides + a * sides**2 / 2).sum(), rel=1e-9)
    np.testing.assert_array_equal(np.abs(found.point), box(x, EPSILON))


def test_a_concave_quadratic_is_largest_where_its_slope_or_the_box_ends():
    x, g = centre(), centre(seed=1)
    a = -1e3 * np.abs(centre(seed=2))
    found = largest_in_box(quadratic(x, g, a), x, epsilon=EPSILON, n_iterations=200)
    sides = EPSILON * (np.abs(x) + 1)
    y = np.clip(-g / a, -sides, sides)
    assert 0 < (np.abs(y) < sides).sum() < len(y), "or one of the two cases is not tested"
    assert found.value == pytest.approx((g * y + a * y**2 / 2).sum(), rel=1e-6)
    assert found.residual < 1e-3 * found.value


def test_it_maximises_what_the_authors_code_minimises():
    """The objective handed over without its sign would give the smallest value in the box, and no rise at all."""
    x, g = np.zeros(3), np.array([1.0, -2.0, 0.5])
    found = largest_in_box(linear(g), x, epsilon=EPSILON)
    assert found.value == pytest.approx(3.5e-3) and (g * found.point > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_bounds_are_kept_to_the_bit_and_the_best_point_seen_is_returned(seed):
    x, seen = centre(seed=seed), []
    A = np.random.default_rng(seed).standard_normal((40, 40))

    def wavy(at: np.ndarray) -> tuple[float, np.ndarray]:
        seen.append((float(np.sin(3e3 * A @ at).sum()), at))
        return seen[-1][0], 3e3 * A.T @ np.cos(3e3 * A @ at)

    start = np.random.default_rng(seed).uniform(-1, 1, 40)
    for found in (largest_in_box(wavy, x, epsilon=EPSILON, start=one) for one in (None, start)):
        assert (np.abs(found.point) <= box(x, EPSILON)).all()
        assert wavy(x + found.point)[0] == found.value
        assert found.value >= found.at_centre == wavy(x)[0]
    assert found.value == max(value for value, _ in seen) or len(seen) > 20
    assert all((np.abs(at - x) <= box(x, EPSILON) * (1 + 1e-9) + 1e-15).all() for _, at in seen)


def test_nothing_lower_than_the_centre_is_returned():
    """From any start: y = 0 is in the box."""
    x = centre()
    peak = quadratic(x, np.zeros(40), np.full(40, -1.0))
    for start in (None, np.full(40, 0.7)):
        found = largest_in_box(peak, x, epsilon=EPSILON, n_iterations=1, start=start)
        assert found.value == pytest.approx(0, abs=1e-12) and found.value >= found.at_centre == 0


def test_a_point_without_a_gradient_is_left_by_another_start():
    """At the bottom of a bowl every direction rises and the gradient says nothing."""
    x, a = centre(), np.abs(centre(seed=2)) + 1
    bowl = quadratic(x, np.zeros(40), a)
    still = largest_in_box(bowl, x, epsilon=EPSILON)
    assert (still.value, still.n_iterations) == (0, 0)
    start = np.random.default_rng(0).uniform(-1, 1, 40)
    found = largest_in_box(bowl, x, epsilon=EPSILON, start=start)
    assert found.value == pytest.approx((a * box(x, EPSILON) ** 2 / 2).sum(), rel=1e-9)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_has_no_maximum(wrong):
    with pytest.raises(GrokscopeError, match="not finite"):
        largest_in_box(lambda x: (wrong, x), centre(), epsilon=EPSILON)


@pytest.fixture(scope="module")
def trajectory(plant_once) -> Trajectory:
    """A tiny run: untrained, memorized, and so far beyond that the loss is small."""
    start = plant_once({0: {}}, **TINY)
    return plant_once({0: {}, 25: memorized(start, 25), 100: memorized(start, 100)}, **TINY)


def ascended(trajectory: Trajectory, i: int, epsilon: float) -> tuple[float, float]:
    """Return f(x) and the largest f(x + y) that many corners, each the sign of the last one's gradient, come to."""
    task, train = trajectory.task, trajectory.split.train
    x = {name: one.double() for name, one in trajectory[i].parameters.items()}
    hooked = trajectory.model.hooked_transformer(x)
    y = {name: torch.zeros_like(x[name]) for name in trajectory.model.trained}
    values = []
    for _ in range(25):
        moved = {name: (x[name] + one).requires_grad_() for name, one in y.items()}
        logits = torch.func.functional_call(hooked, moved, (task.inputs[train],))[:, -1]
        loss = F.cross_entropy(logits, task.labels[train])
        values.append(loss.item())
        gradients = torch.autograd.grad(loss, list(moved.values()))
        y = {name: g.sign() * epsilon * (x[name].abs() + 1) for name, g in zip(y, gradients, strict=True)}
    return values[0], max(values)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-3])
def test_on_a_transformer_it_finds_what_another_maximiser_finds(trajectory, epsilon):
    series = measures.evaluate("keskar_sharpness", trajectory, epsilon=epsilon, n_iterations=20)
    for i in range(3):
        value, highest = ascended(trajectory, i, epsilon)
        assert series["train_loss"][i] == pytest.approx(value, rel=1e-9)
        expected = 100 * (highest - value) / (1 + value)
        assert series["keskar_sharpness"][i] >= expected * 0.999
        assert series["keskar_sharpness"][i] == pytest.approx(expected, rel=0.05)


def test_for_a_small_box_it_is_the_gradients_first_order_rise(trajectory):
    epsilon = 1e-7
    series = measures.evaluate("keskar_sharpness", trajectory, epsilon=epsilon)
    task, train = trajectory.task, trajectory.split.train
    for i in range(2):
        x = {name: one.double() for name, one in trajectory[i].parameters.items()}
        moved = [x[name].requires_grad_() for name in trajectory.model.trained]
        loss = F.cross_entropy(trajectory.model.logits(x, task.inputs[train]), task.labels[train])
        gradients = torch.autograd.grad(loss, moved)
        rise = sum((g.abs() * (one.abs() + 1)).sum().item() for g, one in zip(gradients, moved, strict=True))
        expected = 100 * epsilon * rise / (1 + loss.item())
        assert series["keskar_sharpness"][i] == pytest.approx(expected, rel=1e-4)


def test_it_is_the_largest_over_the_starts_and_says_how_far_they_agree(trajectory):
    series = measures.evaluate("keskar_sharpness", trajectory, n_starts=4)
    assert series["keskar_sharpness_by_start"].shape == (3, 4)
    assert series["keskar_sharpness"].tolist() == series["keskar_sharpness_by_start"].max(1).tolist()
    assert (series["keskar_sharpness_residual"] >= 0).all()


def test_more_iterations_come_nearer_to_a_maximum_and_the_residual_says_so(trajectory):
    few, many = (
        measures.evaluate("keskar_sharpness", trajectory[1:2], n_iterations=n, n_starts=1, epsilon=1e-2)
        for n in (1, 20)
    )
    assert few["keskar_sharpness"] < many["keskar_sharpness"]
    assert few["keskar_sharpness_residual"] > 10 * many["keskar_sharpness_residual"]


def test_a_larger_box_holds_a_larger_loss(trajectory):
    found = [
        measures.evaluate("keskar_sharpness", trajectory, epsilon=epsilon, n_starts=1)["keskar_sharpness"]
        for epsilon in (1e-4, 1e-3, 1e-2)
    ]
    assert (found[0] < found[1]).all() and (found[1] < found[2]).all()


def test_a_tiny_loss_is_still_climbed(plant):
    """SciPy's own tolerances would stop at once and call every memorized model flat."""
    start = plant({0: {}}, **TINY)
    late = memorized(start, 200)
    late = late | {name: late[name] * 2 for name in ("unembed.W_U", "unembed.b_U")}
    series = measures.evaluate("keskar_sharpness", plant({0: late}, **TINY), epsilon=0.05)
    assert series["train_loss"][0] < 1e-5
    assert series["keskar_sharpness"][0] > 100 * 10 * series["train_loss"][0]


def test_only_trained_parameters_are_directions(plant):
    mlp, every = (measures.evaluate("keskar_sharpness", plant({0: {}}, biases=b, **TINY)) for b in ("mlp", "all"))
    assert every["keskar_sharpness"][0] > mlp["keskar_sharpness"][0] * 1.001


def test_the_loss_is_the_configs(plant):
    runs = [plant({0: {}}, **TINY, run={"loss": loss}) for loss in ("softmax", "stablemax")]
    found = [measures.evaluate("keskar_sharpness", run) for run in runs]
    assert abs(found[0]["train_loss"][0] - found[1]["train_loss"][0]) > 1e-3


def test_float32_is_nearly_float64(trajectory):
    """What differs is where a maximiser stands that has not converged, not the loss."""
    one, other = (
        measures.evaluate("keskar_sharpness", trajectory, dtype=dtype, n_starts=1) for dtype in ("float32", "float64")
    )
    np.testing.assert_allclose(one["keskar_sharpness"], other["keskar_sharpness"], rtol=1e-2)


def test_a_global_switch_of_gradients_does_not_matter(trajectory):
    expected = measures.evaluate("keskar_sharpness", trajectory[:1], n_starts=1)
    with torch.no_grad():
        found = measures.evaluate("keskar_sharpness", trajectory[:1], n_starts=1)
    assert found["keskar_sharpness"].tolist() == expected["keskar_sharpness"].tolist()


@pytest.mark.parametrize(
    "option",
    [{"dtype": "float16"}, {"epsilon": 0.0}, {"epsilon": float("inf")}, {"n_iterations": 0}, {"n_starts": 0}],
)
def test_an_option_out_of_range_is_refused_by_name(trajectory, option):
    with pytest.raises(GrokscopeError, match=next(iter(option))):
        measures.evaluate("keskar_sharpness", trajectory, **option)


def test_a_subspace_has_orthonormal_columns_and_is_the_seeds():
    A = subspace(200, 7, seed=0)
    np.testing.assert_allclose(A.T @ A, np.eye(7), atol=1e-14)
    assert np.array_equal(A, subspace(200, 7, seed=0)) and not np.allclose(A, subspace(200, 7, seed=1))


def test_in_a_subspace_a_linear_function_rises_by_its_gradient_along_each_column():
    """By the pseudo-inverse as NumPy takes it, not by the transpose."""
    x, g = centre(200), centre(200, seed=1)
    A = subspace(200, 7, seed=0)
    inside = np.linalg.pinv(A) @ x
    found = largest_in_box(within(linear(g), x, A), A.T @ x, epsilon=EPSILON, n_iterations=1)
    sides = EPSILON * (np.abs(inside) + 1)
    assert found.at_centre == g @ x, "z = 0 is x itself, to the bit"
    assert found.value - found.at_centre == pytest.approx((np.abs(A.T @ g) * sides).sum(), rel=1e-9)
    np.testing.assert_array_equal(np.abs(found.point), box(A.T @ x, EPSILON))
    np.testing.assert_allclose(np.abs(found.point), sides, rtol=1e-12)


def test_in_a_subspace_a_quadratic_reaches_its_largest_corner():
    """All 2⁶ corners, since a convex function is largest at one; random starts find the one that y = 0 does not."""
    x, A = np.zeros(60), subspace(60, 6, seed=1)
    B = np.random.default_rng(3).standard_normal((60, 60))
    H = B @ B.T
    corners = EPSILON * (2 * (np.arange(64)[:, None] >> np.arange(6) & 1) - 1) @ A.T
    objective = within(lambda y: (float(y @ H @ y / 2), H @ y), x, A)
    starts = np.random.default_rng(0).uniform(-1, 1, (8, 6))
    found = max(largest_in_box(objective, A.T @ x, epsilon=EPSILON, start=one).value for one in starts)
    assert found == pytest.approx(np.einsum("ci,ij,cj->c", corners, H, corners).max() / 2, rel=1e-9)


def test_a_subspace_of_every_dimension_holds_no_less_than_a_small_one(trajectory):
    few, more = (
        measures.evaluate("keskar_sharpness", trajectory[1:2], n_dimensions=n, n_starts=1)["keskar_sharpness"][0]
        for n in (2, 100)
    )
    assert 0 < few < more


def test_a_subspace_larger_than_the_space_is_refused(trajectory):
    for n in (-1, 10**6):
        with pytest.raises(GrokscopeError, match=f"n_dimensions: {n}; allowed: 0 .the full space. to "):
            measures.evaluate("keskar_sharpness", trajectory, n_dimensions=n)
