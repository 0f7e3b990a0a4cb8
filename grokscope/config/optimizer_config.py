"""The optimizer settings of a run."""

from dataclasses import dataclass

from grokscope.config import lr_schedule, part_decay
from grokscope.config.validation import checked, choice, integer, is_number, number, registered, share


@dataclass(frozen=True)
class OptimizerConfig:
    """The rule that turns a gradient into an update. Its parts can be combined."""

    name: str = registered("adamw", "optimizers")
    """The optimizer. `grokscope list optimizers` prints the names."""
    lr: float = number(1e-3, "a number above 0 and up to 100", lambda value: 0 < value <= 100)
    """The learning rate after warm-up."""
    weight_decay: float = number(1.0, "a number from 0 to 1000", lambda value: 0 <= value <= 1000)
    """The strength of weight decay. With "adam" it must be 0.
    "adamw": each update moves w by lr · weight_decay · (decay_centre − w) (Loshchilov & Hutter 2019).
    "sgd": the gradient gains the term weight_decay · w.
    It applies to every trained parameter that `decay_by_part` does not name, also to embeddings, biases and LayerNorm
    weights."""
    decay_by_part: str = checked("", part_decay.FORMS, part_decay.is_part_decay, str)
    """The weight decay of parts of the model, such as "embed 0 + biases 0.1"; weight_decay applies to the others.
    A part is a word of a parameter's name, "biases" or "layer_norms". The last term that applies counts."""
    decay_centre: str = choice("zero", "zero", "initialization")
    """The centre of adamw's weight decay: "zero", or the "initialization" (Power et al. 2022)."""
    betas: tuple[float, float] = checked(
        (0.9, 0.98),
        "two numbers from 0 to below 1",
        lambda value: (
            isinstance(value, tuple | list)
            and len(value) == 2
            and all(is_number(beta) and 0 <= beta < 1 for beta in value)
        ),
        lambda value: [float(beta) for beta in value],
    )
    """Adam's decay rates for the running means of the gradient and of its square.
    With "muon" they concern the parameters that AdamW trains."""
    momentum: float = share(0.0)
    """The momentum of sgd."""
    muon_momentum: float = share(0.95)
    """The Nesterov momentum of muon."""
    warmup_steps: int = integer(10, 0)
    """The length of the warm-up: update u = 0, 1, … uses lr · min(u / warmup_steps, 1). 0 means no warm-up."""
    schedule: str = checked("constant", lr_schedule.FORMS, lr_schedule.is_schedule, str)
    """The learning rate after the warm-up: "constant"; "linear N" or "cosine N", to 0 at update N; "inverse_sqrt"."""
    gradient_filter: str | None = choice(None, None, "grokfast_ema", "grokfast_ma", "orthogonal")
    """The filter that the gradient passes before the optimizer, or none.
    "grokfast_ema": Grokfast with an exponential moving average (Lee et al. 2024).
    "grokfast_ma": Grokfast with a moving average over a window (Lee et al. 2024).
    "orthogonal": ⊥Grad (Prieto et al. 2025)."""
    filter_alpha: float = share(0.98)
    """Grokfast's α: the momentum of the exponential moving average."""
    filter_lambda: float = number(2.0, "a number from 0 to 1000", lambda value: 0 <= value <= 1000)
    """Grokfast's λ: the factor on the averaged gradient, which is added to the gradient."""
    filter_window: int = integer(100, 1, 1000)
    """Grokfast's w: the number of gradients in the moving average. The resume state stores all of them."""
    gradient_clip: float = number(0.0, "a number from 0 to 1000000", lambda value: 0 <= value <= 1_000_000)
    """The largest L2 norm of the gradient over all trained parameters, after the filter. 0 means no limit."""
    norm_clamp: float = number(0.0, "a number from 0 to 1000000", lambda value: 0 <= value <= 1_000_000)
    """The L2 norm of all trained weights together, restored after each update as in Omnigrok (Liu et al. 2022).
    0 leaves the norm free."""
    update_noise: float = number(0.0, "a number from 0 to 1000", lambda value: 0 <= value <= 1000)
    """The standard deviation σ of noise on the update: W ← W + lr · (ΔW + σε) (Power et al. 2022)."""
    weight_noise: float = number(0.0, "a number from 0 to 1000", lambda value: 0 <= value <= 1000)
    """The standard deviation σ of noise on the trained weights in each gradient (Power et al. 2022)."""
    sam_radius: float = number(0.0, "a number from 0 to 1000", lambda value: 0 <= value <= 1000)
    """The radius ρ of sharpness-aware minimization: the gradient at W + ρ g/|g| (Foret et al. 2021). 0: off."""


def contradictions(optimizer: OptimizerConfig, invalid: set[str]) -> list[str]:
    """Return a fault for each setting that the optimizer of this name does not have.

    Args:
        optimizer: The settings.
        invalid: The dotted names of the settings that are invalid by themselves. Checks that need them are skipped.
    """
    if "optimizer.name" in invalid:
        return []
    name, decay, centre, momentum = (
        None if f"optimizer.{setting}" in invalid else getattr(optimizer, setting)
        for setting in ("name", "weight_decay", "decay_centre", "momentum")
    )
    messages = []
    is_part_valid = "optimizer.decay_by_part" not in invalid
    if is_part_valid and name == "adam" and part_decay.largest_decay(optimizer.decay_by_part):
        messages.append(
            f"optimizer.decay_by_part: {optimizer.decay_by_part!r} with 'adam', which has no decay; allowed: '' or "
            f"'adamw'"
        )
    if invalid.isdisjoint({"optimizer.schedule", "optimizer.warmup_steps"}):
        end = lr_schedule.last_update(optimizer.schedule)
        if end is not None and end <= optimizer.warmup_steps:
            messages.append(
                f"optimizer.schedule: {optimizer.schedule!r} ends within the warm-up; allowed: an end above "
                f"warmup_steps = {optimizer.warmup_steps}"
            )
    if name == "adam" and decay:
        messages.append(f"optimizer.weight_decay: {decay} with 'adam', which has none; allowed: 0, or 'adamw'")
    if name != "adamw" and centre == "initialization":
        messages.append(f"optimizer.decay_centre: {centre!r} with {name!r}; allowed: with 'adamw' only")
    if name in ("adam", "adamw", "muon") and momentum:
        other = "muon_momentum" if name == "muon" else "betas"
        messages.append(f"optimizer.momentum: {momentum} with {name!r}, which has {other}; allowed: 0, or 'sgd'")
    return messages
