"""What a run is: frozen dataclasses, the same for Python, TOML, the command line and ``config.json``.

Construction never raises. `RunConfig.faults` collects what is wrong over the whole tree and
`RunConfig.validate` raises one GrokscopeError that names every fault with what is allowed.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from grokscope import plugins
from grokscope.algebra import groups
from grokscope.algebra import tables as algebra_tables
from grokscope.config import checkpoint_schedule, task_size, validation
from grokscope.config.validation import checked, choice, flag, integer, is_number, number, registered, share
from grokscope.errors import GrokscopeError

TOKEN_FORMS = ("a b =", "a ∘ b =")
LARGEST_P = 2003
ADDED = (
    *("task.group", "task.table", "task.outliers", "task.random_labels", "model.positions", "model.init"),
    *("optimizer.decay_centre", "optimizer.momentum", "optimizer.gradient_filter", "optimizer.filter_alpha"),
    *("optimizer.filter_lambda", "optimizer.filter_window", "optimizer.update_noise", "optimizer.weight_noise"),
    *("optimizer.sam_radius", "batch_share", "loss", "residual_dropout", "matrix_products"),
)
"""Settings that came after the first runs were written: whoever adds a setting adds it here."""


def is_prime(value: int) -> bool:
    """Return whether `value` is a prime number."""
    return value > 1 and all(value % divisor for divisor in range(2, math.isqrt(value) + 1))


@dataclass(frozen=True)
class TaskConfig:
    """Which binary operation is learned, on which elements, and how much of its table is shown."""

    name: str = registered("addition", "tasks")
    """The operation: one of the names that `grokscope list tasks` prints."""
    p: int = checked(
        113,
        f"a prime from 3 to {LARGEST_P}",
        lambda value: isinstance(value, int) and 3 <= value <= LARGEST_P and is_prime(value),
        int,
    )
    """The modulus of an operation on numbers, a prime: the operands are 0 … p − 1."""
    group: str = checked("S5", groups.ALLOWED, lambda value: isinstance(value, str) and groups.is_name(value), str)
    """The finite group of an operation on a group, such as "S5", "A5", "D7", "C12" or the product "C3xC5"."""
    table: str = checked("", algebra_tables.TABLE_ALLOWED, lambda value: isinstance(value, str), str)
    """The answers of the task "table": rows of element numbers; on the command line and in TOML "@FILE" reads one."""
    train_fraction: float = number(0.3, "a number between 0 and 1, both excluded", lambda value: 0 < value < 1)
    """The share of all equations that is trained on; the rest is the test set."""
    form: str = choice("a b =", *TOKEN_FORMS)
    """How an equation is written in tokens: "a b =" or "a ∘ b ="; the answer is read at the "="."""
    outliers: int = integer(0, 0)
    """How many training answers are replaced by the answer of another training equation (Power et al. 2022)."""
    random_labels: bool = flag(False)
    """Whether every answer, in train and test, is drawn at random: a control that cannot be generalised."""


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer that HookedTransformer can hold."""

    n_layers: int = integer(1, 1, 12)
    """The number of transformer blocks."""
    d_model: int = integer(128, 2, 4096)
    """The width of the residual stream."""
    n_heads: int = integer(4, 1, 64)
    """The number of attention heads in each block; it divides d_model, and d_head = d_model / n_heads."""
    d_mlp: int = integer(512, 1, 16384)
    """The number of neurons in each block's MLP."""
    act_fn: str = choice("relu", "relu", "gelu")
    """The neurons' activation function: "relu" or "gelu"."""
    normalization_type: str | None = choice(None, None, "LN")
    """"LN" for LayerNorm before attention, MLP and unembedding, or none for no normalization at all."""
    positions: str = choice("learned", "learned", "sinusoidal")
    """"learned" position embeddings, or "sinusoidal" ones that never change (Vaswani et al. 2017, section 3.5)."""
    biases: str = choice("mlp", "all", "mlp", "none")
    """Which linear layers' biases are trained: "all", "mlp" (Nanda et al. 2023) or "none"; the rest stay zero."""
    init: str = choice("normal", "normal", "torch")
    """How weights begin: "normal" as in Nanda et al. 2023, or by "torch"'s defaults as in Power et al. 2022."""
    init_scale: float = number(1.0, "a number above 0 and up to 100", lambda value: 0 < value <= 100)
    """A factor on every initial weight matrix (Liu et al. 2022, Omnigrok: α)."""


@dataclass(frozen=True)
class OptimizerConfig:
    """How the gradient becomes an update: few parts that combine."""

    name: str = registered("adamw", "optimizers")
    """The optimizer: one of the names that `grokscope list optimizers` prints."""
    lr: float = number(1e-3, "a number above 0 and up to 100", lambda value: 0 < value <= 100)
    """The learning rate after warm-up."""
    weight_decay: float = number(1.0, "a number from 0 to 1000", lambda value: 0 <= value <= 1000)
    """adamw: decoupled, each update moves the weights by lr · weight_decay towards `decay_centre` (Loshchilov &
    Hutter 2019). sgd: the gradient of weight_decay/2 · |w|² is added to the loss's. adam has none."""
    decay_centre: str = choice("zero", "zero", "initialization")
    """Where adamw's decay pulls the weights: to "zero", or to their "initialization" (Power et al. 2022)."""
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
    """Adam's two decay rates, of the gradient's mean and of its square's mean."""
    momentum: float = share(0.0)
    """sgd's momentum."""
    warmup_steps: int = integer(10, 0)
    """Update number u = 0, 1, … has lr · min(u / warmup_steps, 1); with 0 every update has lr."""
    gradient_filter: str | None = choice(None, None, "grokfast_ema", "grokfast_ma", "orthogonal")
    """What the gradient passes through first: Grokfast by a moving average, exponential ("grokfast_ema") or over a
    window ("grokfast_ma") (Lee et al. 2024), or "orthogonal", ⊥Grad (Prieto et al. 2025)."""
    filter_alpha: float = share(0.98)
    """Grokfast's α, the momentum of the exponential moving average."""
    filter_lambda: float = number(2.0, "a number from 0 to 1000", lambda value: 0 <= value <= 1000)
    """Grokfast's λ, the factor on the slow gradients that are added."""
    filter_window: int = integer(100, 1, 1000)
    """Grokfast's w, the number of gradients in the moving average; a run's resume state holds as many."""
    update_noise: float = number(0.0, "a number from 0 to 1000", lambda value: 0 <= value <= 1000)
    """σ of Gaussian noise on the update: W ← W + lr · (ΔW + σε) (Power et al. 2022)."""
    weight_noise: float = number(0.0, "a number from 0 to 1000", lambda value: 0 <= value <= 1000)
    """σ of Gaussian noise on every trained weight while the gradient is taken (Power et al. 2022)."""
    sam_radius: float = number(0.0, "a number from 0 to 1000", lambda value: 0 <= value <= 1000)
    """ρ of sharpness-aware minimization: the gradient is taken at W + ρ g/|g| (Foret et al. 2021); 0 for none."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run: with the same RunConfig and environment come the same bits."""

    task: TaskConfig = field(default_factory=TaskConfig)
    """What is learned."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """What learns it."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How it learns."""
    checkpoints: str = checked("every 100", "terms joined by '+'", None, str)
    """Which steps are kept, such as "every 100 + log 200 + pythia 1000 + window 2000 4000 5 + adaptive 0.1"."""
    max_checkpoints: int = integer(10_000, 2, 10_000_000)
    """The most checkpoints: a fixed schedule beyond it is refused, an adaptive one stops taking more."""
    n_steps: int = integer(40_000, 1, 10**9)
    """The number of optimizer updates."""
    batch_size: int | None = integer(None, 1, none="the full training set")
    """The examples in a batch, at most the training set, or none for the full training set at every step."""
    batch_share: float = share(1.0, upper="of the training set")
    """No batch of `batch_size` is larger than this share of the training set, rounded up (Power et al. 2022: 0.5)."""
    evaluate_every: int = integer(10, 1)
    """The number of steps between two rows of the log (losses and accuracies on train and test)."""
    loss: str = choice("softmax", "softmax", "stablemax")
    """What turns logits into probabilities: "softmax" or "stablemax" (Prieto et al. 2025)."""
    loss_dtype: str = choice("float64", "float32", "float64")
    """The precision of the log-softmax; parameters are float32. After memorization float32 loses the gradient."""
    matrix_products: str = choice("float32", "float32", "tf32", "bfloat16")
    """The precision in which training multiplies float32 matrices, where the device has it: "tf32" and "bfloat16"
    round each factor to 11 and 8 bits and add up in float32. Evaluation and measures are not touched by it."""
    residual_dropout: float = share(0.0)
    """The probability that training drops an element of what attention or MLP adds to the residual stream."""
    device: str = checked(
        "cpu",
        "'cpu', 'cuda' or 'cuda:N'",
        lambda value: isinstance(value, str) and re.fullmatch(r"cpu|cuda(:(0|[1-9][0-9]?))?", value) is not None,
        str,
    )
    """Where training runs: "cpu", "cuda" or "cuda:N"."""
    split_seed: int = integer(0, 0)
    """The seed of the train/test split, and of outliers and random labels."""
    init_seed: int = integer(0, 0)
    """The seed of the initial weights."""
    training_seed: int = integer(0, 0)
    """The seed of everything random during training: batches, noise, dropout."""

    def faults(self) -> list[str]:
        """Return every fault of the whole tree, one sentence each with what is allowed; empty if there is none."""
        found = list(validation.faults(self))

        def sound(*names: str) -> bool:
            """Whether these fields have possible values, so that one can say what contradicts what."""
            return not any(fault.startswith(f"{name}:") for name in names for fault in found)

        if sound("model", "model.d_model", "model.n_heads") and self.model.d_model % self.model.n_heads:
            divisors = [n for n in range(1, 65) if self.model.d_model % n == 0]
            found.append(
                f"model.n_heads: {self.model.n_heads} does not divide d_model = {self.model.d_model}; "
                f"allowed: {', '.join(map(str, divisors))}"
            )
        if sound("task", "task.name", "task.table"):
            found += [f"task.table: {fault}" for fault in _table_faults(self.task)]
        if sound("task", "task.name", "task.train_fraction", "task.outliers"):
            # Only the module of another package's task knows how many equations it has.
            decides = plugins.domain_setting(self.task.name)
            found += _split_faults(self.task, decides) if decides and sound(f"task.{decides}") else []
        o = self.optimizer
        if sound("optimizer", "optimizer.name", "optimizer.weight_decay") and o.name == "adam" and o.weight_decay:
            found.append(
                f"optimizer.weight_decay: {o.weight_decay} with 'adam', which has none; allowed: 0, or 'adamw'"
            )
        if sound("optimizer", "optimizer.name", "optimizer.decay_centre") and (
            o.name != "adamw" and o.decay_centre != "zero"
        ):
            found.append(f"optimizer.decay_centre: {o.decay_centre!r} with {o.name!r}; allowed: with 'adamw' only")
        if sound("optimizer", "optimizer.name", "optimizer.momentum") and o.name in ("adam", "adamw") and o.momentum:
            found.append(f"optimizer.momentum: {o.momentum} with {o.name!r}, which has betas; allowed: 0, or 'sgd'")
        n_steps = self.n_steps if sound("n_steps") else None
        unreadable = checkpoint_schedule.faults(self.checkpoints, n_steps)
        found += [f"checkpoints: {fault}" for fault in unreadable]
        if not unreadable and n_steps is not None and sound("max_checkpoints"):
            parsed = checkpoint_schedule.parse(self.checkpoints)
            # A term may ask for more steps than there is memory, so they are built only if they are few.
            n_fixed = parsed.largest_term(n_steps)
            if n_fixed <= self.max_checkpoints:
                n_fixed = len(parsed.fixed_steps(n_steps))
            if n_fixed > self.max_checkpoints:
                found.append(
                    f"checkpoints: {self.checkpoints!r} takes {n_fixed:,} checkpoints in {n_steps:,} steps; "
                    f"allowed: up to max_checkpoints = {self.max_checkpoints:,}"
                )
        return found

    def validate(self) -> "RunConfig":
        """Return the config itself, or raise one GrokscopeError that names every fault."""
        return _refuse(self.faults(), self)

    def to_dict(self) -> dict[str, Any]:
        """Return the config as plain JSON values, floats as floats, in the order of the fields."""
        return validation.to_plain(self)

    @property
    def digest(self) -> str:
        """The SHA-256 of the settings that must not change in the life of a run: all but `n_steps`.

        A setting in `ADDED` counts only where it is not at its default, so that adding it changed no run.
        """
        rest, default = self.to_dict(), RunConfig().to_dict()
        del rest["n_steps"]
        for name in ADDED:
            *tables, leaf = name.split(".")
            place, usual = (reduce(lambda at, table: at[table], tables, values) for values in (rest, default))
            if place[leaf] == usual[leaf]:
                del place[leaf]
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def from_dict(values: Mapping[str, Any], base: RunConfig | None = None) -> RunConfig:
    """Build a valid RunConfig from nested plain values over `base`; one GrokscopeError names every fault.

    The text "none" stands for none in a field that admits it, since TOML has no null.
    """
    config, unknown = validation.from_plain(base or RunConfig(), values)
    return _refuse(unknown + config.faults(), config)


def _refuse(found: list[str], config: RunConfig) -> RunConfig:
    if not found:
        return config
    if len(found) == 1:
        raise GrokscopeError(f"One setting cannot be used: {found[0]}.")
    raise GrokscopeError(f"{len(found)} settings cannot be used:\n" + "\n".join(f"  {fault}" for fault in found))


def _split_faults(task: TaskConfig, decides: str) -> list[str]:
    """Say that train or test would be empty, or that there are more outliers than training equations."""
    n = task_size.n_equations(task.name, getattr(task, decides))
    fault = task_size.split_fault(task.name, task.train_fraction, n)
    fault = fault or task_size.outliers_fault(task.outliers, task_size.n_train(task.train_fraction, n))
    return [fault] if fault else []


def _table_faults(task: TaskConfig) -> list[str]:
    if task.name == "table":
        return algebra_tables.table_faults(task.table)
    return [f"a table, but the task is {task.name!r}; allowed: with the task 'table' only"] if task.table else []
