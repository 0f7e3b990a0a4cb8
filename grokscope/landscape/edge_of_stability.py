"""The edge of stability: the sharpness of a run against the threshold above which its optimizer diverges.

On a quadratic, gradient descent diverges along an eigenvector if the Hessian eigenvalue a exceeds a threshold that
depends on the learning rate. Full-batch training raises the sharpness to this threshold and then stays there (Cohen
et al. 2021). Adam does the same with the sharpness of P⁻¹H, where P is its preconditioner (Cohen et al. 2022).
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
from grokscope.training.learner import latest_state
from grokscope.training.loop import Setup, optimize
from grokscope.training.optimizers import Optimizer, learning_rate
from grokscope.training.replay import ReplayCheck
from grokscope.training.state import State
from grokscope.trajectory import Trajectory


def threshold(config: OptimizerConfig, lr: float) -> float:
    """Return the largest eigenvalue a at which the optimizer does not diverge at learning rate η.

    Along an eigenvector the update is linear. It is stable while the roots of its characteristic polynomial are
    within the unit circle.

    - sgd with momentum μ, v ← μv + ax, x ← x − ηv: a ≤ (2 + 2μ)/η. a is an eigenvalue of H + λI, where λ is the
      weight decay.
    - adam and adamw with a constant preconditioner P, m ← β₁m + (1 − β₁)ax, x ← (1 − ηλ)x − ηm:
      a ≤ (1 + β₁)(2 − ηλ) / ((1 − β₁)η). a is an eigenvalue of P⁻¹H; λ is 0 for adam. Without decay and with β₁ = 0.9
      this is 38/η. β₂ determines how P changes, not the threshold.

    Args:
        config: The optimizer: "sgd", "adam" or "adamw".
        lr: The learning rate η, from 0.

    Returns:
        The threshold; infinite for η = 0.

    References:
        Cohen et al. 2021, appendix B; Cohen et al. 2022, equation 3.
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
    """Measure, at each checkpoint, the sharpness and the threshold of the next update.

    - The theory is that of full-batch training. With minibatches, noise or dropout the same numbers are computed, but
      the sharpness settles below the threshold.
    - A checkpoint has no second moments; only a resume state has them. For adam and adamw, training is therefore
      repeated from the latest resume state at or before each checkpoint, and for one more update. The repetition must
      reproduce the checkpoint bit for bit.
    - Cost: one or two Lanczos iterations per checkpoint. The repeated training is at most that between two commits,
      about half a minute per checkpoint. It is negligible for checkpoints at the end of a segment.

    Args:
        trajectory: The checkpoints; for adam and adamw a trajectory of a run on disk.
        tolerance: The largest residual of an eigenvalue, relative to it.
        seed: The seed of the first Lanczos vectors.
        dtype: The precision of parameters and logits.

    Returns:
        A series with these arrays over steps:

        - `sharpness`, the largest eigenvalue of the train loss's Hessian H;
        - `effective_sharpness`, the eigenvalue that the threshold applies to. For adam and adamw it is the largest of
          P⁻¹H, with the P of the update from this checkpoint (`Optimizer.preconditioner`). For sgd it is that of
          H + weight_decay·I;
        - `sharpness_residual` and `effective_sharpness_residual`; for P⁻¹H the residual is that of
          P^(−1/2) H P^(−1/2);
        - `lr` of the update from this checkpoint, with warm-up;
        - `threshold`, which is infinite if lr is 0;
        - `stability_ratio`, the effective sharpness over the threshold; 1 is the edge of stability.

    Raises:
        GrokscopeError: The threshold is not known, for another optimizer, a gradient filter, sharpness-aware
            minimization, weight decay by part, or a limit of the gradient's or the weights' norm. For adam and adamw
            also if the trajectory is in memory, or if the repeated training gives other bits.

    References:
        Cohen et al. 2021; Cohen et al. 2022.
    """
    config = trajectory.config
    _require_known_threshold(config)
    steps = [int(step) for step in trajectory.steps]
    if config.optimizer.name == "sgd":
        preconditioners = iter([None] * len(steps))
    elif trajectory.path is None:
        raise GrokscopeError(
            f"optimizer.name: {config.optimizer.name!r} has second moments, but a trajectory in memory has no resume "
            f"state with them. Use Trajectory.open on the folder of a run."
        )
    else:
        preconditioners = _replayed_preconditioners(trajectory, steps)
    rows = []
    for (snapshot, objective), P in zip(objectives(trajectory, dtype=dtype), preconditioners, strict=True):
        product, n = objective.hessian()
        top = curvature.lanczos(product, n, tolerance=tolerance, seed=seed)
        lr = learning_rate(config.optimizer, snapshot.step)
        edge = threshold(config.optimizer, lr)
        if P is None:
            effective, residual = top.value + config.optimizer.weight_decay, top.residual
        else:
            preconditioned = curvature.preconditioned(product, P)
            effective_top = curvature.lanczos(preconditioned, n, tolerance=tolerance, seed=seed)
            effective, residual = effective_top.value, effective_top.residual
        rows.append(
            {
                "sharpness": top.value,
                "sharpness_residual": top.residual,
                "effective_sharpness": effective,
                "effective_sharpness_residual": residual,
                "lr": lr,
                "threshold": edge,
                "stability_ratio": effective / edge,
            }
        )
    return Series(
        "edge_of_stability",
        trajectory.steps,
        {name: np.array([row[name] for row in rows]) for name in rows[0]},
        {"gaps": np.array(trajectory.gaps, np.int64).reshape(-1, 2)},
        {"tolerance": tolerance, "seed": seed, "dtype": dtype},
        trajectory.digest,
        loss=trajectory.config.loss,
    )


def _require_known_threshold(config: RunConfig) -> None:
    """Raise GrokscopeError unless `threshold` applies to the run."""
    optimizer = config.optimizer
    if optimizer.name not in ("adam", "adamw", "sgd"):
        raise GrokscopeError(
            f"optimizer.name: the threshold of {optimizer.name!r} is not known. Allowed: adam, adamw or sgd."
        )
    for name in ("gradient_filter", "sam_radius", "decay_by_part", "gradient_clip", "norm_clamp"):
        if getattr(optimizer, name):
            raise GrokscopeError(
                f"optimizer.{name}: {getattr(optimizer, name)} changes the updates, so the threshold is not known. "
                f"Allowed: a run without it."
            )


def _replayed_preconditioners(trajectory: Trajectory, steps: list[int]) -> Iterator[Float[Tensor, " n"]]:
    """Yield the preconditioner of the update from each step, and repeat as little training as possible."""
    assert trajectory.path is not None
    run = RunStore(trajectory.path)
    setup = Setup.of_run(run)
    check = ReplayCheck(run, setup.threads.n)
    state: State | None = None
    resume_steps = [segment.resume_step or 0 for segment in run.resume_points()]
    for step in steps:
        # Training continues from the previous checkpoint unless a resume state is nearer.
        if state is None or any(state.step < resume_step <= step for resume_step in resume_steps):
            resumed, _ = latest_state(setup.learner, run, step)
            if state is None or resumed.step > state.step:
                state = resumed
        for _ in islice(optimize(setup, state), step - state.step):
            pass
        check.confirm(state)
        next(optimize(setup, state))
        assert isinstance(state.optimizer, Optimizer)
        diagonal = state.optimizer.preconditioner()
        yield torch.cat([diagonal[name].reshape(-1) for name in setup.model.trained])
