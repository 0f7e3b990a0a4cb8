"""The measure `keskar_sharpness` against closed forms: linear and separable convex functions peak at a known corner.

On a transformer the oracle is gradient ascent over corners with HookedTransformer's forward pass and
`F.cross_entropy`. It shares neither the maximiser nor the model's code with the measure.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.memorizing import memorized

from grokscope import Trajectory, measures
from grokscope.errors import GrokscopeError
from grokscope.measures.keskar_sharpness import box, largest_in_box, restricted_to_subspace, subspace

TINY = {"p": 5, "d_model": 8, "d_mlp": 8}
EPSILON = 1e-3


def centre(n: int = 40, seed: int = 0) -> np.ndarray:
    """Return a random centre of a box."""
    return np.random.default_rng(seed).standard_normal(n) * 3


def linear(g: np.ndarray):
    """Return g · x with its gradient."""
    return lambda x: (float(g @ x), g)


def quadratic(x: np.ndarray, g: np.ndarray, a: np.ndarray):
    """Return Σ g_i y_i + a_i y_i²/2 with its gradient, for y the displacement from x."""
    return lambda at: (float(g @ (at - x) + a @ (at - x) ** 2 / 2), g + a * (at - x))


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("epsilon", [1e-4, 1e-3, 0.5])
def test_linear_function_rises_by_gradient_times_sides(scale, epsilon):
    x, g = centre(), scale * centre(seed=1)
    maximum = largest_in_box(linear(g), x, epsilon=epsilon, n_iterations=1)
    expected = epsilon * (np.abs(g) * (np.abs(x) + 1)).sum()
    # The tolerance is the rounding of the value.
    assert maximum.value - maximum.at_centre == pytest.approx(expected, rel=1e-9, abs=1e-13 * abs(maximum.at_centre))
    np.testing.assert_array_equal(maximum.point, np.sign(g) * box(x, epsilon))
    assert maximum.residual == pytest.approx(0, abs=1e-12 * expected)


@pytest.mark.parametrize("scale", [1e-10, 1.0])
def test_separable_convex_quadratic_is_largest_at_a_corner(scale):
    x, g = centre(), scale * centre(seed=1)
    a = scale * 100 * np.abs(centre(seed=2))
    maximum = largest_in_box(quadratic(x, g, a), x, epsilon=EPSILON)
    sides = EPSILON * (np.abs(x) + 1)
    assert maximum.value == pytest.approx((np.abs(g) * sides + a * sides**2 / 2).sum(), rel=1e-9)
    np.testing.assert_array_equal(np.abs(maximum.point), box(x, EPSILON))


def test_concave_quadratic_peaks_inside_or_at_the_boundary():
    x, g = centre(), centre(seed=1)
    a = -1e3 * np.abs(centre(seed=2))
    maximum = largest_in_box(quadratic(x, g, a), x, epsilon=EPSILON, n_iterations=200)
    sides = EPSILON * (np.abs(x) + 1)
    y = np.clip(-g / a, -sides, sides)
    assert 0 < (np.abs(y) < sides).sum() < len(y), "one of the two cases is not tested"
    assert maximum.value == pytest.approx((g * y + a * y**2 / 2).sum(), rel=1e-6)
    assert maximum.residual < 1e-3 * maximum.value


def test_search_maximises_what_the_authors_code_minimises():
    """Without the negation, the result would be the smallest value in the box, which is not a rise."""
    x, g = np.zeros(3), np.array([1.0, -2.0, 0.5])
    maximum = largest_in_box(linear(g), x, epsilon=EPSILON)
    assert maximum.value == pytest.approx(3.5e-3) and (g * maximum.point > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_best_point_is_returned_within_exact_bounds(seed):
    x, points = centre(seed=seed), []
    A = np.random.default_rng(seed).standard_normal((40, 40))

    def wavy(at: np.ndarray) -> tuple[float, np.ndarray]:
        points.append((float(np.sin(3e3 * A @ at).sum()), at))
        return points[-1][0], 3e3 * A.T @ np.cos(3e3 * A @ at)

    start = np.random.default_rng(seed).uniform(-1, 1, 40)
    for maximum in (largest_in_box(wavy, x, epsilon=EPSILON, start=u) for u in (None, start)):
        assert (np.abs(maximum.point) <= box(x, EPSILON)).all()
        assert wavy(x + maximum.point)[0] == maximum.value
        assert maximum.value >= maximum.at_centre == wavy(x)[0]
    assert maximum.value == max(value for value, _ in points) or len(points) > 20
    assert all((np.abs(at - x) <= box(x, EPSILON) * (1 + 1e-9) + 1e-15).all() for _, at in points)


def test_maximum_is_never_below_the_centre():
    """y = 0 is in the box, so this is true for any start."""
    x = centre()
    peak = quadratic(x, np.zeros(40), np.full(40, -1.0))
    for start in (None, np.full(40, 0.7)):
        maximum = largest_in_box(peak, x, epsilon=EPSILON, n_iterations=1, start=start)
        assert maximum.value == pytest.approx(0, abs=1e-12) and maximum.value >= maximum.at_centre == 0


def test_random_start_leaves_a_point_with_zero_gradient():
    """At the bottom of a bowl every direction rises and the gradient is zero."""
    x, a = centre(), np.abs(centre(seed=2)) + 1
    bowl = quadratic(x, np.zeros(40), a)
    at_bottom = largest_in_box(bowl, x, epsilon=EPSILON)
    assert (at_bottom.value, at_bottom.n_iterations) == (0, 0)
    start = np.random.default_rng(0).uniform(-1, 1, 40)
    maximum = largest_in_box(bowl, x, epsilon=EPSILON, start=start)
    assert maximum.value == pytest.approx((a * box(x, EPSILON) ** 2 / 2).sum(), rel=1e-9)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_function_that_is_not_finite_is_rejected(wrong):
    with pytest.raises(GrokscopeError, match="not finite"):
        largest_in_box(lambda x: (wrong, x), centre(), epsilon=EPSILON)


@pytest.fixture(scope="module")
def trajectory(plant_once) -> Trajectory:
    """A tiny run: untrained, memorized, and long after memorization, when the loss is small."""
    start = plant_once({0: {}}, **TINY)
    return plant_once({0: {}, 25: memorized(start, 25), 100: memorized(start, 100)}, **TINY)


def largest_by_corner_ascent(trajectory: Trajectory, i: int, epsilon: float) -> tuple[float, float]:
    """Return f(x) and the largest f(x + y) over corners that each follow the sign of the previous gradient."""
    task, train = trajectory.task, trajectory.split.train
    x = {name: tensor.double() for name, tensor in trajectory[i].parameters.items()}
    hooked = trajectory.model.hooked_transformer(x)
    y = {name: torch.zeros_like(x[name]) for name in trajectory.model.trained}
    values = []
    for _ in range(25):
        moved = {name: (x[name] + displacement).requires_grad_() for name, displacement in y.items()}
        logits = torch.func.functional_call(hooked, moved, (task.inputs[train],))[:, -1]
        loss = F.cross_entropy(logits, task.labels[train])
        values.append(loss.item())
        gradients = torch.autograd.grad(loss, list(moved.values()))
        y = {name: g.sign() * epsilon * (x[name].abs() + 1) for name, g in zip(y, gradients, strict=True)}
    return values[0], max(values)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-3])
def test_maximum_on_a_transformer_agrees_with_corner_ascent(trajectory, epsilon):
    series = measures.evaluate("keskar_sharpness", trajectory, epsilon=epsilon, n_iterations=20)
    for i in range(3):
        value, highest = largest_by_corner_ascent(trajectory, i, epsilon)
        assert series["train_loss"][i] == pytest.approx(value, rel=1e-9)
        expected = 100 * (highest - value) / (1 + value)
        assert series["keskar_sharpness"][i] >= expected * 0.999
        assert series["keskar_sharpness"][i] == pytest.approx(expected, rel=0.05)


def test_small_box_gives_the_first_order_rise(trajectory):
    epsilon = 1e-7
    series = measures.evaluate("keskar_sharpness", trajectory, epsilon=epsilon)
    task, train = trajectory.task, trajectory.split.train
    for i in range(2):
        x = {name: tensor.double() for name, tensor in trajectory[i].parameters.items()}
        leaves = [x[name].requires_grad_() for name in trajectory.model.trained]
        loss = F.cross_entropy(trajectory.model.logits(x, task.inputs[train]), task.labels[train])
        gradients = torch.autograd.grad(loss, leaves)
        rise = sum((g.abs() * (tensor.abs() + 1)).sum().item() for g, tensor in zip(gradients, leaves, strict=True))
        expected = 100 * epsilon * rise / (1 + loss.item())
        assert series["keskar_sharpness"][i] == pytest.approx(expected, rel=1e-4)


def test_value_is_the_largest_over_the_starts(trajectory):
    series = measures.evaluate("keskar_sharpness", trajectory, n_starts=4)
    assert series["keskar_sharpness_by_start"].shape == (3, 4)
    assert series["keskar_sharpness"].tolist() == series["keskar_sharpness_by_start"].max(1).tolist()
    assert (series["keskar_sharpness_residual"] >= 0).all()


def test_more_iterations_raise_the_value_and_lower_the_residual(trajectory):
    few, many = (
        measures.evaluate("keskar_sharpness", trajectory[1:2], n_iterations=n, n_starts=1, epsilon=1e-2)
        for n in (1, 20)
    )
    assert few["keskar_sharpness"] < many["keskar_sharpness"]
    assert few["keskar_sharpness_residual"] > 10 * many["keskar_sharpness_residual"]


def test_larger_box_has_a_larger_value(trajectory):
    values = [
        measures.evaluate("keskar_sharpness", trajectory, epsilon=epsilon, n_starts=1)["keskar_sharpness"]
        for epsilon in (1e-4, 1e-3, 1e-2)
    ]
    assert (values[0] < values[1]).all() and (values[1] < values[2]).all()


def test_tiny_loss_still_rises(plant):
    """SciPy's default tolerances would stop at once, and every memorized model would look flat."""
    start = plant({0: {}}, **TINY)
    late = memorized(start, 200)
    late = late | {name: late[name] * 2 for name in ("unembed.W_U", "unembed.b_U")}
    series = measures.evaluate("keskar_sharpness", plant({0: late}, **TINY), epsilon=0.05)
    assert series["train_loss"][0] < 1e-5
    assert series["keskar_sharpness"][0] > 100 * 10 * series["train_loss"][0]


def test_only_trained_parameters_are_directions(plant):
    mlp_biases, all_biases = (
        measures.evaluate("keskar_sharpness", plant({0: {}}, biases=b, **TINY)) for b in ("mlp", "all")
    )
    assert all_biases["keskar_sharpness"][0] > mlp_biases["keskar_sharpness"][0] * 1.001


def test_loss_function_is_the_configs(plant):
    runs = [plant({0: {}}, **TINY, run={"loss": loss}) for loss in ("softmax", "stablemax")]
    series = [measures.evaluate("keskar_sharpness", run) for run in runs]
    assert abs(series[0]["train_loss"][0] - series[1]["train_loss"][0]) > 1e-3


def test_float32_is_close_to_float64(trajectory):
    """The difference is due to a maximiser that has not converged, not to the loss."""
    single, double = (
        measures.evaluate("keskar_sharpness", trajectory, dtype=dtype, n_starts=1) for dtype in ("float32", "float64")
    )
    np.testing.assert_allclose(single["keskar_sharpness"], double["keskar_sharpness"], rtol=1e-2)


def test_disabled_gradients_do_not_change_the_result(trajectory):
    expected = measures.evaluate("keskar_sharpness", trajectory[:1], n_starts=1)
    with torch.no_grad():
        series = measures.evaluate("keskar_sharpness", trajectory[:1], n_starts=1)
    assert series["keskar_sharpness"].tolist() == expected["keskar_sharpness"].tolist()


@pytest.mark.parametrize(
    "option",
    [{"dtype": "float16"}, {"epsilon": 0.0}, {"epsilon": float("inf")}, {"n_iterations": 0}, {"n_starts": 0}],
)
def test_option_out_of_range_is_rejected_by_name(trajectory, option):
    with pytest.raises(GrokscopeError, match=next(iter(option))):
        measures.evaluate("keskar_sharpness", trajectory, **option)


def test_subspace_is_orthonormal_and_depends_on_the_seed():
    A = subspace(200, 7, seed=0)
    np.testing.assert_allclose(A.T @ A, np.eye(7), atol=1e-14)
    assert np.array_equal(A, subspace(200, 7, seed=0)) and not np.allclose(A, subspace(200, 7, seed=1))


def test_linear_function_rises_along_each_column_of_a_subspace():
    """The oracle uses NumPy's pseudo-inverse instead of the transpose."""
    x, g = centre(200), centre(200, seed=1)
    A = subspace(200, 7, seed=0)
    inside = np.linalg.pinv(A) @ x
    maximum = largest_in_box(restricted_to_subspace(linear(g), x, A), A.T @ x, epsilon=EPSILON, n_iterations=1)
    sides = EPSILON * (np.abs(inside) + 1)
    assert maximum.at_centre == g @ x, "z = 0 is x, to the bit"
    assert maximum.value - maximum.at_centre == pytest.approx((np.abs(A.T @ g) * sides).sum(), rel=1e-9)
    np.testing.assert_array_equal(np.abs(maximum.point), box(A.T @ x, EPSILON))
    np.testing.assert_allclose(np.abs(maximum.point), sides, rtol=1e-12)


def test_quadratic_reaches_the_largest_corner_of_a_subspace():
    """A convex function is largest at one of all 2⁶ corners, which random starts find and y = 0 does not."""
    x, A = np.zeros(60), subspace(60, 6, seed=1)
    B = np.random.default_rng(3).standard_normal((60, 60))
    H = B @ B.T
    corners = EPSILON * (2 * (np.arange(64)[:, None] >> np.arange(6) & 1) - 1) @ A.T
    objective = restricted_to_subspace(lambda y: (float(y @ H @ y / 2), H @ y), x, A)
    starts = np.random.default_rng(0).uniform(-1, 1, (8, 6))
    largest = max(largest_in_box(objective, A.T @ x, epsilon=EPSILON, start=start).value for start in starts)
    assert largest == pytest.approx(np.einsum("ci,ij,cj->c", corners, H, corners).max() / 2, rel=1e-9)


def test_larger_subspace_has_a_larger_value(trajectory):
    few, more = (
        measures.evaluate("keskar_sharpness", trajectory[1:2], n_dimensions=n, n_starts=1)["keskar_sharpness"][0]
        for n in (2, 100)
    )
    assert 0 < few < more


def test_subspace_larger_than_the_space_is_rejected(trajectory):
    for n in (-1, 10**6):
        with pytest.raises(GrokscopeError, match=f"n_dimensions: {n}. Allowed: 0 .the full space. to "):
            measures.evaluate("keskar_sharpness", trajectory, n_dimensions=n)
