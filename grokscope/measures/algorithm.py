"""Clock or pizza: gradient symmetricity, distance irrelevance, and the fit of both formulas to isolated circles."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.circuits import controls
from grokscope.circuits.clock_and_pizza import (
    clock_logits,
    distance_irrelevance,
    explained_variance,
    gradient_symmetricity,
    pizza_logits,
)
from grokscope.circuits.key_frequencies import with_restricted_embedding
from grokscope.fourier import cyclic
from grokscope.measures._declaration import Panel, measure
from grokscope.measures._ranges import check_ranges
from grokscope.model.equation_batch import Equations
from grokscope.model.forward import EMBEDDED
from grokscope.series import Series
from grokscope.tasks.circle import Circle, on_circle
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

_MOST_CIRCLES = 6
"""The most circles that are isolated, the strongest first."""
_FORMULAS = (("clock", clock_logits), ("pizza", pizza_logits))


_VARIABLES = with_companions(
    {
        "gradient_symmetricity": Variable("gradient symmetricity"),
        "distance_irrelevance": Variable("distance irrelevance"),
        "clock_explained_variance": Variable("variance explained by the clock", dims=("circle",)),
        "pizza_explained_variance": Variable("variance explained by the pizza", dims=("circle",)),
        "circle_logit_variance": Variable(
            "logit variance of each circle", "logit²", ("circle",), is_logarithmic=True
        ),
        "circle_frequencies": Variable("frequency", dims=("circle",), role="coordinate"),
        "n_positions": Variable("number of points on the circle"),
    },
    stderr=("gradient_symmetricity", "clock_explained_variance", "pizza_explained_variance"),
    shuffled=("distance_irrelevance",),
    initialization=(
        *("gradient_symmetricity", "distance_irrelevance", "circle_logit_variance"),
        *("clock_explained_variance", "pizza_explained_variance", "gradient_symmetricity_stderr"),
        *("clock_explained_variance_stderr", "pizza_explained_variance_stderr"),
    ),
)
_PANELS = (Panel("signs", "the two signs of clock and pizza", ("gradient_symmetricity", "distance_irrelevance")),)


@measure(variables=_VARIABLES, panels=_PANELS)
def algorithm(
    trajectory: Trajectory, *, n_triples: int = 256, n_pairs: int = 1024, n_shuffles: int = 16, seed: int = 0
) -> Series:
    """Compute the quantities that tell a clock from a pizza on a circular task.

    `circuits.clock_and_pizza` defines each quantity and its extremes; its `verdict` reads this series. To isolate a
    circle, only one frequency and the mean of W_E are kept over the circle's tokens.

    Args:
        trajectory: The checkpoints to measure. The circles are those of the last one.
        n_triples: The number of random triples (a, b, c) for gradient symmetricity, from 2. The default 256 makes the
            standard error a sixteenth of their spread.
        n_pairs: The number of random equations for the explained variances, from 2. If the circle has fewer, all of
            them are used.
        n_shuffles: The number of random orders of the control, from 2. The standard error of the control falls as
            1/√n_shuffles.
        seed: The seed of the triples, the equations and the random orders. All steps share them.

    Returns:
        Series with arrays over the steps.

        - `gradient_symmetricity`, `gradient_symmetricity_stderr` (steps): 1 for a pizza, about 0.3 for a clock.
        - `distance_irrelevance` (steps), over all pairs on the circle: about 0.2 for a pizza, 0.9 for a clock.
        - `clock_explained_variance`, `pizza_explained_variance`, each with `…_stderr` (steps, circles), from 0 to 1:
          the share of an isolated circle's logit variance that each formula explains. A circle of either kind gives
          0.81 to the other formula.
        - `circle_logit_variance` (steps, circles), in squared units of logits: that variance. The network does not
          use a circle without variance.

        Constants: `circle_frequencies`, the key frequencies of W_E at the last step, up to six, the strongest first;
        `n_positions`, the number of points on the circle.

    Raises:
        GrokscopeError: The task has no circle, or an option is out of range.

    References:
        - Zhong et al. 2023, sections 3 and 4.

    Invariances:
        - The order of neurons and heads, a rotation of the residual stream, and rescaled ReLU neurons.
        - A shift of all logits changes gradient symmetricity and distance irrelevance, as in the paper.

    Controls:
        - `…_initialization`: the untrained model. Its symmetricity and irrelevance are near 1 too.
        - `distance_irrelevance_shuffled`: the positions in random orders, near 1. The mean over the orders, with its
          standard error `…_shuffled_stderr`.

    Cost:
        - One forward pass over all equations per checkpoint, one over `n_pairs` per circle, and two over `n_triples`.
          Logits are in the precision of the checkpoints, gradients and all else in float64.
    """
    check_ranges(
        ("n_triples", n_triples, n_triples >= 2, "from 2"),
        ("n_pairs", n_pairs, n_pairs >= 2, "from 2"),
    )
    circle = on_circle(trajectory.task)
    n = len(circle)
    norms = cyclic.fourier_norms(trajectory[-1:].matrix("embedding")[0, circle.tokens].double())
    n_circles = min(_MOST_CIRCLES, int(cyclic.key_frequencies(norms).sum()))
    frequencies = norms.argsort(descending=True)[:n_circles] + 1
    probes = _Probes.draw(trajectory, circle, n_triples, n_pairs, n_shuffles, seed)
    predicted = {
        frequency: {name: formula(n, frequency, probes.totals, probes.distances) for name, formula in _FORMULAS}
        for frequency in frequencies.tolist()
    }
    rows = [_row(trajectory, snapshot.parameters, circle, predicted, probes) for snapshot in trajectory]
    untrained = _row(trajectory, trajectory.untrained, circle, predicted, probes)
    constants = {
        "circle_frequencies": frequencies,
        "n_positions": n,
        **controls.untrained_control(untrained),
    }
    return Series.of_rows("algorithm", trajectory.steps, rows, constants)


@dataclass(frozen=True)
class _Probes:
    """The equations, classes and orders that every step shares."""

    triples: Int[Tensor, "n_triples n_ctx"]
    """The tokens of the equations of the triples."""
    classes: Int[Tensor, " n_triples"]
    """The answer c, right or wrong, of each triple."""
    all_pairs: Equations
    """All pairs (i, j) on the circle in the order of the grid, also pairs without an equation in the task."""
    pairs: Equations
    """The random equations on which the isolated circles are evaluated."""
    totals: Int[Tensor, " n_pairs"]
    """The answer's position of each random equation."""
    distances: Int[Tensor, " n_pairs"]
    """The distance of the operands of each random equation."""
    orders: Int[Tensor, "n_shuffles n"]
    """Random orders of the positions."""

    @classmethod
    def draw(
        cls, trajectory: Trajectory, circle: Circle, n_triples: int, n_pairs: int, n_shuffles: int, seed: int
    ) -> "_Probes":
        """Draw everything from one stream."""
        n, generator = len(circle), torch.Generator().manual_seed(seed)
        inputs = circle.inputs.flatten(0, 1)
        triples = inputs[torch.randint(n * n, (n_triples,), generator=generator)]
        classes = circle.tokens[torch.randint(n, (n_triples,), generator=generator)]
        drawn = torch.randperm(n * n, generator=generator)[:n_pairs].sort().values
        i, j = drawn // n, circle.sign * (drawn % n)
        orders = controls.random_orders(n, n_shuffles, generator)
        all_pairs = trajectory.model.equations(inputs)
        return cls(triples, classes, all_pairs, all_pairs[drawn], i + j, i - j, orders)


def _row(
    trajectory: Trajectory,
    parameters: Mapping[str, Tensor],
    circle: Circle,
    predicted: Mapping[int, Mapping[str, Float[Tensor, "n_pairs n"]]],
    probes: _Probes,
) -> dict[str, Float[Tensor, "*shape"]]:
    """Return every quantity of one checkpoint; `predicted` has each formula's logits by frequency."""
    n, model = len(circle), trajectory.model
    by_first, by_second = operand_gradients(trajectory, parameters, probes.triples, probes.classes)
    symmetricity, symmetricity_stderr = gradient_symmetricity(by_first, by_second)
    with torch.no_grad():
        logits = model.logits(parameters, probes.all_pairs)
    answers = circle.tokens[circle.answers].flatten()
    correct = logits.gather(1, answers[:, None]).double().unflatten(0, (n, n))[..., 0]
    samples = [
        {"distance_irrelevance": distance_irrelevance(correct[order][:, order], circle.sign)}
        for order in probes.orders
    ]
    row = {
        "gradient_symmetricity": symmetricity,
        "gradient_symmetricity_stderr": symmetricity_stderr,
        "distance_irrelevance": distance_irrelevance(correct, circle.sign),
        **controls.shuffled_control(samples),
    }
    by_circle: dict[str, list[Tensor]] = {}
    for frequency, formulas in predicted.items():
        isolated = with_restricted_embedding(model, parameters, circle, torch.tensor([frequency]))
        with torch.no_grad():
            isolated_logits = model.logits(isolated, probes.pairs)[:, circle.tokens].double()
        for name, formula in formulas.items():
            share, share_stderr, variance = explained_variance(isolated_logits, formula, n * n)
            by_circle.setdefault(f"{name}_explained_variance", []).append(share)
            by_circle.setdefault(f"{name}_explained_variance_stderr", []).append(share_stderr)
        by_circle.setdefault("circle_logit_variance", []).append(variance)
    return row | {name: torch.stack(values) for name, values in by_circle.items()}


def operand_gradients(
    trajectory: Trajectory,
    parameters: Mapping[str, Tensor],
    equations: Int[Tensor, "n n_ctx"],
    classes: Int[Tensor, " n"],
) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, "n d_model"]]:
    """Return ∂Q/∂E_a and ∂Q/∂E_b in float64, with Q the logit of each equation's class.

    E_a and E_b are the embedding vectors at the positions of the two operands, also if a = b. A hook adds a zero to
    them, by which the logits are differentiated.

    Args:
        trajectory: The trajectory of the model. Its task has two operands.
        parameters: All parameters of a checkpoint.
        equations: The tokens of each equation.
        classes: The class of each equation.

    Raises:
        LacksPartError: The network has no vectors of operands.
    """
    model = trajectory.model
    model.require("embedded tokens", model.embedded_positions)
    offsets: list[Tensor] = []

    def add_offset(name: str, value: Tensor) -> Tensor:
        if name != EMBEDDED:
            return value
        offsets.append(torch.zeros_like(value).requires_grad_())
        return value + offsets[0]

    in_float64 = {name: tensor.detach().double() for name, tensor in parameters.items()}
    logits = model.logits(in_float64, equations, hook=add_offset)
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), offsets)
    first, second = (
        gradient[:, model.embedded_positions.index(position)] for position in trajectory.task.operand_positions
    )
    return first, second
