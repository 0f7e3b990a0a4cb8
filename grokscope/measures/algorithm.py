"""Clock or pizza: gradient symmetricity, distance irrelevance, and what each formula explains of isolated circles."""

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
from grokscope.circuits.key_frequencies import restricted_embedding
from grokscope.errors import GrokscopeError
from grokscope.fourier import cyclic
from grokscope.model import forward
from grokscope.model.equation_batch import Equations
from grokscope.series import Series
from grokscope.tasks.circle import Circle, on_circle
from grokscope.trajectory import Trajectory

_MOST_CIRCLES = 6
_FORMULAS = (("clock", clock_logits), ("pizza", pizza_logits))


def algorithm(
    trajectory: Trajectory, *, n_triples: int = 256, n_pairs: int = 1024, n_shuffles: int = 16, seed: int = 0
) -> Series:
    """Measure whether a circular task is solved by a clock or by a pizza (Zhong et al. 2023, sections 3 and 4).

    Arrays over steps (definitions and extremes in `grokscope.clock_and_pizza`, whose `verdict` reads them):

    - `gradient_symmetricity`, over `n_triples` random (a, b, c), with `…_stderr`: 1 pizza, about 0.3 clock;
    - `distance_irrelevance`, over all equations on the circle: about 0.2 pizza, 0.9 clock;
    - `clock_explained_variance`, `pizza_explained_variance` (circles), with `…_stderr`: the share of the logits'
      variance that each formula explains when W_E holds of the circle's tokens only one frequency and their mean,
      over `n_pairs` random equations (all, without error, if there are no more). A circle of either kind gives the
      other formula 0.81. `circle_logit_variance` (circles) is that variance: a circle without any is not used.

    Constants: `circle_frequencies`, the strongest key frequencies of W_E at the last step, up to six, the strongest
    first. Controls: `…_initialization`, the untrained model, whose first two are near 1 as well; and
    `distance_irrelevance_shuffled`, with the positions in random orders, near 1 (mean over `n_shuffles`, with
    `…_shuffled_stderr`). Logits in the precision of the checkpoints, gradients and all else in float64. Raise
    GrokscopeError for a task without a circle and for an option out of range. Costs one forward pass over all
    equations a checkpoint, one over `n_pairs` a circle, and two over `n_triples`.
    """
    if n_triples < 2 or n_pairs < 2:
        raise GrokscopeError(f"n_triples: {n_triples}, n_pairs: {n_pairs}. Allowed: from 2 each.")
    circle = on_circle(trajectory.task)
    n = len(circle)
    norms = cyclic.fourier_norms(trajectory[-1].parameters["embed.W_E"][circle.tokens].double())
    n_circles = min(_MOST_CIRCLES, int(cyclic.key_frequencies(norms).sum()))
    frequencies = norms.argsort(descending=True)[:n_circles] + 1
    probes = _Probes.draw(trajectory, circle, n_triples, n_pairs, n_shuffles, seed)
    # The circles as their formulas would have them, once for all steps.
    planned = {
        frequency: {name: formula(n, frequency, probes.totals, probes.distances) for name, formula in _FORMULAS}
        for frequency in frequencies.tolist()
    }
    rows = [_row(trajectory, snapshot.parameters, circle, planned, probes) for snapshot in trajectory]
    untrained = _row(trajectory, trajectory.untrained, circle, planned, probes)
    constants = {"circle_frequencies": frequencies, "n_positions": n}
    constants |= controls.untrained_control(untrained)
    return Series.of_rows("algorithm", trajectory.steps, rows, constants)


@dataclass(frozen=True)
class _Probes:
    """What is evaluated at every step alike."""

    triples: Int[Tensor, "n_triples n_ctx"]
    """Equations, in tokens."""
    classes: Int[Tensor, " n_triples"]
    """The answer, right or not, whose logit each triple is about."""
    everything: Equations
    """All equations on the circle, (i, j) in the order of the grid."""
    pairs: Equations
    """The random ones of them that the isolated circles are looked at by."""
    totals: Int[Tensor, " n_pairs"]
    distances: Int[Tensor, " n_pairs"]
    orders: Int[Tensor, "n_shuffles n"]
    """Random orders of the positions."""

    @classmethod
    def draw(
        cls, trajectory: Trajectory, circle: Circle, n_triples: int, n_pairs: int, n_shuffles: int, seed: int
    ) -> "_Probes":
        n, generator = len(circle), torch.Generator().manual_seed(seed)
        inputs = trajectory.task.inputs
        examples = circle.examples.flatten()
        triples = inputs[examples[torch.randint(n * n, (n_triples,), generator=generator)]]
        classes = circle.tokens[torch.randint(n, (n_triples,), generator=generator)]
        drawn = torch.randperm(n * n, generator=generator)[:n_pairs].sort().values
        i, j = drawn // n, circle.sign * (drawn % n)
        orders = controls.random_orders(n, n_shuffles, generator)
        everything = trajectory.model.equations(inputs[examples])
        return cls(triples, classes, everything, everything[drawn], i + j, i - j, orders)


def _row(
    trajectory: Trajectory,
    parameters: Mapping[str, Tensor],
    circle: Circle,
    planned: Mapping[int, Mapping[str, Float[Tensor, "n_pairs n"]]],
    probes: _Probes,
) -> dict[str, Float[Tensor, "*shape"]]:
    """Return everything that is measured of one checkpoint."""
    n, model = len(circle), trajectory.model
    by_first, by_second = operand_gradients(trajectory, parameters, probes.triples, probes.classes)
    symmetricity, error = gradient_symmetricity(by_first, by_second)
    with torch.no_grad():
        logits = model.logits(parameters, probes.everything)
    answers = circle.tokens[circle.answers].flatten()
    correct = logits.gather(1, answers[:, None]).double().unflatten(0, (n, n))[..., 0]
    samples = [
        {"distance_irrelevance": distance_irrelevance(correct[order][:, order], circle.sign)}
        for order in probes.orders
    ]
    found = {
        "gradient_symmetricity": symmetricity,
        "gradient_symmetricity_stderr": error,
        "distance_irrelevance": distance_irrelevance(correct, circle.sign),
        **controls.shuffled_control(samples),
    }
    W_E = parameters["embed.W_E"]
    explained: dict[str, list[Tensor]] = {}
    for frequency, formulas in planned.items():
        isolated = restricted_embedding(W_E, circle, torch.tensor([frequency]))
        with torch.no_grad():
            on_the_circle = model.logits({**parameters, "embed.W_E": isolated}, probes.pairs)[:, circle.tokens]
        for name, formula in formulas.items():
            share, error, variance = explained_variance(on_the_circle.double(), formula, n * n)
            explained.setdefault(f"{name}_explained_variance", []).append(share)
            explained.setdefault(f"{name}_explained_variance_stderr", []).append(error)
        explained.setdefault("circle_logit_variance", []).append(variance)
    return found | {name: torch.stack(one) for name, one in explained.items()}


def operand_gradients(
    trajectory: Trajectory,
    parameters: Mapping[str, Tensor],
    equations: Int[Tensor, "n n_ctx"],
    classes: Int[Tensor, " n"],
) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, "n d_model"]]:
    """Return ∂Q/∂E_a and ∂Q/∂E_b in float64, Q the logit of each equation's class.

    E_a and E_b are the embedding vectors at the two operands' positions, also where a = b. Each equation gets rows of
    its own in W_E for them, so that one backward pass of the model's plain form gives all gradients.
    """
    plain = {name: one.detach().double() for name, one in parameters.items()}
    n, last = equations.shape
    places, W_E = [0, last - 2], plain["embed.W_E"]
    own = [W_E[equations[:, place]].requires_grad_() for place in places]
    tokens = equations.clone()
    for number, place in enumerate(places):
        tokens[:, place] = len(W_E) + number * n + torch.arange(n)
    logits = forward.plain(trajectory.config.model, plain | {"embed.W_E": torch.cat([W_E, *own])}, tokens)
    first, second = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), own)
    return first, second
