"""The edge of stability: the sharpness of a run against that beyond which its optimizer would diverge.

On a quadratic with Hessian eigenvalue a, gradient descent oscillates and grows where a is above a threshold that its
learning rate decides. Full-batch training drives the sharpness up to that threshold and goes on just there (Cohen et
al. 2021); Adam does so with the sharpness of P⁻¹H, P its preconditioner (Cohen et al. 2022).
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope import curvature
from grokscope.config import OptimizerConfig, RunConfig
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import objectives
from grokscope.series import Series
from grokscope.store.run_store import RunStore
from grokscope.training.loop import Setup, State, optimize
from grokscope.training.optimizers import Optimizer, learning_rate
from grokscope.training.replay import Witnesses
from grokscope.training.run import latest
from grokscope.trajectory import Trajectory


def threshold(config: OptimizerConfig, lr: float) -> float:
    """Return the largest eigenvalue a at which the optimizer, at learning rate η, still does not diverge.

    Along an eigenvector the update is linear; it is stable while its characteristic polynomial has its roots within
    the unit circle. For sgd with momentum μ, v ← μv + ax, x ← x − ηv, that is a ≤ (2 + 2μ)/η, a being an eigenvalue
    of H + λI where λ is its weight decay (Cohen et al. 2021, appendix B). For adam and adamw with the preconditioner
    P held still, m ← β₁m + (1 − β₁)ax, x ← (1 − ηλ)x − ηm with a an eigenvalue of P⁻¹H, that is
    a ≤ (1 + β₁)(2 − ηλ) / ((1 − β₁)η): without decay (2 + 2β₁)/((1 − β₁)η), the 38/η of Cohen et al. 2022 for
    β₁ = 0.9 (equation 3). β₂ decides how P moves, not the threshold. At η = 0 nothing diverges: infinity.
    """
    if not lr:
        return float("inf")
    if config.name == "sgd":
        return (2 + 2 * config.momentum) / lr
    beta = config.betas[0]
    decay = config.weight_decay if config.name == "adamw" else 0.0
    return (1 + beta) * (2 - lr * decay) / ((1 - beta) * lr)


def edge_of_stability(
    trajectory: Trajectory, *, tolerance: float = 1e-6, seed: int = 0, dtype: str = "float64"
) -> Series:
    """Measure, at each checkpoint, the sharpness that the next update meets and the threshold of that update.

    Arrays over steps: `sharpness` λ_max of the train loss's Hessian H; `effective_sharpness`, what counts for the
    run's optimizer: of P⁻¹H for adam and adamw, with P that of the update from this checkpoint
    (`Optimizer.preconditioner`), and of H + weight_decay·I for sgd; both with `_residual` (at most `tolerance` of the
    value; for P⁻¹H that of P^(−1/2) H P^(−1/2)); `lr` of that update, warm-up included; `threshold`, infinite where
    lr is 0; and `stability_ratio`, effective sharpness over threshold: 1 is the edge. The theory is of full batches.
    With minibatches, noise or dropout the same numbers are given, but sharpness then settles below the threshold.

    A checkpoint has no second moments, only a resume state has, so for adam and adamw training is repeated from the
    latest resume state at or before each checkpoint and one update beyond, and must meet the checkpoint to the bit.
    That costs, at worst, the training between two commits, some half a minute's a checkpoint, and nothing to speak of
    at checkpoints where a segment ended. Raise GrokscopeError for adam or adamw over a trajectory in memory or where
    training gives other bits, and for what moves the threshold otherwise: another optimizer, a gradient filter, or
    sharpness-aware minimization.
    """
    config = trajectory.config
    _require_known(config)
    steps = [int(step) for step in trajectory.steps]
    if config.optimizer.name == "sgd":
        preconditioners = iter([None] * len(steps))
    elif trajectory.path is None:
        raise GrokscopeError(
            f"A trajectory in memory has no resume state to take {config.optimizer.name}'s second moments from; "
            f"open the run's folder."
        )
    else:
        preconditioners = _replayed(trajectory, steps)
    rows = []
    for (snapshot, objective), P in zip(objectives(trajectory, dtype=dtype), preconditioners, strict=True):
        product, n = objective.hessian()
        plain = curvature.lanczos(product, n, tolerance=tolerance, seed=seed)
        lr = learning_rate(config.optimizer, snapshot.step)
        limit = threshold(config.optimizer, lr)
        if P is None:
            effective, residual = plain.value + config.optimizer.weight_decay, plain.residual
        else:
            scaled = curvature.lanczos(curvature.preconditioned(product, P), n, tolerance=tolerance, seed=seed)
            effective, residual = scaled.value, scaled.residual
        rows.append((plain.value, plain.residual, effective, residual, lr, limit, effective / limit))
    keys = (
        "sharpness",
        "sharpness_residual",
        "effective_sharpness",
        "effective_sharpness_residual",
        "lr",
        "threshold",
        "stability_ratio",
    )
    return Series(
        "edge_of_stability",
        trajectory.steps,
        dict(zip(keys, np.array(rows).T, strict=True)),
        {"gaps": np.array(trajectory.gaps, np.int64).reshape(-1, 2)},
        {"tolerance": tolerance, "seed": seed, "dtype": dtype},
        trajectory.digest,
    )


def _require_known(config: RunConfig) -> None:
    optimizer = config.optimizer
    if optimizer.name not in ("adam", "adamw", "sgd"):
        raise GrokscopeError(f"No threshold of {optimizer.name!r} is known; allowed: adam, adamw or sgd.")
    for name in ("gradient_filter", "sam_radius"):
        if getattr(optimizer, name):
            raise GrokscopeError(
                f"optimizer.{name}: {getattr(optimizer, name)} changes the updates, and so the threshold, in a way "
                f"that is not known; allowed: a run without it."
            )


def _replayed(trajectory: Trajectory, steps: list[int]) -> Iterator[Float[Tensor, " n"]]:
    """Yield the preconditioner of the update that follows each step, training as little as can be once more."""
    assert trajectory.path is not None
    run = RunStore(trajectory.path)
    setup, witnesses = Setup(run.record.config), Witnesses(run)
    state: State | None = None
    resumable = [one.resume_step or 0 for one in run.resume_points()]
    for step in steps:
        # On from the checkpoint before, unless a resume state is nearer.
        if state is None or any(state.step < one <= step for one in resumable):
            fresh, _ = latest(setup, run, step)
            if state is None or fresh.step > state.step:
                state = fresh
        for _ in islice(optimize(setup, state), step - state.step):
            pass
        witnesses.confirm(state)
        next(optimize(setup, state))
        assert isinstance(state.optimizer, Optimizer)
        diagonal = state.optimizer.preconditioner()
        yield torch.cat([diagonal[name].reshape(-1) for name in setup.model.trained])
